//! What a key means, from the declaration that its decoder is made from: for `osctl explain`.

use std::fmt;

use crate::config::{MachineConfig, toml_value};
use crate::diagnostic::nearest;
use crate::keys::{Key, Table as _, clip};
use crate::kinds::KindName;
use crate::shape::Shape;
use crate::source::{FileId, Span};
use crate::tree::{Entry, Node, Table, Value};
use crate::unit::Words;

/// All that is to be said of a key, a kind, or a whole file.
#[derive(Debug, Clone)]
pub struct Page {
    /// Its full name: `storage.data.filesystem`, `mount.options`, `unit.after`.
    pub path: String,
    /// What it means, in one paragraph.
    pub doc: String,
    /// Where it may stand.
    pub place: String,
    /// What is expected as its value; nothing for a whole file or kind.
    pub expected: Option<String>,
    /// The default as TOML; nothing where there is none.
    pub default: Option<&'static str>,
    /// Whether it must be written.
    pub required: bool,
    /// The words that it takes, each with its meaning.
    pub words: Vec<(&'static str, String)>,
    /// Keys and kinds inside: the name, what is expected, and the meaning.
    pub inside: Vec<(String, String, String)>,
    /// How it looks in a file, as TOML.
    pub example: String,
    /// Whether `{{ … }}` may stand for its value.
    pub references: bool,
}

/// A name that nothing has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The name, as far as it is known and one part more.
    pub path: String,
    /// What was meant most likely.
    pub near: Option<String>,
    /// Keys elsewhere that are called so.
    pub elsewhere: Vec<String>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no key, kind or table `{}`", clip(&self.path))
    }
}

impl std::error::Error for Unknown {}

/// The page of a name; without one, that of both kinds of files.
///
/// # Errors
/// Nothing has the name.
pub fn explain(path: &str) -> Result<Page, Unknown> {
    let parts = split(path);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["config" | "machine-config"] => Ok(root(File::Config)),
        ["unit"] => Ok(root(File::Unit)),
        ["config" | "machine-config", rest @ ..] => find(File::Config, rest),
        ["unit", rest @ ..] => find(File::Unit, rest),
        // A drop-in: what stands behind the name of the unit, which may have dots itself.
        ["units", rest @ ..] if rest.len() > 1 => {
            let tails = (1..rest.len()).map(|i| &rest[i..]);
            let found = tails.map(|tail| find(File::Unit, tail)).find(Result::is_ok);
            found.unwrap_or_else(|| find(File::Unit, &rest[1..]))
        }
        ["units", _] => find(File::Config, &["units"]),
        [first, ..] if MachineConfig::known().iter().any(|key| key.name == *first) => {
            find(File::Config, &parts)
        }
        [first, ..] if unit_word(first) => find(File::Unit, &parts),
        _ => Err(nowhere(&parts)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum File {
    Config,
    Unit,
}

/// `units."mount.data".mount` and `network.interfaces[0].name` in parts.
fn split(path: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in path.chars() {
        match c {
            '"' | '\'' => quoted = !quoted,
            '.' | '[' | ']' if !quoted => parts.push(String::new()),
            c => {
                if let Some(last) = parts.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    parts.retain(|part| !part.is_empty() && !part.bytes().all(|b| b.is_ascii_digit()));
    parts
}

fn unit_word(word: &str) -> bool {
    KindName::from_word(word).is_some() || Words::known().iter().any(|key| key.name == word)
}

fn find(file: File, parts: &[&str]) -> Result<Page, Unknown> {
    let Some((first, rest)) = parts.split_first() else { return Ok(root(file)) };
    if file == File::Unit
        && let Some(kind) = KindName::from_word(first)
    {
        return match rest.is_empty() {
            true => Ok(kind_page(kind)),
            false => below(file, vec![kind.as_str()], kind.keys(), rest),
        };
    }
    match file {
        File::Config => below(file, Vec::new(), MachineConfig::known(), parts),
        File::Unit => below(file, Vec::new(), Words::known(), parts),
    }
}

/// The page of a key below a table.
fn below(
    file: File,
    mut path: Vec<&'static str>,
    mut keys: &'static [Key],
    parts: &[&str],
) -> Result<Page, Unknown> {
    let mut list = None;
    let mut found: Option<&Key> = None;
    for (depth, part) in parts.iter().enumerate() {
        if let Some(Key { shape, .. }) = found
            && matches!(shape(), Shape::List { .. })
        {
            list = Some(path.len());
        }
        let Some(key) = keys.iter().find(|key| key.name == *part) else {
            // A key of the user's own, such as a sysctl or a variable.
            if let Some(key) = found
                && matches!((key.shape)(), Shape::Map { .. })
            {
                break;
            }
            let mut named = full(file, &path);
            named.push((*part).to_owned());
            let roots = (depth == 0 && path.is_empty()).then(KindName::words).into_iter().flatten();
            let names = keys.iter().map(|key| key.name).chain(roots);
            let near = nearest(part, names).map(|near| {
                let mut better = full(file, &path);
                better.push(near.to_owned());
                better.join(".")
            });
            let path = named.join(".");
            let elsewhere = if near.is_none() { called(part) } else { Vec::new() };
            return Err(Unknown { path, near, elsewhere });
        };
        path.push(key.name);
        keys = (key.inner)();
        found = Some(key);
    }
    found.map(|key| key_page(file, &path, list, key)).ok_or_else(|| nowhere(parts))
}

/// A path with the word before it that says what it is a path in.
fn full(file: File, path: &[&str]) -> Vec<String> {
    let kind = path.first().is_some_and(|first| KindName::from_word(first).is_some());
    let prefix = (file == File::Unit && !kind).then(|| "unit".to_owned());
    prefix.into_iter().chain(path.iter().map(|part| (*part).to_owned())).collect()
}

fn nowhere(parts: &[&str]) -> Unknown {
    let first = parts.first().copied().unwrap_or_default();
    let keys = MachineConfig::known().iter().chain(Words::known()).map(|key| key.name);
    let near = nearest(first, keys.chain(KindName::words()).chain(["config", "unit"]));
    let near = near.map(|near| {
        let rest = parts.iter().skip(1).copied();
        std::iter::once(near).chain(rest).collect::<Vec<_>>().join(".")
    });
    // A guess that leads nowhere is none.
    let near = near.filter(|near| explain_exact(near));
    let last = parts.last().copied().unwrap_or_default();
    let elsewhere = if near.is_none() { called(last) } else { Vec::new() };
    Unknown { path: parts.join("."), near, elsewhere }
}

fn explain_exact(path: &str) -> bool {
    let first = path.split('.').next().unwrap_or_default();
    let known = MachineConfig::known().iter().any(|key| key.name == first) || unit_word(first);
    (known || matches!(first, "config" | "unit")) && explain(path).is_ok()
}

/// Keys of this name, wherever they are.
fn called(name: &str) -> Vec<String> {
    paths().into_iter().filter(|path| path.rsplit('.').next() == Some(name)).collect()
}

/// The names of all that has a page.
pub fn paths() -> Vec<String> {
    fn walk(prefix: &str, keys: &[Key], all: &mut Vec<String>) {
        for key in keys {
            let path = format!("{prefix}{}", key.name);
            walk(&format!("{path}."), (key.inner)(), all);
            all.push(path);
        }
    }
    let mut all = vec!["config".to_owned(), "unit".to_owned()];
    walk("", MachineConfig::known(), &mut all);
    walk("unit.", Words::known(), &mut all);
    for kind in KindName::ALL {
        all.push(kind.to_string());
        walk(&format!("{kind}."), kind.keys(), &mut all);
    }
    all.sort();
    all
}

fn prose(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn inside(keys: &[Key]) -> Vec<(String, String, String)> {
    keys.iter().map(|key| (key.name.to_owned(), (key.expected)(), prose(key.doc))).collect()
}

fn root(file: File) -> Page {
    let (path, doc, keys) = match file {
        File::Config => ("config", MachineConfig::DOC, MachineConfig::known()),
        File::Unit => {
            ("unit", "The keys of every unit, and one table that names its kind.", Words::known())
        }
    };
    let kinds = KindName::ALL.iter().filter(|_| file == File::Unit);
    let kinds = kinds
        .map(|kind| (format!("[{kind}]"), "one of these tables".to_owned(), prose(kind.doc())));
    Page {
        path: path.to_owned(),
        doc: prose(doc),
        place: match file {
            File::Config => {
                "a file that osctl takes with --config; /etc/keel/config.toml on a node"
            }
            File::Unit => "a file of its own, units/**/NAME.toml",
        }
        .to_owned(),
        expected: None,
        default: None,
        required: false,
        words: Vec::new(),
        inside: inside(keys).into_iter().chain(kinds).collect(),
        example: match file {
            File::Config => "schema = 1\n\n[machine]\nhostname = \"node-1\"\n".to_owned(),
            File::Unit => format!(
                "part-of = \"boot\"\nafter = \"network\"\n\n{}",
                kind_example(KindName::Service)
            ),
        },
        references: false,
    }
}

fn kind_page(kind: KindName) -> Page {
    Page {
        path: kind.to_string(),
        doc: prose(kind.doc()),
        place: "a unit file; exactly one table names its kind".to_owned(),
        expected: None,
        default: None,
        required: false,
        words: Vec::new(),
        inside: inside(kind.keys()),
        example: kind_example(kind),
        references: false,
    }
}

fn key_page(file: File, path: &[&'static str], list: Option<usize>, key: &Key) -> Page {
    let words = match (key.shape)() {
        Shape::Words(words) => words,
        Shape::List { item, .. } => match *item {
            Shape::Words(words) => words,
            _ => &[],
        },
        Shape::OneOf(of) => of
            .iter()
            .find_map(|s| if let Shape::Words(w) = s { Some(*w) } else { None })
            .unwrap_or(&[]),
        _ => &[],
    };
    let table = &path[..path.len().saturating_sub(1)];
    let place = match (file, table) {
        (File::Config, []) => "the machine config, at its top".to_owned(),
        (File::Config, table) => format!("the machine config, {}", header(table, list)),
        (File::Unit, []) => {
            "every unit file, at its top; in a config below [units.NAME]".to_owned()
        }
        (File::Unit, table) => format!(
            "unit files, [{table}]; in a config [units.NAME.{table}]",
            table = table.join(".")
        ),
    };
    Page {
        path: full(file, path).join("."),
        doc: prose(key.doc),
        place,
        expected: Some((key.expected)()),
        default: key.default,
        required: key.required,
        words: words.iter().map(|(word, doc)| (*word, prose(doc))).collect(),
        inside: inside((key.inner)()),
        example: key_example(file, path, list, key),
        references: match (file, (key.shape)()) {
            // A single value of the config may refer to another one.
            (File::Config, Shape::Table(_) | Shape::List { .. } | Shape::Map { .. }) => false,
            (_, Shape::DropIns) => false,
            _ => !matches!(key.name, "for-each" | "if-set" | "schema"),
        },
    }
}

fn header(table: &[&str], list: Option<usize>) -> String {
    match list == Some(table.len()) {
        true => format!("[[{}]]", table.join(".")),
        false => format!("[{}]", table.join(".")),
    }
}

/// How a key looks in its file.
fn key_example(file: File, path: &[&'static str], list: Option<usize>, key: &Key) -> String {
    let node = example(&full(file, path).join("."), key);
    match (&node.value, (key.shape)()) {
        (Value::Table(table), Shape::Table(_)) if !table.is_empty() => {
            format!("{}\n{}", header(path, list), lines(table))
        }
        (Value::Array(items), Shape::List { .. })
            if let Some(Node { value: Value::Table(table), .. }) = items.first() =>
        {
            format!("{}\n{}", header(path, Some(path.len())), lines(table))
        }
        _ => {
            let table = &path[..path.len().saturating_sub(1)];
            let header =
                if table.is_empty() { String::new() } else { format!("{}\n", header(table, list)) };
            format!("{header}{}", lines(&Table::from_iter([entry(key.name, node)])))
        }
    }
}

fn lines(table: &Table) -> String {
    let line =
        |e: &Entry| format!("{} = {}\n", crate::config::toml_key(&e.key), toml_value(&e.node));
    table.iter().map(line).collect()
}

fn node(value: Value) -> Node {
    Node { span: Span::whole(FileId::DEFAULT), value }
}

fn entry(key: &str, node: Node) -> Entry {
    Entry { key: key.to_owned(), key_span: node.span, node }
}

/// Values that say more than what can be made of their type.
const EXAMPLES: &[(&str, &str)] = &[
    ("kernel.modules", r#"["overlay", "br_netfilter"]"#),
    ("kernel.arguments", r#"["console=ttyS0", "panic=10"]"#),
    (
        "cluster",
        r#"{ api-server = "https://203.0.113.10:6443", token = "{{ secrets.cluster-token }}", ca-hash = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" }"#,
    ),
    ("cluster.ca-cert", r#""-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n""#),
    ("cluster.token", r#""{{ secrets.cluster-token }}""#),
    ("cluster.kubeconfig", r#""{{ secrets.kubeconfig }}""#),
    ("cluster.kubelet-arguments", r#"["--v=2", "--max-pods=200"]"#),
    ("network.interfaces", r#"[{ name = "uplink", device = "eth0" }]"#),
    ("network.interfaces.mtu", "9000"),
    ("storage.data.disk", r#"{ bus = "nvme", min-size = "100GiB" }"#),
    ("storage.data.disk.path", r#""/dev/vda""#),
    ("storage.data.disk.by-id", r#""nvme-Samsung_SSD_980_*""#),
    ("storage.data.disk.serial", r#""S64ANS0T*""#),
    ("unit.description", r#""Persistent data volume""#),
    ("unit.requires", r#"["partition.data"]"#),
    ("unit.after", r#"["network", { unit = "containerd", await = "ready" }]"#),
    ("unit.part-of", r#""storage""#),
    ("unit.for-each", r#""network.interfaces""#),
    ("unit.if-set", r#""cluster.token""#),
    ("unit.condition.path-exists", r#"["/dev/kvm"]"#),
    ("unit.condition.path-missing", r#"["/etc/app.toml"]"#),
    ("unit.condition.kernel-argument", r#"["keel.debug"]"#),
    ("unit.failure", r#"{ on = "retry", attempts = 5, delay = "2s" }"#),
    ("mount.target", r#""/var/lib/app""#),
    ("mount.options", r#"["nosuid", "nodev", "size=1GiB"]"#),
    ("module.parameters", r#""queue_depth=8""#),
    ("device.path", r#""/dev/vdb""#),
    ("link.mtu", "9000"),
    ("hostname.machine-id", r#""/etc/machine-id""#),
    ("time.floor", r#""/etc/keel/units""#),
    ("time.servers", r#"["192.0.2.123", "pool.ntp.org"]"#),
    ("filesystem.options", r#"["-m", "0"]"#),
    ("filesystem.device", r#""PARTLABEL=keel-data""#),
    ("identity.publish", r#""/etc/machine-id""#),
    ("file.path", r#""/etc/app.toml""#),
    ("file.content", r#""name = \"{{ machine.hostname }}\"\n""#),
    ("file.copy", r#""/usr/share/app/app.toml""#),
    ("file.symlink", r#""/run/app.toml""#),
    ("oneshot.exec", r#"["/usr/bin/app", "--prepare"]"#),
    ("service.exec", r#"["/usr/bin/app", "--listen", "[::]:80"]"#),
    ("oneshot.environment", r#"{ GOGC = "50" }"#),
    ("service.environment", r#"{ GOGC = "50", TOKEN = "{{ secrets.token }}" }"#),
    ("service.start-limit", r#"{ burst = 5, interval = "1m" }"#),
    ("service.start-limit.burst", "5"),
    ("secrets", r#"{ registry-password = "…" }"#),
];

/// A unit of each kind, as small as it can be.
fn kind_example(kind: KindName) -> String {
    let text = match kind {
        KindName::Target => "",
        KindName::Mount => {
            "source = \"PARTLABEL=keel-data\"\ntarget = \"/var/lib/keel\"\nfstype = \"ext4\"\ntimeout = \"30s\"\n"
        }
        KindName::Module => "name = \"overlay\"\ntimeout = \"10s\"\n",
        KindName::Sysctl => "key = \"net.ipv4.ip_forward\"\nvalue = 1\ntimeout = \"5s\"\n",
        KindName::Device => "path = \"/dev/vdb\"\ntimeout = \"10s\"\n",
        KindName::Link => "name = \"eth0\"\ndhcp = true\ntimeout = \"30s\"\n",
        KindName::Hostname => "name = \"{{ machine.hostname }}\"\ntimeout = \"5s\"\n",
        KindName::Time => "servers = \"{{ network.ntp }}\"\ntimeout = \"10s\"\n",
        KindName::Partition => {
            "label = \"app-data\"\ntype = \"0FC63DAF-8483-4772-8E79-3D69D8477DE4\"\ndisk = { path = \"/dev/vdb\" }\ntimeout = \"30s\"\n"
        }
        KindName::Filesystem => {
            "device = \"PARTLABEL=app-data\"\ntype = \"ext4\"\ntimeout = \"5m\"\n"
        }
        KindName::Identity => "directory = \"/var/lib/keel/identity\"\ntimeout = \"10s\"\n",
        KindName::File => {
            "path = \"/etc/app.toml\"\ncontent = \"name = \\\"{{ machine.hostname }}\\\"\\n\"\ntimeout = \"5s\"\n"
        }
        KindName::Oneshot => "exec = [\"/usr/bin/app\", \"--prepare\"]\ntimeout = \"30s\"\n",
        KindName::Service => {
            "exec = [\"/usr/bin/app\", \"--listen\", \"[::]:80\"]\nready = \"notify\"\nrestart = \"on-failure\"\ntimeout = \"30s\"\n"
        }
    };
    format!("[{kind}]\n{text}")
}

/// A value of a key.
fn example(path: &str, key: &Key) -> Node {
    let written = EXAMPLES.iter().find(|(of, _)| *of == path).map(|(_, text)| *text);
    // The default shows the form as well, unless it is empty.
    let default = key.default.filter(|text| !matches!(*text, "[]" | "{}" | "\"\""));
    let default = default.filter(|_| (key.inner)().is_empty());
    let read = crate::keys::default_node(written.or(default));
    read.unwrap_or_else(|| of_shape(&(key.shape)(), path))
}

// Recursion ends with the nesting of our own tables.
fn of_shape(shape: &Shape, path: &str) -> Node {
    node(match shape {
        Shape::Boolean => Value::Boolean(true),
        Shape::Integer { from, to } => Value::Integer(100.clamp(*from, *to)),
        Shape::Text { example, .. } => Value::String((*example).to_owned()),
        Shape::Words(words) => {
            Value::String(words.first().map_or("", |(word, _)| *word).to_owned())
        }
        Shape::List { item, .. } => Value::Array(vec![of_shape(item, path)]),
        Shape::Map { example, value, .. } => {
            Value::Table(Table::from_iter([entry(example, of_shape(value, path))]))
        }
        Shape::Table(keys) => {
            let needed: Vec<&Key> = keys.iter().filter(|key| key.required).collect();
            let shown = if needed.is_empty() { keys.iter().take(1).collect() } else { needed };
            let entries = shown
                .into_iter()
                .map(|key| entry(key.name, example(&format!("{path}.{}", key.name), key)));
            Value::Table(entries.collect())
        }
        Shape::OneOf(of) => {
            return of.first().map_or(node(Value::Boolean(true)), |s| of_shape(s, path));
        }
        Shape::DropIns => {
            let timeout = entry("stop-timeout", node(Value::String("5s".to_owned())));
            let service = entry("service", node(Value::Table(Table::from_iter([timeout]))));
            let unit = entry("containerd", node(Value::Table(Table::from_iter([service]))));
            Value::Table(Table::from_iter([unit]))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::{Input, lower};

    #[test]
    fn everything_has_a_page_with_an_example_that_is_taken() {
        for path in paths() {
            let page = explain(&path).unwrap_or_else(|unknown| panic!("{unknown}"));
            assert_eq!(page.path, path);
            assert!(!page.doc.is_empty() && !page.example.is_empty(), "{path}");
            let first = path.split('.').next().unwrap();
            let mut input = Input { secrets_elsewhere: true, ..Input::default() };
            input.unit("units/boot.toml", "[target]\n");
            let config = MachineConfig::known().iter().any(|key| key.name == first);
            if config {
                input.unit("units/containerd.toml", kind_example(KindName::Service));
                let schema = if path == "schema" { "" } else { "schema = 1\n" };
                // Needs its table to say which link it is about, or that it has fixed addresses.
                let rest = match path.as_str() {
                    "network.interfaces.name" => "",
                    path if path.starts_with("network.interfaces.") => "name = \"x\"\n",
                    "cluster.api-server" => {
                        "token = \"abcdef.0123456789abcdef\"\nca-hash = \"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n"
                    }
                    "cluster.token" => {
                        "api-server = \"https://a\"\nca-hash = \"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n"
                    }
                    "cluster.ca-cert" | "cluster.ca-hash" => {
                        "api-server = \"https://a\"\ntoken = \"abcdef.0123456789abcdef\"\n"
                    }
                    _ => "",
                };
                input.config("config.toml", format!("{schema}{}{rest}", page.example));
                let taken =
                    lower(input).map_err(|report| format!("{path}:\n{}\n{report}", page.example));
                taken.unwrap_or_else(|why| panic!("{why}"));
            }
        }
    }

    /// Keys of kinds alone are no whole unit, so each is asked itself.
    #[test]
    fn every_example_of_a_unit_is_taken() {
        fn walk(path: &str, keys: &[Key]) {
            for key in keys {
                let path = format!("{path}.{}", key.name);
                let node = example(&path, key);
                // A reference takes the type of what it stands for.
                let reference = matches!(&node.value, Value::String(text) if text.contains("{{"));
                let found = (key.check)(&node);
                assert!(found.is_empty() || reference, "{path} = {}: {found:?}", toml_value(&node));
                walk(&path, (key.inner)());
            }
        }
        walk("unit", Words::known());
        for kind in KindName::ALL {
            walk(kind.as_str(), kind.keys());
            let mut input = Input::default();
            input.unit("units/boot.toml", "[target]\n");
            input.unit("units/x.toml", kind_example(*kind));
            input.config("config.toml", "schema = 1\nmachine.hostname = \"x\"\n");
            lower(input).unwrap_or_else(|report| panic!("{kind}: {report}"));
        }
    }

    #[test]
    fn names_mean_one_thing() {
        let config = MachineConfig::known().iter().map(|key| key.name);
        let all = config.chain(Words::known().iter().map(|key| key.name)).chain(KindName::words());
        let all: Vec<_> = all.chain(["config", "unit"]).collect();
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    fn check(path: &str, expect: &str) {
        assert_eq!(explain(path).map(|page| page.path).unwrap_or_else(|u| panic!("{u}")), expect);
    }

    #[test]
    fn a_name_may_be_typed_in_several_ways() {
        check("storage.data.filesystem", "storage.data.filesystem");
        check("config.storage.data.filesystem", "storage.data.filesystem");
        check("network.interfaces[0].mtu", "network.interfaces.mtu");
        check("network.interfaces.mtu", "network.interfaces.mtu");
        check("after", "unit.after");
        check("unit.mount.options", "mount.options");
        check("[service]", "service");
        check("units", "units");
        check("units.containerd", "units");
        check("units.\"mount.data\".mount.options", "mount.options");
        check("units.mount.data.mount.options", "mount.options");
        check("kernel.sysctls.\"net.ipv4.ip_forward\"", "kernel.sysctls");
        check("service.environment.TOKEN", "service.environment");
    }

    fn check_unknown(path: &str, near: Option<&str>, elsewhere: &[&str]) {
        let unknown = explain(path).unwrap_err();
        assert_eq!(
            (unknown.near.as_deref(), unknown.elsewhere.as_slice()),
            (near, &elsewhere.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..]),
            "{path}"
        );
    }

    #[test]
    fn a_slip_is_told_what_was_meant() {
        check_unknown("storage.data.filesytem", Some("storage.data.filesystem"), &[]);
        check_unknown("storge.data.filesystem", Some("storage.data.filesystem"), &[]);
        check_unknown("mount.optoins", Some("mount.options"), &[]);
        check_unknown("unit.requries", Some("unit.requires"), &[]);
        check_unknown("sevice", Some("service"), &[]);
        check_unknown("fstype", None, &["mount.fstype"]);
        check_unknown("mount.oom-score-adjust", None, &["service.oom-score-adjust"]);
        check_unknown("qqq", None, &[]);
        check_unknown("", None, &[]);
    }
}
