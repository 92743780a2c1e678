//! osctl's contexts: names for nodes and for who one is to them, kept in one TOML file that people may edit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml_edit::{Array, DocumentMut, Item, Table, value};

use crate::error::Failure;
use crate::node::home::Kept;

const FILE: &str = "config";

/// The longest name of a context.
const LONGEST: usize = 128;

/// The file's content.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The one that is used if none is named.
    pub(crate) current: Option<String>,
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// Nodes, how they are known, and who the user is to them. Its keys are an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Context {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) endpoints: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kubeconfig: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kubeconfig_context: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
}

/// The file itself.
#[derive(Debug)]
pub(crate) struct ContextFile(Kept);

impl ContextFile {
    pub(crate) fn open() -> Result<Self, Failure> {
        Kept::named(FILE).map(Self)
    }

    pub(crate) fn read(&self) -> Result<Contexts, Failure> {
        parse(&self.0.read()?, self.0.path())
    }

    /// Adds a context, or puts it in place of the one of that name if `replace` is set. The first one becomes the current one.
    pub(crate) fn add(
        &self,
        name: &str,
        context: &Context,
        replace: bool,
    ) -> Result<bool, Failure> {
        check_name(name)?;
        self.0.edit(|text| {
            let contexts = parse(text, self.0.path())?;
            if contexts.contexts.contains_key(name) && !replace {
                return Err(Failure::usage(format!("there is a context `{name}` already"))
                    .next("take another name, or put this one in its place with --replace"));
            }
            let current = contexts.current.is_none();
            Ok((current, Some(with(&document(text, self.0.path())?, name, context, current))))
        })
    }

    pub(crate) fn choose(&self, name: &str) -> Result<(), Failure> {
        self.0.edit(|text| {
            parse(text, self.0.path())?.get(name)?;
            let mut document = document(text, self.0.path())?;
            document["current"] = value(name);
            Ok(((), Some(document.to_string())))
        })
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), Failure> {
        self.0.edit(|text| {
            let contexts = parse(text, self.0.path())?;
            contexts.get(name)?;
            let mut document = document(text, self.0.path())?;
            if contexts.current.as_deref() == Some(name) {
                // Not removed: what people wrote above it would go with it.
                document["current"] = value("");
            }
            if let Some(table) = document.get_mut("contexts").and_then(Item::as_table_like_mut) {
                table.remove(name);
            }
            Ok(((), Some(document.to_string())))
        })
    }
}

impl Contexts {
    pub(crate) fn get(&self, name: &str) -> Result<&Context, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            let names: Vec<_> = self.contexts.keys().map(String::as_str).collect();
            let next = if names.is_empty() {
                "there is none yet: make one with `osctl context add`".to_owned()
            } else {
                format!("there is {}", names.join(", "))
            };
            Failure::usage(format!("there is no context `{name}`")).next(next)
        })
    }

    /// The context of that name; else the current one, if there is one.
    pub(crate) fn chosen(&self, name: Option<&str>) -> Result<Option<&Context>, Failure> {
        name.or(self.current.as_deref()).map(|name| self.get(name)).transpose()
    }
}

fn check_name(name: &str) -> Result<(), Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.@:/".contains(c);
    if name.is_empty() || name.len() > LONGEST || !name.chars().all(fits) {
        return Err(Failure::usage(format!("`{}` is no name for a context", name.escape_debug()))
            .next("use letters, digits and any of -_.@:/"));
    }
    Ok(())
}

fn parse(text: &str, path: &Path) -> Result<Contexts, Failure> {
    let mut contexts: Contexts = toml::from_str(text).map_err(|error| unreadable(path, error))?;
    contexts.current = contexts.current.filter(|name| !name.is_empty());
    Ok(contexts)
}

fn document(text: &str, path: &Path) -> Result<DocumentMut, Failure> {
    text.parse().map_err(|error: toml_edit::TomlError| unreadable(path, error))
}

fn unreadable(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::new(format!("cannot read {}", path.display()))
        .because(error)
        .next("mend it, or move it away and make the contexts anew with `osctl context add`")
}

/// The document with one context more; what people wrote around the others stays.
fn with(document: &DocumentMut, name: &str, context: &Context, current: bool) -> String {
    let mut document = document.clone();
    if current {
        document["current"] = value(name);
    }
    let contexts = document.entry("contexts").or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let mut table = Table::new();
    let endpoints: Array = context.endpoints.iter().map(String::as_str).collect();
    table["endpoints"] = value(endpoints);
    let text =
        |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
    for (key, text) in [
        ("fingerprint", context.fingerprint.clone()),
        ("kubeconfig", text(&context.kubeconfig)),
        ("kubeconfig-context", context.kubeconfig_context.clone()),
        ("cert", text(&context.cert)),
        ("key", text(&context.key)),
        ("ca", text(&context.ca)),
    ] {
        if let Some(text) = text {
            table[key] = value(text);
        }
    }
    contexts[name] = Item::Table(table);
    document.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(endpoint: &str) -> Context {
        Context {
            endpoints: vec![endpoint.to_owned()],
            kubeconfig: Some("/home/me/.kube/config".into()),
            kubeconfig_context: Some("admin@prod".to_owned()),
            ..Context::default()
        }
    }

    #[test]
    fn a_file_grows_and_shrinks_and_keeps_its_remarks() {
        let folder = tempfile::tempdir().unwrap();
        let file = ContextFile(Kept::at(folder.path().join(FILE)));
        assert!(file.add("prod", &context("10.0.0.7"), false).unwrap());
        std::fs::write(file.0.path(), format!("# mine\n{}", file.0.read().unwrap())).unwrap();
        assert!(!file.add("lab@home", &context("[::1]:1"), false).unwrap());
        insta::assert_snapshot!("contexts", file.0.read().unwrap());

        let read = file.read().unwrap();
        assert_eq!(read.contexts["lab@home"], context("[::1]:1"));
        assert_eq!(read.chosen(None).unwrap(), Some(&context("10.0.0.7")));
        assert_eq!(read.chosen(Some("lab@home")).unwrap(), Some(&context("[::1]:1")));
        assert!(file.add("prod", &context("10.0.0.8"), false).is_err());
        file.add("prod", &context("10.0.0.8"), true).unwrap();
        file.choose("lab@home").unwrap();
        assert!(file.choose("gone").is_err());
        assert_eq!(file.read().unwrap().current.as_deref(), Some("lab@home"));
        file.remove("lab@home").unwrap();
        let read = file.read().unwrap();
        assert_eq!(read.chosen(None).unwrap(), None);
        assert_eq!(read.contexts.len(), 1);
        assert!(file.0.read().unwrap().contains("# mine"));
    }

    #[test]
    fn a_file_with_a_fault_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = ContextFile(Kept::at(folder.path().join(FILE)));
        let text = "[contexts.a]\nendpoint = \"x\"\n";
        std::fs::write(file.0.path(), text).unwrap();
        assert!(file.add("b", &context("x"), true).is_err());
        assert_eq!(file.0.read().unwrap(), text);
    }

    fn check(name: &str, good: bool) {
        assert_eq!(check_name(name).is_ok(), good, "{name:?}");
    }

    #[test]
    fn names() {
        check("prod", true);
        check("kubernetes-admin@kubernetes", true);
        check("arn:aws:eks/x", true);
        check("", false);
        check("a b", false);
        check("\u{1b}[31m", false);
        check(&"a".repeat(129), false);
    }
}
