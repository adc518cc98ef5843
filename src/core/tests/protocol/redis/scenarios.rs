//! The scenarios that are checked, and the variants of the protocol: as it is built, and with one rule broken.
//!
//! `mod.rs` explains the model. The *journal* is a ring of records that name changes; a worker that is too slow is *lapped*: it
//! misses records.
//!
//! A new variant needs a line in the test in `mod.rs`, which names the scenario in which it must break the property `EQUAL`, or
//! says that it is harmless. It also needs a branch that breaks the rule, in `worker.rs` or `server.rs`.

use super::state::{Accidents, Change, KEYS, Server, Set, State, Value, Worker};

/// The protocol as it is built, with one rule broken, or built in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The protocol as it is built.
    AsBuilt,
    // Looks and confirmations.
    /// The worker copies the value with which the record of the key was written.
    CopiesRecord,
    /// Changes count as confirmed when the job is sent.
    AcksWhenSent,
    /// The worker does not notice that the journal has lapped it.
    IgnoresLap,
    /// After a resync, the worker follows the journal from where it ends after the scan.
    FollowsAfterScan,
    // Connections.
    /// A new connection does not compare the identity of Redis.
    KeepsIdentity,
    /// A new connection does not end the old one.
    KeepsZombies,
    /// Keys of a scan whose comparison has failed are not compared again.
    ForgetsFailedCompare,
    // The sets of tags.
    /// After a job of a refill has failed, the refill begins anew, but its keys are not compared with the cache.
    OnlyRefillsAgain,
    /// The worker forgets the set of a removal that has failed.
    ForgetsFailedRemoval,
    /// A batch adds the key to the set after it has set the value.
    AddsAfterValue,
    /// A later job adds the key to the set.
    AddsInLaterJob,
    /// The worker takes no notice of a lost set.
    IgnoresLostSet,
    /// After a lost set, the worker forgets its sets, and does not scan.
    ClearsWithoutScan,
    /// A set counts as complete if it exists.
    NeedsNoProof,
    /// A removal does not notice that the set is evicted while the set is read.
    IgnoresLateEviction,
    // Scans.
    /// A scan that is asked for while another one runs counts as a part of the running one.
    MergesScans,
    /// A change that does not name its keys is followed by a refill alone.
    LargeOnlyRefills,
    // A full Redis.
    /// The worker forgets a set whose creation Redis has refused, although a later batch is under way.
    ForgetsRefusedSet,
    /// The thread does not remove the key of a value that Redis has refused, so Redis keeps the old value.
    LeavesRefused,
}

/// The model: a variant and a scenario.
#[derive(Clone, Debug)]
pub struct Redis {
    pub variant: Variant,
    /// The changes, each of which is made by a session of its own.
    pub changes: &'static [Change],
    /// How many records the journal has room for.
    pub lines: u8,
    /// The most jobs under way.
    pub depth: usize,
    /// The keys that have a value at first, as bits.
    pub first: u8,
    /// The keys among `first` that Redis has at first. If Redis does not have all of them, a refill has begun.
    pub copied: u8,
    /// Whether the first values have the tag.
    pub is_tagged: bool,
    /// Whether the worker has yet to start. Then the cache has lost the first values, and Redis still has them.
    pub is_cold: bool,
    /// Whether Redis is a cluster, in which one server has the set, and another one the values.
    pub is_cluster: bool,
    /// The accidents that may happen.
    pub accidents: Accidents,
}

impl Redis {
    /// Returns the data of Redis at first.
    pub fn server(&self) -> Server {
        let set = self.is_tagged.then_some(Set { is_proved: true, members: self.copied });
        Server { values: first_values(self.copied), set, identity: 0 }
    }

    /// Returns the first state.
    pub fn first(&self) -> State {
        let server = self.server();
        let is_up = !self.is_cold;
        State {
            values: if is_up { first_values(self.first) } else { [None; KEYS] },
            visible: 0,
            journal: Vec::new(),
            worker: Worker {
                is_up,
                position: 0,
                acked: 0,
                keys: 0,
                wide: None,
                jobs: Vec::new(),
                is_known: is_up && self.is_tagged,
                scan: None,
                is_scan_wanted: false,
                owes_scan: false,
                found: 0,
                refill: (self.copied != self.first).then_some(0),
                identity: is_up.then_some(server.identity),
                recorded: [None; KEYS],
            },
            server,
            is_linked: is_up,
            zombies: Vec::new(),
            left: self.accidents,
        }
    }

    /// Two sessions change a key without a tag, and one sets another key. Nothing fails.
    pub fn orders(variant: Variant) -> Self {
        Self {
            variant,
            changes: &[Change::Set(0), Change::Delete(0), Change::Set(1)],
            lines: 8,
            depth: 2,
            first: 0b01,
            copied: 0b01,
            is_tagged: false,
            is_cold: false,
            is_cluster: false,
            accidents: Accidents::default(),
        }
    }

    /// Two keys have the tag. One is set again while the tag is invalidated.
    pub fn tag(variant: Variant) -> Self {
        let changes = &[Change::SetTagged(0), Change::Invalidate, Change::Set(1)];
        Self { changes, first: 0b11, copied: 0b11, is_tagged: true, depth: 3, ..Self::orders(variant) }
    }

    /// A key gets the tag while the tag is invalidated, and the connection is lost twice.
    pub fn lost_connection(variant: Variant) -> Self {
        let accidents = Accidents { losses: 2, ..Accidents::default() };
        let changes = &[Change::SetTagged(1), Change::Invalidate, Change::Delete(0)];
        Self { changes, first: 0b01, copied: 0b01, accidents, ..Self::tag(variant) }
    }

    /// Two changes of a key, and the connection is lost twice.
    pub fn zombies(variant: Variant) -> Self {
        let accidents = Accidents { losses: 2, ..Accidents::default() };
        Self { changes: &[Change::Set(0), Change::Set(0)], accidents, ..Self::orders(variant) }
    }

    /// The journal has room for one record, and the connection is lost.
    pub fn lapped(variant: Variant) -> Self {
        let accidents = Accidents { losses: 1, ..Accidents::default() };
        let changes = &[Change::Delete(0), Change::Set(1), Change::Invalidate];
        Self {
            changes,
            first: 0b11,
            copied: 0b11,
            is_tagged: true,
            lines: 1,
            accidents,
            ..Self::orders(variant)
        }
    }

    /// Redis is replaced by an older copy of its data, and the connection may be lost.
    pub fn failover(variant: Variant) -> Self {
        let accidents = Accidents { losses: 1, failovers: 1, ..Accidents::default() };
        Self {
            changes: &[Change::Invalidate, Change::SetTagged(1)],
            accidents,
            ..Self::lost_connection(variant)
        }
    }

    /// Redis evicts the set of the tag.
    pub fn evicted(variant: Variant) -> Self {
        let accidents = Accidents { evictions: 1, ..Accidents::default() };
        Self {
            changes: &[Change::SetTagged(0), Change::Invalidate],
            depth: 2,
            accidents,
            ..Self::tag(variant)
        }
    }

    /// Redis evicts the set of the tag, and the connection is lost.
    pub fn evicted_and_lost(variant: Variant) -> Self {
        let accidents = Accidents { losses: 1, evictions: 1, ..Accidents::default() };
        Self { accidents, ..Self::evicted(variant) }
    }

    /// Redis refuses commands because it is full.
    pub fn full(variant: Variant) -> Self {
        let accidents = Accidents { refusals: 2, ..Accidents::default() };
        Self {
            changes: &[Change::SetTagged(0), Change::Invalidate],
            depth: 2,
            accidents,
            ..Self::tag(variant)
        }
    }

    /// A large transaction and a flush, whose records name the space.
    pub fn space(variant: Variant) -> Self {
        let changes = &[Change::Large(0), Change::Flush, Change::Set(1)];
        Self { changes, first: 0b11, copied: 0b11, is_tagged: false, ..Self::orders(variant) }
    }

    /// A large transaction while the tag is invalidated, and the connection is lost.
    pub fn space_and_lost(variant: Variant) -> Self {
        let accidents = Accidents { losses: 1, ..Accidents::default() };
        let changes = &[Change::Large(0), Change::SetTagged(0), Change::Invalidate];
        Self { changes, is_tagged: true, accidents, ..Self::space(variant) }
    }

    /// The worker starts while Redis has values of an earlier life.
    pub fn start(variant: Variant) -> Self {
        let accidents = Accidents { losses: 1, ..Accidents::default() };
        let changes = &[Change::SetTagged(0), Change::Invalidate];
        Self { changes, is_cold: true, depth: 2, accidents, ..Self::tag(variant) }
    }

    /// The worker refills a key while the tag is invalidated. Redis refuses commands, and the connection is lost.
    pub fn refill_and_full(variant: Variant) -> Self {
        let accidents = Accidents { losses: 1, refusals: 1, ..Accidents::default() };
        Self { accidents, ..Self::refill(variant) }
    }

    /// The worker refills a key of a cluster while the tag is invalidated, and the connection is lost.
    pub fn cluster(variant: Variant) -> Self {
        Self { is_cluster: true, ..Self::refill(variant) }
    }

    /// No set exists. Two keys get the tag while it is invalidated, and Redis refuses commands.
    pub fn full_and_new(variant: Variant) -> Self {
        let accidents = Accidents { refusals: 2, ..Accidents::default() };
        let changes = &[Change::SetTagged(0), Change::SetTagged(1), Change::Invalidate];
        Self { changes, first: 0, copied: 0, is_tagged: false, accidents, ..Self::full(variant) }
    }

    /// Redis evicts the set, and refuses a command.
    pub fn full_and_evicted(variant: Variant) -> Self {
        let accidents = Accidents { evictions: 1, refusals: 1, ..Accidents::default() };
        Self { accidents, depth: 3, ..Self::evicted(variant) }
    }

    /// All accidents, each once.
    pub fn all(variant: Variant) -> Self {
        let accidents = Accidents { losses: 1, failovers: 1, evictions: 1, refusals: 1 };
        Self { changes: &[Change::Invalidate], accidents, is_cluster: true, ..Self::refill(variant) }
    }

    /// Four changes, a journal with room for two records, and a connection that is lost.
    pub fn four_changes(variant: Variant) -> Self {
        let changes = &[Change::SetTagged(0), Change::Invalidate, Change::Large(1), Change::Delete(0)];
        Self { changes, lines: 2, depth: 1, ..Self::refill(variant) }
    }

    fn refill(variant: Variant) -> Self {
        let accidents = Accidents { losses: 1, ..Accidents::default() };
        let changes = &[Change::SetTagged(0), Change::Invalidate];
        Self { changes, copied: 0b01, depth: 2, accidents, ..Self::tag(variant) }
    }
}

/// Returns the first values of some keys.
fn first_values(keys: u8) -> [Option<Value>; KEYS] {
    std::array::from_fn(|key| (keys >> key & 1 == 1).then_some(0))
}
