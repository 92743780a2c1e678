//! Implied edges: what follows from what units do. A unit that uses a path requires the mount that holds it; a mount
//! requires its parent and its device; a link waits for its driver. Every one of them says why it is there.

use std::collections::HashMap;

use keel_unit::keys::Text as _;
use keel_unit::source::Span;
use keel_unit::value::{AbsPath, Source};
use keel_unit::words::Await;
use keel_unit::{Kind, Unit};

use crate::graph::{Edge, EdgeKind, Provenance};
use crate::resolve::{Resolver, span_of_program};

/// A use of a path, and how much hangs on it.
struct Use {
    path: AbsPath,
    span: Span,
    strength: Strength,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Strength {
    /// The unit fails without it.
    Requires,
    /// The unit only looks; it waits, and does not fail.
    Looks,
}

pub(crate) fn imply(resolver: &mut Resolver) {
    let index = Index::new(&resolver.units);
    for from in 0..resolver.units.len() {
        let unit = resolver.units[from].clone();
        for used in uses(&unit) {
            let Some(mount) = index.holder(&used.path, from) else { continue };
            let reason = format!("{} lies on {}", used.path, resolver.units[mount].name);
            add(resolver, from, mount, used.span, used.strength, reason);
        }
        for (to, span, strength, reason) in index.hardware(&unit, &resolver.units) {
            if to != from {
                add(resolver, from, to, span, strength, reason);
            }
        }
    }
}

fn add(
    resolver: &mut Resolver,
    from: usize,
    to: usize,
    span: Span,
    strength: Strength,
    reason: String,
) {
    let why = Provenance::Implied(reason);
    if strength == Strength::Requires {
        resolver.edge(from, to, Edge { kind: EdgeKind::Requires, why: why.clone(), span });
    }
    resolver.edge(from, to, Edge { kind: EdgeKind::After(Await::Ready), why, span });
}

/// Where things are to be found.
struct Index {
    mounts: HashMap<String, usize>,
    devices: HashMap<String, usize>,
    device_links: HashMap<String, usize>,
    partitions: HashMap<String, usize>,
    filesystems: HashMap<Source, usize>,
    modules: HashMap<String, usize>,
    coldplug: Vec<usize>,
}

/// Where modules are loaded from.
const MODULES: &str = "/lib/modules";

/// `-` and `_` mean the same in a module's name.
fn module_name(name: &str) -> String {
    name.replace('-', "_")
}

impl Index {
    fn new(units: &[std::sync::Arc<Unit>]) -> Self {
        let mut index = Index {
            mounts: HashMap::new(),
            devices: HashMap::new(),
            device_links: HashMap::new(),
            partitions: HashMap::new(),
            filesystems: HashMap::new(),
            modules: HashMap::new(),
            coldplug: Vec::new(),
        };
        for (i, unit) in units.iter().enumerate() {
            match &unit.kind {
                // A mount that is there before us holds everything already; it makes nobody wait.
                Kind::Mount(m) if !m.existing => index.mounts.extend([(m.target.to_string(), i)]),
                Kind::Device(d) => {
                    index.devices.extend(d.path.iter().map(|p| (p.to_string(), i)));
                    index.device_links.extend(d.link.iter().map(|l| (l.to_string(), i)));
                }
                Kind::Partition(p) => index.partitions.extend([(p.label.to_string(), i)]),
                Kind::Filesystem(f) => index.filesystems.extend([(f.device.clone(), i)]),
                Kind::Module(m) if m.coldplug => index.coldplug.push(i),
                Kind::Module(m) => {
                    index.modules.extend(m.name.iter().map(|n| (module_name(n.as_str()), i)))
                }
                _ => {}
            }
        }
        index
    }

    /// The mount that holds a path, other than the unit itself.
    fn holder(&self, path: &AbsPath, except: usize) -> Option<usize> {
        let mut at = path.as_str();
        loop {
            if let Some(mount) = self.mounts.get(at).filter(|m| **m != except) {
                return Some(*mount);
            }
            if at == "/" {
                return None;
            }
            at = match at.rfind('/') {
                Some(0) | None => "/",
                Some(slash) => &at[..slash],
            };
        }
    }

    fn hardware(
        &self,
        unit: &Unit,
        units: &[std::sync::Arc<Unit>],
    ) -> Vec<(usize, Span, Strength, String)> {
        let mut found = Vec::new();
        let kind = unit.kind.name().as_str();
        let coldplug = |found: &mut Vec<_>, key: &str, what: &str| {
            for module in &self.coldplug {
                // Not required: the driver may be built in, and coldplug may fail over another device.
                let reason = format!("{} may load the driver of {what}", units[*module].name);
                found.push((*module, unit.span_of(&[kind, key]), Strength::Looks, reason));
            }
        };
        match &unit.kind {
            // The modules themselves may be on it. Its drivers are built in then, or it never comes up.
            Kind::Mount(m) if holds_modules(&m.target) => {
                let span = unit.span_of(&["mount", "source"]);
                m.source.iter().for_each(|s| self.source(s, span, units, &mut found));
            }
            Kind::Mount(m) => {
                let span = unit.span_of(&["mount", "source"]);
                if let Some(source) = &m.source {
                    self.source(source, span, units, &mut found);
                    // What finds or makes the device has waited for its driver.
                    if is_device(source) && found.is_empty() {
                        coldplug(&mut found, "source", &source.to_string());
                    }
                }
                let fstype = m.fstype.as_ref().map(|t| module_name(t.as_str()));
                if let Some(module) = fstype.and_then(|t| self.modules.get(&t)) {
                    // No modprobe runs on the node, so the kernel cannot fetch it by itself.
                    let reason = format!("{} is the driver of its type", units[*module].name);
                    let span = unit.span_of(&["mount", "fstype"]);
                    found.push((*module, span, Strength::Looks, reason));
                }
            }
            Kind::Filesystem(f) => {
                let span = unit.span_of(&["filesystem", "device"]);
                self.source(&f.device, span, units, &mut found);
                if is_device(&f.device) && found.is_empty() {
                    coldplug(&mut found, "device", &f.device.to_string());
                }
            }
            Kind::Partition(p) => {
                coldplug(&mut found, "label", "the disk");
                let path = p.disk.as_ref().and_then(|d| d.path.as_ref());
                let device = path.and_then(|p| self.devices.get(p.as_str()));
                let reason = path.map_or(String::new(), |p| format!("it looks at {p}"));
                found.extend(device.map(|d| {
                    (*d, unit.span_of(&["partition", "disk"]), Strength::Requires, reason)
                }));
            }
            Kind::Link(l) if l.name.as_ref().is_none_or(|n| n.as_str() != "lo") => {
                let what = l.name.as_ref().map_or("the link".to_owned(), |n| n.to_string());
                coldplug(&mut found, "name", &what);
                let device = self.device_links.get(&what);
                let reason = format!("{what} is the link");
                found
                    .extend(device.map(|d| {
                        (*d, unit.span_of(&["link", "name"]), Strength::Requires, reason)
                    }));
            }
            Kind::Device(_) => coldplug(&mut found, "path", "the device"),
            _ => {}
        }
        found
    }

    fn source(
        &self,
        source: &Source,
        span: Span,
        units: &[std::sync::Arc<Unit>],
        found: &mut Vec<(usize, Span, Strength, String)>,
    ) {
        let mut require = |to: Option<&usize>, what: &str| {
            found.extend(to.map(|to| {
                (*to, span, Strength::Requires, format!("{} {what} {source}", units[*to].name))
            }));
        };
        require(self.filesystems.get(source), "makes the filesystem of");
        match source {
            Source::PartLabel(label) => require(self.partitions.get(label.as_str()), "makes"),
            Source::Path(path) => require(self.devices.get(path.as_str()), "waits for"),
            _ => {}
        }
    }
}

/// Whether it is a piece of hardware, by its node or by a name that stands on it.
fn is_device(source: &Source) -> bool {
    match source {
        Source::Path(path) => path.as_str().starts_with("/dev/"),
        Source::PartLabel(_) | Source::PartUuid(_) | Source::Label(_) | Source::Uuid(_) => true,
        Source::Pseudo(_) => false,
    }
}

fn holds_modules(target: &AbsPath) -> bool {
    AbsPath::parse(MODULES).is_ok_and(|modules| modules.lies_in(target))
}

/// The paths that a unit uses.
fn uses(unit: &Unit) -> Vec<Use> {
    let kind = unit.kind.name().as_str();
    let mut uses = Vec::new();
    let mut push = |path: &AbsPath, span: Span, strength| {
        uses.push(Use { path: path.clone(), span, strength })
    };
    let key = |key: &str| unit.span_of(&[kind, key]);
    let fixed = |path: &str| AbsPath::parse(path).ok();
    use Strength::{Looks, Requires};
    match &unit.kind {
        Kind::Target(_) | Kind::Module(_) | Kind::Device(_) | Kind::Partition(_) => {}
        Kind::Link(l) => {
            if l.dhcp || !l.dns.is_empty() {
                push(&l.resolv_conf, key("resolv-conf"), Requires);
            }
        }
        Kind::Time(t) => t.floor.iter().for_each(|p| push(p, key("floor"), Requires)),
        Kind::Sysctl(_) => fixed("/proc/sys").iter().for_each(|p| push(p, key("key"), Requires)),
        Kind::Hostname(h) => push(&h.machine_id, key("machine-id"), Looks),
        Kind::Mount(m) => {
            push(&m.target, key("target"), Requires);
            if let Some(Source::Path(path)) = &m.source {
                push(path, key("source"), Requires);
            }
        }
        Kind::Filesystem(f) => {
            if let Source::Path(path) = &f.device {
                push(path, key("device"), Requires);
            }
        }
        Kind::Identity(i) => {
            push(&i.directory, key("directory"), Requires);
            push(&i.publish, key("publish"), Requires);
        }
        Kind::File(f) => {
            push(&f.path, key("path"), Requires);
            f.copy.iter().for_each(|p| push(p, key("copy"), Requires));
        }
        Kind::Oneshot(o) => push(&o.working_directory, key("working-directory"), Requires),
        Kind::Service(s) => {
            push(&s.working_directory, key("working-directory"), Requires);
            if let keel_unit::kinds::Ready::Socket(path) = &s.ready {
                push(path, key("ready"), Requires);
            }
        }
    }
    // What the kind itself needs, whatever its keys say.
    let needs: &[&str] = match &unit.kind {
        Kind::Module(m) if m.coldplug => &["/sys", MODULES],
        // Parameters stand on the kernel's command line too.
        Kind::Module(_) => &["/proc", MODULES],
        Kind::Device(_) | Kind::Partition(_) | Kind::Filesystem(_) => &["/sys", "/dev"],
        Kind::Mount(m) if m.source.as_ref().is_some_and(is_device) => &["/proc", "/sys", "/dev"],
        Kind::Mount(m) if m.target.as_str() != "/proc" => &["/proc"],
        Kind::Mount(_) | Kind::Target(_) => &[],
        Kind::Link(_) => &["/sys", "/proc"],
        Kind::Oneshot(_) | Kind::Service(_) => &["/dev", "/proc", "/run", "/sys/fs/cgroup"],
        _ => &[],
    };
    for path in needs.iter().filter_map(|p| fixed(p)) {
        push(&path, unit.span, Requires);
    }
    let program = match &unit.kind {
        Kind::Oneshot(o) => Some((&o.exec, &o.environment)),
        Kind::Service(s) => Some((&s.exec, &s.environment)),
        _ => None,
    };
    if let Some((exec, environment)) = program {
        let span = span_of_program(unit);
        push(&exec.program, span, Requires);
        for argument in &exec.arguments {
            // `--root /path`, `--root=/path`; a URL such as unix:///run/… is not ours to read.
            let value = argument.split_once('=').map_or(argument.as_str(), |(_, value)| value);
            AbsPath::parse(value).iter().for_each(|p| push(p, span, Requires));
        }
        for (name, value) in &environment.0 {
            // A list of directories, as in PATH, is one to look through.
            if let (Ok(path), false) = (AbsPath::parse(value), value.contains(':')) {
                push(&path, unit.span_of(&[kind, "environment", name]), Requires);
            }
        }
    }
    let looks = unit.condition.path_exists.iter().chain(&unit.condition.path_missing);
    for path in looks {
        push(path, unit.span_of(&["condition"]), Looks);
    }
    uses
}
