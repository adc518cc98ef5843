//! Fuzzes a tiny tier with random operations, and compares it with the model that `tests/model.rs` uses. The fuzzer's bytes
//! encode the size of the tier and the operations (`tests/harness/story.rs`). `make fuzz` runs this.
#![no_main]

// This target uses only a part of the harness.
#[allow(dead_code)]
#[path = "../../tests/harness/mod.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::story::Story::of(bytes).run());
