//! What the fuzz targets reach: certificates that strangers send, and files of them.

use crate::trust;

/// Reads the bytes as a client's certificate, as a CA, as a revocation list, and as a file of either.
///
/// # Panics
/// If a name is shown with something in it that a terminal would obey.
pub fn certificates(bytes: &[u8]) {
    for shown in trust::fuzz(bytes) {
        assert!(!shown.chars().any(char::is_control), "{shown:?} can be shown");
    }
}
