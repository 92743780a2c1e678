//! `osctl context`: names for nodes and for who one is to them.

use clap::Subcommand;
use serde::Serialize;

use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::node::contexts::{Context, ContextFile, Contexts};
use crate::node::target::to_context;
use crate::output::{Format, Ink, Output, Palette, printable};

/// Give names to nodes and to who you are to them, and switch between them
///
/// They are kept in config in osctl's folder (~/.config/keel, or $OSCTL_HOME), as paths: no key is copied. A kubeconfig's own contexts are
/// another thing; --context names one of those, --keel-context one of these.
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Keep what is given with --endpoint, --kubeconfig and the like under a name
    #[command(after_help = "Examples:
  osctl context add lab --endpoint 192.0.2.10
  osctl context add prod --endpoint 192.0.2.10 --endpoint 192.0.2.11 \\
    --kubeconfig ~/.kube/config --context admin@prod")]
    Add {
        /// Its name
        name: String,

        /// Put it in place of one of that name
        #[arg(long)]
        replace: bool,
    },

    /// Use a context from now on
    #[command(after_help = "Examples:
  osctl context use prod")]
    Use {
        /// Its name
        name: String,
    },

    /// List the contexts; a star marks the one in use
    #[command(after_help = "Examples:
  osctl context list")]
    List,

    /// Show one context, the one in use if none is named
    #[command(after_help = "Examples:
  osctl context show
  osctl context show prod --output json")]
    Show {
        /// Its name
        name: Option<String>,
    },

    /// Forget a context; the files that it names stay
    #[command(after_help = "Examples:
  osctl context remove lab")]
    Remove {
        /// Its name
        name: String,
    },
}

impl ContextCommand {
    pub(crate) fn run(self, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
        let file = ContextFile::open()?;
        match self {
            Self::Add { name, replace } => {
                let context = to_context(node)?;
                if context == Context::default() {
                    return Err(Failure::usage("a context of nothing is of no use")
                        .next("give --endpoint HOST, --kubeconfig FILE or both"));
                }
                if file.add(&name, &context, replace)? {
                    out.notice(&format!("`{name}` is in use from now on"));
                }
            }
            Self::Use { name } => file.choose(&name)?,
            Self::Remove { name } => file.remove(&name)?,
            Self::List => list(&file.read()?, out)?,
            Self::Show { name } => {
                let name = name.or_else(|| node.keel_context.clone());
                show(&file.read()?, name, out)?;
            }
        }
        Ok(Exit::Clean)
    }
}

/// What `--output json` prints; its keys are an interface.
#[derive(Debug, Serialize)]
struct View<'a> {
    name: &'a str,
    current: bool,
    #[serde(flatten)]
    context: &'a Context,
}

fn views(contexts: &Contexts) -> Vec<View<'_>> {
    let current = contexts.current.as_deref();
    contexts
        .contexts
        .iter()
        .map(|(name, context)| View { name, current: current == Some(name), context })
        .collect()
}

fn list(contexts: &Contexts, out: &mut Output) -> Result<(), Failure> {
    match out.format() {
        Format::Json => out.json(&views(contexts)),
        Format::Table if contexts.contexts.is_empty() => {
            out.notice(
                "there is no context yet: `osctl context add NAME --endpoint HOST` makes one",
            );
            Ok(())
        }
        Format::Table => out.text(&table(contexts, out.palette())),
    }
}

fn table(contexts: &Contexts, palette: Palette) -> String {
    let rows: Vec<_> = views(contexts)
        .iter()
        .map(|view| {
            let star = if view.current { "*" } else { " " };
            let nodes = printable(&view.context.endpoints.join(", "));
            (star, printable(view.name), nodes, printable(&who(view.context)))
        })
        .collect();
    let name = rows.iter().map(|row| row.1.len()).max().unwrap_or(0).max(4);
    let nodes = rows.iter().map(|row| row.2.len()).max().unwrap_or(0).max(5);
    let head = format!("  {:name$}  {:nodes$}  BY", "NAME", "NODES");
    let mut table = palette.paint(Ink::Faint, &head) + "\n";
    for (star, a, b, who) in rows {
        table += format!("{star} {a:name$}  {b:nodes$}  {who}").trim_end();
        table.push('\n');
    }
    table
}

/// By what one is known to the node, or the node to one.
fn who(context: &Context) -> String {
    let path = |path: &std::path::Path| path.display().to_string();
    match context {
        Context { kubeconfig: Some(file), kubeconfig_context: Some(name), .. } => {
            format!("{} ({name})", path(file))
        }
        Context { kubeconfig: Some(file), .. } => path(file),
        Context { cert: Some(cert), .. } => path(cert),
        Context { fingerprint: Some(_), .. } => "fingerprint".to_owned(),
        _ => String::new(),
    }
}

fn show(contexts: &Contexts, name: Option<String>, out: &mut Output) -> Result<(), Failure> {
    let name = name.or_else(|| contexts.current.clone()).ok_or_else(|| {
        Failure::usage("no context is in use")
            .next("name one, or choose one with `osctl context use NAME`")
    })?;
    let context = contexts.get(&name)?;
    if out.format() == Format::Json {
        let current = contexts.current.as_deref() == Some(&name);
        return out.json(&View { name: &name, current, context });
    }
    let text = toml::to_string(context).map_err(|source| {
        Failure::new("cannot write the context").because(source).next("use --output json")
    })?;
    out.text(&format!("# {}\n{text}", printable(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let prod = Context {
            endpoints: vec!["192.0.2.10:50051".to_owned(), "192.0.2.11:50051".to_owned()],
            kubeconfig: Some("/home/me/.kube/config".into()),
            kubeconfig_context: Some("admin@prod".to_owned()),
            ..Context::default()
        };
        let lab = Context { endpoints: vec!["lab:50051".to_owned()], ..Context::default() };
        let contexts = Contexts {
            current: Some("prod".to_owned()),
            contexts: [("prod".to_owned(), prod), ("lab".to_owned(), lab)].into(),
        };
        insta::assert_snapshot!("context_list", table(&contexts, Palette::PLAIN));
    }
}
