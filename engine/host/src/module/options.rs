//! What the operator says of modules: parameters and a blacklist, from the kernel command line and the units.
//!
//! The kernel applies `name.parameter=value` itself to what is part of it, and leaves the rest to whoever loads
//! modules; so the same words have to work here (Documentation/admin-guide/kernel-parameters).

use std::collections::{HashMap, HashSet};

use super::name::ModuleName;

/// Parameters by module, and modules that hardware alone must not bring in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    parameters: HashMap<ModuleName, String>,
    blacklist: HashSet<ModuleName>,
}

impl Options {
    /// Reads `/proc/cmdline`: `name.parameter=value` and `modprobe.blacklist=a,b` (also `module_blacklist=`, which
    /// the kernel itself obeys).
    pub fn from_command_line(line: &str) -> Self {
        let mut options = Self::default();
        for word in split_quoted(line) {
            // What stands behind `--` is for init, not for the kernel.
            if word == "--" {
                break;
            }
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (word, None),
            };
            match (key, value) {
                ("modprobe.blacklist" | "module_blacklist", Some(list)) => {
                    options.blacklist.extend(
                        list.split(',').filter(|name| !name.is_empty()).map(ModuleName::new),
                    );
                }
                _ => {
                    if let Some((module, parameter)) = key.split_once('.')
                        && !module.is_empty()
                        && !parameter.is_empty()
                    {
                        options.add_parameter(module, &word[module.len() + 1..]);
                    }
                }
            }
        }
        options
    }

    /// Adds parameters (`"max_loop=8"`) for whenever the module is loaded, also as a dependency of another.
    /// What is added later wins, as the kernel takes the last of two.
    pub fn add_parameter(&mut self, module: &str, parameter: &str) {
        let all = self.parameters.entry(ModuleName::new(module)).or_default();
        if !all.is_empty() {
            all.push(' ');
        }
        all.push_str(parameter);
    }

    /// The parameters of a module, and behind them `asked`: of two values of one parameter the kernel takes the last.
    pub(super) fn with(&self, module: &ModuleName, asked: &str) -> String {
        let own = self.parameters.get(module).map_or("", String::as_str);
        format!("{own} {asked}").trim().to_owned()
    }

    pub(super) fn is_blacklisted(&self, module: &ModuleName) -> bool {
        self.blacklist.contains(module)
    }
}

/// Splits at blanks outside double quotes, as the kernel's parse_args does; the quotes stay.
fn split_quoted(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    line.split(move |c: char| {
        if c == '"' {
            quoted = !quoted;
        }
        !quoted && c.is_ascii_whitespace()
    })
    .filter(|word| !word.is_empty())
}

/// Splits parameters into name and value; a bare name is a flag that is set.
pub(super) fn parameter_pairs(parameters: &str) -> impl Iterator<Item = (&str, &str)> {
    split_quoted(parameters).map(|word| match word.split_once('=') {
        Some((key, value)) => (key, value.trim_matches('"')),
        None => (word, "1"),
    })
}

/// Whether sysfs shows the value that was asked for: `Y` is `1`, and 0x10 is 16.
pub(super) fn same_value(wanted: &str, shown: &str) -> bool {
    fn flag(value: &str) -> Option<bool> {
        match value {
            "1" | "y" | "Y" | "on" => Some(true),
            "0" | "n" | "N" | "off" => Some(false),
            _ => None,
        }
    }
    fn number(value: &str) -> Option<i128> {
        match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
            Some(hex) => i128::from_str_radix(hex, 16).ok(),
            None => value.parse().ok(),
        }
    }
    let (wanted, shown) = (wanted.trim(), shown.trim());
    wanted == shown
        || flag(wanted).is_some_and(|value| flag(shown) == Some(value))
        || number(wanted).is_some_and(|value| number(shown) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        #[track_caller]
        fn check(line: &str, parameters: &[(&str, &str)], blacklist: &[&str]) {
            let options = Options::from_command_line(line);
            let expect = Options {
                parameters: parameters
                    .iter()
                    .map(|(m, p)| (ModuleName::new(m), (*p).to_owned()))
                    .collect(),
                blacklist: blacklist.iter().map(|m| ModuleName::new(m)).collect(),
            };
            assert_eq!(options, expect, "{line}");
        }
        check("console=ttyS0 quiet root=/dev/vda1", &[], &[]);
        check(
            "virtio-net.napi_tx=0 loop.max_loop=8\n",
            &[("virtio_net", "napi_tx=0"), ("loop", "max_loop=8")],
            &[],
        );
        check("kvm.a=1 kvm.b", &[("kvm", "a=1 b")], &[]);
        check("m.text=\"a b c\" quiet", &[("m", "text=\"a b c\"")], &[]);
        check("ip=10.0.0.1 m.a=1.5", &[("m", "a=1.5")], &[]);
        check(
            "modprobe.blacklist=nouveau,floppy modprobe.blacklist=pc-spkr",
            &[],
            &["nouveau", "floppy", "pc_spkr"],
        );
        check("module_blacklist=a", &[], &["a"]);
        check("a.b=1 -- c.d=2", &[("a", "b=1")], &[]);
        check(".x=1 y.=2", &[], &[]);
    }

    #[test]
    fn pairs() {
        let found: Vec<_> = parameter_pairs("a=1 b  c=\"x y\" ").collect();
        assert_eq!(found, [("a", "1"), ("b", "1"), ("c", "x y")]);
    }

    #[test]
    fn values_as_sysfs_shows_them() {
        let check = |wanted, shown, expect| {
            assert_eq!(same_value(wanted, shown), expect, "{wanted} {shown}")
        };
        check("8", "8\n", true);
        check("8", "16\n", false);
        check("1", "Y\n", true);
        check("n", "N\n", true);
        check("1", "N\n", false);
        check("0x10", "16\n", true);
        check("text", "text\n", true);
        check("2", "Y\n", false);
    }
}
