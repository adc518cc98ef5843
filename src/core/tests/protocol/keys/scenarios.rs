//! The scenarios that are checked, and the variants of the protocol: as it is built, and with one rule broken.

use super::state::{Change, Work, Worker, Write, Writer};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    AsBuilt,
    NotAnnounced,
    AnnouncedWhenVisible,
    AnnouncementIsAFlag,
    RemovedBeforeAnnounced,
    ConfirmInTwoSteps,
    PublishedOverAnnouncement,
    CheckedThenStored,
    VoidsNothing,
    VoidsWhenAnnounced,
    AtOnceVoidsNothing,
    WithdrawRemoves,
    DroppedIsWithdrawn,
    AnyLeaseLands,
    AcquiredWithoutLooking,
    LookedThenAcquired,
    LeaseWithoutEpoch,
    LeaseBetterThanSnapshot,
    WithdrawVoids,
    ReplacedThenUncovered,
    ClaimTakesNoSlot,
    LookedThenClaimed,
    ClaimLeavesLease,
    VoidedClaimLands,
    VoidedClaimRemoves,
    AbortKeepsClaim,
    ClaimedBesideAnnouncement,
}

#[derive(Clone, Debug)]
pub struct Keys {
    pub variant: Variant,
    pub changes: &'static [Change],
    pub workers: usize,
    pub restarts: bool,
    /// Whether the key has no value at first.
    pub empty: bool,
    /// Whether a worker acquires its lease in the statement that computes, whose snapshot is older.
    pub one_statement: bool,
}

impl Keys {
    /// Two transactions that announce the same key.
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

    pub fn at_once(variant: Variant) -> Self {
        let changes = &[Change::Set, Change::SetAtOnce, Change::RemoveAtOnce];
        Self { variant, changes, workers: 1, restarts: false, empty: false, one_statement: false }
    }

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

    pub fn work(&self) -> &'static [Work] {
        use Work::{Acquire, CheckLease, Compute, LookForLeader, Publish, Store};
        match self.variant {
            _ if self.one_statement => &[Compute, Acquire, Publish],
            Variant::CheckedThenStored => &[Acquire, Compute, CheckLease, Store],
            Variant::LookedThenAcquired => &[LookForLeader, Acquire, Compute, Publish],
            _ => &[Acquire, Compute, Publish],
        }
    }

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
