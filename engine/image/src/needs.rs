//! What a node's units and machine config ask of its image.

use keel_unit::{Kind, UnitSet};

use crate::modules::WantedModule;

/// What an image must carry, or tell its kernel, for these units to work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Kernel modules that are named: by the machine config first, then by units.
    pub modules: Vec<WantedModule>,
    /// Kernel arguments of the machine config.
    pub arguments: Vec<String>,
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
            arguments: kernel.arguments.iter().map(|a| a.as_str().to_owned()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_unit::{Input, lower};

    #[test]
    fn modules_of_config_and_units_and_kernel_arguments() {
        let mut input = Input::default();
        let unit = "description = \"o\"\n[module]\nname = \"overlay\"\ntimeout = \"1s\"\n";
        input.unit("units/overlay.toml", unit);
        input.config(
            "config.toml",
            "schema = 1\n[kernel]\nmodules = [\"dm-crypt\"]\narguments = [\"mitigations=off\"]\n",
        );
        let needs = Needs::of(&lower(input).unwrap());
        let named: Vec<_> = needs.modules.iter().map(|m| (&*m.name, &*m.by)).collect();
        assert_eq!(named, [("dm-crypt", "kernel.modules"), ("overlay", "module.overlay")]);
        assert_eq!(needs.arguments, ["mitigations=off"]);
    }
}
