//! Who may call what: one table, asked anew for each call.

use std::fmt;

use tonic::Status;

use crate::peer::Peer;
use crate::trust::{ORGANIZATIONS, State, expired};

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

impl Role {
    /// As the API and the log write it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Maintenance => "maintenance",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Whether anyone may call a method while no cluster CA is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maintenance {
    Open,
    Closed,
}

use Maintenance::{Closed, Open};

/// Characters of an unknown method that are said back.
const LONGEST_PATH: usize = 128;

/// Every method there is, the least role that may call it, and whether it is open in maintenance.
const METHODS: &[(&str, Role, Maintenance)] = &[
    ("/grpc.health.v1.Health/Check", Role::Viewer, Open),
    ("/grpc.health.v1.Health/Watch", Role::Viewer, Open),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Role::Viewer, Open),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Role::Viewer, Open),
    ("/keel.v1.Cluster/Bootstrap", Role::Admin, Open),
    ("/keel.v1.Cluster/GetBootstrap", Role::Viewer, Open),
    ("/keel.v1.Cluster/Unbootstrap", Role::Admin, Closed),
    ("/keel.v1.Config/Apply", Role::Admin, Open),
    ("/keel.v1.Config/Confirm", Role::Admin, Open),
    ("/keel.v1.Config/Get", Role::Viewer, Open),
    ("/keel.v1.Config/History", Role::Viewer, Open),
    ("/keel.v1.Config/Rollback", Role::Admin, Open),
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

/// Whether a method may change the machine.
pub(crate) fn changes(method: &str) -> bool {
    method.starts_with("/keel.v1.Operation/")
        || outlives_its_trust(method)
        || ["Apply", "Confirm", "Rollback"]
            .iter()
            .any(|word| method.strip_prefix("/keel.v1.Config/") == Some(word))
}

/// Streams that change whom the node trusts, and are heard to their end by who began them.
pub(crate) fn outlives_its_trust(method: &str) -> bool {
    ["Bootstrap", "Unbootstrap"]
        .iter()
        .any(|word| method.strip_prefix("/keel.v1.Cluster/") == Some(word))
}

/// Streams that last as long as their callers like, or as long as a change of config takes: one on trial may wait for a day.
const ENDLESS: [&str; 11] = [
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/keel.v1.Cluster/Bootstrap",
    "/keel.v1.Cluster/Unbootstrap",
    "/keel.v1.Config/Apply",
    "/keel.v1.Config/Rollback",
    "/keel.v1.Journal/ReadAudit",
    "/keel.v1.Journal/ReadKernelLog",
    "/keel.v1.Journal/ReadLogs",
    "/keel.v1.Node/WatchEvents",
];

/// Whether a method is a stream that lasts as long as its caller likes. All others have to end.
pub(crate) fn is_endless(method: &str) -> bool {
    ENDLESS.contains(&method)
}

/// Whether it is a method at all.
pub(crate) fn known(method: &str) -> Option<&'static str> {
    METHODS.iter().find(|(name, ..)| *name == method).map(|(name, ..)| *name)
}

/// Whether a role may call a method; `subject` is who has it.
fn check(role: Role, subject: &str, method: &str) -> Result<(), Box<Status>> {
    let Some((_, least, maintenance)) = METHODS.iter().find(|(name, ..)| *name == method) else {
        // A path can be long, and what is said goes into a log.
        let method: String = method.chars().take(LONGEST_PATH).collect();
        return Err(Box::new(Status::unimplemented(format!("this node has no method {method}"))));
    };
    let why = match role {
        Role::Maintenance if *maintenance == Open => return Ok(()),
        Role::Maintenance => format!("{method} is closed while the node is in maintenance"),
        role if role >= *least => return Ok(()),
        role => format!("{subject} is {role} here; {method} is for {}", organizations(*least)),
    };
    Err(Box::new(Status::permission_denied(why)))
}

/// The roles from one on, and the Organizations that give them.
fn organizations(least: Role) -> String {
    let enough = ORGANIZATIONS.iter().rev().filter(|(_, role)| *role >= least);
    let names: Vec<_> = enough.map(|(name, _)| *name).collect();
    format!("{least} and above: a certificate with the Organization {}", names.join(" or "))
}

/// What a caller is to this node at this moment, and whether it may call a method.
pub(crate) fn decide(state: &State, peer: &Peer, method: &str) -> Result<Role, Box<Status>> {
    let Some(client) = &peer.client else {
        state.readmit(None).map_err(|why| Box::new(Status::unauthenticated(why)))?;
        check(Role::Maintenance, "", method)?;
        return Ok(Role::Maintenance);
    };
    // By the clock alone while the trust is the one under which it was verified: that costs a call nothing.
    let now = std::time::SystemTime::now();
    if now > client.not_after {
        let why = expired(&client.subject, client.not_after, now);
        return Err(Box::new(Status::unauthenticated(why)));
    }
    if !peer.verified_under(state) {
        state.readmit(Some(client)).map_err(|why| Box::new(Status::unauthenticated(why)))?;
        peer.now_verified_under(state);
    }
    let subject = match client.subject.as_str() {
        "" => "a certificate without a subject",
        subject => subject,
    };
    let Some(role) = client.role() else {
        let why =
            format!("{subject} has no role on this node; for {}", organizations(Role::Viewer));
        return Err(Box::new(Status::permission_denied(why)));
    };
    check(role, subject, method)?;
    Ok(role)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;
    use tonic::Code;

    #[test]
    fn only_what_is_in_the_table() {
        let refused = |method| check(Role::Maintenance, "", method).map_err(|status| status.code());
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
        let ours = table.into_iter().filter(|method| !method.starts_with("/grpc."));
        assert_eq!(ours.collect::<BTreeSet<_>>(), declared());
    }

    #[test]
    fn what_can_be_followed_has_no_end() {
        const CHANGES: [&str; 4] = [
            "/keel.v1.Cluster/Bootstrap",
            "/keel.v1.Cluster/Unbootstrap",
            "/keel.v1.Config/Apply",
            "/keel.v1.Config/Rollback",
        ];

        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/keel/v1");
        let texts = fs::read_dir(folder).unwrap().map(|it| fs::read_to_string(it.unwrap().path()));
        let text: String = texts.map(Result::unwrap).collect();
        let follows = |method: &str| {
            let message = format!("message {}Request {{", method.rsplit('/').next().unwrap());
            let fields = text.split_once(&message).map(|(_, rest)| rest.split_once('}').unwrap().0);
            fields.is_some_and(|fields| fields.contains("bool follow = "))
        };
        for (method, ..) in METHODS.iter().filter(|(method, ..)| method.starts_with("/keel.")) {
            let endless = follows(method) || CHANGES.contains(method);
            assert_eq!(is_endless(method), endless, "{method}");
        }
        assert!(ENDLESS.iter().all(|method| known(method).is_some()));
    }

    /// What a refusal says.
    fn refusal(role: Role, method: &str, expect: &str) {
        let status = check(role, "CN=ada,O=x", method).unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, expect));
    }

    #[test]
    fn a_refusal_says_who_may() {
        refusal(
            Role::Viewer,
            "/keel.v1.Operation/Reboot",
            "CN=ada,O=x is viewer here; /keel.v1.Operation/Reboot is for operator and above: a certificate with the Organization keel:operator or system:masters or kubeadm:cluster-admins or keel:admin",
        );
        refusal(
            Role::Operator,
            "/keel.v1.Operation/Reset",
            "CN=ada,O=x is operator here; /keel.v1.Operation/Reset is for admin and above: a certificate with the Organization system:masters or kubeadm:cluster-admins or keel:admin",
        );
        refusal(
            Role::Maintenance,
            "/keel.v1.Operation/Reboot",
            "/keel.v1.Operation/Reboot is closed while the node is in maintenance",
        );
    }
}
