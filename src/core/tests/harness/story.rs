//! Decodes bytes into actions of the harness, for the fuzzer and for the test that replays its findings (`replay.rs`). Any bytes
//! are valid. `action.rs` explains the actions. A *tier* is a cache in memory that several processes share; the *region* is its
//! memory, and a *shard* is a part of it with a lock of its own.

use super::Harness;
use super::action::{Action, KEYS, OTHER_SPACES, SPACES, TAGS};
use arbitrary::{Result, Unstructured};

/// A test that bytes encode: the size of the region, the number of shards, and the actions.
#[derive(Clone, Debug)]
pub struct Story {
    pub kilobytes: usize,
    pub shards: u32,
    pub actions: Vec<Action>,
}

impl Story {
    /// Decodes a story of at most 200 actions. If the bytes end in the middle of an action, each field without bytes gets
    /// the first value of its range.
    pub fn of(bytes: &[u8]) -> Self {
        let mut bytes = Unstructured::new(bytes);
        let kilobytes = bytes.int_in_range(12..=80).unwrap_or(12);
        let shards = bytes.int_in_range(1..=3).unwrap_or(1);
        let mut actions = Vec::new();
        while !bytes.is_empty() && actions.len() < 200 {
            actions.extend(action(&mut bytes));
        }
        Self { kilobytes, shards, actions }
    }

    /// Runs the actions on a tier and on its model.
    pub fn run(&self) {
        Harness::new(self.kilobytes * 1024, self.shards).run(&self.actions);
    }
}

/// Decodes the next action. The bytes may end anywhere: see [`Story::of`].
fn action(bytes: &mut Unstructured<'_>) -> Result<Action> {
    // A code keeps its meaning, so that old findings still decode to the same actions. Of the 256 values, 221 are for
    // the codes 0 to 16 (13 each), 11 for the codes 17 to 27, and 24 for the codes 28 to 34.
    let choice: u8 = bytes.arbitrary()?;
    let code = match choice {
        0..221 => choice % 17,
        221..232 => choice % 11 + 17,
        232..248 => choice % 5 + 28,
        248.. => choice % 2 + 33,
    };
    Ok(match code {
        0 => Action::Put {
            key: key(bytes)?,
            size: size(bytes)?,
            tags: bytes.int_in_range(0..=7)?,
            ttl: bytes.int_in_range(1..=50)?,
            absent: bytes.arbitrary()?,
        },
        1 => Action::Get { key: key(bytes)? },
        2 => Action::Remove { key: key(bytes)? },
        3 => Action::Touch { key: key(bytes)?, ttl: bytes.int_in_range(1..=50)? },
        4 => Action::Incr { key: key(bytes)?, by: *bytes.choose(&[-5, -1, 1, 3, i64::MAX, i64::MIN])? },
        5 => Action::Wait { ticks: bytes.int_in_range(1..=20)? },
        6 => Action::Raise { tag: bytes.int_in_range(0..=TAGS - 1)? },
        7 => Action::LowerOrWithdraw { tag: bytes.int_in_range(0..=TAGS - 1)?, commit: bytes.arbitrary()? },
        8 => Action::Flush,
        9 => Action::Sweep { budget: bytes.int_in_range(1..=200)? },
        10 => Action::Reserve { key: key(bytes)?, size: size(bytes)? },
        11 => Action::PublishOrCancel { publish: bytes.arbitrary()? },
        12 => Action::Announce { key: key(bytes)?, size: size(bytes)?, removal: bytes.arbitrary()? },
        13 => Action::EndTransaction { commit: bytes.arbitrary()? },
        14 => Action::Acquire { key: key(bytes)?, hold: bytes.int_in_range(1..=40)? },
        15 => Action::EndLease { size: size(bytes)?, give_up: bytes.arbitrary()? },
        16 => Action::Reattach,
        17 | 18 => Action::PutWithin { key: key(bytes)?, size: size(bytes)?, quota: bytes.arbitrary()? },
        19 => Action::Trim { space: bytes.int_in_range(0..=SPACES - 1)?, quota: bytes.arbitrary()? },
        20 | 21 => Action::CountInOtherSpace { space: bytes.int_in_range(0..=OTHER_SPACES - 1)? },
        22 => Action::ResetCounts { space: bytes.int_in_range(0..=SPACES - 1)? },
        23 => Action::PutStaleOk {
            key: key(bytes)?,
            size: size(bytes)?,
            tags: bytes.int_in_range(0..=7)?,
            ttl: bytes.int_in_range(1..=50)?,
            ticks: bytes.int_in_range(1..=60)?,
        },
        24 => Action::GetStale { key: key(bytes)? },
        25 | 26 => {
            Action::Claim { key: key(bytes)?, second: bytes.arbitrary()?, removed: bytes.arbitrary()? }
        }
        28 => Action::Mark { shard: bytes.arbitrary()?, oldest: bytes.arbitrary()? },
        29 => Action::Locate { leave: bytes.arbitrary()? },
        30 => Action::Recycle,
        31 => Action::Promote { key: key(bytes)? },
        32 => Action::Restart,
        33 => Action::AnnouncePattern { key: key(bytes)?, pattern: bytes.arbitrary()? },
        34 => Action::EndPattern { commit: bytes.arbitrary()? },
        _ => Action::EndClaim {
            size: size(bytes)?,
            announced: bytes.arbitrary()?,
            give_up: bytes.arbitrary()?,
        },
    })
}

fn key(bytes: &mut Unstructured<'_>) -> Result<u8> {
    bytes.int_in_range(0..=KEYS - 1)
}

/// Returns the size of a value: mostly small, sometimes so large that the value is spread over runs and shards,
/// sometimes too large.
fn size(bytes: &mut Unstructured<'_>) -> Result<usize> {
    match bytes.int_in_range(0..=7u8)? {
        0..=4 => bytes.int_in_range(0..=199),
        5 | 6 => bytes.int_in_range(200..=1_500),
        _ => bytes.int_in_range(1_500..=9_000),
    }
}
