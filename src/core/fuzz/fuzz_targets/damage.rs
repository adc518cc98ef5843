//! Operations on a tier whose memory is written over meanwhile: nothing may crash or go on for ever.
#![no_main]

#[allow(dead_code)]
#[path = "../../tests/harness/mod.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::damage::endure(bytes));
