//! From what was typed, the environment and a context to the nodes that are meant and how each is to be known.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::NodeArgs;
use crate::error::Failure;
use crate::node::contexts::{Context, ContextFile};
use crate::node::credentials::{self, Credentials};
use crate::node::endpoint::Endpoint;
use crate::node::fingerprint::Fingerprint;
use crate::node::known::KnownNodes;
use crate::node::kubeconfig;
use crate::node::verifier::Trust;

/// A node that is meant.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    pub(crate) trust: Trust,
    pub(crate) credentials: Arc<Credentials>,
}

/// All nodes that are meant, and what the user should know before they are asked.
#[derive(Debug)]
pub(crate) struct Targets {
    pub(crate) nodes: Vec<Target>,
    pub(crate) remarks: Vec<String>,
}

/// Reads what the command line means, with the files that it names.
pub(crate) fn read(args: &NodeArgs) -> Result<Targets, Failure> {
    let context = context(args)?;
    let typed = given(&args.endpoint);
    let from_context = typed.is_empty();
    let texts = if from_context { &context.endpoints } else { &typed };
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for text in texts {
        let endpoint = parse(text)?;
        if !endpoints.iter().any(|other| other.same_place(&endpoint)) {
            endpoints.push(endpoint);
        }
    }
    if endpoints.is_empty() {
        return Err(Failure::usage("which node?").next(
            "give --endpoint HOST, set OSCTL_ENDPOINT, or make a context with `osctl context add`",
        ));
    }
    // A context's fingerprint is that of the context's node, and of no other.
    let pin = args.fingerprint.as_ref();
    let pin = pin.or(context.fingerprint.as_ref().filter(|_| from_context));
    let pin = pin.map(|text| fingerprint(text)).transpose()?;
    if pin.is_some() && endpoints.len() > 1 {
        return Err(Failure::usage("one fingerprint cannot be that of several nodes").next(
            "leave --fingerprint out, and add each node with `osctl known-nodes add HOST FINGERPRINT`",
        ));
    }
    let credentials = Arc::new(credentials(args, &context)?);
    let mut remarks = credentials.remarks.clone();
    if endpoints.iter().any(|endpoint| endpoint.typed_http) {
        remarks.push("http:// was typed, but what goes over the wire is TLS".to_owned());
    }
    let known = match pin {
        None => Some(KnownNodes::open()?.list()?),
        Some(_) => None,
    };
    let nodes = endpoints
        .into_iter()
        .map(|endpoint| {
            let trust = match (pin, &known) {
                (Some(pin), _) => Trust::Pinned(pin),
                (None, known) => {
                    let name = endpoint.to_string();
                    let known: Vec<_> = known.iter().flatten().collect();
                    let of_it = known.iter().filter(|node| node.endpoint == name);
                    let of_it: Vec<_> = of_it.map(|node| node.fingerprint).collect();
                    match (of_it.is_empty(), args.known_only) {
                        (false, _) => Trust::Known(of_it),
                        (true, true) => Trust::KnownOnly,
                        (true, false) => Trust::FirstUse,
                    }
                }
            };
            Target { endpoint, trust, credentials: credentials.clone() }
        })
        .collect();
    Ok(Targets { nodes, remarks })
}

/// What was typed or set, without the empty strings that an empty variable gives.
fn given(texts: &[String]) -> Vec<String> {
    texts.iter().filter(|text| !text.is_empty()).cloned().collect()
}

fn context(args: &NodeArgs) -> Result<Context, Failure> {
    let name = args.keel_context.as_deref().filter(|name| !name.is_empty());
    let contexts = ContextFile::open()?.read()?;
    Ok(contexts.chosen(name)?.cloned().unwrap_or_default())
}

/// Reads what a user writes for a node.
pub(crate) fn parse(text: &str) -> Result<Endpoint, Failure> {
    Endpoint::parse(text).map_err(|error| {
        Failure::usage(error.to_string()).next("write it as HOST, HOST:PORT or [IPV6]:PORT")
    })
}

/// Reads what a user writes for a fingerprint.
pub(crate) fn fingerprint(text: &str) -> Result<Fingerprint, Failure> {
    text.parse().map_err(|error| {
        Failure::usage("that is not a fingerprint")
            .because(Box::<dyn Error + Send + Sync>::from(error))
            .next("copy it from the node's console, or leave it out and compare what osctl shows")
    })
}

/// Where the credentials are.
#[derive(Debug, PartialEq, Eq)]
enum Papers {
    None,
    Kubeconfig { path: PathBuf, context: Option<String> },
    Files { pair: Option<(PathBuf, PathBuf)>, ca: Option<PathBuf> },
}

fn credentials(args: &NodeArgs, context: &Context) -> Result<Credentials, Failure> {
    match papers(args, context)? {
        Papers::None => Ok(Credentials::default()),
        Papers::Kubeconfig { path, context } => kubeconfig::load(&path, context.as_deref()),
        Papers::Files { pair, ca } => Ok(credentials::from_files(pair, ca)?),
    }
}

/// What is given on the command line counts as a whole; a context fills in only where nothing is given.
fn papers(args: &NodeArgs, context: &Context) -> Result<Papers, Failure> {
    let given = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
    let typed = Context {
        kubeconfig: given(&args.kubeconfig),
        kubeconfig_context: args.context.clone(),
        cert: given(&args.cert),
        key: given(&args.key),
        ca: given(&args.ca),
        ..Context::default()
    };
    let any =
        [&typed.kubeconfig, &typed.cert, &typed.key, &typed.ca].iter().any(|path| path.is_some());
    if any {
        return of(&typed);
    }
    let mut kept = context.clone();
    if let Some(name) = typed.kubeconfig_context {
        if kept.kubeconfig.is_none() {
            return Err(Failure::usage("--context names a context of a kubeconfig, and there is none")
                .next("give --kubeconfig FILE with it; a context of osctl's own is named with --keel-context"));
        }
        kept.kubeconfig_context = Some(name);
    }
    of(&kept)
}

fn of(context: &Context) -> Result<Papers, Failure> {
    let Context { kubeconfig, kubeconfig_context, cert, key, ca, .. } = context.clone();
    let files = cert.is_some() || key.is_some() || ca.is_some();
    match (kubeconfig, cert, key) {
        (Some(_), ..) if files => {
            Err(Failure::usage("a kubeconfig says who you are, and so do --cert, --key and --ca")
                .next("give one or the other"))
        }
        (Some(path), ..) => Ok(Papers::Kubeconfig { path, context: kubeconfig_context }),
        (None, Some(cert), Some(key)) => Ok(Papers::Files { pair: Some((cert, key)), ca }),
        (None, None, None) if ca.is_none() => Ok(Papers::None),
        (None, None, None) => Ok(Papers::Files { pair: None, ca }),
        (None, Some(_), None) => {
            Err(Failure::usage("--cert is given without its key").next("add --key FILE"))
        }
        (None, None, Some(_)) => {
            Err(Failure::usage("--key is given without its certificate").next("add --cert FILE"))
        }
    }
}

/// What a context remembers of a command line: paths that hold wherever one stands.
pub(crate) fn to_context(args: &NodeArgs) -> Result<Context, Failure> {
    let absolute = |path: &Option<PathBuf>| {
        let path = path.as_deref().filter(|path| !path.as_os_str().is_empty());
        path.map(|path: &Path| {
            std::path::absolute(path).map_err(|source| {
                Failure::usage(format!("cannot tell where {} is", path.display()))
                    .because(source)
                    .next("give the whole path")
            })
        })
        .transpose()
    };
    let endpoints = given(&args.endpoint);
    let endpoints: Result<Vec<_>, _> =
        endpoints.iter().map(|text| parse(text).map(|endpoint| endpoint.to_string())).collect();
    let pin = args.fingerprint.as_ref().map(|text| fingerprint(text)).transpose()?;
    let context = Context {
        endpoints: endpoints?,
        fingerprint: pin.map(|pin| pin.to_string()),
        kubeconfig: absolute(&args.kubeconfig)?,
        kubeconfig_context: args.context.clone(),
        cert: absolute(&args.cert)?,
        key: absolute(&args.key)?,
        ca: absolute(&args.ca)?,
    };
    if context.endpoints.len() > 1 && context.fingerprint.is_some() {
        return Err(Failure::usage("one fingerprint cannot be that of several nodes")
            .next("leave --fingerprint out, and use `osctl known-nodes add HOST FINGERPRINT`"));
    }
    if context.kubeconfig.is_none() && context.kubeconfig_context.is_some() {
        return Err(Failure::usage("--context names a context of a kubeconfig, and there is none")
            .next("give --kubeconfig FILE with it"));
    }
    of(&context).map(|_| context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn args(line: &str) -> NodeArgs {
        let words = ["osctl", "status"].into_iter().chain(line.split_whitespace());
        crate::cli::Cli::try_parse_from(words).unwrap().node
    }

    fn check(line: &str, expect: &str) {
        let context = Context {
            kubeconfig: Some("kept".into()),
            kubeconfig_context: Some("a".to_owned()),
            ..Context::default()
        };
        let got = match papers(&args(line), &context) {
            Ok(papers) => format!("{papers:?}"),
            Err(failure) => failure.lines()[0].1.clone(),
        };
        assert_eq!(got, expect, "{line}");
    }

    #[test]
    fn what_is_typed_counts_as_a_whole() {
        check("", r#"Kubeconfig { path: "kept", context: Some("a") }"#);
        check("--context b", r#"Kubeconfig { path: "kept", context: Some("b") }"#);
        check("--kubeconfig k", r#"Kubeconfig { path: "k", context: None }"#);
        check("--cert c --key k", r#"Files { pair: Some(("c", "k")), ca: None }"#);
        check("--ca a", r#"Files { pair: None, ca: Some("a") }"#);
        check("--cert c", "--cert is given without its key");
        check("--key c", "--key is given without its certificate");
        check(
            "--kubeconfig k --ca a",
            "a kubeconfig says who you are, and so do --cert, --key and --ca",
        );
    }

    #[test]
    fn without_any_nobody_is_shown() {
        assert_eq!(papers(&args(""), &Context::default()).unwrap(), Papers::None);
        assert!(papers(&args("--context b"), &Context::default()).is_err());
    }
}
