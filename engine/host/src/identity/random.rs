//! Random bits from the kernel.

use std::io;

/// `N` bytes from getrandom(2). Early in boot it blocks until the kernel's generator is seeded, which is what an id that
/// must be unlike every other machine's needs.
pub(crate) fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        let rest = &mut bytes[filled..];
        #[expect(
            unsafe_code,
            reason = "std and nix have no getrandom; the pointer and length are those of one live slice"
        )]
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => filled += got,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(bytes)
}

/// A random UUID, version 4 of RFC 9562 (the form that RFC 4122 laid down).
pub(crate) fn random_uuid() -> io::Result<uuid::Uuid> {
    Ok(uuid::Builder::from_random_bytes(random_bytes()?).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ_and_are_version_4() {
        let (a, b) = (random_uuid().unwrap(), random_uuid().unwrap());
        assert_ne!(a, b);
        assert_eq!((a.get_version_num(), a.get_variant()), (4, uuid::Variant::RFC4122));
    }
}
