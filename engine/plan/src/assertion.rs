//! What somebody relies on, said of a simulated boot: `keel-agent is active within 30s unless certificate fails`.
//!
//! ```text
//! assertion = subject "is" [ "not" ] state [ "within" duration ] [ "unless" unit { "," unit } "fails" ]
//! subject   = unit | "boot"
//! state     = "active" | "running" | "exited" | "failed" | "skipped" | "inactive" | "waiting"     of a unit
//!           | "reached" | "whole" | "degraded" | "missed" | "emergency"                          of the boot
//! ```
//!
//! A unit is what it is when the boot is over; `within` also bounds when it came to that. The boot is `reached` when its goal is
//! up, `whole` when nothing is missing then, and `degraded` when something is. `unless` names units whose failure excuses.

use std::fmt;
use std::time::Duration;

use keel_unit::diagnostic::nearest;
use keel_unit::keys::Text;
use keel_unit::value::{Timespan, people};

use crate::plan::BOOT;
use crate::state::{State, Up};
use crate::trace::Ending;
use crate::transaction::{Transaction, UnitId};
use crate::trial::Ended;

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Assertion {
    text: String,
    claim: Claim,
    negated: bool,
    within: Option<Duration>,
    unless: Vec<UnitId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    Unit(UnitId, UnitWord),
    Boot(BootWord),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnitWord {
    Active,
    Running,
    Exited,
    Failed,
    Skipped,
    Inactive,
    Waiting,
}

const UNIT_WORDS: [(&str, UnitWord); 7] = [
    ("active", UnitWord::Active),
    ("running", UnitWord::Running),
    ("exited", UnitWord::Exited),
    ("failed", UnitWord::Failed),
    ("skipped", UnitWord::Skipped),
    ("inactive", UnitWord::Inactive),
    ("waiting", UnitWord::Waiting),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BootWord {
    Reached,
    Whole,
    Degraded,
    Missed,
    Emergency,
}

const BOOT_WORDS: [(&str, BootWord); 5] = [
    ("reached", BootWord::Reached),
    ("whole", BootWord::Whole),
    ("degraded", BootWord::Degraded),
    ("missed", BootWord::Missed),
    ("emergency", BootWord::Emergency),
];

/// A text that is no assertion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the assertion `{text}`: {kind}")]
pub struct AssertionError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub kind: AssertionErrorKind,
}

/// What is wrong with an assertion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssertionErrorKind {
    /// Something else stands where a word is expected.
    #[error("expected {expected}, found {}{}", shown(.found), meant(.near))]
    Expected {
        /// What was expected.
        expected: &'static str,
        /// What stands there; empty at the end.
        found: String,
        /// What was probably meant.
        near: Option<String>,
    },
    /// No unit of that name.
    #[error("there is no unit `{unit}`{}", meant(.near))]
    UnknownUnit {
        /// The name.
        unit: String,
        /// What was probably meant.
        near: Option<String>,
    },
    /// A word of the boot, said of a unit.
    #[error("`{0}` is said of the boot: `boot is {0}`")]
    OfTheBoot(&'static str),
    /// No span of time.
    #[error("{found:?} is no time: {why}")]
    Time {
        /// What stands there.
        found: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing can come to not being something.
    #[error("`within` goes with `is`, not with `is not`")]
    NotWithin,
}

fn shown(found: &str) -> String {
    if found.is_empty() { "the end".to_owned() } else { format!("`{found}`") }
}

fn meant(near: &Option<String>) -> String {
    near.as_ref().map_or(String::new(), |near| format!(" (did you mean `{near}`?)"))
}

impl Assertion {
    /// Reads an assertion about a boot of this transaction.
    ///
    /// # Errors
    /// What is wrong with it, and what was probably meant.
    pub fn parse(text: &str, transaction: &Transaction) -> Result<Assertion, AssertionError> {
        let spaced = text.replace(',', " , ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        Reader { words: &words, transaction }
            .assertion(text)
            .map_err(|kind| AssertionError { text: text.to_owned(), kind })
    }

    /// Whether it is asked of a boot in which this unit was made to fail: not when it is about that unit, and not when the failure
    /// of that unit is an excuse.
    pub fn is_for(&self, failing: UnitId) -> bool {
        let own = matches!(self.claim, Claim::Unit(unit, _) if unit == failing);
        !own && !self.unless.contains(&failing)
    }

    /// Whether it holds; if not, what is the case instead.
    ///
    /// # Errors
    /// What is the case instead.
    pub fn check(&self, transaction: &Transaction, ended: &Ended) -> Result<(), String> {
        let (holds, at, is) = match self.claim {
            Claim::Unit(unit, word) => {
                let state = ended.states[unit.index()];
                let name = &transaction.spec(unit).name;
                (word.holds(state), ended.settled[unit.index()], format!("{name} is {state}"))
            }
            Claim::Boot(word) => {
                let is = format!("the boot is {}", ended.ending.as_str());
                (word.holds(ended), Some(ended.at()), is)
            }
        };
        if holds == self.negated {
            return Err(is);
        }
        match (self.within, at) {
            (Some(within), Some(at)) if at > within => {
                Err(format!("{is} only after {}", people(at)))
            }
            (Some(_), None) => Err(format!("{is}, but did not come to that in this boot")),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl UnitWord {
    fn holds(self, state: State) -> bool {
        match self {
            UnitWord::Active => state.is_active(),
            UnitWord::Running => state == State::Active(Up::Running),
            UnitWord::Exited => state == State::Active(Up::Exited),
            UnitWord::Failed => matches!(state, State::Failed(_)),
            UnitWord::Skipped => state == State::Skipped,
            UnitWord::Inactive => state == State::Inactive,
            UnitWord::Waiting => state == State::Waiting,
        }
    }
}

impl BootWord {
    fn holds(self, ended: &Ended) -> bool {
        match self {
            BootWord::Reached => ended.goal_at.is_some(),
            BootWord::Whole => ended.ending == Ending::Reached,
            BootWord::Degraded => ended.ending == Ending::Degraded,
            BootWord::Missed => ended.goal_at.is_none(),
            BootWord::Emergency => ended.ending == Ending::Emergency,
        }
    }
}

struct Reader<'a> {
    words: &'a [&'a str],
    transaction: &'a Transaction,
}

impl<'a> Reader<'a> {
    fn assertion(&mut self, text: &str) -> Result<Assertion, AssertionErrorKind> {
        let subject = self.next("a unit or `boot`")?;
        self.keyword("is", "`is`")?;
        let negated = self.skip("not");
        let claim = self.claim(subject)?;
        let mut within = None;
        let mut unless = Vec::new();
        if self.skip("within") {
            if negated {
                return Err(AssertionErrorKind::NotWithin);
            }
            let time = self.next("a time such as `5s`")?;
            let span = Timespan::parse(time)
                .map_err(|why| AssertionErrorKind::Time { found: time.to_owned(), why })?;
            within = Some(span.0);
        }
        if self.skip("unless") {
            loop {
                let unit = self.next("a unit")?;
                unless.push(self.unit(unit)?);
                if !self.skip(",") {
                    break;
                }
            }
            self.keyword("fails", "`,` or `fails`")?;
        }
        if let Some(extra) = self.words.first() {
            let expected =
                if negated { "`unless` or the end" } else { "`within`, `unless` or the end" };
            return Err(expected_one(expected, extra, ["within", "unless"]));
        }
        Ok(Assertion { text: text.trim().to_owned(), claim, negated, within, unless })
    }

    fn claim(&mut self, subject: &str) -> Result<Claim, AssertionErrorKind> {
        let of_the_boot =
            subject == BOOT || subject == &*self.transaction.spec(self.transaction.goal()).name;
        let unit = if subject == BOOT {
            // Also where the goal is another one, `boot` is what is being booted.
            self.transaction.find(BOOT).or(Some(self.transaction.goal()))
        } else {
            Some(self.unit(subject)?)
        };
        let word = self.next("a state")?;
        if let Some((name, word)) = BOOT_WORDS.iter().find(|(name, _)| *name == word) {
            return if of_the_boot {
                Ok(Claim::Boot(*word))
            } else {
                Err(AssertionErrorKind::OfTheBoot(name))
            };
        }
        match (unit, UNIT_WORDS.iter().find(|(name, _)| *name == word)) {
            (Some(unit), Some((_, word))) => Ok(Claim::Unit(unit, *word)),
            _ => {
                let words = UNIT_WORDS.iter().map(|(name, _)| *name);
                let boot = BOOT_WORDS.iter().map(|(name, _)| *name).filter(|_| of_the_boot);
                let expected = if of_the_boot {
                    "`reached`, `whole`, `degraded`, `missed`, `emergency` or a state of a unit"
                } else {
                    "`active`, `running`, `exited`, `failed`, `skipped`, `inactive` or `waiting`"
                };
                Err(expected_one(expected, word, words.chain(boot)))
            }
        }
    }

    fn unit(&self, name: &str) -> Result<UnitId, AssertionErrorKind> {
        self.transaction.find(name).ok_or_else(|| {
            let names = self.transaction.units().iter().map(|spec| &*spec.name);
            AssertionErrorKind::UnknownUnit {
                unit: name.to_owned(),
                near: nearest(name, names).map(str::to_owned),
            }
        })
    }

    fn next(&mut self, expected: &'static str) -> Result<&'a str, AssertionErrorKind> {
        match self.words.split_first() {
            Some((word, rest)) if *word != "," => {
                self.words = rest;
                Ok(word)
            }
            other => {
                let found = other.map_or("", |(word, _)| *word);
                Err(expected_one(expected, found, []))
            }
        }
    }

    fn skip(&mut self, word: &str) -> bool {
        let there = self.words.first() == Some(&word);
        if there {
            self.words = &self.words[1..];
        }
        there
    }

    fn keyword(
        &mut self,
        word: &'static str,
        expected: &'static str,
    ) -> Result<(), AssertionErrorKind> {
        if self.skip(word) {
            return Ok(());
        }
        Err(expected_one(expected, self.words.first().unwrap_or(&""), [word]))
    }
}

fn expected_one<'a>(
    expected: &'static str,
    found: &str,
    words: impl IntoIterator<Item = &'a str>,
) -> AssertionErrorKind {
    let near = nearest(found, words).map(str::to_owned);
    AssertionErrorKind::Expected { expected, found: found.to_owned(), near }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::{Class, Job, JobKind, Spec};

    fn transaction() -> Transaction {
        let units = vec![
            Spec::new("boot", Class::Target),
            Spec::new("keel-agent", Class::Service),
            Spec::new("link@eth0", Class::Oneshot),
        ];
        let jobs = [1, 2, 0].map(|unit| Job { unit: UnitId(unit), kind: JobKind::Start });
        Transaction::new(UnitId(0), jobs.into(), units).unwrap()
    }

    fn ended() -> Ended {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        Ended {
            ending: Ending::Degraded,
            goal_at: seconds(3),
            over_at: Duration::from_secs(4),
            states: vec![
                State::Active(Up::Exited),
                State::Active(Up::Running),
                State::Failed(crate::state::Blame::Own),
            ],
            settled: vec![seconds(3), seconds(2), seconds(1)],
            began: vec![false, true, true],
        }
    }

    /// What reading and then asking gives: `""` if it holds.
    fn check(text: &str, expect: &str) {
        let transaction = transaction();
        let got = match Assertion::parse(text, &transaction) {
            Ok(assertion) => assertion.check(&transaction, &ended()).err().unwrap_or_default(),
            Err(error) => error.kind.to_string(),
        };
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn what_holds_and_what_is_the_case_instead() {
        check("keel-agent is active", "");
        check("  keel-agent   is running within 2s ", "");
        check(
            "keel-agent is active within 1s999ms",
            "keel-agent is active(running) only after 2 s",
        );
        check("keel-agent is not active", "keel-agent is active(running)");
        check("keel-agent is exited", "keel-agent is active(running)");
        check("link@eth0 is failed", "");
        check("link@eth0 is not failed", "link@eth0 is failed");
        check("boot is reached", "");
        check("boot is degraded", "");
        check("boot is active", "");
        check("boot is whole", "the boot is degraded");
        check("boot is not emergency", "");
        check("boot is reached within 2s", "the boot is degraded only after 3 s");
        check("boot is missed", "the boot is degraded");
    }

    #[test]
    fn what_cannot_be_read_is_explained() {
        check("", "expected a unit or `boot`, found the end");
        check("keel-agnet is active", "there is no unit `keel-agnet` (did you mean `keel-agent`?)");
        check("keel-agent are active", "expected `is`, found `are`");
        check(
            "keel-agent is activ",
            "expected `active`, `running`, `exited`, `failed`, `skipped`, `inactive` or `waiting`, found `activ` (did you mean `active`?)",
        );
        check("keel-agent is", "expected a state, found the end");
        check("keel-agent is reached", "`reached` is said of the boot: `boot is reached`");
        check(
            "keel-agent is active withn 5s",
            "expected `within`, `unless` or the end, found `withn` (did you mean `within`?)",
        );
        check("keel-agent is active within", "expected a time such as `5s`, found the end");
        check(
            "keel-agent is active within 5",
            "\"5\" is no time: a unit is missing after 5 (d, h, m, s, ms or us)",
        );
        check("keel-agent is not active within 5s", "`within` goes with `is`, not with `is not`");
        check("keel-agent is active unless link@eth0", "expected `,` or `fails`, found the end");
        check("keel-agent is active unless , fails", "expected a unit, found `,`");
        check(
            "boot is reched",
            "expected `reached`, `whole`, `degraded`, `missed`, `emergency` or a state of a unit, found `reched` (did you mean `reached`?)",
        );
    }

    #[test]
    fn a_failure_may_be_excused() {
        let transaction = transaction();
        let read = |text| Assertion::parse(text, &transaction).unwrap();
        let excused = read("keel-agent is active unless link@eth0, boot fails");
        assert!(!excused.is_for(UnitId(2)) && !excused.is_for(UnitId(1)));
        let strict = read("keel-agent is active");
        assert!(strict.is_for(UnitId(2)));
        assert!(!strict.is_for(UnitId(1)), "nobody asks whether what was made to fail is up");
    }
}
