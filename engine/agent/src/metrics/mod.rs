//! What is counted, and how a machine stands, for Prometheus. Served only where the machine config says so.

mod http;

use std::sync::Arc;
use std::time::Duration;

use keel_control::{ControlError, GoalState, Status, UnitList, UnitState};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

pub(crate) use self::http::{Where, listen, serve};
use crate::init::Init;
use crate::places::Places;

/// A call, as metrics tell it from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: String,
    code: &'static str,
}

/// A unit, as metrics tell it from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UnitLabels {
    unit: String,
}

/// A unit and one of the states that it can be in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    unit: String,
    state: &'static str,
}

/// What is counted while the agent runs.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    calls: Family<CallLabels, Counter>,
    refused: Counter,
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

/// What a page of metrics is made from.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) places: Arc<Places>,
    pub(crate) init: Arc<Init>,
}

impl Page {
    /// The page as it stands now. Without init it holds what the agent knows, and says that init does not answer.
    async fn text(&self) -> Result<String, std::fmt::Error> {
        let machine = self.ask().await.ok();
        let mut registry = Registry::with_prefix("keel");
        self.agent(&mut registry, machine.is_some());
        if let Some((status, units)) = &machine {
            boot(&mut registry, status);
            all_units(&mut registry, units);
        }
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    async fn ask(&self) -> Result<(Status, UnitList), ControlError> {
        self.init.ask(async |init| Ok((init.status().await?, init.units().await?))).await
    }

    fn agent(&self, registry: &mut Registry, init_answers: bool) {
        registry.register("api_calls", "Calls that have ended", self.metrics.calls.clone());
        registry.register(
            "api_refused_connections",
            "Connections that were refused",
            self.metrics.refused.clone(),
        );
        let (handshakes, connections) = self.places.count();
        gauge(registry, "api_connections", "Connections that are open", connections);
        gauge(registry, "api_handshakes", "Connections that shake hands", handshakes);
        gauge(registry, "init_up", "Whether init answers", usize::from(init_answers));
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: usize) {
    let gauge: Gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

fn seconds(registry: &mut Registry, name: &str, help: &str, value: Duration) {
    let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
    gauge.set(value.as_secs_f64());
    registry.register_with_unit(name, help, Unit::Seconds, gauge);
}

fn boot(registry: &mut Registry, status: &Status) {
    let state = Family::<GoalLabels, Gauge>::default();
    state
        .get_or_create(&GoalLabels { goal: status.goal.clone(), state: goal(status.state) })
        .set(1);
    registry.register("goal_state", "How far the boot's goal is", state);
    let uptime = Duration::from_millis(status.uptime_ms);
    seconds(registry, "uptime", "Time since init started", uptime);
    gauge(
        registry,
        "degraded_units",
        "Units that are not as they should be",
        status.degraded.len(),
    );
    if let Some(boot) = &status.boot {
        let total = Duration::from_millis(boot.total_ms);
        seconds(registry, "boot_duration", "From init's start to the goal", total);
        if let Some(kernel) = boot.kernel_us {
            let kernel = Duration::from_micros(kernel);
            seconds(registry, "boot_kernel", "From the kernel's start to init's", kernel);
        }
    }
}

/// The goal of a boot, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GoalLabels {
    goal: String,
    state: &'static str,
}

fn all_units(registry: &mut Registry, list: &UnitList) {
    let states = Family::<StateLabels, Gauge>::default();
    let attempts = Family::<UnitLabels, Gauge>::default();
    let took = Family::<UnitLabels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
    for unit in &list.units {
        // One line for each unit, not one for each state that it is not in: a node has a hundred units, and a fleet many nodes.
        let labels = StateLabels { unit: unit.name.clone(), state: unit_state(unit.state) };
        states.get_or_create(&labels).set(1);
        let labels = UnitLabels { unit: unit.name.clone() };
        attempts.get_or_create(&labels).set(i64::from(unit.attempts));
        if let Some(ms) = unit.took_ms {
            took.get_or_create(&labels).set(Duration::from_millis(ms).as_secs_f64());
        }
    }
    registry.register("unit_state", "The state that a unit is in", states);
    registry.register("unit_attempts", "How often a unit was started", attempts);
    let help = "How long a unit took to become active";
    registry.register_with_unit("unit_activation", help, Unit::Seconds, took);
}

fn goal(state: GoalState) -> &'static str {
    match state {
        GoalState::Booting => "booting",
        GoalState::Reached => "reached",
        GoalState::Degraded => "degraded",
        GoalState::Emergency => "emergency",
        GoalState::Stopping => "stopping",
    }
}

fn unit_state(state: UnitState) -> &'static str {
    match state {
        UnitState::Inactive => "inactive",
        UnitState::Waiting => "waiting",
        UnitState::Activating => "activating",
        UnitState::Running => "running",
        UnitState::Exited => "exited",
        UnitState::Deactivating => "deactivating",
        UnitState::Failed => "failed",
        UnitState::Skipped => "skipped",
    }
}
