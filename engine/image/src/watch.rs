//! What somebody who waits for a build sees of it, and the way to stop it.

/// Told what a build is doing. All of it is optional: [`Unwatched`] looks at nothing.
pub trait Watch {
    /// A part of the work begins: `what` is for people, `bytes` how much there is to do where that is known.
    fn begin(&self, what: &str, bytes: Option<u64>) {
        let _ = (what, bytes);
    }

    /// So many bytes more of that part are done.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Whether the build is to stop, which it does soon and without a trace.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Nobody waits.
#[derive(Debug, Clone, Copy)]
pub struct Unwatched;

impl Watch for Unwatched {}
