//! Fuzzes a tiny tier with random operations, and compares it with the model that `tests/model.rs` uses.
#![no_main]

#[allow(dead_code)]
#[path = "../../tests/harness/mod.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::story::Story::of(bytes).run());
