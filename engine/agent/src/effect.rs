//! Whether a call has changed anything, where that decides in which files its record is kept.
//!
//! In maintenance anybody may call what changes the machine, as often as he likes: were each such call kept among the changes, a flood
//! of those that come to nothing would push out what was done. So whoever serves the call says what came of it, and it is kept when
//! both the call and its work are over, whichever is last: a caller who leaves early leaves no trace that differs from the truth.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::audit::Record;
use crate::calls::Shared;

/// What came of a call, shared by the call and by its work.
#[derive(Debug)]
pub(crate) struct Effect {
    shared: Arc<Shared>,
    changed: AtomicBool,
    record: Mutex<Option<Record>>,
}

impl Effect {
    /// Nothing has come of it yet.
    pub(crate) fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { shared, changed: AtomicBool::new(false), record: Mutex::default() })
    }

    /// Says whether the machine was changed, or may have been.
    pub(crate) fn changed(&self, changed: bool) {
        self.changed.store(changed, Ordering::Relaxed);
    }

    /// What is to be kept of the call, which is over.
    pub(crate) fn keep(&self, record: Record) {
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
    }
}

impl Drop for Effect {
    fn drop(&mut self) {
        let record = self.record.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(record) = record {
            self.shared.audit.called(record, *self.changed.get_mut());
        }
    }
}
