//! Fuzzes a tier whose memory is overwritten while it works. No operation may crash or run for ever.
#![no_main]

#[allow(dead_code)]
#[path = "../../tests/harness/mod.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::damage::endure(bytes));
