//! Fuzzes a tiny tier with random operations, and compares each answer with that of a naive model (`tests/harness/model.rs`). A
//! *tier* is the cache in shared memory (`lib.rs` of the core). The rule: the tier must never serve a value that the model would
//! not serve. The bytes that the fuzzer generates encode the size of the tier and the operations (`tests/harness/story.rs`).
//! `make fuzz` runs this. Without the fuzzer, `tests/model.rs` makes the same comparison, and `tests/replay.rs` runs the findings
//! in `fuzz/regressions/operations` again.
#![no_main]

// This target uses only a part of the harness.
#[allow(dead_code)]
#[path = "../../tests/harness/mod.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::story::Story::of(bytes).run());
