//! The fuzz target `units`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| keel_fuzz::units(bytes));

#[cfg(not(fuzzing))]
fn main() {}
