//! Loads what devices ask for that appear after coldplug.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::coldplug::ColdplugReport;
use super::loader::Modules;
use crate::device::{Received, UeventSocket};

/// Serves the uevents of the kernel, for ever; `report` hears of every batch that loaded or failed something.
///
/// `uevents` is to be opened before [`Modules::coldplug`] looks, so that no device falls between the two. When the kernel
/// drops uevents because they came too fast, the devices are looked through again.
pub async fn hotplug(
    modules: Arc<Modules>,
    sys_root: PathBuf,
    uevents: UeventSocket,
    mut report: impl FnMut(ColdplugReport),
) -> io::Result<Infallible> {
    loop {
        let batch = Batch::receive(&uevents).await?;
        let modules = Arc::clone(&modules);
        let sys_root = sys_root.clone();
        let loading = tokio::task::spawn_blocking(move || {
            let mut found = ColdplugReport::default();
            if batch.look_through {
                found = modules.coldplug_with(&sys_root, None);
            }
            // What these bring is told to `uevents`, and is the next batch.
            modules.serve(batch.aliases, Vec::new, &mut found);
            found
        });
        let found = loading.await.map_err(io::Error::other)?;
        if !(found.loaded.is_empty() && found.failed.is_empty()) {
            report(found);
        }
    }
}

/// What has to be looked at next.
struct Batch {
    aliases: Vec<String>,
    look_through: bool,
}

impl Batch {
    /// Waits for a uevent that matters and takes what else is there.
    async fn receive(uevents: &UeventSocket) -> io::Result<Self> {
        let mut batch = Self { aliases: Vec::new(), look_through: false };
        while batch.aliases.is_empty() && !batch.look_through {
            batch.take(uevents.receive().await?);
        }
        while let Some(received) = uevents.try_receive()? {
            batch.take(received);
        }
        Ok(batch)
    }

    fn take(&mut self, received: Received) {
        match received {
            Received::Overrun => self.look_through = true,
            Received::Event(event) => {
                if event.adds()
                    && let Some(alias) = event.property("MODALIAS")
                {
                    self.aliases.push(alias.to_owned());
                }
            }
        }
    }
}
