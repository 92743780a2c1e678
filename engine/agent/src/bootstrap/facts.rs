//! What is so: in the kubelet's folder, and at the API server, asked with the node's own credentials or with those for joining.

use std::fs;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::cluster::{Http, JoinErrorKind, Places, Server, Token};

/// Where requests for the certificates of kubelets are, those of kubelets alone.
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests?fieldSelector=spec.signerName%3Dkubernetes.io%2Fkube-apiserver-client-kubelet";

/// A kubelet's request for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) made: String,
    /// Why it is denied, if it is.
    pub(crate) denied: Option<String>,
    pub(crate) approved: bool,
}

/// A node's requests for a certificate, as the API server shows them to who has that token; none if it does not show them.
pub(crate) async fn requests(http: &Http, token: &Token, node: &str) -> Option<Vec<Asked>> {
    let answer = http.get(REQUESTS, Some(&token.text())).await.ok()?;
    (answer.status == 200).then(|| of_node(&answer.body, node))
}

fn of_node(list: &Value, node: &str) -> Vec<Asked> {
    let items = list.get("items").and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| request(item, node)).collect()
}

fn request(item: &Value, node: &str) -> Option<Asked> {
    let text = |path: &str| item.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let pem = STANDARD.decode(text("/spec/request")?).ok()?;
    let der = x509_parser::pem::parse_x509_pem(&pem).ok()?.1.contents;
    let (_, asked) = X509CertificationRequest::from_der(&der).ok()?;
    if common_name(&asked.certification_request_info.subject)? != format!("system:node:{node}") {
        return None;
    }
    let conditions = item.pointer("/status/conditions").and_then(Value::as_array);
    let condition = |kinds: &[&str]| {
        let mut all = conditions.into_iter().flatten();
        all.find(|it| it.get("type").and_then(Value::as_str).is_some_and(|it| kinds.contains(&it)))
    };
    let denied = condition(&["Denied", "Failed"]).map(|denied| {
        let message = denied.get("message").and_then(Value::as_str).unwrap_or_default();
        message.chars().filter(|c| !c.is_control()).take(300).collect()
    });
    Some(Asked {
        name: text("/metadata/name")?,
        made: text("/metadata/creationTimestamp").unwrap_or_default(),
        denied,
        approved: condition(&["Approved"]).is_some(),
    })
}

fn common_name(name: &X509Name<'_>) -> Option<String> {
    name.iter_common_name().next()?.as_str().ok().map(str::to_owned)
}

/// Who the kubelet is, by its certificate.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    /// The certificate and its key, in PEM.
    pem: Vec<u8>,
    pub(crate) node: String,
    pub(crate) not_after: SystemTime,
}

impl Own {
    /// Reads the kubelet's certificate; none as long as it has none.
    pub(crate) fn read(places: &Places) -> Option<Self> {
        let pem = fs::read(places.certificate()).ok()?;
        let der = CertificateDer::pem_slice_iter(&pem).next()?.ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let node = common_name(certificate.subject())?.strip_prefix("system:node:")?.to_owned();
        let seconds = certificate.validity().not_after.timestamp();
        let seconds = u64::try_from(seconds).unwrap_or_default();
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Some(Self { pem, node, not_after })
    }

    /// Whether it has expired by this machine's clock.
    pub(crate) fn expired(&self) -> bool {
        self.not_after <= SystemTime::now()
    }

    /// The node's Node; none if there is none.
    pub(crate) async fn node(
        &self,
        api_server: &str,
        ca: &str,
    ) -> Result<Option<Node>, JoinErrorKind> {
        let http = Http::as_client(Server::parse(api_server)?, ca, Some(&self.pem))?;
        node(&http, None, &self.node).await
    }
}

/// What matters of a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    boot: String,
    /// The machine, by its firmware and by its system.
    system: String,
    machine: String,
    pub(crate) ready: bool,
    /// What the Ready condition says.
    pub(crate) says: String,
}

impl Node {
    /// Whether another machine that runs has this name. One that was reset or has rebooted finds its own Node still Ready for a while.
    pub(crate) fn is_of_another(&self) -> bool {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let own = read("/proc/sys/kernel/random/boot_id");
        self.ready
            && !self.boot.is_empty()
            && self.boot != own.trim()
            && !self.is_of(&read("/sys/class/dmi/id/product_uuid"), &read("/etc/machine-id"))
    }

    /// Whether it is this machine's. Copies of a disk have the same machine id, so the firmware's goes first where both are known.
    fn is_of(&self, system: &str, machine: &str) -> bool {
        match (id(&self.system), id(system)) {
            (Some(its), Some(own)) => its == own,
            _ => id(&self.machine).is_some_and(|its| id(machine) == Some(its)),
        }
    }
}

/// The digits of an id; none if it says nothing, as firmware does that was not set up.
fn id(text: &str) -> Option<String> {
    let text = text.trim().replace('-', "").to_lowercase();
    let says = text.len() == 32
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !text.bytes().all(|byte| text.starts_with(char::from(byte)));
    says.then_some(text)
}

/// How old the lease of a kubelet that runs may be: it renews it every 10 s, and after 40 s its Node is taken for gone.
const LEASE: Duration = Duration::from_secs(40);

/// Whether the kubelet of that name was last heard of so long ago that it is gone; not if nothing is known of it.
pub(crate) async fn is_gone(http: &Http, token: &Token, name: &str) -> bool {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}");
    match http.get(&path, Some(&token.text())).await {
        Ok(answer) if answer.status == 200 => is_stale(&answer.body, SystemTime::now()),
        _ => false,
    }
}

fn is_stale(lease: &Value, now: SystemTime) -> bool {
    let renewed = lease.pointer("/spec/renewTime").and_then(Value::as_str);
    let renewed = renewed.and_then(|time| time.parse::<prost_types::Timestamp>().ok());
    let renewed = renewed.and_then(|time| SystemTime::try_from(time).ok());
    renewed.is_some_and(|time| now.duration_since(time).is_ok_and(|age| age > LEASE))
}

/// Asks for a Node. Who may not see it gets the API server's word as an error.
pub(crate) async fn node(
    http: &Http,
    token: Option<&Token>,
    name: &str,
) -> Result<Option<Node>, JoinErrorKind> {
    let text = token.map(Token::text);
    let answer = http.get(&format!("/api/v1/nodes/{name}"), text.as_deref()).await?;
    match answer.status {
        200 => Ok(Some(read_node(&answer.body))),
        404 => Ok(None),
        status => {
            let message = answer.body.get("message").and_then(Value::as_str).unwrap_or("no reason");
            let message = message.chars().filter(|c| !c.is_control()).take(300).collect();
            Err(JoinErrorKind::Status { status, message })
        }
    }
}

fn read_node(body: &Value) -> Node {
    let about = |key: &str| {
        let text = body.pointer("/status/nodeInfo").and_then(|about| about.get(key));
        text.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let conditions = body.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|it| it.get("type").and_then(Value::as_str) == Some("Ready"));
    let text = |key: &str| ready.and_then(|it| it.get(key)).and_then(Value::as_str);
    let says = text("message").unwrap_or("its kubelet has not said how it is");
    Node {
        boot: about("bootID"),
        system: about("systemUUID"),
        machine: about("machineID"),
        ready: text("status") == Some("True"),
        says: says.chars().filter(|c| !c.is_control()).take(300).collect(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};
    use serde_json::json;

    use super::*;

    fn csr(node: &str) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{node}"));
        let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
        STANDARD.encode(request.pem().unwrap())
    }

    #[test]
    fn requests_are_those_of_the_node() {
        let item = |name: &str, node: &str, condition: &str| {
            json!({
                "metadata": { "name": name, "creationTimestamp": "2026-01-01T00:00:00Z" },
                "spec": { "request": csr(node) },
                "status": { "conditions": [{ "type": condition, "message": "be\u{7}cause" }] },
            })
        };
        let list = json!({ "items": [
            item("other", "node-2", "Approved"),
            item("yes", "node-1", "Approved"),
            item("no", "node-1", "Denied"),
            { "metadata": { "name": "odd" }, "spec": { "request": "bm8=" } },
        ] });
        let found = of_node(&list, "node-1");
        let names: Vec<_> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["yes", "no"]);
        assert!(found[0].approved && found[0].denied.is_none());
        assert_eq!(found[1].denied.as_deref(), Some("because"));
        assert_eq!(of_node(&json!([]), "node-1"), []);
    }

    #[test]
    fn a_name_is_taken_by_a_machine_that_runs_and_is_another() {
        let check = |boot: &str, ready: &str, taken| {
            let node = read_node(&json!({ "status": {
                "nodeInfo": { "bootID": boot },
                "conditions": [{ "type": "Ready", "status": ready, "message": "m" }],
            } }));
            assert_eq!(node.is_of_another(), taken, "{node:?}");
        };
        let own = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        check("another", "True", true);
        // One that is gone has left its Node behind.
        check("another", "Unknown", false);
        check(own.trim(), "True", false);
        assert!(!read_node(&json!({})).is_of_another());
    }

    #[test]
    fn a_machine_that_has_rebooted_knows_its_node() {
        let check = |(system, machine): (&str, &str), own: (&str, &str), expect| {
            let node = read_node(&json!({ "status": {
                "nodeInfo": { "bootID": "b", "systemUUID": system, "machineID": machine },
            } }));
            assert_eq!(node.is_of(own.0, own.1), expect, "{node:?} {own:?}");
        };
        let (a, b) =
            ("0f3a5c7e-91b2-4d4e-8a6b-0123456789ab", "1f3a5c7e-91b2-4d4e-8a6b-0123456789ab");
        let (upper, bare) = (a.to_uppercase() + "\n", a.replace('-', ""));
        let zeros = "00000000-0000-0000-0000-000000000000";
        check((a, "m"), (&upper, &bare), true);
        check((b, &bare), (a, &bare), false);
        check((zeros, &bare), (zeros, a), true);
        check((zeros, &bare), (zeros, b), false);
        check((a, &bare), ("", &bare), true);
        check((zeros, ""), (zeros, ""), false);
        check(("s", "m"), ("s", "m"), false);
    }

    #[test]
    fn a_lease_that_nobody_renews_is_of_a_machine_that_is_gone() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_660);
        let check = |renewed: &str, expect| {
            let lease = json!({ "spec": { "renewTime": renewed } });
            assert_eq!(is_stale(&lease, now), expect, "{renewed}");
        };
        check("2026-01-01T00:00:50.123456Z", false);
        check("2026-01-01T00:00:19.123456Z", true);
        check("2026-01-01T00:01:30.000000Z", false);
        check("yesterday", false);
        assert!(!is_stale(&json!({}), now));
    }
}
