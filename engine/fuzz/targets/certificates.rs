//! The fuzz target `certificates`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| keel_fuzz::certificates(bytes));

#[cfg(not(fuzzing))]
fn main() {}
