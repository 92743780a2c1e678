//! The VM tier: a real kernel and a real disk in QEMU. `cargo xtask vm-image` builds what these
//! tests boot; `cargo xtask test` does so by itself.

#[cfg(test)]
mod again;
#[cfg(test)]
mod archive;
#[cfg(test)]
mod boots;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod disks;
#[cfg(test)]
mod door;
#[cfg(test)]
mod end;
#[cfg(test)]
mod firmware;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod services;
#[cfg(test)]
mod support;
