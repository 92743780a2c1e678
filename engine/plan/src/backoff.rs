//! Exponential backoff with jitter that a seed decides: the same seed gives the same plan, on a laptop and on the node.

use std::time::Duration;

/// Pauses that grow: `initial`, then `factor` times as long each time, up to `max`; each shortened by up to `jitter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub initial: Duration,
    /// The longest pause.
    pub max: Duration,
    /// How many times longer each pause is than the one before; 0 counts as 1.
    pub factor: u32,
    /// By how much a pause may be shortened, in percent, so that machines that failed together do not retry together.
    /// Shortened, not stretched: `max` stays the longest. More than 100 counts as 100.
    pub jitter: u8,
}

impl Default for Backoff {
    /// 1 s, doubling up to 1 min, 20 % jitter.
    fn default() -> Self {
        Backoff {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(60),
            factor: 2,
            jitter: 20,
        }
    }
}

impl Backoff {
    /// The pause before repetition number `n` (the first is 0), in whole milliseconds, the resolution of timers.
    pub fn delay(&self, n: u32, random: u64) -> Duration {
        let max = millis(self.max);
        let mut full = millis(self.initial).min(max);
        // Not a power: `n` counts for weeks. The pause stops growing long before, at the latest when it overflows.
        for _ in 0..n {
            if full >= max || self.factor <= 1 || full == 0 {
                break;
            }
            full = full.saturating_mul(u64::from(self.factor)).min(max);
        }
        let spread = u128::from(full) * u128::from(self.jitter.min(100)) / 100;
        // `random` over 2^64 is a fraction in [0, 1); of at most `spread`, so this fits again.
        let less = (spread * u128::from(random)) >> 64;
        Duration::from_millis(full - less as u64)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The random number that belongs to these three and to no others: splitmix64 (Steele, Lea and Flood, 2014), which
/// needs no state to be carried along.
pub(crate) fn random(seed: u64, unit: u32, attempt: u32) -> u64 {
    let mut z =
        seed ^ (u64::from(unit) << 32 | u64::from(attempt)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(backoff: Backoff, random: u64, expect_ms: &[u64]) {
        let got: Vec<u64> =
            (0..expect_ms.len() as u32).map(|n| millis(backoff.delay(n, random))).collect();
        assert_eq!(got, expect_ms, "{backoff:?} with {random:#x}");
    }

    #[test]
    fn pauses_grow_up_to_the_longest_and_jitter_only_shortens() {
        let plain = Backoff { jitter: 0, max: Duration::from_secs(5), ..Backoff::default() };
        check(plain, u64::MAX, &[1000, 2000, 4000, 5000, 5000]);
        check(Backoff { factor: 0, ..plain }, 0, &[1000, 1000, 1000]);
        check(Backoff { initial: Duration::from_secs(9), ..plain }, 0, &[5000, 5000]);
        check(Backoff { initial: Duration::ZERO, ..plain }, 0, &[0, 0, 0]);
        let half = Backoff { jitter: 50, ..plain };
        check(half, 0, &[1000, 2000]);
        check(half, 1 << 63, &[750, 1500]);
        check(half, u64::MAX, &[501, 1001]);
        check(Backoff { jitter: 200, ..plain }, u64::MAX, &[1, 1]);
    }

    #[test]
    fn the_longest_run_of_failures_costs_nothing_and_does_not_overflow() {
        let vast = Backoff {
            initial: Duration::from_secs(1),
            max: Duration::MAX,
            factor: u32::MAX,
            jitter: 0,
        };
        assert_eq!(vast.delay(u32::MAX, 0), Duration::from_millis(u64::MAX));
        let flat = Backoff { factor: 1, max: Duration::MAX, ..vast };
        assert_eq!(flat.delay(u32::MAX, 0), Duration::from_secs(1));
    }

    #[test]
    fn random_numbers_differ_by_seed_unit_and_attempt_and_repeat_for_the_same() {
        let mut seen: Vec<u64> = Vec::new();
        for seed in 0..4 {
            for unit in 0..4 {
                for attempt in 0..4 {
                    seen.push(random(seed, unit, attempt));
                }
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 64);
        assert_eq!(random(7, 1, 2), random(7, 1, 2));
    }
}
