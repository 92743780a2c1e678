//! What is counted.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// A call, as metrics tell it from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CallLabels {
    method: String,
    code: &'static str,
}

/// What is counted while the agent runs.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) calls: Family<CallLabels, Counter>,
    pub(crate) refused: Counter,
}

impl Metrics {
    /// Counts a call. There are as many methods as the table has, and one word for all others.
    pub(crate) fn called(&self, method: &str, code: &'static str) {
        self.calls.get_or_create(&CallLabels { method: method.to_owned(), code }).inc();
    }

    /// Counts a connection that was refused.
    pub(crate) fn refused(&self) {
        self.refused.inc();
    }
}
