//! One activation as a task: from the effect to its last report.

use std::sync::Arc;

use keel_plan::{Effect, Report};
use keel_unit::Kind;

use super::slot::Activation;
use super::{Shared, condition, kind, link, program};
use crate::process::Asks;

/// Starts the task for a condition or a start.
pub(super) fn begin(shared: Arc<Shared>, of: Activation, effect: Effect, asks: Asks) {
    guard(shared.clone(), of.clone(), run(shared, of, effect, asks));
}

/// Starts the task that takes down a unit whose activation has ended.
pub(super) fn take_down(shared: Arc<Shared>, of: Activation) {
    guard(shared.clone(), of.clone(), async move {
        let report = match kind::take_down(&shared, &of).await {
            Ok(()) => Report::Stopped,
            Err(why) => Report::StopFailed { why: why.into() },
        };
        shared.report(&of, report);
    });
}

async fn run(shared: Arc<Shared>, of: Activation, effect: Effect, mut asks: Asks) {
    let report = match (&of.unit.kind, effect) {
        (_, Effect::CheckCondition) => condition::report(&of.unit.condition).await,
        (Kind::Oneshot(_) | Kind::Service(_), _) => program::run(&shared, &of, &mut asks).await,
        (Kind::Link(link), _) => link::run(&shared, &of, link, &mut asks).await,
        (_, _) => kind::run(&shared, &of, &mut asks).await,
    };
    // Closed first: what is asked from here on finds nobody, and `take_down` answers it.
    let asked = asks.close();
    match report {
        // Done before the request was heard: what was made (a mount) still has to go.
        Report::Done if asked => take_down(shared, of),
        // Whoever asked for an end hears of that end; what else came of it no longer matters.
        _ if asked => shared.report(&of, Report::Stopped),
        report => shared.report(&of, report),
    }
}

/// A defect of ours in one unit's code fails that unit, by name, and nothing else.
fn guard(shared: Arc<Shared>, of: Activation, work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = tokio::spawn(work).await
            && error.is_panic()
        {
            let payload = error.into_panic();
            let text = payload.downcast_ref::<&str>().map(ToString::to_string);
            let text =
                text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
            shared.report(&of, Report::Failed { why: format!("a defect in keel: {text}").into() });
        }
    });
}
