//! Fuzzes a tier whose memory is overwritten while it works. A *tier* is the cache in shared memory (`lib.rs` of the core). The
//! bytes that the fuzzer generates encode steps: each step is an operation of the cache, or overwrites a word of its memory
//! (`Blow` in `tests/harness/damage.rs`). The rule: with any content of the memory, each operation must end, and none may crash.
//! `make fuzz` runs this. `tests/replay.rs` runs its findings in `fuzz/regressions/damage` again without the fuzzer.
#![no_main]

// This target uses only a part of the harness.
#[allow(dead_code)]
#[path = "../../tests/harness/mod.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| harness::damage::endure(bytes));
