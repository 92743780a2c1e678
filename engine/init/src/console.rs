//! What the console shows: one line per unit as it becomes ready or fails, and a summary at the end. Text only; writing it is
//! [`crate::screen`]'s.

use std::fmt::Write as _;
use std::time::Duration;

use keel_control::GoalState;
use keel_plan::{Blame, Class, Ending, State, Transaction, Transition, Why};

/// How wide the column of unit names is. A longer name pushes its own line only.
const NAME_WIDTH: usize = 28;

/// What a line says of its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ready,
    Failed,
    Blocked,
    Skipped,
    Again,
    Stopped,
    Note,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Failed => "FAILED",
            Self::Blocked => "blocked",
            Self::Skipped => "skipped",
            Self::Again => "again",
            Self::Stopped => "stopped",
            Self::Note => "note",
        }
    }

    /// The SGR parameter of its colour (ECMA-48, 8.3.117).
    fn colour(self) -> &'static str {
        match self {
            Self::Ready => "32",
            Self::Failed => "1;31",
            Self::Blocked => "31",
            Self::Again => "33",
            Self::Skipped | Self::Stopped | Self::Note => "2",
        }
    }
}

/// One line about one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) at: Duration,
    pub(crate) verdict: Verdict,
    pub(crate) unit: String,
    /// How long it took, where that says something.
    pub(crate) took: Option<Duration>,
    pub(crate) why: String,
}

impl Line {
    /// The line for a change of state, if it is one that people want to see. `began` is when the activation did.
    pub(crate) fn of(
        transition: &Transition,
        began: Option<Duration>,
        transaction: &Transaction,
    ) -> Option<Self> {
        let why = || transition.why.describe(transaction).to_string();
        let took = began.map(|began| transition.at.saturating_sub(began));
        let (verdict, took, why) = match (transition.from, transition.to) {
            (_, State::Active(_)) => (Verdict::Ready, took, String::new()),
            (_, State::Failed(Blame::Own)) => (Verdict::Failed, took, why()),
            (_, State::Failed(Blame::Dependency)) => (Verdict::Blocked, None, why()),
            (_, State::Skipped) => (Verdict::Skipped, None, why()),
            (State::Activating | State::Active(_) | State::Deactivating, State::Waiting) => {
                (Verdict::Again, took, why())
            }
            // A target is a name: its going says nothing that its units do not.
            (_, State::Inactive) if transaction.spec(transition.unit).class == Class::Target => {
                return None;
            }
            (State::Deactivating | State::Active(_), State::Inactive) => {
                let expected = matches!(transition.why, Why::Stopped);
                (Verdict::Stopped, None, if expected { String::new() } else { why() })
            }
            _ => return None,
        };
        let unit = transaction.spec(transition.unit).name.to_string();
        Some(Self { at: transition.at, verdict, unit, took, why })
    }

    /// As text, without an end of line.
    pub(crate) fn render(&self, colour: bool) -> String {
        let Self { at, verdict, unit, took, why } = self;
        let word = format!("{:<8}", verdict.word());
        let word = if colour { format!("\x1b[{}m{word}\x1b[0m", verdict.colour()) } else { word };
        let took = took.map(millis).unwrap_or_default();
        let why = printable(why);
        let text = format!("[{:>9}] {word} {unit:<NAME_WIDTH$} {took:>9}  {why}", seconds(*at));
        text.trim_end().to_owned()
    }
}

/// How a boot went, for people and (as [`Summary::json`]) for programs.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Summary {
    pub(crate) goal: String,
    pub(crate) reached: bool,
    /// The machine is up for somebody to look at it, and for nothing else.
    pub(crate) emergency: bool,
    pub(crate) total: Duration,
    /// The units on the critical path and how long each worked.
    pub(crate) path: Vec<(String, Duration)>,
    pub(crate) path_length: Duration,
    pub(crate) speedup: f64,
    pub(crate) side_by_side: usize,
    /// From the kernel's start to init's.
    pub(crate) kernel: Option<Duration>,
    /// Processors of the machine.
    pub(crate) processors: Option<u32>,
    pub(crate) release: String,
    /// What is not as it should be, and why.
    pub(crate) degraded: Vec<(String, String)>,
    pub(crate) digest: String,
    pub(crate) hostname: String,
    pub(crate) machine_id: Option<String>,
    pub(crate) addresses: Vec<(String, String)>,
    pub(crate) fingerprint: Option<String>,
}

impl Summary {
    /// As lines for the console.
    pub(crate) fn render(&self, colour: bool) -> Vec<String> {
        let paint = |code: &str, text: &str| {
            if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
        };
        let total = seconds(self.total);
        let headline = match (self.reached, self.degraded.is_empty()) {
            _ if self.emergency => paint(
                "1;31",
                "Keel is up in an emergency: it can be looked at, and does not do its work",
            ),
            (true, true) => {
                paint("1;32", &format!("Keel is up: goal {} reached in {total}", self.goal))
            }
            (true, false) => paint(
                "1;33",
                &format!("Keel is up, degraded: goal {} reached in {total}", self.goal),
            ),
            (false, _) => paint(
                "1;31",
                &format!("Keel did not reach goal {} (gave up after {total})", self.goal),
            ),
        };
        let mut lines = vec![String::new(), headline];
        let mut field = |name: &str, value: String| lines.push(format!("  {name:<14} {value}"));

        let units = self.path.iter().filter(|(_, took)| !took.is_zero());
        let units: Vec<_> = units.map(|(unit, took)| format!("{unit} {}", millis(*took))).collect();
        let length = seconds(self.path_length);
        match units.as_slice() {
            [] => field("critical path", length),
            units => field("critical path", format!("{length}: {}", units.join(" > "))),
        }
        let most = match self.side_by_side {
            1 => "one unit at a time".to_owned(),
            most => format!("up to {most} units at once"),
        };
        field("side by side", format!("{most}, {:.1}x as fast as one after another", self.speedup));
        for (index, (unit, why)) in self.degraded.iter().enumerate() {
            field(if index == 0 { "degraded" } else { "" }, format!("{unit}: {}", printable(why)));
        }
        field("graph", self.digest.clone());
        match &self.machine_id {
            Some(id) => field("machine", format!("{} (id {id})", self.hostname)),
            None => field("machine", self.hostname.clone()),
        }
        for (index, (link, address)) in self.addresses.iter().enumerate() {
            field(if index == 0 { "address" } else { "" }, format!("{address} on {link}"));
        }
        if let Some(fingerprint) = &self.fingerprint {
            field("certificate", fingerprint.clone());
        }
        lines.push(String::new());
        lines
    }

    /// How the boot ended, in the word that traces have for it.
    pub(crate) fn outcome(&self) -> Ending {
        match (self.reached, self.degraded.is_empty()) {
            _ if self.emergency => Ending::Emergency,
            (true, true) => Ending::Reached,
            (true, false) => Ending::Degraded,
            (false, _) => Ending::Missed,
        }
    }

    /// How the goal stands with that.
    pub(crate) fn state(&self) -> GoalState {
        match self.outcome() {
            Ending::Emergency => GoalState::Emergency,
            Ending::Reached => GoalState::Reached,
            _ => GoalState::Degraded,
        }
    }

    /// One JSON object on one line.
    pub(crate) fn json(&self) -> String {
        let degraded: Vec<_> = self
            .degraded
            .iter()
            .map(|(unit, why)| serde_json::json!({ "unit": unit, "why": why }))
            .collect();
        let address = self.addresses.first().map(|(_, address)| address.as_str());
        serde_json::json!({
            "reached": self.reached,
            "emergency": self.emergency,
            "outcome": self.outcome().as_str(),
            "total_us": whole_micros(self.total),
            "kernel_us": self.kernel.map(whole_micros),
            "cpus": self.processors,
            "kernel": self.release,
            "keel": env!("CARGO_PKG_VERSION"),
            "goal": self.goal,
            "total_ms": whole_millis(self.total),
            "critical_path_ms": whole_millis(self.path_length),
            "critical_path": self.path.iter().map(|(unit, took)| serde_json::json!({ "unit": unit, "ms": whole_millis(*took) })).collect::<Vec<_>>(),
            // Two digits: more would be noise, and would differ from the text above for no reason.
            "speedup": (self.speedup * 100.0).round() / 100.0,
            "side_by_side": self.side_by_side,
            "degraded": degraded,
            "digest": self.digest,
            "machine_id": self.machine_id,
            "hostname": self.hostname,
            "address": address,
            "fingerprint": self.fingerprint,
        })
        .to_string()
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}s", duration.as_secs_f64())
}

fn millis(duration: Duration) -> String {
    match duration.as_millis() {
        0 if duration.is_zero() => "0 ms".to_owned(),
        0 => "<1 ms".to_owned(),
        millis => format!("{millis} ms"),
    }
}

fn whole_micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Text from elsewhere (the model of a disk, what a tool printed) on one line, without an escape sequence that would repaint the
/// operator's screen.
fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    text.chars().map(escaped).collect::<String>().into()
}

/// A message of init's own, in the form of the other lines.
pub(crate) fn note(at: Duration, text: &str) -> String {
    let mut line = String::new();
    // Writing into a String cannot fail.
    let _ = write!(line, "[{:>9}] keel     {text}", seconds(at));
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_plan::{ExitStatus, Spec, UnitId, Up};

    fn millis_of(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn transaction() -> Transaction {
        let mut goal = Spec::new("boot", Class::Target);
        goal.after = vec![(UnitId(1), keel_plan::Await::Ready)];
        let units = vec![goal, Spec::new("service.containerd", Class::Service)];
        let jobs = [1, 0]
            .map(|unit| keel_plan::Job { unit: UnitId(unit), kind: keel_plan::JobKind::Start });
        Transaction::new(UnitId(0), jobs.into(), units).unwrap()
    }

    #[test]
    fn changes_of_state() {
        let transaction = transaction();
        let check = |from: State, to: State, why: Why, expect: Option<&str>| {
            let transition = Transition {
                unit: UnitId(1),
                attempt: 1,
                from,
                to,
                why,
                waited_for: None,
                at: millis_of(12_345),
            };
            let line = Line::of(&transition, Some(millis_of(12_000)), &transaction);
            assert_eq!(line.map(|line| line.render(false)).as_deref(), expect);
        };
        use State::{Activating, Active, Deactivating, Failed, Inactive, Skipped, Waiting};
        let running = Active(Up::Running);
        check(Inactive, Waiting, Why::Requested, None);
        check(Waiting, Activating, Why::Released, None);
        check(
            Activating,
            running,
            Why::Succeeded,
            Some("[  12.345s] ready    service.containerd              345 ms"),
        );
        check(
            Activating,
            Failed(Blame::Own),
            Why::Failed("no such file".into()),
            Some("[  12.345s] FAILED   service.containerd              345 ms  no such file"),
        );
        check(
            Waiting,
            Failed(Blame::Dependency),
            Why::Needs(UnitId(0)),
            Some(
                "[  12.345s] blocked  service.containerd                      needs boot, which is not up",
            ),
        );
        check(
            Waiting,
            Skipped,
            Why::Unmet("/usr/bin/kubelet is missing".into()),
            Some(
                "[  12.345s] skipped  service.containerd                      condition unmet: /usr/bin/kubelet is missing",
            ),
        );
        check(
            running,
            Waiting,
            Why::Exited(ExitStatus::Code(1)),
            Some("[  12.345s] again    service.containerd              345 ms  exited with code 1"),
        );
        check(running, Deactivating, Why::Requested, None);
        check(
            Deactivating,
            Inactive,
            Why::Stopped,
            Some("[  12.345s] stopped  service.containerd"),
        );
        check(Waiting, Inactive, Why::Requested, None);
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        let line = Line {
            at: millis_of(7),
            verdict: Verdict::Failed,
            unit: "mount.data".into(),
            took: None,
            why: "no such device".into(),
        };
        let plain = "[   0.007s] FAILED   mount.data                              no such device";
        assert_eq!(line.render(false), plain);
        assert_eq!(line.render(true), plain.replace("FAILED  ", "\x1b[1;31mFAILED  \x1b[0m"));
    }

    #[test]
    fn what_a_disk_calls_itself_does_not_repaint_the_screen() {
        let line = Line {
            at: millis_of(7),
            verdict: Verdict::Failed,
            unit: "partition.data".into(),
            took: None,
            why: "model \x1b[2Jé\nx".into(),
        };
        assert!(line.render(false).ends_with(r"model \u{1b}[2Jé\nx"), "{}", line.render(false));
        let degraded = vec![("partition.data".to_owned(), "\x1b[2J".to_owned())];
        let drawn = Summary { degraded, ..summary() }.render(false).join("\n");
        assert!(drawn.contains(r"partition.data: \u{1b}[2J"), "{drawn}");
    }

    fn summary() -> Summary {
        Summary {
            goal: "boot".into(),
            reached: true,
            emergency: false,
            total: millis_of(4210),
            path: vec![
                ("modules".into(), Duration::ZERO),
                ("link@eth0".into(), millis_of(3100)),
                ("containerd".into(), millis_of(800)),
            ],
            path_length: millis_of(3900),
            speedup: 2.94,
            side_by_side: 9,
            kernel: Some(millis_of(812)),
            processors: Some(2),
            release: "6.1.0".into(),
            degraded: vec![],
            digest: "sha256:ab12".into(),
            hostname: "keel-3f2a".into(),
            machine_id: Some("3f2a".into()),
            addresses: vec![("eth0".into(), "10.0.2.15/24".into())],
            fingerprint: Some("SHA256:AB:CD".into()),
        }
    }

    #[test]
    fn a_boot_that_went_well() {
        let expect = "
Keel is up: goal boot reached in 4.210s
  critical path  3.900s: link@eth0 3100 ms > containerd 800 ms
  side by side   up to 9 units at once, 2.9x as fast as one after another
  graph          sha256:ab12
  machine        keel-3f2a (id 3f2a)
  address        10.0.2.15/24 on eth0
  certificate    SHA256:AB:CD
";
        assert_eq!(summary().render(false).join("\n"), expect);
        assert_eq!(
            summary().json(),
            r#"{"address":"10.0.2.15/24","cpus":2,"critical_path":[{"ms":0,"unit":"modules"},{"ms":3100,"unit":"link@eth0"},{"ms":800,"unit":"containerd"}],"critical_path_ms":3900,"degraded":[],"digest":"sha256:ab12","emergency":false,"fingerprint":"SHA256:AB:CD","goal":"boot","hostname":"keel-3f2a","keel":"0.1.0","kernel":"6.1.0","kernel_us":812000,"machine_id":"3f2a","outcome":"reached","reached":true,"side_by_side":9,"speedup":2.94,"total_ms":4210,"total_us":4210000}"#
        );
    }

    #[test]
    fn a_boot_that_did_not() {
        let mut bad = summary();
        bad.reached = false;
        bad.degraded = vec![
            ("partition.data".into(), "/dev/vda holds an ext4 filesystem".into()),
            ("containerd".into(), "needs mount.data, which is not up".into()),
        ];
        (bad.path, bad.machine_id, bad.fingerprint) = (vec![], None, None);
        (bad.addresses, bad.side_by_side, bad.speedup) = (vec![], 1, 1.0);
        let expect = "
Keel did not reach goal boot (gave up after 4.210s)
  critical path  3.900s
  side by side   one unit at a time, 1.0x as fast as one after another
  degraded       partition.data: /dev/vda holds an ext4 filesystem
                 containerd: needs mount.data, which is not up
  graph          sha256:ab12
  machine        keel-3f2a
";
        assert_eq!(bad.render(false).join("\n"), expect);
        assert!(bad.json().contains(r#""address":null"#));
    }

    #[test]
    fn an_up_but_degraded_boot_says_so_first() {
        let mut degraded = summary();
        degraded.degraded = vec![("kubelet".into(), "exited with code 1".into())];
        assert_eq!(degraded.render(false)[1], "Keel is up, degraded: goal boot reached in 4.210s");
        degraded.emergency = true;
        assert!(degraded.render(false)[1].starts_with("Keel is up in an emergency"));
    }

    #[test]
    fn durations_are_honest() {
        let check =
            |micros: u64, expect: &str| assert_eq!(millis(Duration::from_micros(micros)), expect);
        check(0, "0 ms");
        check(400, "<1 ms");
        check(1_900, "1 ms");
        check(61_000_000, "61000 ms");
    }
}
