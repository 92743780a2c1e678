//! The kinds that have to do with the kernel: `module`, `sysctl`, `device`.

use crate::diagnostic::Diagnostic;
use crate::keys::{Fields, keys};
use crate::value::{
    AbsPath, Line, LinkName, ModuleName, PartLabel, SysctlKey, SysctlValue, Timespan,
};

/// Reports unless exactly one of the keys is written.
pub(super) fn exactly_one(fields: &mut Fields<'_>, keys: &[(&str, bool)]) {
    let set: Vec<_> = keys.iter().filter(|(_, set)| *set).map(|(key, _)| *key).collect();
    if set.len() == 1 {
        return;
    }
    let all = keys.iter().map(|(key, _)| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    let finding = match set.last() {
        None => Diagnostic::new("missing-key", fields.span(), format!("one of {all} is needed")),
        Some(last) => Diagnostic::new(
            "misplaced-key",
            fields.span_of(last),
            format!("only one of {all} may stand here"),
        ),
    };
    fields.report(finding);
}

keys! {
    /// Loads a kernel module with what it depends on, or, with `coldplug`, every module that the machine's own
    /// devices ask for by their MODALIAS. A module that is built in or loaded already is fine.
    pub struct Module {
        /// The module.
        name "name": Option<ModuleName>,
        /// Load what the devices of this machine ask for.
        coldplug "coldplug": bool = "false",
        /// Parameters for the module: `name=value`, with blanks between.
        parameters "parameters": Option<Line>,
        /// How long it may take.
        timeout "timeout": Option<Timespan>,
    }
    check = |module, fields| {
        exactly_one(fields, &[("name", module.name.is_some()), ("coldplug", module.coldplug)]);
    };

    /// Sets a kernel parameter below `/proc/sys`.
    pub struct Sysctl {
        /// The parameter.
        key "key": SysctlKey,
        /// Its value.
        value "value": SysctlValue,
        /// How long it may take.
        timeout "timeout": Option<Timespan>,
    }

    /// Waits until a piece of hardware is there.
    pub struct Device {
        /// A device node, such as `/dev/vda`.
        path "path": Option<AbsPath>,
        /// A network link.
        link "link": Option<LinkName>,
        /// A GPT partition by its name.
        partition "partition": Option<PartLabel>,
        /// How long to wait.
        timeout "timeout": Option<Timespan>,
    }
    check = |device, fields| exactly_one(fields, &[
        ("path", device.path.is_some()),
        ("link", device.link.is_some()),
        ("partition", device.partition.is_some()),
    ]);
}
