//! Disks for real: loop devices on sparse files, and the tools of others as judges.

#[cfg(test)]
mod filesystem;
#[cfg(test)]
mod foreign;
#[cfg(test)]
mod image;
#[cfg(test)]
mod inventory;
#[cfg(test)]
mod mount;
#[cfg(test)]
mod provision;
#[cfg(test)]
mod support;
#[cfg(test)]
mod wipe;
