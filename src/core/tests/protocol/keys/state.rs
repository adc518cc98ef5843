//! The actors of the protocol, their steps, and the state between two steps. `mod.rs` explains the words.
//!
//! A *claim* is the right of a transaction to set a key that has no value; it and a lease are *flights*. A transaction *announces*
//! a key to hide its value until the change is confirmed. A *lease* is the right of a worker to compute the value. A *tier* is a
//! cache in memory that several processes share.
//!
//! A new step must be offered in `properties.rs`, and take effect in `steps.rs`. A step of the protocol as built also needs a
//! branch in `as_built/keys.rs`. A new field of [`State`] needs its first value in `properties.rs` (`init_states`).

/// A change that an actor makes to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Sets the key in a transaction, which may abort.
    Set,
    /// Removes the key in a transaction, which may abort.
    Remove,
    /// Sets the key without a transaction: visible and through in one step.
    SetAtOnce,
    /// Removes the key without a transaction: visible and through in one step.
    RemoveAtOnce,
    /// In a transaction that claims the key, announces it because the transaction has changed more than the key, and
    /// confirms it.
    SetAbsent,
    /// In a transaction that claims the key and has changed nothing else, so that its value need not be announced.
    PublishAbsent,
}

impl Change {
    /// Whether the key has a value after the change.
    pub fn sets(self) -> bool {
        matches!(self, Self::Set | Self::SetAtOnce | Self::SetAbsent | Self::PublishAbsent)
    }

    /// Whether the writer claims the key first.
    pub fn claims(self) -> bool {
        matches!(self, Self::SetAbsent | Self::PublishAbsent)
    }
}

/// One step of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    Announce,
    /// The commit: the change becomes visible.
    Show,
    /// Makes the change in the tier: it replaces the value, unless its claim was voided, and the announcement ends.
    Confirm,
    /// The transaction aborts. `Withdraw` or `Release` must follow.
    Abort,
    /// Ends the announcement, and the claim if there is one. The value stays.
    Withdraw,
    /// Changes the key without a transaction.
    AtOnce,
    /// Claims the key. If it has a value, an announcement or another claim, the claim is refused and the writer stops.
    Claim,
    /// Ends the claim of a writer that aborts before it has announced anything.
    Release,
    /// Publishes without an announcement: visible and through in one step.
    Publish,
    // Only variants have the following steps.
    /// Removes the value.
    RemoveFirst,
    /// Replaces the value, and leaves the announcement.
    Replace,
    /// Ends the announcement.
    Uncover,
    /// Does the check of `Claim`, and claims nothing.
    LookForValue,
}

/// One step of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Acquires a lease. As built, this is possible only if no other flight leads.
    Acquire,
    /// Takes a snapshot and computes the value on it.
    Compute,
    /// Ends the lease and stores the value, if it may still be stored.
    Publish,
    /// Ends the lease without a value.
    GiveUp,
    // Only variants have the following steps.
    /// Acquires nothing, but is possible only if no other flight leads, like `Acquire` as built.
    LookForLeader,
    /// Ends the lease, and notes whether the value may be stored.
    CheckLease,
    /// Stores the value, if `CheckLease` allows it.
    Store,
}

/// One step of the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// Begins. The reader must see the changes that are visible now.
    Begin,
    /// Looks for the value of the key.
    Look,
}

/// One step of one actor, or an event that no actor chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Writer(usize, Write),
    Worker(usize, Work),
    Reader(Read),
    /// The deadline of the flight passes.
    TimePasses,
    /// Shared memory starts empty again. Applications keep their leases across the restart.
    Restart,
}

/// The value of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// Set by this writer.
    Set(u8),
    /// Computed, with the changes of these writers in it, as bits.
    Computed(u8),
}

/// The flight of the key: a lease or a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flight {
    /// The number of the lease or the claim.
    pub lease: u8,
    /// Whether the key was set or removed since the flight began, so that its value must not be stored.
    pub void: bool,
    /// Whether the deadline has passed. Another worker may then acquire a lease, but until it does, the value of this
    /// one may still be stored.
    pub overdue: bool,
    /// The writer that has claimed the key. None for a lease.
    pub claimed_by: Option<u8>,
}

/// The progress of a writer, which sets, removes or claims the key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Writer {
    /// How many steps the writer has taken. It starts at 0 again when the writer aborts.
    pub at: u8,
    /// Whether the writer has aborted.
    pub aborted: bool,
    /// The lease number of its claim.
    pub claim: Option<u8>,
    /// Whether its claim was granted, because there was no value, and has not ended.
    pub won: bool,
    /// Whether its claim was refused, because of a value, an announcement or another writer's claim.
    pub refused: bool,
    /// How many changes were through when its claim was voided. None if it was not voided.
    pub voided_at: Option<u8>,
}

/// The progress of a worker, which computes the value under a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Worker {
    /// How many steps the worker has taken.
    pub at: u8,
    /// The epoch in which it acquired the lease.
    pub epoch: u8,
    /// The number of its lease. 0 before it has one.
    pub lease: u8,
    /// The changes in the value that it has computed, as bits.
    pub value: u8,
    /// The changes that were visible when it acquired the lease.
    pub as_of: u8,
    /// Whether it holds a lease whose deadline has not passed.
    pub leads: bool,
    /// Whether its value was stored (true) or refused (false). None before that.
    pub stored: Option<bool>,
}

impl Worker {
    /// Returns whether its snapshot misses a change that was visible when it acquired the lease.
    pub fn has_snapshot_older_than_lease(&self) -> bool {
        self.as_of & !self.value != 0
    }
}

/// How the read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The key has no value, or an announcement hides it.
    Miss,
    /// A hit on a value with all changes that the reader must see.
    Hit(Value),
    /// A hit on a value that lacks one of them.
    Stale,
}

/// The state of the model between two steps: the key in the tier, the source, and the progress of each actor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    // The state of the source.
    /// The changes that are visible, as bits.
    pub visible: u8,
    // The state of the tier.
    /// The writers whose announcements stand, as bits.
    pub announced: u8,
    /// Whether the value is served although the key is announced. Only mistaken variants set this.
    pub uncovered: bool,
    /// The value of the key.
    pub entry: Option<Value>,
    /// The flight of the key, even if it is overdue.
    pub flight: Option<Flight>,
    /// The number of the last lease or claim since the restart.
    pub leases: u8,
    /// How many times the server has restarted.
    pub epoch: u8,
    // Facts that the model remembers in order to judge the outcome.
    /// The changes that are through, in order.
    pub through: Vec<u8>,
    /// The writers.
    pub writers: Vec<Writer>,
    /// The workers.
    pub workers: Vec<Worker>,
    /// Whether the reader has begun.
    pub begun: bool,
    /// The changes that were visible when the reader began, as bits.
    pub expected: u8,
    /// Whether a writer had aborted, and had withdrawn its change, before the reader began.
    pub aborts_seen: bool,
    /// How the read ended. None before its end.
    pub outcome: Option<Outcome>,
}
