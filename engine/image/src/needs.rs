//! What a node's units and machine config ask of its image.

use keel_unit::{Kind, Unit, UnitSet};

use crate::kubelet::Kubelet;
use crate::modules::WantedModule;

/// What an image must carry, or tell its kernel, for these units to work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Kernel modules that are named: by the machine config first, then by units.
    pub modules: Vec<WantedModule>,
    /// Kernel arguments of the machine config.
    pub arguments: Vec<String>,
    /// The port at which the agent listens.
    pub api_port: u16,
    /// Programs that units run.
    pub programs: Vec<NeededProgram>,
    /// Programs that units look for before they run them, or that Keel runs for them: taken where they are to be had.
    pub useful: Vec<NeededProgram>,
    /// What the kubelet is told, if a unit runs one.
    pub kubelet: Option<Kubelet>,
}

/// A program that must be on the image, and the unit that runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededProgram {
    /// Its path on the node.
    pub path: String,
    /// The unit's name.
    pub unit: String,
}

impl Needs {
    /// Reads them off a validated set of units.
    #[must_use]
    pub fn of(set: &UnitSet) -> Self {
        let kernel = &set.config.kernel;
        let named = kernel.modules.iter().map(|name| (name.as_str(), "kernel.modules".to_owned()));
        let by_unit = set.units.iter().filter_map(|unit| match &unit.kind {
            Kind::Module(module) => Some((module.name.as_ref()?.as_str(), unit.name.to_string())),
            _ => None,
        });
        let modules =
            named.chain(by_unit).map(|(name, by)| WantedModule { name: name.to_owned(), by });
        Self {
            modules: modules.collect(),
            api_port: set.config.agent.listen.port(),
            arguments: kernel.arguments.iter().map(|a| a.as_str().to_owned()).collect(),
            programs: set.units.iter().filter_map(program).collect(),
            useful: set.units.iter().flat_map(useful).collect(),
            kubelet: Kubelet::of(set),
        }
    }
}

/// What Keel runs for a filesystem unit (keel-host, `disk/filesystem`).
const FILESYSTEM_TOOLS: [&str; 2] = ["/usr/bin/mkfs.ext4", "/usr/bin/e2fsck"];

/// What programs call that no unit names: containerd starts containers with these, and mounts with mount(8).
const COMPANIONS: [(&str, &[&str]); 2] = [
    ("/usr/bin/containerd", &["containerd-shim-runc-v2", "runc", "mount", "umount"]),
    ("/usr/bin/kubelet", &["mount", "umount"]),
];

fn useful(unit: &Unit) -> Vec<NeededProgram> {
    let needed = |path: String| NeededProgram { path, unit: unit.name.to_string() };
    let program = match &unit.kind {
        Kind::Filesystem(_) => {
            return FILESYSTEM_TOOLS.iter().map(|path| needed((*path).to_owned())).collect();
        }
        Kind::Oneshot(oneshot) => oneshot.exec.program.to_string(),
        Kind::Service(service) => service.exec.program.to_string(),
        _ => return Vec::new(),
    };
    let companions = COMPANIONS.iter().filter(|(of, _)| *of == program);
    let companions = companions.flat_map(|(_, names)| *names);
    let companions: Vec<_> = companions.map(|name| needed(format!("/usr/bin/{name}"))).collect();
    let looked_for = unit.condition.path_exists.iter().any(|path| path.as_str() == program);
    looked_for.then(|| needed(program)).into_iter().chain(companions).collect()
}

/// The program of a unit that cannot do without it. One that looks for its program first is skipped
/// where there is none, and what lies on the data partition comes later than the image.
fn program(unit: &Unit) -> Option<NeededProgram> {
    let program = match &unit.kind {
        Kind::Oneshot(oneshot) => &oneshot.exec.program,
        Kind::Service(service) => &service.exec.program,
        _ => return None,
    };
    let path = program.to_string();
    let later = ["/var/", "/run/"].iter().any(|dir| path.starts_with(dir));
    let looked_for = unit.condition.path_exists.contains(program);
    (!later && !looked_for).then(|| NeededProgram { path, unit: unit.name.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_unit::{Input, lower};

    #[test]
    fn what_config_and_units_ask_for() {
        let mut input = Input::default();
        let unit = "description = \"o\"\n[module]\nname = \"overlay\"\ntimeout = \"1s\"\n";
        input.unit("units/overlay.toml", unit);
        let service = |exec: &str, condition: &str| {
            format!(
                "description = \"s\"\n{condition}[service]\nexec = [\"{exec}\"]\ntimeout = \"1s\"\n"
            )
        };
        let looks = "[condition]\npath-exists = [\"/usr/bin/b\"]\n";
        input.unit("units/a.toml", service("/usr/bin/a", ""));
        input.unit("units/b.toml", service("/usr/bin/b", looks));
        input.unit("units/c.toml", service("/var/lib/keel/c", ""));
        input.config(
            "config.toml",
            "schema = 1\n[kernel]\nmodules = [\"dm-crypt\"]\narguments = [\"mitigations=off\"]\n",
        );
        let needs = Needs::of(&lower(input).unwrap());
        let named: Vec<_> = needs.modules.iter().map(|m| (&*m.name, &*m.by)).collect();
        assert_eq!(named, [("dm-crypt", "kernel.modules"), ("overlay", "module.overlay")]);
        assert_eq!(needs.arguments, ["mitigations=off"]);
        let useful: Vec<_> = needs.useful.iter().map(|p| (&*p.unit, &*p.path)).collect();
        assert_eq!(useful, [("b", "/usr/bin/b")]);
        let run: Vec<_> = needs.programs.iter().map(|p| (&*p.unit, &*p.path)).collect();
        assert_eq!(run, [("a", "/usr/bin/a")]);
    }
}
