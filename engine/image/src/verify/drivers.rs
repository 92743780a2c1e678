//! Whether every driver that the graph asks for is in the image, or in its kernel.

use std::collections::BTreeMap;

use keel_unit::diagnostic::nearest;
use keel_unit::kinds::{Module, Mount};
use keel_unit::select::alias;
use keel_unit::{Diagnostic, Kind, Unit};

use super::archive::{self, Files};
use super::content::Content;
use super::{Context, Findings, span_of};
use crate::modules::{normal, parse_alias, parse_dep, parse_softdep};

/// Filesystems that are part of every kernel of a node, and have no module anywhere.
const CORE_FILESYSTEMS: [&str; 22] = [
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "hugetlbfs",
    "mqueue",
    "none",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "bdev",
];

/// The drivers of an image: in files, and in the kernel.
#[derive(Debug, Default)]
pub(super) struct Drivers {
    release: String,
    /// Name -> its file and those of what it needs.
    dep: BTreeMap<String, Vec<String>>,
    builtin: Vec<String>,
    /// Pattern and module, or builtin.
    aliases: Vec<(String, String)>,
    softdep: Vec<(String, Vec<String>)>,
    /// Whether there are any indexes at all.
    indexed: bool,
}

/// Where a driver is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the kernel.
    Builtin,
    /// In these modules.
    Loadable(Vec<String>),
    Nowhere,
}

impl Drivers {
    /// Reads the indexes of that release's modules.
    pub(super) fn read(files: &Files, release: &str) -> Self {
        let dir = directory(release);
        let text = |index: &str| files.text(&format!("{dir}/{index}"));
        let lines = |index: &str| text(index).unwrap_or_default().lines();
        let modinfo = text("modules.builtin.modinfo").unwrap_or_default().split('\0');
        let builtin_aliases = modinfo.filter_map(|entry| {
            let (key, value) = entry.split_once('=')?;
            Some((value.to_owned(), normal(key.strip_suffix(".alias")?)))
        });
        let aliases = lines("modules.alias").filter_map(parse_alias).chain(builtin_aliases);
        Self {
            release: release.to_owned(),
            dep: lines("modules.dep").filter_map(parse_dep).collect(),
            builtin: lines("modules.builtin").map(normal).collect(),
            aliases: aliases.map(|(pattern, name)| (alias::underscored(&pattern), name)).collect(),
            softdep: lines("modules.softdep").filter_map(parse_softdep).collect(),
            indexed: text("modules.dep").is_some(),
        }
    }

    /// Where the driver of that name is; an alias of modules is a name too.
    pub(super) fn find(&self, name: &str) -> Place {
        let own = normal(name);
        if self.dep.contains_key(&own) {
            return Place::Loadable(vec![own]);
        }
        if self.builtin.contains(&own) {
            return Place::Builtin;
        }
        self.serving(name)
    }

    /// Where the drivers are that serve a device.
    pub(super) fn serving(&self, modalias: &str) -> Place {
        let modalias = alias::underscored(modalias);
        let all = self.aliases.iter().filter(|(pattern, _)| alias::matches(pattern, &modalias));
        let mut names: Vec<&String> = all.map(|(_, name)| name).collect();
        names.sort();
        names.dedup();
        let loadable: Vec<String> = names
            .iter()
            .filter(|name| self.dep.contains_key(**name))
            .map(|n| (*n).clone())
            .collect();
        match (loadable.is_empty(), names.iter().any(|name| !self.dep.contains_key(*name))) {
            (_, true) => Place::Builtin,
            (false, _) => Place::Loadable(loadable),
            (true, _) => Place::Nowhere,
        }
    }

    fn similar(&self, name: &str) -> Option<&str> {
        let known = self.dep.keys().chain(&self.builtin);
        nearest(&normal(name), known.map(String::as_str))
    }
}

fn directory(release: &str) -> String {
    format!("/lib/modules/{release}")
}

pub(super) fn check(context: &Context<'_>, unit: &Unit, found: &mut Findings) {
    match &unit.kind {
        Kind::Module(module) => module_unit(context, unit, module, found),
        Kind::Mount(mount) => mount_unit(context, unit, mount, found),
        _ => {}
    }
}

fn module_unit(context: &Context<'_>, unit: &Unit, module: &Module, found: &mut Findings) {
    let drivers = &context.drivers;
    let Some(name) = &module.name else {
        if !drivers.indexed {
            let message = format!("the image has no {}/modules.dep", directory(&drivers.release));
            let finding = Diagnostic::new("not-in-image", span_of(unit, "coldplug"), message);
            found.push(finding.label("no driver can be found for any device"));
        }
        return;
    };
    let at = span_of(unit, "name");
    let names = match drivers.find(name.as_str()) {
        Place::Builtin => return,
        Place::Loadable(names) => names,
        Place::Nowhere => {
            let message = format!("the image has no module {name} for kernel {}", drivers.release);
            let finding = Diagnostic::new("module-missing", at, message);
            let finding = finding.label(format!("{} loads it", unit.name));
            found.push(match drivers.similar(name.as_str()) {
                Some(near) => finding.help(format!("did you mean `{near}`?")),
                None => finding.help(
                    "build the image again with this config; if the kernel has no such module, take it out",
                ),
            });
            return;
        }
    };
    for name in names {
        for file in drivers.dep.get(&name).into_iter().flatten() {
            let path = format!("{}/{file}", directory(&drivers.release));
            let wrong = module_file(&context.image.files, &path, &drivers.release);
            let Some(wrong) = wrong else { continue };
            let finding = Diagnostic::new("module-missing", at, wrong);
            let why = match normal(file) == name {
                true => format!("{} loads it", unit.name),
                false => format!("{name} needs it"),
            };
            found.push(finding.label(why).help("build the image again"));
        }
        for soft in
            drivers.softdep.iter().filter(|(of, _)| *of == name).flat_map(|(_, names)| names)
        {
            if drivers.find(soft) == Place::Nowhere {
                let message = format!("the image has no module {soft}, which {name} likes to have");
                found.note(
                    Diagnostic::new("soft-dependency", at, message).label("it is loaded without"),
                );
            }
        }
    }
}

/// What is wrong with a module's file.
fn module_file(files: &Files, path: &str, release: &str) -> Option<String> {
    match files.resolve(path).map(|(_, file)| &file.kind) {
        Some(archive::Kind::Regular { content: Content::Module(Some(built_for)), .. })
            if built_for != release =>
        {
            Some(format!("{path} is built for kernel {built_for}, and the image's is {release}"))
        }
        Some(archive::Kind::Regular { .. }) => None,
        _ => Some(format!("the image has no {path}")),
    }
}

fn mount_unit(context: &Context<'_>, unit: &Unit, mount: &Mount, found: &mut Findings) {
    let Some(fstype) = mount.fstype.as_ref().map(|fstype| fstype.as_str()) else { return };
    let is_bind = mount.options.iter().any(|o| matches!(o.as_str(), "bind" | "rbind"));
    if CORE_FILESYSTEMS.contains(&fstype) || is_bind {
        return;
    }
    let drivers = &context.drivers;
    let at = span_of(unit, "fstype");
    let names = match (drivers.find(fstype), drivers.serving(&format!("fs-{fstype}"))) {
        (Place::Builtin, _) | (_, Place::Builtin) => return,
        (Place::Loadable(names), _) | (_, Place::Loadable(names)) => names,
        (Place::Nowhere, Place::Nowhere) => {
            let message =
                format!("kernel {} has no driver for {fstype} in this image", drivers.release);
            let finding = Diagnostic::new("module-missing", at, message);
            found.push(finding.label(format!("{} cannot be mounted", unit.name)).help(format!(
                "name it in a unit with `[module] name = \"{fstype}\"` or in kernel.modules, and build the image again"
            )));
            return;
        }
    };
    // No modprobe is called: the kernel knows the filesystem once a unit has loaded it.
    let loaded = context.units.iter().any(|other| match &other.kind {
        Kind::Module(module) => module.name.as_ref().is_some_and(|name| {
            let name = normal(name.as_str());
            names.contains(&name)
                || names.iter().any(|driver| match drivers.find(&name) {
                    Place::Loadable(loads) => loads.contains(driver),
                    _ => false,
                })
        }),
        _ => false,
    });
    if !loaded {
        let message = format!("no unit loads the driver of {fstype}");
        let finding = Diagnostic::new("module-not-loaded", at, message);
        found.push(finding.label(format!("the image has it as a module, {}", names.join(", "))).help(format!(
            "add a unit with `[module] name = \"{}\"` and let {} require it, or name it in kernel.modules",
            names[0], unit.name
        )));
    }
}
