//! Who may call what: one table, and a gate in front of every service that lets nothing through which is not in it.

use std::convert::Infallible;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tower_service::Service;

use crate::log::say;
use crate::tls::Peer;

/// What a caller is to this node. Each role may do what those before it may; maintenance stands by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// May look.
    Viewer,
    /// May also start and stop units, and reboot the machine.
    Operator,
    /// May do all there is.
    Admin,
    /// Anyone who reaches a node in maintenance. Nobody has a certificate yet that could make them more.
    Maintenance,
}

/// Whether anyone may call a method while no cluster CA is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maintenance {
    Open,
    Closed,
}

use Maintenance::{Closed, Open};

/// Every method there is, the least role that may call it, and whether it is open in maintenance.
const METHODS: &[(&str, Role, Maintenance)] = &[
    ("/keel.v1.Journal/GetBoot", Role::Viewer, Open),
    ("/keel.v1.Journal/ListBoots", Role::Viewer, Open),
    ("/keel.v1.Journal/ReadAudit", Role::Admin, Closed),
    ("/keel.v1.Journal/ReadKernelLog", Role::Viewer, Open),
    ("/keel.v1.Journal/ReadLogs", Role::Viewer, Open),
    ("/keel.v1.Node/ExportGraph", Role::Viewer, Open),
    ("/keel.v1.Node/GetInventory", Role::Viewer, Open),
    ("/keel.v1.Node/GetStatus", Role::Viewer, Open),
    ("/keel.v1.Node/GetUnit", Role::Viewer, Open),
    ("/keel.v1.Node/ListProcesses", Role::Viewer, Open),
    ("/keel.v1.Node/ListUnits", Role::Viewer, Open),
    ("/keel.v1.Node/WatchEvents", Role::Viewer, Open),
    ("/keel.v1.Operation/ControlUnit", Role::Operator, Closed),
    ("/keel.v1.Operation/PowerOff", Role::Operator, Closed),
    ("/keel.v1.Operation/Reboot", Role::Operator, Closed),
    ("/keel.v1.Operation/Reset", Role::Admin, Closed),
];

/// Whether a role may call a method.
fn check(role: Role, method: &str) -> Result<(), Box<Status>> {
    let Some((_, least, maintenance)) = METHODS.iter().find(|(name, ..)| *name == method) else {
        return Err(Box::new(Status::unimplemented(format!("this node has no method {method}"))));
    };
    let allowed = match role {
        Role::Maintenance => *maintenance == Open,
        role => role >= *least,
    };
    if allowed {
        return Ok(());
    }
    Err(Box::new(Status::permission_denied(format!("{role:?} may not call {method}"))))
}

/// A service behind the table.
#[derive(Debug, Clone)]
pub(crate) struct Gate<S> {
    inner: S,
}

impl<S> Gate<S> {
    pub(crate) fn before(inner: S) -> Self {
        Self { inner }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answer>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        match check(Role::Maintenance, request.uri().path()) {
            Ok(()) => self.inner.call(request),
            Err(status) => {
                match request.extensions().get::<Peer>() {
                    Some(peer) => {
                        say(format_args!("{}: refused: {}", peer.address, status.message()))
                    }
                    None => say(format_args!("refused: {}", status.message())),
                }
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

type Answer = BoxFuture<Response<Body>, Infallible>;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;
    use tonic::Code;

    #[test]
    fn only_what_is_in_the_table() {
        let refused = |method| check(Role::Maintenance, method).map_err(|status| status.code());
        assert_eq!(refused("/keel.v1.Node/GetStatus"), Ok(()));
        assert_eq!(refused("/keel.v1.Node/getstatus"), Err(Code::Unimplemented));
        assert_eq!(refused("/keel.v1.Node/GetStatus/"), Err(Code::Unimplemented));
        assert_eq!(refused("/"), Err(Code::Unimplemented));
    }

    /// The methods of every proto file, as paths.
    fn declared() -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/keel/v1");
        let mut methods = BTreeSet::new();
        for entry in fs::read_dir(folder).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            let mut service = "";
            for line in text.lines() {
                let words: Vec<_> = line.trim().split([' ', '(']).collect();
                match words[..] {
                    ["service", name, ..] => service = name,
                    ["rpc", method, ..] => {
                        methods.insert(format!("/keel.v1.{service}/{method}"));
                    }
                    _ => {}
                }
            }
        }
        methods
    }

    #[test]
    fn the_table_holds_the_methods_that_the_api_declares() {
        let table: BTreeSet<_> = METHODS.iter().map(|(method, ..)| (*method).to_owned()).collect();
        assert_eq!(table.len(), METHODS.len(), "a method stands there twice");
        assert_eq!(table, declared());
    }
}
