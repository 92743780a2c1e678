//! How patient the client is.

use std::time::Duration;

/// The waits of the client. The default is what a node uses; a test shortens them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Wait before a DISCOVER or REQUEST is sent again; doubles each time (RFC 2131 4.1: 4 s).
    /// A quarter of it is the jitter, so that a rack that powers up together does not stay in step.
    pub retry_first: Duration,
    /// Upper bound of that wait (RFC 2131 4.1: 64 s), kept up for as long as it takes.
    pub retry_max: Duration,
    /// How often one offer is requested before another is looked for.
    pub request_attempts: u32,
    /// How many ARP probes ask for an address before it is used.
    pub probes: u32,
    /// Wait between two probes.
    ///
    /// RFC 5227 spends up to seven seconds, because its hosts pick addresses by themselves. Here a
    /// server picked one and hosts on a wired link answer within a millisecond, so the default
    /// asks three times within half a second; the address is then guarded for as long as it is used.
    pub probe_gap: Duration,
    /// Wait for an answer to the last probe.
    pub probe_wait: Duration,
    /// Wait between the two announcements that follow (RFC 5227 ANNOUNCE_INTERVAL).
    pub announce_gap: Duration,
    /// A second conflict within this time gives the address up (RFC 5227 DEFEND_INTERVAL).
    pub defend_interval: Duration,
    /// Wait after a DECLINE (RFC 2131 3.1: at least 10 s).
    pub decline_wait: Duration,
    /// Least wait between two renewals or rebindings (RFC 2131 4.4.5: 60 s).
    pub renew_min: Duration,
    /// A shorter lease is refused: it would only keep the machine busy renewing.
    pub shortest_lease: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            retry_first: Duration::from_secs(4),
            retry_max: Duration::from_secs(64),
            request_attempts: 3,
            probes: 3,
            probe_gap: Duration::from_millis(100),
            probe_wait: Duration::from_millis(300),
            announce_gap: Duration::from_secs(2),
            defend_interval: Duration::from_secs(10),
            decline_wait: Duration::from_secs(10),
            renew_min: Duration::from_secs(60),
            shortest_lease: Duration::from_secs(10),
        }
    }
}

impl Timing {
    /// The wait after attempt number `attempt` (from 0): exponential, bounded, with jitter.
    pub(super) fn backoff(&self, attempt: u32, rng: &mut fastrand::Rng) -> Duration {
        let doubled = self.retry_first.saturating_mul(1 << attempt.min(16));
        let jitter = self.retry_first.mul_f64(rng.f64() / 2.0);
        doubled.min(self.retry_max) + jitter - self.retry_first / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2131 4.1: 4, 8, 16, 32, 64 seconds, each one second more or less.
    #[test]
    fn backoff_doubles_and_is_bounded() {
        let timing = Timing::default();
        let mut rng = fastrand::Rng::with_seed(1);
        for (attempt, expect) in
            [(0, 4), (1, 8), (2, 16), (3, 32), (4, 64), (5, 64), (40, 64), (u32::MAX, 64)]
        {
            for _ in 0..100 {
                let wait = timing.backoff(attempt, &mut rng).as_secs_f64();
                assert!((wait - f64::from(expect)).abs() <= 1.0, "attempt {attempt}: {wait}");
            }
        }
    }
}
