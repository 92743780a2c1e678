//! The fuzz target `dhcp`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| keel_fuzz::dhcp(bytes));

#[cfg(not(fuzzing))]
fn main() {}
