//! Fuzzes a tiny tier with random operations, and compares it with the model that `tests/model.rs` uses. `make
//! fuzz` runs this.
#![no_main]

// This target uses only a part of the harness.
#[allow(dead_code)]
#[path = "../../tests/harness/mod.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::story::Story::of(bytes).run());
