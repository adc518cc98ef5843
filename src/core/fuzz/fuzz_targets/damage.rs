//! Fuzzes a tier whose memory is overwritten while it works. The fuzzer's bytes encode the steps (`tests/harness/damage.rs`).
//! No operation may crash or run for ever. `make fuzz` runs this.
#![no_main]

// This target uses only a part of the harness.
#[allow(dead_code)]
#[path = "../../tests/harness/mod.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::damage::endure(bytes));
