//! What the kernel's command line says to init: `keel.*`, and little else.

use std::path::PathBuf;

/// The arguments that init understands, with their defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// `keel.units=PATH`: the folder of unit files.
    pub(crate) units: PathBuf,
    /// `keel.config=PATH`: the machine config.
    pub(crate) config: PathBuf,
    /// `keel.goal=UNIT`: the target to reach.
    pub(crate) goal: String,
    /// `keel.report=json`: the last line of the boot is `KEEL-REPORT {…}`, for programs that watch the console.
    pub(crate) report: bool,
    /// `loglevel=`, `debug` or `ignore_loglevel` stand there: the console shows the kernel's messages as somebody asked.
    pub(crate) kernel_talks: bool,
    /// What begins with `keel.` and means nothing, as it stands there.
    pub(crate) unknown: Vec<String>,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            units: "/etc/keel/units".into(),
            config: "/etc/keel/config.toml".into(),
            goal: "boot".into(),
            report: false,
            kernel_talks: false,
            unknown: Vec::new(),
        }
    }
}

impl Arguments {
    /// Reads a command line. The last of two contradicting arguments wins, as it does for the kernel.
    pub(crate) fn parse(command_line: &str) -> Self {
        let mut found = Self::default();
        for word in words(command_line) {
            let (name, value) = word.split_once('=').unwrap_or((&word, ""));
            match (name, value) {
                ("keel.units", path) if path.starts_with('/') => found.units = path.into(),
                ("keel.config", path) if path.starts_with('/') => found.config = path.into(),
                ("keel.goal", goal) if !goal.is_empty() => found.goal = goal.into(),
                ("keel.report", "json") => found.report = true,
                ("loglevel" | "debug" | "ignore_loglevel", _) => found.kernel_talks = true,
                // A unit's condition may ask for any argument, so most of what is not ours is somebody's.
                (name, _) if name.starts_with("keel.") => found.unknown.push(word),
                _ => {}
            }
        }
        found
    }
}

impl Arguments {
    /// `KEEL_UNITS`, `KEEL_CONFIG` and `KEEL_GOAL` in place of what stands on the command line: a PID namespace shares the machine's
    /// command line, and has an environment of its own. (On a machine these may stand on the kernel's command line as they are:
    /// it hands what it does not know to PID 1 as environment.)
    pub(crate) fn with_environment(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        if let Some(units) = variable("KEEL_UNITS") {
            self.units = units.into();
        }
        if let Some(config) = variable("KEEL_CONFIG") {
            self.config = config.into();
        }
        if let Some(goal) = variable("KEEL_GOAL") {
            self.goal = goal;
        }
        self.report |= variable("KEEL_REPORT").is_some_and(|format| format == "json");
        self
    }
}

/// Words as the kernel sees them: blanks separate, double quotes keep blanks together and are dropped.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for character in line.chars().chain([' ']) {
        match character {
            '"' => quoted = !quoted,
            blank if blank.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => word.push(other),
        }
    }
    if !word.is_empty() {
        words.push(word.trim_end().to_owned());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_of_a_namespace_wins() {
        let environment = |name: &str| (name == "KEEL_UNITS").then(|| "/t/units".to_owned());
        let found = Arguments::parse("keel.units=/u keel.goal=x").with_environment(environment);
        assert_eq!(
            found,
            Arguments { units: "/t/units".into(), goal: "x".into(), ..Arguments::default() }
        );
    }

    #[test]
    fn command_lines() {
        let check = |line: &str, change: fn(&mut Arguments)| {
            let mut expect = Arguments::default();
            change(&mut expect);
            assert_eq!(Arguments::parse(line), expect, "{line}");
        };
        check("", |_| {});
        check("console=ttyS0 panic=-1 root=/dev/vda keelson=1", |_| {});
        check("keel.config=/run/config.toml\n", |a| a.config = "/run/config.toml".into());
        check("keel.units=/u keel.units=/v", |a| a.units = "/v".into());
        check("keel.units=relative", |a| a.unknown = vec!["keel.units=relative".into()]);
        check("keel.config=\"/with blank/c.toml\" quiet", |a| {
            a.config = "/with blank/c.toml".into()
        });
        check("keel.goal=storage keel.report=json", |a| {
            a.goal = "storage".into();
            a.report = true;
        });
        check("keel.report=yaml keel.goal=", |a| {
            a.unknown = vec!["keel.report=yaml".into(), "keel.goal=".into()];
        });
        check("quiet loglevel=7", |a| a.kernel_talks = true);
        check("debug", |a| a.kernel_talks = true);
        check("keel.config=\"/open quote ", |a| a.config = "/open quote".into());
    }
}
