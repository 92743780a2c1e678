//! Quantities: sizes, modes, weights, limits, signals.

use std::fmt;

use crate::diagnostic::Diagnostic;
use crate::keys::{Text, Value, mismatch};
use crate::shape::Shape;
use crate::tree::{Node, Value as Raw};

/// A number of bytes, written with a binary unit: `512`, `64KiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Text for ByteSize {
    const EXPECTED: &'static str = "a size such as \"64KiB\", \"512MiB\" or \"10GiB\"";
    const EXAMPLE: &'static str = "512MiB";
    const PATTERN: &'static str = r"^[0-9]+(B|KiB|MiB|GiB|TiB)$";

    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 =
            text[..digits].parse().map_err(|_| "it does not start with a number".to_owned())?;
        let unit = &text[digits..];
        let size = SIZES.iter().find(|(u, _)| *u == unit).map(|(_, s)| *s);
        let size = size.ok_or_else(|| match unit {
            "" => "a unit is missing (B, KiB, MiB, GiB or TiB)".to_owned(),
            "K" | "KB" | "kB" | "M" | "MB" | "G" | "GB" | "T" | "TB" => {
                format!("`{unit}` is ambiguous; write KiB, MiB, GiB or TiB")
            }
            _ => format!("`{}` is no unit (B, KiB, MiB, GiB or TiB)", crate::keys::clip(unit)),
        })?;
        // The kernel's own limit for sizes of files and devices.
        number
            .checked_mul(size)
            .filter(|b| *b <= i64::MAX as u64)
            .map(ByteSize)
            .ok_or("too large".to_owned())
    }
}

impl ByteSize {
    /// The size for people, rounded: `9.8 GiB`. Displayed as it is, a size is exact, and can be written in a file.
    pub fn rounded(self) -> String {
        match SIZES.iter().find(|(_, size)| self.0 >= *size) {
            Some((unit, size)) if *size > 1 => {
                format!("{:.1} {unit}", self.0 as f64 / *size as f64)
            }
            _ => format!("{} B", self.0),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZES
            .iter()
            .find(|(_, s)| self.0 >= *s && self.0.is_multiple_of(*s))
            .unwrap_or(&SIZES[4]);
        write!(f, "{}{}", self.0 / unit.1, unit.0)
    }
}

/// Permissions of a file, written in octal in a string: `0644`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileMode(pub u32);

impl Text for FileMode {
    const EXPECTED: &'static str = "an octal mode in quotes such as \"0644\"";
    const EXAMPLE: &'static str = "0644";
    const PATTERN: &'static str = r"^[0-7]{3,4}$";

    fn parse(text: &str) -> Result<Self, String> {
        let octal =
            (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        if !octal {
            return Err("not three or four octal digits".to_owned());
        }
        u32::from_str_radix(text, 8).map(FileMode).map_err(|e| e.to_string())
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// Reads an integer of a range of its own.
pub(crate) fn ranged(
    node: &Node,
    expected: &str,
    from: i64,
    to: i64,
    findings: &mut Vec<Diagnostic>,
) -> Option<i64> {
    match node.value {
        Raw::Integer(i) if (from..=to).contains(&i) => Some(i),
        Raw::Integer(i) => {
            let found = Diagnostic::new("out-of-range", node.span, format!("{i} is out of range"));
            findings.push(found.label(format!("expected {expected}")));
            None
        }
        _ => {
            findings.push(mismatch(node, expected));
            None
        }
    }
}

/// A share in relation to others, 1 to 10000 (cgroup v2 `cpu.weight`, default 100).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(pub u16);

impl Value for Weight {
    fn expected() -> String {
        "an integer from 1 to 10000".to_owned()
    }

    fn shape() -> Shape {
        Shape::Integer { from: 1, to: 10_000 }
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        ranged(node, &Self::expected(), 1, 10_000, findings).map(|w| Weight(w as u16))
    }
}

/// The exit code of a program, 0 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExitCode(pub u8);

impl Value for ExitCode {
    fn expected() -> String {
        "an exit code from 0 to 255".to_owned()
    }

    fn shape() -> Shape {
        Shape::Integer { from: 0, to: 255 }
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        ranged(node, &Self::expected(), 0, 255, findings).map(|w| ExitCode(w as u8))
    }
}

/// A limit of processor time in percent of one processor: `150%` is one and a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CpuLimit {
    /// Percent of one processor.
    pub percent: u32,
}

impl Text for CpuLimit {
    const EXPECTED: &'static str = "a share of one processor such as \"50%\" or \"200%\"";
    const EXAMPLE: &'static str = "50%";
    const PATTERN: &'static str = r"^0*[1-9][0-9]{0,6}%$";

    fn parse(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').ok_or("`%` is missing at the end")?;
        let digits = number.bytes().all(|b| b.is_ascii_digit());
        let percent = number.parse().ok().filter(|p| digits && (1..=1_000_000).contains(p));
        percent
            .map(|percent| CpuLimit { percent })
            .ok_or("not a number from 1 to 1000000".to_owned())
    }
}

crate::keys::words! {
    /// A signal that may be sent to stop a service (signal(7)).
    pub enum SignalName {
        /// Terminate.
        Term = "SIGTERM",
        /// Interrupt.
        Int = "SIGINT",
        /// Hang up.
        Hup = "SIGHUP",
        /// Quit.
        Quit = "SIGQUIT",
        /// Kill; cannot be caught.
        Kill = "SIGKILL",
        /// First signal for the program's own use.
        Usr1 = "SIGUSR1",
        /// Second signal for the program's own use.
        Usr2 = "SIGUSR2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Text + PartialEq + fmt::Debug>(text: &str, expect: Option<T>) {
        assert_eq!(T::parse(text).ok(), expect, "{text:?}");
    }

    #[test]
    fn quantities() {
        let rounded = |bytes: u64, expect: &str| assert_eq!(ByteSize(bytes).rounded(), expect);
        rounded(0, "0 B");
        rounded(1023, "1023 B");
        rounded(1536, "1.5 KiB");
        rounded(500_107_862_016, "465.8 GiB");
        rounded(10 << 40, "10.0 TiB");
        check("512B", Some(ByteSize(512)));
        check("64KiB", Some(ByteSize(65_536)));
        check("1TiB", Some(ByteSize(1 << 40)));
        check::<ByteSize>("1GB", None);
        check::<ByteSize>("1", None);
        check::<ByteSize>("", None);
        check::<ByteSize>("9999999999TiB", None);
        check("0644", Some(FileMode(0o644)));
        check("755", Some(FileMode(0o755)));
        check::<FileMode>("0o644", None);
        check::<FileMode>("0888", None);
        check::<FileMode>("77", None);
        check("50%", Some(CpuLimit { percent: 50 }));
        check::<CpuLimit>("0%", None);
        check::<CpuLimit>("50", None);
    }
}
