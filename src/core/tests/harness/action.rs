//! The actions that the property tests and the fuzzer choose from, in any order. `both.rs` does each action on the tier and
//! on the model.
//!
//! Times are in ticks, and sizes are in bytes of the value. `key` is a number below [`KEYS`] (`keys.rs` makes a key of it). `tags`
//! is a set: bit n stands for tag n. Any number of a shard or a space is valid: the harness takes it modulo their number. An action
//! that ends an earlier one does nothing if there is none.
//!
//! A new action needs an arm in `both.rs`, a code in `story.rs`, a line in `tests/model.rs`, and one more in the number of kinds in
//! `tests/replay.rs`. If it stores values or changes dependencies, the model must follow (`model.rs`).
//!
//! A *fence* is a word in shared memory that says when a dependency of entries last changed. An *announced* change of a key hides
//! the key's value until the change is confirmed (`tier/publishing.rs`). The *saver* copies entries to a place outside of the
//! region (`tier/saving.rs`), the shared memory of the *tier* (the cache). A *fill* and a *lease* are rights to compute the value
//! of a key, and a *claim* is the right to set a key that has no value. A *tick* is the unit of time, which the host of the tier
//! chooses. A *shard* is a part of the tier with a lock of its own. A *space* is a set of keys in one database, and its *quota* is
//! the most bytes that it may have.

/// One step of a test.
#[derive(Clone, Debug)]
pub enum Action {
    /// Stores a value at once. With `absent`, only if the key has no value.
    Put {
        key: u8,
        size: usize,
        tags: u8,
        ttl: u32,
        absent: bool,
    },
    Get {
        key: u8,
    },
    Remove {
        key: u8,
    },
    /// Gives a valid value a new time to live.
    Touch {
        key: u8,
        ttl: u32,
    },
    /// Adds to a counter, or stores a new one.
    Incr {
        key: u8,
        by: i64,
    },
    /// The clock moves on.
    Wait {
        ticks: u32,
    },
    /// A writer announces a change of a tag, by raising the tag's fence.
    Raise {
        tag: u8,
    },
    /// One of the writers that announced a change of the tag commits or aborts.
    LowerOrWithdraw {
        tag: u8,
        commit: bool,
    },
    /// Invalidates every entry of the database.
    Flush,
    /// Removes the dead entries of the next `budget` buckets.
    Sweep {
        budget: u32,
    },
    /// Reserves memory for a value and leaves the store unfinished.
    Reserve {
        key: u8,
        size: usize,
    },
    /// Finishes the oldest unfinished store: publishes or cancels it.
    PublishOrCancel {
        publish: bool,
    },
    /// A transaction announces that it will set or remove a key.
    Announce {
        key: u8,
        size: usize,
        removal: bool,
    },
    /// The oldest transaction that announced a key commits or aborts.
    EndTransaction {
        commit: bool,
    },
    /// A session asks for the right to compute a key until `hold` ticks from now. `hold` also selects a lease or a fill.
    Acquire {
        key: u8,
        hold: u32,
    },
    /// The session with the oldest lease or fill stores a value of `size` bytes or gives up.
    EndLease {
        size: usize,
        give_up: bool,
    },
    /// Stores a value that may be served stale for `ticks` after it has stopped being valid.
    PutStaleOk {
        key: u8,
        size: usize,
        tags: u8,
        ttl: u32,
        ticks: u32,
    },
    /// Reads a value that is right or that may be served stale.
    GetStale {
        key: u8,
    },
    /// One of two sessions claims a key that has no value. With `removed`, it claims the key even if the key has a value.
    Claim {
        key: u8,
        second: bool,
        removed: bool,
    },
    /// The session with the oldest claim sets the key, with or without an announcement, or gives up.
    EndClaim {
        size: usize,
        announced: bool,
        give_up: bool,
    },
    /// Another process attaches to the region.
    Reattach,
    /// All processes end, and a new process makes a copy of the region usable again.
    Restart,
    /// Stores at once, in a space with a quota of `quota` bytes.
    PutWithin {
        key: u8,
        size: usize,
        quota: u16,
    },
    /// Trims a space to `quota` bytes.
    Trim {
        space: u8,
        quota: u16,
    },
    /// Counts an event in one of the [`OTHER_SPACES`] spaces that hold no keys.
    CountInOtherSpace {
        space: u8,
    },
    /// Resets the counts of a space.
    ResetCounts {
        space: u8,
    },
    /// The saver marks and copies entries: with `oldest` the oldest ones of a shard, and otherwise those of the next buckets.
    Mark {
        shard: u8,
        oldest: bool,
    },
    /// The saver locates the copies of its last batch. With `leave`, the entries leave the memory.
    Locate {
        leave: bool,
    },
    /// The saver frees its oldest segment.
    Recycle,
    /// A reader promotes a saved value.
    Promote {
        key: u8,
    },
    /// A transaction announces a pattern in the scope of a key. `pattern` is the index of one of the patterns in `patterns.rs`.
    AnnouncePattern {
        key: u8,
        pattern: u8,
    },
    /// The oldest transaction that announced a pattern commits or aborts.
    EndPattern {
        commit: bool,
    },
}

/// The number of keys that the actions choose from.
pub const KEYS: u8 = 24;
/// The number of tags that the actions choose from.
pub const TAGS: u8 = 3;
/// The tag that stands for a relation: its fence is the fence of a relation.
pub const RELATION: u8 = 0;
/// The number of spaces that hold keys.
pub const SPACES: u8 = 4;
/// The number of other spaces, in which nothing is stored. Together with the spaces that hold keys, they are more than a
/// backend has rows of counts for.
pub const OTHER_SPACES: u8 = 12;
