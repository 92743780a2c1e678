//! Hardware that is waited for: the kernel's uevents, and the state behind them.

mod uevent;
mod wait;

#[cfg(test)]
mod tests;

pub(crate) use uevent::Subscription;
pub use uevent::{Received, Uevent, UeventSocket};
pub use wait::{DeviceError, Found, Wanted, wait, wait_in};
