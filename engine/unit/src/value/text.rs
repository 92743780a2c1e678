//! Names and texts with rules of their own.

use std::fmt;

use super::net::name;
use crate::diagnostic::Diagnostic;
use crate::keys::{Text, Value, mismatch};
use crate::shape::Shape;
use crate::tree::{Node, Value as Raw};

fn plain(text: &str, longest: usize, extra: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > longest {
        return Err(format!("not 1 to {longest} characters"));
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || extra.contains(*c))) {
        Some(c) => Err(format!("`{}` may not stand here", c.escape_default())),
        None => Ok(()),
    }
}

fn no_control(text: &str) -> Result<(), String> {
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("a control character ({})", c.escape_default())),
        None => Ok(()),
    }
}

name! {
    /// The name of a GPT partition: at most 36 UTF-16 units (UEFI 2.10, table 5.7).
    PartLabel, "a partition name of at most 36 characters", "keel-data", r"^[^\x00-\x1f\x7f]{1,36}$", |text| {
        if text.is_empty() || text.encode_utf16().count() > 36 {
            return Err("not 1 to 36 characters".to_owned());
        }
        no_control(text)
    }
}

name! {
    /// The label of a filesystem: at most 16 bytes, which is what ext4 holds.
    FsLabel, "a filesystem label of at most 16 bytes", "data", r"^[A-Za-z0-9._-]{1,16}$", |text| plain(text, 16, "-_.")
}

name! {
    /// The type of a filesystem as mount(2) takes it.
    FsType, "a filesystem type such as \"ext4\" or \"tmpfs\"", "ext4", r"^[A-Za-z0-9._-]{1,32}$", |text| plain(text, 32, "-_.")
}

name! {
    /// One mount option as mount(8) takes it: `nosuid`, `mode=0755`.
    MountOption, "a mount option such as \"nosuid\" or \"mode=0755\"", "nosuid", r"^[^,\x00-\x1f\x7f]+$", |text| {
        if text.contains(',') {
            return Err("one option per item, without commas".to_owned());
        }
        if text.is_empty() { return Err("it is empty".to_owned()); }
        no_control(text)
    }
}

name! {
    /// The name of a kernel module; `-` and `_` mean the same.
    ModuleName, "a module name such as \"overlay\"", "overlay", r"^[A-Za-z0-9_-]{1,56}$", |text| plain(text, 56, "-_")
}

impl ModuleName {
    /// The one form of all that mean the same.
    pub fn canonical(&self) -> String {
        self.as_str().replace('-', "_")
    }
}

name! {
    /// A line of text without control characters.
    Line, "a line of text", "a line of text", r"^[^\x00-\x1f\x7f]*$", no_control
}

name! {
    /// A text of any content.
    Content, "a text", "a text", r"", |_| Ok(())
}

name! {
    /// One argument of a program.
    Argument, "an argument", "--v=2", r"", |_| Ok(())
}

name! {
    /// The name of an environment variable.
    EnvName, "the name of an environment variable such as \"PATH\"", "PATH", r"^[A-Za-z_][A-Za-z0-9_]{0,254}$", |text| {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return Err("it starts with a digit".to_owned());
        }
        plain(text, 255, "_")
    }
}

name! {
    /// A pattern with `*` and `?`.
    Glob, "a pattern such as \"Samsung SSD 9*\"", "Samsung SSD 9*", r"^[^\x00-\x1f\x7f]{1,255}$", |text| {
        if text.is_empty() || text.len() > 255 { return Err("not 1 to 255 characters".to_owned()); }
        no_control(text)
    }
}

name! {
    /// One argument of the kernel: `keel.debug` or `console=ttyS0`.
    KernelArgument, "a kernel argument such as \"console=ttyS0\"", "console=ttyS0", r"^[^\s\x00-\x1f\x7f]{1,1024}$", |text| {
        if text.is_empty() || text.len() > 1024 { return Err("not 1 to 1024 characters".to_owned()); }
        if text.chars().any(char::is_whitespace) { return Err("one argument per item, without blanks".to_owned()); }
        no_control(text)
    }
}

name! {
    /// The name of a kernel parameter below `/proc/sys`: `net.ipv4.ip_forward`.
    SysctlKey, "a sysctl such as \"net.ipv4.ip_forward\"", "net.ipv4.ip_forward", r"^[A-Za-z0-9_@-]+([./][A-Za-z0-9_@-]+)*$", |text| {
        plain(text, 255, "-_./@")?;
        match text.split(['.', '/']).find(|p| p.is_empty()) {
            Some(_) => Err("an empty part between dots".to_owned()),
            None => Ok(()),
        }
    }
}

impl SysctlKey {
    /// The one form of all that mean the same, by the rule of sysctl(8): the first separator says which of `.` and `/` separates;
    /// the other then stands for a `.` inside of a part.
    pub fn canonical(&self) -> String {
        let swap = |c: char| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        };
        match self.0.find(['.', '/']).is_some_and(|at| self.0[at..].starts_with('/')) {
            true => self.0.chars().map(swap).collect(),
            false => self.0.clone(),
        }
    }
}

/// The value of a kernel parameter: a string, an integer or a boolean (1 or 0).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SysctlValue(String);

impl SysctlValue {
    /// The text that is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SysctlValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for SysctlValue {
    fn expected() -> String {
        "an integer, true, false or a string".to_owned()
    }

    fn shape() -> Shape {
        Shape::OneOf(vec![
            Shape::Integer { from: i64::MIN, to: i64::MAX },
            Shape::Boolean,
            Line::shape(),
        ])
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        match &node.value {
            Raw::Integer(i) => Some(SysctlValue(i.to_string())),
            Raw::Boolean(b) => Some(SysctlValue(u8::from(*b).to_string())),
            Raw::String(_) => {
                Line::decode(node, findings).map(|line| SysctlValue(line.as_str().to_owned()))
            }
            _ => {
                findings.push(mismatch(node, &Self::expected()));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Text>(text: &str, expect: bool) {
        assert_eq!(T::parse(text).is_ok(), expect, "{text:?}");
    }

    #[test]
    fn names() {
        check::<PartLabel>("keel-data", true);
        check::<PartLabel>(&"ä".repeat(36), true);
        check::<PartLabel>(&"a".repeat(37), false);
        check::<FsType>("ext4", true);
        check::<FsType>("ext4 ", false);
        check::<MountOption>("mode=0755", true);
        check::<MountOption>("nosuid,nodev", false);
        check::<ModuleName>("br_netfilter", true);
        check::<ModuleName>("../evil", false);
        check::<EnvName>("PATH", true);
        check::<EnvName>("1A", false);
        check::<EnvName>("A=B", false);
        check::<SysctlKey>("net.ipv4.ip_forward", true);
        check::<SysctlKey>("net..ipv4", false);
        check::<SysctlKey>("net.*.forwarding", false);
        let canonical = |key| SysctlKey::parse(key).unwrap().canonical();
        assert_eq!(canonical("net/ipv4/conf/eth0.100/x"), "net.ipv4.conf.eth0/100.x");
        assert_eq!(canonical("net.ipv4.conf.eth0/100.x"), "net.ipv4.conf.eth0/100.x");
        assert_ne!(canonical("net.ipv4.conf.eth0.100.x"), "net.ipv4.conf.eth0/100.x");
        check::<SysctlKey>("../etc/passwd", false);
        check::<KernelArgument>("a b", false);
        check::<FsLabel>("keel-data", true);
        check::<FsLabel>("seventeen-letters", false);
    }
}
