//! The words of a unit that are the same for every kind.

use crate::diagnostic::Diagnostic;
use crate::keys::{Fields, Value, keys, mismatch, words};
use crate::name::UnitName;
use crate::shape::Shape;
use crate::source::Span;
use crate::tree::{Node, Value as Raw};
use crate::value::{AbsPath, KernelArgument, Line, Timespan};

words! {
    /// What an ordering edge waits for.
    pub enum Await {
        /// The other unit's program runs, or its work has begun.
        Started = "started",
        /// The other unit is ready: a service answers, anything else has done its work.
        Ready = "ready",
        /// The other unit's program has ended.
        Exited = "exited",
    }

    /// What happens when a unit fails.
    pub enum OnFailure {
        /// The boot goes on; the machine is degraded and says why.
        Degrade = "degrade",
        /// It is tried again, with growing pauses; then as `degrade`.
        Retry = "retry",
        /// The goal counts as missed. What does not need the unit still starts, so that the machine can be reached.
        Emergency = "emergency",
        /// The machine reboots, once its services are stopped.
        Reboot = "reboot",
    }
}

/// A reference to another unit, from one of the words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The unit, or the template (then all its instances).
    pub unit: UnitName,
    /// What an ordering edge waits for, where it was said.
    pub awaits: Option<Await>,
    /// Where the reference stands.
    pub span: Span,
}

keys! {
    /// A reference with what is waited for.
    pub struct Awaiting {
        /// The unit.
        unit "unit": UnitName,
        /// What is waited for.
        awaits "await": Option<Await>,
    }
}

impl Value for Reference {
    fn expected() -> String {
        "the name of a unit, or { unit = \"…\", await = \"started\" | \"ready\" | \"exited\" }"
            .to_owned()
    }

    fn shape() -> Shape {
        Shape::OneOf(vec![UnitName::shape(), Awaiting::shape()])
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        match &node.value {
            Raw::String(_) => {
                let unit = UnitName::decode(node, findings)?;
                Some(Reference { unit, awaits: None, span: node.span })
            }
            Raw::Table(_) => {
                let Awaiting { unit, awaits } = Awaiting::decode(node, findings)?;
                Some(Reference { unit, awaits, span: node.span })
            }
            _ => {
                findings.push(mismatch(node, &Self::expected()));
                None
            }
        }
    }
}

/// One name or several: `"storage"` or `["storage", "network"]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct References(pub Vec<Reference>);

impl Value for References {
    fn expected() -> String {
        "the name of a unit, or an array of names".to_owned()
    }

    fn shape() -> Shape {
        Shape::OneOf(vec![Shape::list(Reference::shape()), UnitName::shape(), Awaiting::shape()])
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        match &node.value {
            Raw::Array(_) => Vec::decode(node, findings).map(References),
            Raw::String(_) | Raw::Table(_) => {
                Reference::decode(node, findings).map(|r| References(vec![r]))
            }
            _ => {
                findings.push(mismatch(node, &Self::expected()));
                None
            }
        }
    }
}

/// Keys of the machine config by their names, one or several: `"cluster.token"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigKeys(pub Vec<Line>);

impl Value for ConfigKeys {
    fn expected() -> String {
        "a key of the machine config such as \"cluster.token\", or an array of keys".to_owned()
    }

    fn shape() -> Shape {
        Shape::OneOf(vec![Shape::list(Line::shape()), Line::shape()])
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        match &node.value {
            Raw::Array(_) => Vec::decode(node, findings).map(ConfigKeys),
            Raw::String(_) => Line::decode(node, findings).map(|key| ConfigKeys(vec![key])),
            _ => {
                findings.push(mismatch(node, &Self::expected()));
                None
            }
        }
    }
}

keys! {
    /// What must hold for a unit to be started. A unit whose condition does not hold is skipped, which is no failure.
    pub struct Condition {
        /// All of these paths exist.
        path_exists "path-exists": Vec<AbsPath> = "[]",
        /// None of these paths exists.
        path_missing "path-missing": Vec<AbsPath> = "[]",
        /// All of these arguments stand on the kernel's command line, as `name` or `name=value`.
        kernel_argument "kernel-argument": Vec<KernelArgument> = "[]",
        /// A plain yes or no, usually a reference into the machine config.
        when "when": bool = "true",
    }

    /// What happens when the unit fails.
    pub struct Failure {
        /// The policy.
        on "on": OnFailure = "\"degrade\"",
        /// For `retry`: how often it is tried in all.
        attempts "attempts": u32 = "3",
        /// For `retry`: pause before the second attempt; it doubles with each further one.
        delay "delay": Timespan = "\"1s\"",
        /// For `retry`: longest pause.
        max_delay "max-delay": Timespan = "\"30s\"",
    }
    check = retried;
}

fn retried(failure: &Failure, fields: &mut Fields<'_>) {
    for key in ["attempts", "delay", "max-delay"] {
        if failure.on == OnFailure::Retry || !fields.has(key) {
            continue;
        }
        let message = format!("`{key}` says nothing without `on = \"retry\"`");
        let found = Diagnostic::new("misplaced-key", fields.span_of(key), message);
        fields.report(found.label(format!("on failure it is `{}`", failure.on)));
    }
    if failure.attempts == 0 {
        let at = fields.span_of("attempts");
        fields.report(Diagnostic::new("out-of-range", at, "`attempts` must be at least 1"));
    }
    if failure.max_delay < failure.delay {
        let at = fields.span_of("max-delay");
        fields.report(Diagnostic::new("out-of-range", at, "`max-delay` is below `delay`"));
    }
}

impl Condition {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        let Condition { path_exists, path_missing, kernel_argument, when } = self;
        path_exists.is_empty() && path_missing.is_empty() && kernel_argument.is_empty() && *when
    }
}
