//! Runs random operations on tiny tiers, and compares them with a naive model: a map of entries, a clock, and a copy of
//! each fence. A *fence* is a word that is *raised* while a change is pending, and has the number of the last change; a *stamp* is
//! a number of the clock of changes (`src/core/fence/mod.rs`).
//!
//! The tier must never serve a value that the model would not serve: another key's value, a torn value, an expired
//! value, or a value with a fence that is raised or has changed since the value's stamp. It may forget valid entries
//! only after it has evicted an entry, refused a value because it was full, or worked within a quota of the space. Its
//! counts for each space must match its actions. After every step all structures are verified. The fuzzer uses the same
//! harness.
//!
//! A *tier* is a cache in memory that several processes share. A *space* is a set of keys in one database, and its *quota* limits
//! the memory of its entries.

// Other tests use the part of the harness that overwrites memory.
#[allow(dead_code)]
mod harness;

use harness::{Action, Harness, KEYS, OTHER_SPACES, SPACES};
use proptest::prelude::*;

/// Returns a strategy that generates actions. The first number of each line is its weight.
fn action() -> impl Strategy<Value = Action> {
    let key = 0..KEYS;
    // Mostly small, sometimes so large that the value is spread over runs and shards, sometimes too large.
    let size = prop_oneof![6 => 0usize..200, 2 => 200usize..1500, 1 => 1500usize..9000];
    // Mostly tag 0. Its fence is that of a relation, whose statistics are compared, too.
    let tag = prop_oneof![2 => Just(0u8), 1 => 1u8..3];
    prop_oneof![
        8 => (key.clone(), size.clone(), 0u8..8, 1u32..50, any::<bool>())
            .prop_map(|(key, size, tags, ttl, absent)| Action::Put { key, size, tags, ttl, absent }),
        8 => key.clone().prop_map(|key| Action::Get { key }),
        2 => key.clone().prop_map(|key| Action::Remove { key }),
        2 => (key.clone(), 1u32..50).prop_map(|(key, ttl)| Action::Touch { key, ttl }),
        3 => (key.clone(), prop_oneof![-5i64..5, Just(i64::MAX), Just(i64::MIN)])
            .prop_map(|(key, by)| Action::Incr { key, by }),
        2 => (1u32..20).prop_map(|ticks| Action::Wait { ticks }),
        4 => tag.clone().prop_map(|tag| Action::Raise { tag }),
        8 => (tag, prop::bool::weighted(0.7)).prop_map(|(tag, commit)| Action::LowerOrWithdraw { tag, commit }),
        1 => Just(Action::Flush),
        1 => (1u32..200).prop_map(|budget| Action::Sweep { budget }),
        2 => (key.clone(), size.clone()).prop_map(|(key, size)| Action::Reserve { key, size }),
        3 => (key.clone(), size.clone(), any::<bool>())
            .prop_map(|(key, size, removal)| Action::Announce { key, size, removal }),
        3 => any::<bool>().prop_map(|commit| Action::EndTransaction { commit }),
        3 => (key.clone(), 1u32..40).prop_map(|(key, hold)| Action::Acquire { key, hold }),
        3 => (size.clone(), any::<bool>()).prop_map(|(size, give_up)| Action::EndLease { size, give_up }),
        4 => (key.clone(), size.clone(), 0u8..8, 1u32..50, 1u32..60).prop_map(
            |(key, size, tags, ttl, ticks)| Action::PutStaleOk { key, size, tags, ttl, ticks }
        ),
        5 => key.clone().prop_map(|key| Action::GetStale { key }),
        3 => (key.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(key, second, removed)| Action::Claim { key, second, removed }),
        3 => (size, any::<bool>(), any::<bool>())
            .prop_map(|(size, announced, give_up)| Action::EndClaim { size, announced, give_up }),
        2 => any::<bool>().prop_map(|publish| Action::PublishOrCancel { publish }),
        2 => Just(Action::Reattach),
        2 => Just(Action::Restart),
        4 => (key, 0usize..1500, 0u16..8000)
            .prop_map(|(key, size, quota)| Action::PutWithin { key, size, quota }),
        1 => (0..SPACES, 0u16..4000).prop_map(|(space, quota)| Action::Trim { space, quota }),
        4 => (0..OTHER_SPACES).prop_map(|space| Action::CountInOtherSpace { space }),
        1 => (0..SPACES).prop_map(|space| Action::ResetCounts { space }),
        4 => (0u8..3, any::<bool>()).prop_map(|(shard, oldest)| Action::Mark { shard, oldest }),
        4 => any::<bool>().prop_map(|leave| Action::Locate { leave }),
        1 => Just(Action::Recycle),
        2 => (0..KEYS).prop_map(|key| Action::Promote { key }),
        3 => (0..KEYS, any::<u8>()).prop_map(|(key, pattern)| Action::AnnouncePattern { key, pattern }),
        3 => prop::bool::weighted(0.7).prop_map(|commit| Action::EndPattern { commit }),
    ]
}

proptest! {
    #![proptest_config(harness::cases(400))]

    /// The rules in the head of this file. `Harness::run` panics at the first step that breaks one.
    #[test]
    fn never_serves_what_the_model_would_not(
        kilobytes in 12usize..80,
        shards in prop_oneof![Just(1u32), Just(2), Just(3)],
        actions in prop::collection::vec(action(), 1..120),
    ) {
        Harness::new(kilobytes * 1024, shards).run(&actions);
    }
}
