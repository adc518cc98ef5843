//! Does what the fuzzer (`fuzz/fuzz_targets/`) does, without the fuzzer: decodes bytes into operations, and runs them on a sound
//! region, the memory of a tier, beside a naive model of the tier (`harness/mod.rs`). It also runs operations on a region whose
//! words are overwritten (`harness/damage.rs`). A *tier* is a cache in memory that several processes share.
//!
//! The bytes come from a random generator with a fixed seed, so that the decoding is tested with every `make test`,
//! and from the files in `fuzz/regressions`, which are findings of the fuzzer.

// This test uses only the two functions of the harness that the fuzzer uses.
#[allow(dead_code)]
mod harness;
#[allow(dead_code)]
mod values;

use harness::damage::endure;
use harness::story::Story;
use std::collections::HashSet;
use std::path::Path;
use values::Random;

/// Returns byte strings of random lengths up to 700, always the same ones: the seed is fixed, and any number would do.
fn strings(count: u64) -> impl Iterator<Item = Vec<u8>> {
    let mut random = Random::new(2026);
    (0..count).map(move |_| {
        let length = 1 + random.below(700);
        // The bound is a multiple of 256, so that each byte is as likely as any other.
        (0..length).map(|_| random.below(1 << 40) as u8).collect()
    })
}

/// Calls `feed` with the content of each file of a folder, and returns how many files there are.
fn replay(folder: &str, feed: impl Fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions").join(folder);
    let files = std::fs::read_dir(&folder).expect("a folder of regressions");
    let paths = files.map(|file| file.expect("it can be listed").path());
    paths.inspect(|path| feed(&std::fs::read(path).expect("it can be read"))).count()
}

/// The tier must agree with the model for each story. Together the stories must contain every kind of action: a kind that
/// no bytes encode would never be tested.
#[test]
fn bytes_are_stories_that_the_model_agrees_with() {
    let mut kinds = HashSet::new();
    for bytes in strings(300) {
        let story = Story::of(&bytes);
        kinds.extend(story.actions.iter().map(std::mem::discriminant));
        story.run();
    }
    // The number of kinds in `Action`. A new kind must be added to `harness/story.rs` and to `tests/model.rs`, and to
    // this number.
    assert_eq!(kinds.len(), 32, "some actions are never told");
    assert!(replay("operations", |bytes| Story::of(bytes).run()) > 0, "no regressions are found");
}

/// With any bytes written over the memory, every operation must end, and none may crash: `endure` panics after too many locks.
#[test]
fn a_tier_endures_what_bytes_do_to_its_memory() {
    strings(300).for_each(|bytes| endure(&bytes));
    assert!(replay("damage", endure) > 0, "no regressions are found");
}
