//! Identifiers: GUIDs and machine ids.

use std::fmt;

use crate::keys::Text;

/// A GUID in its text form (RFC 4122); GPT stores the first three fields little-endian (UEFI 2.10, appendix A).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(pub uuid::Uuid);

impl Guid {
    /// The sixteen bytes as GPT stores them.
    pub fn to_gpt_bytes(self) -> [u8; 16] {
        self.0.to_bytes_le()
    }
}

impl Text for Guid {
    const EXPECTED: &'static str = "a GUID such as \"0FC63DAF-8483-4772-8E79-3D69D8477DE4\"";
    const EXAMPLE: &'static str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
    const PATTERN: &'static str = r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$";

    fn parse(text: &str) -> Result<Self, String> {
        if text.len() != 36 {
            return Err("not 8-4-4-4-12 hexadecimal digits".to_owned());
        }
        uuid::Uuid::try_parse(text)
            .map(Guid)
            .map_err(|_| "not 8-4-4-4-12 hexadecimal digits".to_owned())
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}", self.0.hyphenated())
    }
}

/// A machine id: 32 lowercase hexadecimal digits, not all zero (machine-id(5)).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MachineId(String);

impl MachineId {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for MachineId {
    const EXPECTED: &'static str = "a machine id: 32 lowercase hexadecimal digits";
    const EXAMPLE: &'static str = "0123456789abcdef0123456789abcdef";
    const PATTERN: &'static str = r"^[0-9a-f]{32}$";

    fn parse(text: &str) -> Result<Self, String> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 32 || !text.bytes().all(hex) {
            return Err("not 32 lowercase hexadecimal digits".to_owned());
        }
        if text.bytes().all(|b| b == b'0') {
            return Err("all zero".to_owned());
        }
        Ok(MachineId(text.to_owned()))
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Text>(text: &str, expect: bool) {
        assert_eq!(T::parse(text).is_ok(), expect, "{text:?}");
    }

    #[test]
    fn identifiers() {
        check::<Guid>("0FC63DAF-8483-4772-8E79-3D69D8477DE4", true);
        check::<Guid>("0fc63daf-8483-4772-8e79-3d69d8477de4", true);
        check::<Guid>("0fc63daf848347728e793d69d8477de4", false);
        check::<Guid>("{0fc63daf-8483-4772-8e79-3d69d8477d}", false);
        check::<Guid>("0gc63daf-8483-4772-8e79-3d69d8477de4", false);
        check::<MachineId>("0123456789abcdef0123456789abcdef", true);
        check::<MachineId>("0123456789ABCDEF0123456789abcdef", false);
        check::<MachineId>("00000000000000000000000000000000", false);
        check::<MachineId>("0123", false);
    }
}
