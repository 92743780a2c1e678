//! Which machine id holds. Pure.

use keel_unit::keys::Text;
use keel_unit::value::MachineId;

use super::IdentityErrorKind;

/// What to do about the machine id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The one that is stored holds.
    Keep(MachineId),
    /// None is stored: store the one that the machine config gives.
    Store(MachineId),
    /// None is stored and none is given: make one.
    Make,
}

/// Decides by the text of the stored file, if there is one, and by the machine config.
///
/// # Errors
/// When what is stored is no machine id, or another one than the config's. Neither is a reason to make a new one: a machine
/// whose id changes is a new machine to everyone who knew the old one.
pub fn plan(
    stored: Option<&[u8]>,
    configured: Option<&MachineId>,
) -> Result<Plan, IdentityErrorKind> {
    let Some(stored) = stored else {
        return Ok(configured.map_or(Plan::Make, |id| Plan::Store(id.clone())));
    };
    let text = str::from_utf8(stored).map_err(|_| "not UTF-8".to_owned());
    let id = text.and_then(|text| MachineId::parse(text.strip_suffix('\n').unwrap_or(text)));
    let id = id.map_err(|reason| IdentityErrorKind::Malformed { reason })?;
    match configured {
        Some(configured) if *configured != id => {
            Err(IdentityErrorKind::Mismatch { stored: id, configured: configured.clone() })
        }
        _ => Ok(Plan::Keep(id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789abcdef0123456789abcdef";
    const B: &str = "fedcba9876543210fedcba9876543210";

    fn check(stored: Option<&str>, configured: Option<&str>, expect: &str) {
        let configured = configured.map(|id| MachineId::parse(id).unwrap());
        let told = match plan(stored.map(str::as_bytes), configured.as_ref()) {
            Ok(Plan::Keep(id)) => format!("keep {id}"),
            Ok(Plan::Store(id)) => format!("store {id}"),
            Ok(Plan::Make) => "make".to_owned(),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(told, expect, "{stored:?} {configured:?}");
    }

    #[test]
    fn a_stored_id_is_kept_or_an_error_but_never_replaced() {
        check(None, None, "make");
        check(None, Some(A), &format!("store {A}"));
        check(Some(A), None, &format!("keep {A}"));
        check(Some(&format!("{A}\n")), Some(A), &format!("keep {A}"));
        check(Some(A), Some(B), &format!("error: the disk says {A}, the machine config says {B}"));
        for malformed in [
            "",
            "\n",
            "uninitialized\n",
            &A[1..],
            &A.to_uppercase(),
            &format!("{A}\n\n"),
            &format!(" {A}"),
        ] {
            let expect = "error: it holds no machine id, and a new one is not made over it: not 32 lowercase hexadecimal digits";
            check(Some(malformed), None, expect);
            check(Some(malformed), Some(A), expect);
        }
        let zeros = "0".repeat(32);
        check(
            Some(&zeros),
            None,
            "error: it holds no machine id, and a new one is not made over it: all zero",
        );
    }
}
