//! Requests for a serving certificate, as objects of certificates.k8s.io/v1.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Where requests are.
pub(super) const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// How every node of a cluster is called there.
const USER: &str = "system:node:";

/// What the certificate is to be for: a node, by its name in Kubernetes and its addresses. Whoever approves requests by a rule compares
/// them with what the cluster knows of the node, which is no more than that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// What Kubernetes calls the node.
    pub(super) node: String,
    pub(super) addresses: Vec<IpAddr>,
}

/// What a cluster says of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing yet, or that it is approved and not signed yet.
    Pending,
    /// Here is the certificate, in PEM.
    Issued(String),
    /// No, and why.
    Denied(String),
    /// It could not be signed, and why.
    Failed(String),
    /// It is the request of somebody else.
    Foreign(String),
}

/// The node that a certificate's common name stands for.
pub(super) fn node(common_name: &str) -> Option<&str> {
    common_name.strip_prefix(USER).filter(|node| !node.is_empty())
}

impl Wanted {
    pub(super) fn user(&self) -> String {
        format!("{USER}{}", self.node)
    }

    /// What the request is called. The same key, names and certificate in force make the same request, so that none is ever asked
    /// twice, whatever restarts.
    pub(super) fn name(&self, key: &str, mark: &str) -> String {
        let mut hash = Sha256::new();
        let addresses = self.addresses.iter().map(ToString::to_string);
        for part in
            [key.to_owned(), mark.to_owned(), self.node.clone()].into_iter().chain(addresses)
        {
            hash.update(part);
            hash.update([0]);
        }
        let digest = hash.finalize();
        let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("keel-serving-{}-{hex}", self.node.chars().take(200).collect::<String>())
    }

    /// The request itself, signed with the node's key.
    pub(super) fn signed(&self, key: &str) -> Result<String, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, self.user());
        params.subject_alt_names = vec![SanType::DnsName(self.node.as_str().try_into()?)];
        let addresses = self.addresses.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names.extend(addresses);
        params.serialize_request(&KeyPair::from_pem(key)?)?.pem()
    }
}

/// The object that carries a request. The signer takes these usages and no others; newer ones can do without the second, older ones
/// cannot.
pub(super) fn object(name: &str, signed: &str) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": { "name": name },
        "spec": {
            "request": STANDARD.encode(signed),
            "signerName": "kubernetes.io/kubelet-serving",
            "usages": ["digital signature", "key encipherment", "server auth"],
        },
    })
}

/// What an object says of the request of that user.
pub(super) fn read(object: &Value, user: &str) -> Said {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    if text("/spec/username") != Some(user) {
        let by = line(text("/spec/username").unwrap_or("nobody"));
        return Said::Foreign(by);
    }
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let condition = |kind: &str| {
        let found = conditions?.iter().find(|one| one["type"] == kind)?;
        let words = ["reason", "message"].map(|key| found[key].as_str().unwrap_or_default());
        Some(line(
            &words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(": "),
        ))
    };
    if let Some(why) = condition("Denied") {
        return Said::Denied(why);
    }
    if let Some(why) = condition("Failed") {
        return Said::Failed(why);
    }
    let issued = text("/status/certificate").filter(|text| !text.is_empty());
    let Some(issued) = issued else { return Said::Pending };
    let pem = STANDARD.decode(issued).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    pem.map_or_else(|| Said::Failed("its certificate is not base64".to_owned()), Said::Issued)
}

/// What somebody wrote, in one line that is not long.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::new_key;
    use x509_parser::prelude::{FromDer, ParsedExtension, X509CertificationRequest};

    fn der(pem: &str) -> Vec<u8> {
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents
    }

    fn wanted(node: &str, addresses: &[&str]) -> Wanted {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        Wanted { node: node.to_owned(), addresses }
    }

    #[test]
    fn what_is_asked_for() {
        let key = new_key().unwrap();
        let signed = wanted("n1", &["192.0.2.1", "2001:db8::1"]).signed(&key);
        let request = der(&signed.unwrap());
        let (_, request) = X509CertificationRequest::from_der(&request).unwrap();
        request.verify_signature().unwrap();
        let info = &request.certification_request_info;
        assert_eq!(info.subject.to_string(), "O=system:nodes, CN=system:node:n1");
        let names = request.requested_extensions().unwrap().find_map(|one| match one {
            ParsedExtension::SubjectAlternativeName(names) => Some(names.general_names.len()),
            _ => None,
        });
        assert_eq!(names, Some(3));
    }

    #[test]
    fn the_same_is_never_asked_twice() {
        let one = wanted("n1", &["192.0.2.1"]);
        let name = one.name("key", "mark");
        assert_eq!(name, one.clone().name("key", "mark"));
        let others = [
            one.name("other", "mark"),
            one.name("key", ""),
            wanted("n2", &["192.0.2.1"]).name("key", "mark"),
            wanted("n1", &["192.0.2.2"]).name("key", "mark"),
            wanted("n1", &[]).name("key", "mark"),
        ];
        assert!(others.iter().all(|other| *other != name), "{others:?}");
        let long = wanted(&"n".repeat(253), &[]).name("key", "");
        assert!(long.len() <= 253, "{long}");
    }

    #[test]
    fn what_the_cluster_says() {
        let check = |object: Value, expect: Said| {
            let mut object = object;
            object["spec"]["username"] = json!("system:node:n1");
            assert_eq!(read(&object, "system:node:n1"), expect);
        };
        let condition =
            |kind: &str| json!([{ "type": kind, "reason": "No", "message": "not\nthis one" }]);
        check(json!({}), Said::Pending);
        check(json!({ "status": { "conditions": condition("Approved") } }), Said::Pending);
        check(
            json!({ "status": { "conditions": condition("Approved"), "certificate": "UEVN" } }),
            Said::Issued("PEM".into()),
        );
        let why = || "No: not this one".to_owned();
        check(json!({ "status": { "conditions": condition("Denied") } }), Said::Denied(why()));
        check(json!({ "status": { "conditions": condition("Failed") } }), Said::Failed(why()));
        let broken = json!({ "status": { "certificate": "!" } });
        check(broken, Said::Failed("its certificate is not base64".into()));
        let other = json!({ "spec": { "username": "system:node:n2" } });
        assert_eq!(read(&other, "system:node:n1"), Said::Foreign("system:node:n2".into()));
        assert_eq!(read(&Value::Null, "system:node:n1"), Said::Foreign("nobody".into()));
    }

    #[test]
    fn nodes_by_their_common_names() {
        assert_eq!(node("system:node:n1"), Some("n1"));
        assert_eq!(node("system:node:"), None);
        assert_eq!(node("ada"), None);
    }
}
