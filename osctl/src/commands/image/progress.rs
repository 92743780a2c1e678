//! What a person sees of a build while it runs, and Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use keel_image::Watch;

use crate::error::Failure;

/// A line on stderr that says what is being done, where stderr is a terminal; nothing elsewhere.
pub(super) struct Progress {
    bar: ProgressBar,
    stops: Arc<AtomicUsize>,
}

const WITHOUT_LENGTH: &str = "{spinner} {msg}";
const WITH_LENGTH: &str = "{spinner} {msg} [{bar:30}] {bytes}/{total_bytes}";
const TICK: Duration = Duration::from_millis(100);

impl Progress {
    /// From now on a Ctrl-C stops the build where that leaves nothing behind, and a second one at once.
    pub(super) fn new() -> Result<Self, Failure> {
        let stops = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&stops);
        ctrlc::set_handler(move || {
            if counter.fetch_add(1, Ordering::Relaxed) > 0 {
                std::process::exit(1);
            }
        })
        .map_err(|error| Failure::new("cannot watch for Ctrl-C").because(error))?;
        // Hidden by itself where stderr is no terminal.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.enable_steady_tick(TICK);
        Ok(Self { bar, stops })
    }
}

impl Watch for Progress {
    fn begin(&self, what: &str, bytes: Option<u64>) {
        let template = if bytes.is_some() { WITH_LENGTH } else { WITHOUT_LENGTH };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.reset();
        match bytes {
            Some(bytes) => self.bar.set_length(bytes),
            None => self.bar.unset_length(),
        }
        self.bar.set_message(what.to_owned());
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn cancelled(&self) -> bool {
        self.stops.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
