//! Network links: a keeper for each, which outlives an activation that ran out of time.
//!
//! A boot goes on without a link that has no lease at its deadline, but the keeper asks on. When the lease comes after all, the
//! machine says so, and starting the unit again finds the link as it is.

use std::sync::Arc;
use std::time::Duration;

use keel_plan::Report;
use keel_unit::kinds;
use keel_unit::value::{Timespan, people};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::Shared;
use super::program::reason;
use super::slot::{Activation, Said, Slot};
use crate::net::{self, Cidr, LinkSelector, LinkSpec, NetEvent};
use crate::process::{Ask, Asks};

/// How long before its deadline a link says why it is not up: what a busy machine may take to hear it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A link whose activation is over and whose keeper is not. There is one keeper for a link, so the next activation takes it over.
pub(super) struct Late {
    claim: oneshot::Sender<()>,
    waiting: JoinHandle<net::Link>,
}

/// Brings a link up, and keeps it until it is asked to go.
pub(super) async fn run(
    shared: &Arc<Shared>,
    of: &Activation,
    unit: &kinds::Link,
    asks: &mut Asks,
) -> Report {
    let slot = &of.slot;
    let late = slot.late().take();
    let kept = match late {
        Some(late) => {
            drop(late.claim);
            late.waiting.await.ok()
        }
        None => None,
    };
    let mut link = kept.unwrap_or_else(|| {
        let (events, happens) = mpsc::channel(16);
        tell_of(shared.clone(), slot.clone(), happens);
        net::start(spec(unit), events)
    });
    tokio::select! {
        up = link.up() => match up {
            Ok(_) => shared.report(of, Report::Done),
            Err(error) => {
                link.release().await;
                return Report::Failed { why: reason(&error).into() };
            }
        },
        () = patience(unit) => {
            let why = given_up(&link.awaits(), unit.timeout);
            keep(shared, slot, link);
            return Report::Failed { why: why.into() };
        }
        ask = asks.next() => {
            match ask {
                // (Signals are for programs.)
                Ask::Stop | Ask::Signal(_) => link.release().await,
                // Out of time. Nothing of the activation is left but the keeper, which is meant to be.
                Ask::Kill => keep(shared, slot, link),
            }
            return Report::Stopped;
        }
    }
    asks.next().await;
    link.release().await;
    Report::Stopped
}

/// The boot waits for a link as long as its unit's deadline says, but for the moment that it takes to say what it waited for: the
/// deadline itself would end the activation with nothing but its own length for a reason.
async fn patience(unit: &kinds::Link) {
    match unit.timeout {
        Some(Timespan(timeout)) => {
            tokio::time::sleep(timeout - LAST_WORDS.min(timeout / 10)).await;
        }
        None => std::future::pending().await,
    }
}

/// The reason of a link that the boot goes on without.
fn given_up(awaits: &str, waited: Option<Timespan>) -> String {
    let waited =
        waited.map(|Timespan(waited)| format!("waited {}; ", people(waited))).unwrap_or_default();
    format!("{awaits} ({waited}the link keeps trying)")
}

/// Waits for a link that is late, however long it takes, or until the next activation claims it.
fn keep(shared: &Arc<Shared>, slot: &Arc<Slot>, mut link: net::Link) {
    let (claim, mut claimed) = oneshot::channel();
    let (telling, of) = (shared.clone(), slot.clone());
    let waiting = tokio::spawn(async move {
        tokio::select! {
            up = link.up() => {
                if up.is_ok() {
                    telling.tell(&of, Said::Recovered);
                }
                let _ = claimed.await;
            }
            _ = &mut claimed => {}
        }
        link
    });
    *slot.late() = Some(Late { claim, waiting });
}

/// What the unit file says, in the words of the network's room.
fn spec(unit: &kinds::Link) -> LinkSpec {
    LinkSpec {
        dhcp: unit.dhcp,
        mtu: unit.mtu.map(|mtu| mtu.0.into()),
        addresses: unit
            .addresses
            .iter()
            .map(|a| Cidr { address: a.address, prefix: a.prefix })
            .collect(),
        gateway: unit.gateway,
        dns: unit.dns.clone(),
        hostname_from_dhcp: unit.hostname,
        resolv_conf: Some(unit.resolv_conf.as_path().to_owned()),
        ..LinkSpec::new(LinkSelector::from(unit))
    }
}

/// Passes on what happens to a link as facts, until its keeper ends.
fn tell_of(shared: Arc<Shared>, slot: Arc<Slot>, mut happens: mpsc::Receiver<NetEvent>) {
    tokio::spawn(async move {
        while let Some(event) = happens.recv().await {
            if let Some(text) = sentence(&event) {
                shared.fact(&slot, text);
            }
        }
    });
}

/// An event in words, if it is worth a line: a renewal every half hour is not.
fn sentence(event: &NetEvent) -> Option<String> {
    let lasting = |ttl: &Option<Duration>| match ttl {
        Some(ttl) => format!("for {} s", ttl.as_secs()),
        None => "for ever".to_owned(),
    };
    Some(match event {
        NetEvent::Waiting { why } => format!("waits: {why}"),
        NetEvent::LinkChosen { name, .. } => format!("is {name}"),
        NetEvent::Leased { address, ttl, .. } => format!("leased {address} {}", lasting(ttl)),
        NetEvent::Renewed { .. } => return None,
        NetEvent::Expired { address, why } => format!("lost {address}: {why}"),
        NetEvent::Declined { address, by } => {
            let by: Vec<_> = by.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("declined {address}: {} uses it", by.join(":"))
        }
        NetEvent::Retrying { attempt, why } => {
            // The first few, then ever fewer: 1, 2, 4, 8 …
            return attempt
                .is_power_of_two()
                .then(|| format!("no lease yet, attempt {attempt}: {why}"));
        }
        NetEvent::Incomplete { why } => why.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_says_what_was_waited_for() {
        let check = |awaits: &str, waited: Option<Duration>, expect: &str| {
            assert_eq!(given_up(awaits, waited.map(Timespan)), expect);
        };
        let waited = Some(Duration::from_secs(20));
        check(
            "no DHCP server answers",
            waited,
            "no DHCP server answers (waited 20 s; the link keeps trying)",
        );
        check("the link has no carrier", None, "the link has no carrier (the link keeps trying)");
    }
}
