//! Whether the machine is quiet enough for a figure to mean something.

use std::fs;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::command::Failure;

/// How long the machine is watched.
const WATCHED: Duration = Duration::from_secs(2);

/// What else the machine did, before it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Machine {
    /// The load of the last minute.
    pub(super) load: f64,
    /// Percent of all processors' time that others used.
    pub(super) busy: f64,
    /// Percent that the hypervisor gave to others.
    pub(super) steal: f64,
    /// Percent of the last ten seconds in which something waited for a processor.
    pub(super) pressure: f64,
}

impl Machine {
    /// Watches it for a moment.
    pub(super) fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let before = Ticks::parse(&read("/proc/stat"));
        thread::sleep(WATCHED);
        let after = Ticks::parse(&read("/proc/stat"));
        let (busy, steal) = after.since(&before);
        Self {
            load: first_number(&read("/proc/loadavg")).unwrap_or(0.0),
            busy,
            steal,
            pressure: pressure(&read("/proc/pressure/cpu")).unwrap_or(0.0),
        }
    }

    /// Why a figure that is taken now means little; nothing if it is good.
    pub(super) fn trouble(&self) -> Option<String> {
        let limits = [
            ("others use", self.busy, 10.0),
            ("the hypervisor takes", self.steal, 2.0),
            ("something waits for a processor for", self.pressure, 10.0),
        ];
        let over: Vec<_> = limits
            .iter()
            .filter(|(_, value, limit)| value > limit)
            .map(|(what, value, _)| format!("{what} {value:.0} % of the time"))
            .collect();
        (!over.is_empty()).then(|| over.join(", "))
    }

    /// Warns of a machine that is not settled, or refuses it.
    pub(super) fn check(&self, strict: bool) -> Result<Option<String>, Failure> {
        match self.trouble() {
            Some(why) if strict => Err(Failure::new(format!("the machine is not settled: {why}"))),
            trouble => Ok(trouble),
        }
    }
}

fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

fn pressure(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some avg10="))?;
    first_number(some)
}

/// The first line of /proc/stat: see proc_stat(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    all: u64,
    idle: u64,
    steal: u64,
}

impl Ticks {
    fn parse(text: &str) -> Self {
        let line = text.lines().next().unwrap_or_default();
        let of: Vec<u64> = line.split_whitespace().skip(1).map_while(|n| n.parse().ok()).collect();
        let at = |nth: usize| of.get(nth).copied().unwrap_or(0);
        // What guests use, from the ninth on, is part of what stands before.
        Self { all: of.iter().take(8).sum(), idle: at(3) + at(4), steal: at(7) }
    }

    /// Percent busy without what was stolen, and percent stolen.
    fn since(&self, before: &Self) -> (f64, f64) {
        let all = self.all.saturating_sub(before.all).max(1) as f64;
        let idle = self.idle.saturating_sub(before.idle) as f64;
        let steal = self.steal.saturating_sub(before.steal) as f64;
        ((all - idle - steal).max(0.0) * 100.0 / all, steal * 100.0 / all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says() {
        let before = Ticks::parse("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1\n");
        let after = Ticks::parse("cpu  120 0 110 750 110 0 0 10 0 0\n");
        assert_eq!(before, Ticks { all: 1000, idle: 800, steal: 0 });
        assert_eq!(after.since(&before), (30.0, 10.0));
        assert_eq!(pressure("some avg10=10.91 avg60=1.0\nfull avg10=0\n"), Some(10.91));
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn a_busy_machine_is_refused_only_if_that_was_asked() {
        let check = |busy, steal, pressure, expect: Option<&str>| {
            let machine = Machine { load: 9.0, busy, steal, pressure };
            assert_eq!(machine.trouble().as_deref(), expect);
            assert_eq!(machine.check(true).is_err(), expect.is_some());
            assert!(machine.check(false).is_ok());
        };
        check(3.0, 0.0, 2.0, None);
        check(30.0, 0.0, 0.0, Some("others use 30 % of the time"));
        check(
            0.0,
            5.0,
            20.0,
            Some(
                "the hypervisor takes 5 % of the time, something waits for a processor for 20 % of the time",
            ),
        );
    }
}
