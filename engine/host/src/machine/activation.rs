//! One activation as a task: from the effect to its last report.

use std::sync::Arc;

use keel_plan::{Effect, Report, Token};
use keel_unit::Kind;

use super::{Shared, condition, kind, link, program};
use crate::process::Asks;

/// Starts the task for a condition or a start.
pub(super) fn begin(shared: Arc<Shared>, token: Token, effect: Effect, asks: Asks) {
    guard(shared.clone(), token, run(shared, token, effect, asks));
}

/// Starts the task that takes down a unit whose activation has ended.
pub(super) fn take_down(shared: Arc<Shared>, token: Token) {
    guard(shared.clone(), token, async move {
        let report = match kind::take_down(&shared, token.unit).await {
            Ok(()) => Report::Stopped,
            Err(why) => Report::StopFailed { why: why.into() },
        };
        shared.report(token, report);
    });
}

async fn run(shared: Arc<Shared>, token: Token, effect: Effect, mut asks: Asks) {
    let report = match (&shared.unit(token.unit).kind, effect) {
        (_, Effect::CheckCondition) => condition::report(&shared.unit(token.unit).condition).await,
        (Kind::Oneshot(_) | Kind::Service(_), _) => program::run(&shared, token, &mut asks).await,
        (Kind::Link(link), _) => link::run(&shared, token, link, &mut asks).await,
        (_, _) => kind::run(&shared, token, &mut asks).await,
    };
    // Closed first: what is asked from here on finds nobody, and `take_down` answers it.
    let asked = asks.close();
    match report {
        // Done before the request was heard: what was made (a mount) still has to go.
        Report::Done if asked => take_down(shared, token),
        // Whoever asked for an end hears of that end; what else came of it no longer matters.
        _ if asked => shared.report(token, Report::Stopped),
        report => shared.report(token, report),
    }
}

/// A defect of ours in one unit's code fails that unit, by name, and nothing else.
fn guard(shared: Arc<Shared>, token: Token, work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = tokio::spawn(work).await
            && error.is_panic()
        {
            let payload = error.into_panic();
            let text = payload.downcast_ref::<&str>().map(ToString::to_string);
            let text =
                text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
            shared
                .report(token, Report::Failed { why: format!("a defect in keel: {text}").into() });
        }
    });
}
