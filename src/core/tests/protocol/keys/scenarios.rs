//! The scenarios that are checked, and the variants of the protocol: as it is built, and with one rule broken.
//!
//! A *claim* is the right of a transaction to set a key that has no value; it and a lease are *flights*. A transaction *announces*
//! a key to hide its value until the change is confirmed. `mod.rs` has the model. A *lease* is the right of a worker to compute the
//! value.
//!
//! A new variant needs a line in the test in `mod.rs`, which names the property that it must break or says that it is harmless. It
//! also needs a branch that breaks the rule: in this file, or in `steps.rs` or `properties.rs`.

use super::state::{Change, Work, Worker, Write, Writer};

/// The protocol as it is built, with one rule broken, or built in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The protocol as it is built.
    AsBuilt,
    /// A transaction does not announce its change.
    NotAnnounced,
    /// A transaction announces its change after the change is visible.
    AnnouncedWhenVisible,
    /// The end of one announcement ends all announcements of the key.
    AnnouncementIsAFlag,
    /// A transaction removes the old value before it announces its change, and not when it confirms.
    RemovedBeforeAnnounced,
    /// A transaction ends its announcement first, and replaces the value in a later step.
    ConfirmInTwoSteps,
    /// A value that is stored while the key is announced is served at once.
    PublishedOverAnnouncement,
    /// A worker ends its lease first, and stores its value in a later step.
    CheckedThenStored,
    /// A transaction that confirms its change does not void the flight of the key.
    VoidsNothing,
    /// A transaction voids the flight when it announces its change, and not when it confirms.
    VoidsWhenAnnounced,
    /// A change without a transaction does not void the flight of the key.
    AtOnceVoidsNothing,
    /// An abort removes the value of the key.
    WithdrawRemoves,
    /// A commit withdraws its announcement instead of confirming it, so the old value stays.
    DroppedIsWithdrawn,
    /// A value is stored although the flight of the key belongs to another lease.
    AnyLeaseLands,
    /// A worker acquires a lease although another worker has one.
    AcquiredWithoutLooking,
    /// A worker looks for another leader first, and acquires its lease in a later step.
    LookedThenAcquired,
    /// A lease does not contain the epoch. After a restart, it may have the number of a new lease.
    LeaseWithoutEpoch,
    /// A value is stored although its snapshot is older than the lease.
    LeaseBetterThanSnapshot,
    /// An abort voids the flight of the key.
    WithdrawVoids,
    /// A transaction replaces the value first, and ends its announcement in a later step.
    ReplacedThenUncovered,
    /// A claim is granted but not recorded as the flight of the key.
    ClaimTakesNoSlot,
    /// A writer looks for a value first, and claims the key in a later step without looking again.
    LookedThenClaimed,
    /// A claim does not replace the flight of a lease.
    ClaimLeavesLease,
    /// The value of a claim is stored although another writer has voided the claim.
    VoidedClaimLands,
    /// A writer whose claim was voided removes the value of the key.
    VoidedClaimRemoves,
    /// A writer that gives up before it announced anything does not end its claim.
    AbortKeepsClaim,
    /// A claim is granted although another writer has announced a change of the key.
    ClaimedBesideAnnouncement,
}

/// The model: a variant and a scenario.
#[derive(Clone, Debug)]
pub struct Keys {
    pub variant: Variant,
    /// The change of each writer.
    pub changes: &'static [Change],
    /// The number of workers.
    pub workers: usize,
    /// Whether the server may restart, once.
    pub restarts: bool,
    /// Whether the key has no value at first.
    pub empty: bool,
    /// Whether a worker acquires its lease in the statement that computes, whose snapshot is older.
    pub one_statement: bool,
}

impl Keys {
    /// A transaction that sets the key and one that removes it.
    pub fn two_transactions(variant: Variant) -> Self {
        Self {
            variant,
            changes: &[Change::Set, Change::Remove],
            workers: 1,
            restarts: false,
            empty: false,
            one_statement: false,
        }
    }

    /// Two transactions that set the key.
    pub fn two_sets(variant: Variant) -> Self {
        Self {
            variant,
            changes: &[Change::Set, Change::Set],
            workers: 1,
            restarts: false,
            empty: false,
            one_statement: false,
        }
    }

    /// A transaction that sets the key, beside a set and a removal without a transaction.
    pub fn at_once(variant: Variant) -> Self {
        let changes = &[Change::Set, Change::SetAtOnce, Change::RemoveAtOnce];
        Self { variant, changes, workers: 1, restarts: false, empty: false, one_statement: false }
    }

    /// Two workers, and a transaction that removes the key.
    pub fn two_workers(variant: Variant) -> Self {
        Self {
            variant,
            changes: &[Change::Remove],
            workers: 2,
            restarts: false,
            empty: false,
            one_statement: false,
        }
    }

    /// Two workers and a transaction that sets the key, while the server may restart.
    pub fn restart(variant: Variant) -> Self {
        Self {
            variant,
            changes: &[Change::Set],
            workers: 2,
            restarts: true,
            empty: false,
            one_statement: false,
        }
    }

    /// Two transactions, a set without a transaction, and two workers. Only the long run has time for this.
    pub fn everybody(variant: Variant) -> Self {
        let changes = &[Change::Set, Change::Remove, Change::SetAtOnce];
        Self { variant, changes, workers: 2, restarts: false, empty: false, one_statement: false }
    }

    /// A worker that computes the value before it acquires the lease.
    pub fn one_statement(variant: Variant) -> Self {
        Self { one_statement: true, ..Self::two_transactions(variant) }
    }

    /// Two transactions that claim the key; only one may be the first to set it.
    pub fn two_claims(variant: Variant) -> Self {
        let changes = &[Change::SetAbsent, Change::PublishAbsent];
        Self { variant, changes, workers: 1, restarts: false, empty: true, one_statement: false }
    }

    /// A transaction that claims the key beside a plain set.
    pub fn claim_and_set(variant: Variant) -> Self {
        let changes = &[Change::SetAbsent, Change::Set];
        Self { variant, changes, workers: 1, restarts: false, empty: true, one_statement: false }
    }

    /// A claim beside two removals: one removal makes the claim possible, the other one comes in between.
    pub fn claim_and_removal(variant: Variant) -> Self {
        let changes = &[Change::PublishAbsent, Change::Remove, Change::RemoveAtOnce];
        Self { variant, changes, workers: 1, restarts: false, empty: false, one_statement: false }
    }

    /// Returns the program of a writer that commits.
    pub fn writes(&self, change: Change) -> &'static [Write] {
        use Write::{
            Announce, AtOnce, Claim, Confirm, LookForValue, Publish, RemoveFirst, Replace, Show, Uncover,
            Withdraw,
        };
        match (change, self.variant) {
            (Change::SetAbsent, Variant::LookedThenClaimed) => {
                &[LookForValue, Claim, Announce, Show, Confirm]
            }
            (Change::PublishAbsent, Variant::LookedThenClaimed) => &[LookForValue, Claim, Publish],
            (Change::SetAbsent, _) => &[Claim, Announce, Show, Confirm],
            (Change::PublishAbsent, _) => &[Claim, Publish],
            (Change::SetAtOnce | Change::RemoveAtOnce, _) => &[AtOnce],
            (_, Variant::NotAnnounced) => &[Show, Confirm],
            (_, Variant::AnnouncedWhenVisible) => &[Show, Announce, Confirm],
            (_, Variant::RemovedBeforeAnnounced) => &[RemoveFirst, Announce, Show, Uncover],
            (_, Variant::DroppedIsWithdrawn) => &[Announce, Show, Withdraw],
            (_, Variant::ConfirmInTwoSteps) => &[Announce, Show, Uncover, Replace],
            (_, Variant::ReplacedThenUncovered) => &[Announce, Show, Replace, Uncover],
            _ => &[Announce, Show, Confirm],
        }
    }

    /// Returns the program of a worker that does not give up.
    pub fn work(&self) -> &'static [Work] {
        use Work::{Acquire, CheckLease, Compute, LookForLeader, Publish, Store};
        match self.variant {
            _ if self.one_statement => &[Compute, Acquire, Publish],
            Variant::CheckedThenStored => &[Acquire, Compute, CheckLease, Store],
            Variant::LookedThenAcquired => &[LookForLeader, Acquire, Compute, Publish],
            _ => &[Acquire, Compute, Publish],
        }
    }

    /// Returns whether a writer has no step left: its claim was refused, it has committed, or it has undone its change.
    pub fn is_over(&self, number: usize, writer: &Writer) -> bool {
        writer.refused
            || usize::from(writer.at)
                == if writer.aborted { 1 } else { self.writes(self.changes[number]).len() }
    }

    /// Returns whether a worker holds a lease that it has not ended.
    pub fn is_at_work(&self, worker: &Worker) -> bool {
        let at = usize::from(worker.at);
        self.work()[..at].contains(&Work::Acquire) && at < self.work().len()
    }
}
