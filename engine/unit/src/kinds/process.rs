//! The kinds that run programs: `oneshot`, `service`.

use std::collections::BTreeMap;

use crate::diagnostic::Diagnostic;
use crate::keys::{Fields, Key, Text, Value, keys, mismatch, words};
use crate::shape::Shape;
use crate::tree::{Node, Value as Raw};
use crate::value::{
    AbsPath, Argument, ByteSize, CpuLimit, EnvName, ExitCode, SignalName, Timespan, Weight, ranged,
};

words! {
    /// When a service that ended is started again.
    pub enum Restart {
        /// Always, also after success.
        Always = "always",
        /// After an exit code other than 0, or a signal.
        OnFailure = "on-failure",
        /// Never.
        Never = "never",
    }
}

/// Where a node looks for a program that is named without a path, and the PATH of every program that it runs.
pub const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program and its arguments; the program is an absolute path, because no shell and no PATH look-up runs on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// The program.
    pub program: AbsPath,
    /// Its arguments, without the program.
    pub arguments: Vec<String>,
}

impl Value for Exec {
    fn expected() -> String {
        "a program and its arguments such as [\"/usr/bin/containerd\", \"--config\", \"/etc/containerd.toml\"]".to_owned()
    }

    fn shape() -> Shape {
        Shape::List {
            item: Box::new(Shape::OneOf(vec![AbsPath::shape(), Argument::shape()])),
            least: 1,
        }
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        let Raw::Array(items) = &node.value else {
            let found = mismatch(node, "an array of strings");
            findings.push(match node.as_str() {
                Some(line) => {
                    found.help(format!("write {:?}", line.split_whitespace().collect::<Vec<_>>()))
                }
                None => found,
            });
            return None;
        };
        let Some((program, arguments)) = items.split_first() else {
            findings.push(
                Diagnostic::new("bad-value", node.span, "the program is missing")
                    .label("no item, or none that is set"),
            );
            return None;
        };
        let program = AbsPath::decode(program, findings);
        let arguments: Vec<_> = arguments.iter().map(|a| Argument::decode(a, findings)).collect();
        let arguments =
            arguments.into_iter().map(|a| a.map(|a| a.as_str().to_owned())).collect::<Option<_>>();
        Some(Exec { program: program?, arguments: arguments? })
    }
}

/// Environment variables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment(pub BTreeMap<String, String>);

impl Value for Environment {
    fn expected() -> String {
        "a table of strings such as { GOGC = \"50\" }".to_owned()
    }

    fn shape() -> Shape {
        Shape::map::<EnvName>(Argument::shape())
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        let Some(table) = node.as_table() else {
            findings.push(mismatch(node, &Self::expected()));
            return None;
        };
        let mut complete = true;
        let mut variables = BTreeMap::new();
        for entry in table.iter() {
            if let Err(why) = EnvName::parse(&entry.key) {
                let message = format!("`{}`: {why}", crate::keys::clip(&entry.key));
                findings.push(Diagnostic::new("bad-value", entry.key_span, message));
                complete = false;
            }
            match Argument::decode(&entry.node, findings) {
                Some(value) => drop(variables.insert(entry.key.clone(), value.as_str().to_owned())),
                None => complete = false,
            }
        }
        complete.then_some(Environment(variables))
    }
}

/// What makes a service ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// It is ready as soon as the program runs.
    Started,
    /// It says so: `READY=1` by sd_notify(3).
    Notify,
    /// This Unix socket takes connections.
    Socket(AbsPath),
}

impl Value for Ready {
    fn expected() -> String {
        "\"started\", \"notify\" or the path of the Unix socket that answers when it is ready"
            .to_owned()
    }

    fn shape() -> Shape {
        const WORDS: Shape = Shape::Words(&[
            ("started", "It is ready as soon as the program runs."),
            ("notify", "It says so: `READY=1` by sd_notify(3)."),
        ]);
        Shape::OneOf(vec![WORDS, AbsPath::shape()])
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        match node.as_str() {
            Some("started") => Some(Ready::Started),
            Some("notify") => Some(Ready::Notify),
            Some(path) if path.starts_with('/') => {
                AbsPath::decode(node, findings).map(Ready::Socket)
            }
            Some(word) => {
                let message = format!("unknown value `{}`", crate::keys::clip(word));
                let found = Diagnostic::new("unknown-value", node.span, message);
                let found = found.label(format!("expected {}", Self::expected()));
                findings.push(found.did_you_mean(word, ["started", "notify"]));
                None
            }
            None => {
                findings.push(mismatch(node, &Self::expected()));
                None
            }
        }
    }

    fn keys() -> &'static [Key] {
        &[]
    }
}

keys! {
    /// Limits of a unit's processes together (cgroup v2).
    #[derive(Default)]
    pub struct Resources {
        /// Memory beyond which processes are killed.
        memory_max "memory-max": Option<ByteSize>,
        /// Memory beyond which processes are slowed down.
        memory_high "memory-high": Option<ByteSize>,
        /// Most processes and threads.
        pids_max "pids-max": Option<u32>,
        /// Share of processor time in relation to other units.
        cpu_weight "cpu-weight": Option<Weight>,
        /// Most processor time.
        cpu_max "cpu-max": Option<CpuLimit>,
    }

    /// How often a service may start before it is given up.
    pub struct StartLimit {
        /// Starts within the interval.
        burst "burst": u32,
        /// The interval.
        interval "interval": Timespan,
    }

    /// Runs a program once. The unit is active when it has ended well.
    pub struct Oneshot {
        /// The program and its arguments.
        exec "exec": Exec,
        /// Environment variables. Nothing is inherited but PATH.
        environment "environment": Environment = "{}",
        /// Directory in which it runs.
        working_directory "working-directory": AbsPath = "\"/\"",
        /// Exit codes that count as success.
        success "success": Vec<ExitCode> = "[0]",
        /// Limits.
        resources "resources": Resources = "{}",
        /// How much of its output is kept.
        log "log": ByteSize = "\"64KiB\"",
        /// How long it may take.
        timeout "timeout": Option<Timespan>,
    }

    /// Runs a program that keeps running, in a cgroup of its own.
    pub struct Service {
        /// The program and its arguments.
        exec "exec": Exec,
        /// Environment variables. Nothing is inherited but PATH.
        environment "environment": Environment = "{}",
        /// Directory in which it runs.
        working_directory "working-directory": AbsPath = "\"/\"",
        /// What makes it ready.
        ready "ready": Ready = "\"started\"",
        /// When it is started again.
        restart "restart": Restart = "\"on-failure\"",
        /// Pause before the first restart; it doubles with each further one.
        restart_delay "restart-delay": Timespan = "\"100ms\"",
        /// Longest pause before a restart.
        restart_max_delay "restart-max-delay": Timespan = "\"30s\"",
        /// How often it may start before it is given up.
        start_limit "start-limit": Option<StartLimit>,
        /// Signal that asks it to stop.
        stop_signal "stop-signal": SignalName = "\"SIGTERM\"",
        /// Signal on which it reads its configuration again. With it, a change of a file that the service waits for, and requires or wants,
        /// sends that signal instead of restarting the service.
        reload_signal "reload-signal": Option<SignalName>,
        /// How long it may take to stop before its whole cgroup is killed.
        stop_timeout "stop-timeout": Timespan = "\"10s\"",
        /// Limits.
        resources "resources": Resources = "{}",
        /// The service makes cgroups of its own below its own.
        delegate "delegate": bool = "false",
        /// How likely the kernel kills it when memory runs out, -1000 to 1000 (proc(5), oom_score_adj).
        oom_score_adjust "oom-score-adjust": OomScore = "0",
        /// How much of its output is kept.
        log "log": ByteSize = "\"256KiB\"",
        /// How long it may take to become ready.
        timeout "timeout": Option<Timespan>,
    }
    check = delays;
}

/// The adjustment of the kernel's choice of what to kill, -1000 to 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OomScore(pub i16);

impl Value for OomScore {
    fn expected() -> String {
        "an integer from -1000 to 1000".to_owned()
    }

    fn shape() -> Shape {
        Shape::Integer { from: -1000, to: 1000 }
    }

    fn decode(node: &Node, findings: &mut Vec<Diagnostic>) -> Option<Self> {
        ranged(node, &Self::expected(), -1000, 1000, findings).map(|score| OomScore(score as i16))
    }
}

fn delays(service: &Service, fields: &mut Fields<'_>) {
    if service.restart_max_delay < service.restart_delay {
        let at = fields.span_of("restart-max-delay");
        fields.report(Diagnostic::new(
            "out-of-range",
            at,
            "`restart-max-delay` is below `restart-delay`",
        ));
    }
    if service.restart == Restart::Always && service.restart_delay.0.is_zero() {
        let at = fields.span_of("restart-delay");
        let found = Diagnostic::new("out-of-range", at, "`restart-delay` must be more than 0s");
        let found = found.label("a service that always ends would keep a processor busy");
        fields.report(found.help("write at least \"100ms\", the default"));
    }
    if let Some(limit) = &service.start_limit
        && limit.burst == 0
    {
        fields.report(Diagnostic::new(
            "out-of-range",
            fields.span_of("start-limit"),
            "`burst` must be at least 1",
        ));
    }
    if service.start_limit.as_ref().is_some_and(|limit| limit.interval.0.is_zero()) {
        let at = fields.span_of("start-limit");
        let found = Diagnostic::new("out-of-range", at, "`interval` must be more than 0s");
        fields.report(found.label("no two starts lie within it"));
    }
}
