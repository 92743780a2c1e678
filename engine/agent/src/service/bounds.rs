//! How much one request may name. What is refused is refused by the name of its field, with the bound.

use tonic::Status;

/// The most entries of a list, and the most bytes of a text in a request: far more than a machine has units, or a name has letters.
const MOST: usize = 1_024;
const LONGEST: usize = 256;

/// A text of a request.
pub(crate) fn text(field: &str, text: &str) -> Result<(), Status> {
    match text.len() {
        ..=LONGEST => Ok(()),
        long => Err(Status::invalid_argument(format!(
            "`{field}` is {long} bytes long; it may have {LONGEST}"
        ))),
    }
}

/// A list of a request, by its length.
pub(crate) fn list(field: &str, length: usize) -> Result<(), Status> {
    match length {
        ..=MOST => Ok(()),
        long => Err(Status::invalid_argument(format!(
            "`{field}` has {long} entries; it may have {MOST}"
        ))),
    }
}

/// The names of units.
pub(crate) fn units(units: &[String]) -> Result<(), Status> {
    list("units", units.len())?;
    units.iter().enumerate().try_for_each(|(at, unit)| text(&format!("units[{at}]"), unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(units: &[String], expect: &str) {
        let said = super::units(units).map_err(|status| {
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            status.message().to_owned()
        });
        assert_eq!(said.err().unwrap_or_default(), expect);
    }

    #[test]
    fn what_is_too_much_is_named() {
        check(&[], "");
        check(&vec!["web".to_owned(); MOST], "");
        check(&vec!["web".to_owned(); MOST + 1], "`units` has 1025 entries; it may have 1024");
        check(&["x".repeat(LONGEST)], "");
        let long = ["web".to_owned(), "x".repeat(LONGEST + 1)];
        check(&long, "`units[1]` is 257 bytes long; it may have 256");
    }
}
