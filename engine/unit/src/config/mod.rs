//! The machine config: the one file that says how this machine differs from any other.

mod masked;
mod read;
mod rescue;
mod text;
mod unset;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::addressing;
use crate::diagnostic::Diagnostic;
use crate::keys::{Fields, Value, keys, mismatch};
use crate::kinds::{DiskSelector, FilesystemType, Wipe};
use crate::secret::Secrets;
use crate::shape::Shape;
use crate::tree::{Node, Table, Value as Raw};
use crate::value::{
    ApiServer, Argument, ByteSize, CaHash, Certificates, Cidr, Hidden, Hostname, JoinToken,
    KernelArgument, Kubeconfig, KubeletVersion, LinkName, Listen, MacAddr, MachineId, ModuleName,
    Mtu, NtpServer, RevocationLists, SysctlKey, SysctlValue,
};

pub use self::masked::{masked, restored};
pub(crate) use self::read::Config;
pub use self::read::{Effective, effective_config, merged_config};
pub use self::rescue::{rescue, shut};
pub use self::text::Origin;
pub(crate) use self::text::{key as toml_key, value as toml_value};
pub(crate) use self::unset::UNSET;
pub use self::unset::Unset;

keys! {
    /// The machine config.
    pub struct MachineConfig {
        /// Version of this format; always 1.
        schema "schema": Schema,
        /// What this machine is called.
        machine "machine": Machine = "{}",
        /// What the kernel is told.
        kernel "kernel": Kernel = "{}",
        /// Links, name servers, time servers.
        network "network": Network = "{}",
        /// The data partition.
        storage "storage": Storage = "{}",
        /// The agent and its API.
        agent "agent": Agent = "{}",
        /// The Kubernetes cluster.
        cluster "cluster": Cluster = "{}",
        /// Texts that are never shown, by name: `{{ secrets.NAME }}`. They belong into a file of their own (`--secrets FILE`).
        secrets "secrets": Secrets = "{}",
        /// Keys of shipped units that are overridden, by the unit's name.
        units "units": DropIns = "{}",
    }

    /// What this machine is called.
    pub struct Machine {
        /// Host name; else what DHCP says, else one made from the machine id (`keel-` and its first eight digits).
        hostname "hostname": Option<Hostname>,
        /// Machine id; else a random one is made on first boot.
        id "id": Option<MachineId>,
    }

    /// What the kernel is told.
    pub struct Kernel {
        /// Modules to load, beyond those that the machine's devices ask for.
        modules "modules": Vec<ModuleName> = "[]",
        /// Parameters below `/proc/sys`.
        sysctls "sysctls": Sysctls = "{}",
        /// Arguments on the kernel's command line, for images that carry a bootloader or are run by `osctl image run`.
        arguments "arguments": Vec<KernelArgument> = "[]",
    }
    check = distinct_modules;

    /// Links, name servers, time servers.
    pub struct Network {
        /// The links. Without any, it is the first ethernet link that has a carrier, by DHCP.
        interfaces "interfaces": Vec<Interface> = "[{ name = \"primary\" }]",
        /// Name servers, before those that DHCP gives.
        dns "dns": Vec<IpAddr> = "[]",
        /// Time servers.
        ntp "ntp": Vec<NtpServer> = "[]",
    }
    check = distinct_interfaces;

    /// One link.
    pub struct Interface {
        /// What units call it: `link@NAME`.
        name "name": LinkName,
        /// The kernel's name of it. Without `device` and `mac` it is the first ethernet link that has a carrier.
        device "device": Option<LinkName>,
        /// Its hardware address.
        mac "mac": Option<MacAddr>,
        /// Ask a DHCP server for an address.
        dhcp "dhcp": bool = "true",
        /// Fixed addresses; these need `dhcp = false`.
        addresses "addresses": Vec<Cidr> = "[]",
        /// Default gateway for fixed addresses.
        gateway "gateway": Option<IpAddr>,
        /// Largest packet in bytes.
        mtu "mtu": Option<Mtu>,
    }
    check = |interface, fields| {
        addressing::check(&interface.addresses, interface.gateway, fields);
    };

    /// Disks.
    pub struct Storage {
        /// The data partition, mounted at /var/lib/keel.
        data "data": Data = "{}",
    }

    /// The data partition.
    pub struct Data {
        /// The disk that may be partitioned on first boot. Without it no disk is ever written.
        disk "disk": Option<DiskSelector>,
        /// Its filesystem.
        filesystem "filesystem": FilesystemType = "\"ext4\"",
        /// Its size; else all of the disk.
        size "size": Option<ByteSize>,
        /// Whether a disk with something on it may be written.
        wipe "wipe": Wipe = "\"never\"",
    }

    /// The agent and its API.
    pub struct Agent {
        /// Where the API listens.
        listen "listen": SocketAddr = "\"[::]:50051\"",
        /// Certificate authorities, in PEM, whose clients are let in. With them the node is never in maintenance, not even before a bootstrap.
        trusted_ca "trusted-ca": Option<Certificates>,
        /// What those authorities have revoked: CRLs in PEM.
        trusted_crl "trusted-crl": Option<RevocationLists>,
        /// The certificate that the API is served with, in PEM, with what leads to its CA; then the node makes none. Its key is a
        /// secret: the docs say where it goes.
        certificate "certificate": Option<Certificates>,
        /// Metrics for Prometheus.
        metrics "metrics": Metrics = "{}",
    }
    check = reachable;

    /// Metrics for Prometheus.
    pub struct Metrics {
        /// Where they are served, without TLS and without asking who calls: an address and a port, or the path of a Unix socket. Else nowhere.
        listen "listen": Option<Listen>,
    }

    /// The Kubernetes cluster.
    pub struct Cluster {
        /// Where the cluster's API server answers. With it, and with credentials, the node joins by itself.
        api_server "api-server": Option<ApiServer>,
        /// A bootstrap token, or the JWT of a service account: what the node shows for its first certificate. A secret; once the node has
        /// a certificate the kubelet's copy of the token is removed, and it stays in this config alone.
        token "token": Option<Hidden<JoinToken>>,
        /// The cluster's certificate authorities, in PEM.
        ca_cert "ca-cert": Option<Certificates>,
        /// In place of `ca-cert`: the pin of the cluster's CA, `sha256:…`. The CA is then taken from the cluster, as kubeadm does it.
        ca_hash "ca-hash": Option<CaHash>,
        /// In place of all of these: a kubeconfig, with the CA and the credentials inside it. A secret.
        kubeconfig "kubeconfig": Option<Hidden<Kubeconfig>>,
        /// The kubelet's release; it decides which arguments and which config the kubelet gets. `osctl image build` compares it with the
        /// program. Without it they are those of 1.20 to 1.26.
        kubelet_version "kubelet-version": Option<KubeletVersion>,
        /// Name of the node in the cluster; else the host name.
        node_name "node-name": Option<Hostname>,
        /// More arguments for the kubelet.
        kubelet_arguments "kubelet-arguments": Vec<Argument> = "[]",
    }
    check = one_way_in;
}

/// The kernel takes `br-netfilter` and `br_netfilter` for one. (Two that are written alike would make two units of one name.)
fn distinct_modules(kernel: &Kernel, fields: &mut Fields<'_>) {
    let mut names: HashMap<String, (usize, &ModuleName)> = HashMap::new();
    for (i, module) in kernel.modules.iter().enumerate() {
        let Some((first, other)) = names.insert(module.canonical(), (i, module)) else { continue };
        if other != module {
            let message = format!("`{module}` and `{other}` are one module to the kernel");
            let found = Diagnostic::new("named-twice", fields.span_of_item("modules", i), message)
                .label("the second")
                .also(fields.span_of_item("modules", first), "the first");
            fields
                .report(found.help("`-` and `_` mean the same in names of modules: take one out"));
        }
    }
}

fn reachable(agent: &Agent, fields: &mut Fields<'_>) {
    if agent.listen.port() == 0 {
        let found = Diagnostic::new(
            "bad-value",
            fields.span_of("listen"),
            "port 0 is a different port in each boot",
        );
        let found = found.label("expected a port from 1 to 65535");
        fields.report(found.help("write a port that clients can know, such as \"[::]:50051\""));
    }
}

/// What of `[cluster]` needs what else of it, and what excludes it.
fn one_way_in(cluster: &Cluster, fields: &mut Fields<'_>) {
    let mut wrong = |key: &str, message: &str, help: &str| {
        let found = Diagnostic::new("misplaced-key", fields.span_of(key), message);
        fields.report(found.label("not like this").help(help));
    };
    let (api, token) = (cluster.api_server.is_some(), cluster.token.is_some());
    let (ca, pin) = (cluster.ca_cert.is_some(), cluster.ca_hash.is_some());
    if cluster.kubeconfig.is_some() {
        let all = [("api-server", api), ("token", token), ("ca-cert", ca), ("ca-hash", pin)];
        for (key, _) in all.into_iter().filter(|(_, set)| *set) {
            let message = format!("`{key}` beside `kubeconfig`, which says it too");
            wrong(key, &message, "take one of the two out");
        }
        return;
    }
    match (ca, pin) {
        (true, true) => wrong(
            "ca-hash",
            "`ca-hash` beside `ca-cert`",
            "a pin is for a node that has no CA yet: take one of the two out",
        ),
        (false, false) if api => wrong(
            "api-server",
            "nothing says which API server this is: anybody could answer there",
            "add `ca-cert`, or `ca-hash` with the pin that `kubeadm token create --print-join-command` prints",
        ),
        _ => {}
    }
    if api && !token {
        wrong(
            "api-server",
            "a node without a `token` has nothing to show to the API server",
            "add `token = \"{{ secrets.NAME }}\"`, and the token to the file of secrets",
        );
    }
    for (key, set) in [("token", token), ("ca-cert", ca), ("ca-hash", pin)] {
        if set && !api {
            wrong(
                key,
                &format!("`{key}` without `api-server`"),
                "say where the cluster is: `api-server = \"https://…\"`",
            );
        }
    }
}

fn distinct_interfaces(network: &Network, fields: &mut Fields<'_>) {
    let mut names = HashMap::new();
    let mut devices = HashMap::new();
    let mut addresses = HashMap::new();
    let mut twice = |code, key: &str, i, first: Option<usize>, message: String| {
        if let Some(first) = first {
            let at = fields.span_in("interfaces", i, key);
            let found = Diagnostic::new(code, at, message).label("the second");
            let before = fields.span_in("interfaces", first, key);
            fields.report(found.also(before, "the first"));
        }
    };
    for (i, interface) in network.interfaces.iter().enumerate() {
        let name = &interface.name;
        let message = format!("two interfaces are called `{name}`");
        twice("named-twice", "name", i, names.insert(name, i), message);
        if let Some(device) = &interface.device {
            let message = format!("two interfaces claim the link `{device}`");
            twice("claimed-twice", "device", i, devices.insert(device, i), message);
        }
        if let Some(mac) = interface.mac {
            let message = format!("two interfaces claim the link with the address {mac}");
            twice("claimed-twice", "mac", i, addresses.insert(mac, i), message);
        }
    }
}

/// Version 1 of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema;

impl Value for Schema {
    fn expected() -> String {
        "1".to_owned()
    }

    fn shape() -> Shape {
        Shape::Integer { from: 1, to: 1 }
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        match node.value {
            Raw::Integer(1) => Some(Schema),
            Raw::Integer(other) => {
                let found = Diagnostic::new(
                    "unknown-value",
                    node.span,
                    format!("schema {other} is not known"),
                );
                findings.push(found.label("expected 1").help("this version reads schema 1 only"));
                None
            }
            _ => {
                findings.push(mismatch(node, "the integer 1"));
                None
            }
        }
    }
}

/// Kernel parameters by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sysctls(pub Vec<(SysctlKey, SysctlValue)>);

impl Value for Sysctls {
    fn expected() -> String {
        "a table such as { \"net.ipv4.ip_forward\" = 1 }".to_owned()
    }

    fn shape() -> Shape {
        Shape::map::<SysctlKey>(SysctlValue::shape())
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        let Some(table) = node.as_table() else {
            findings.push(mismatch(node, &Self::expected()));
            return None;
        };
        let read: Vec<_> = table
            .iter()
            .map(|entry| {
                let name = Node { span: entry.key_span, value: Raw::String(entry.key.clone()) };
                let key = SysctlKey::decode(&name, findings);
                // A bare `net.ipv4.ip_forward` is three nested tables in TOML; people mean the parameter.
                let value = match &entry.node.value {
                    Raw::Table(_) => {
                        let found = mismatch(&entry.node, &SysctlValue::expected());
                        findings.push(
                            found.help(format!("quote the whole name: \"{}.…\" = …", entry.key)),
                        );
                        None
                    }
                    _ => SysctlValue::decode(&entry.node, findings),
                };
                Some((key?, value?))
            })
            .collect();
        read.into_iter().collect::<Option<_>>().map(Sysctls)
    }
}

/// Overrides of shipped units, kept as they were written until they are merged into the unit.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DropIns(pub Table);

impl Value for DropIns {
    fn expected() -> String {
        "a table by unit name such as [units.containerd.service]".to_owned()
    }

    fn shape() -> Shape {
        Shape::DropIns
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        let Some(table) = node.as_table() else {
            findings.push(mismatch(node, &Self::expected()));
            return None;
        };
        let before = findings.len();
        for entry in table.iter().filter(|e| e.node.as_table().is_none()) {
            findings.push(mismatch(&entry.node, "a table with keys of the unit"));
        }
        (findings.len() == before).then(|| DropIns(table.clone()))
    }
}
