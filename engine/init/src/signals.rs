//! What signals mean to init.
//!
//! | signal | from | meaning |
//! |---|---|---|
//! | SIGINT | the kernel, for Ctrl-Alt-Del | reboot |
//! | SIGTERM | container runtimes, `kill 1` | power off |
//! | SIGPWR | a UPS daemon, `lxc-stop` | power off |
//! | SIGRTMIN+3, SIGUSR1 | systemd's and busybox's word for it | halt |
//! | SIGRTMIN+4, SIGUSR2 | " | power off |
//! | SIGRTMIN+5 | " | reboot |
//! | the power button | a person, or a hypervisor that asks its guest to shut down | power off |
//!
//! All others are left at their default, which the kernel ignores for PID 1.

use std::io;

use keel_host::power::PowerButton;
use keel_plan::ShutdownKind;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// SIGPWR and the first real-time signal that libc leaves to programs (signal(7)); the same on all architectures we build for.
const SIGPWR: i32 = 30;
const SIGRTMIN: i32 = 34;

/// Every signal that means something.
const MEANINGS: [(SignalKind, ShutdownKind); 8] = [
    (SignalKind::interrupt(), ShutdownKind::Reboot),
    (SignalKind::terminate(), ShutdownKind::PowerOff),
    (SignalKind::from_raw(SIGPWR), ShutdownKind::PowerOff),
    (SignalKind::user_defined1(), ShutdownKind::Halt),
    (SignalKind::user_defined2(), ShutdownKind::PowerOff),
    (SignalKind::from_raw(SIGRTMIN + 3), ShutdownKind::Halt),
    (SignalKind::from_raw(SIGRTMIN + 4), ShutdownKind::PowerOff),
    (SignalKind::from_raw(SIGRTMIN + 5), ShutdownKind::Reboot),
];

/// Listens from now on. Each request that a signal stands for comes out of the channel. The power button is `ours` if the machine is:
/// in a PID namespace it is the host's.
pub(crate) fn listen(ours: bool) -> io::Result<mpsc::UnboundedReceiver<ShutdownKind>> {
    let (tell, requests) = mpsc::unbounded_channel();
    for (kind, meaning) in MEANINGS {
        let mut stream = signal(kind)?;
        let tell = tell.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() && tell.send(meaning).is_ok() {}
        });
    }
    if !ours {
        return Ok(requests);
    }
    tokio::spawn(async move {
        // A machine without the button, or without ACPI, is as good as any.
        let Ok(Some(mut button)) = PowerButton::listen().await else { return };
        while button.pressed().await.is_ok() && tell.send(ShutdownKind::PowerOff).is_ok() {}
    });
    Ok(requests)
}
