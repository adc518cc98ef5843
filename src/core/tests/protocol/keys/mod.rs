//! The protocol of one key. The actors are *writers* and *workers*. A writer sets or removes the key, in a transaction or at once.
//! Or it is a transaction that claims the key, to set it only if it has no value. A worker computes the value under a lease. The
//! *flight* of the key is the lease or the claim that the tier has recorded. The code is `tier/publishing.rs`, `tier/acquiring.rs`
//! and `tier/flight.rs` of the core; `as_built/keys.rs` takes the steps of this model with it.
//!
//! Each step that concerns the tier is what the tier does under one hold of the shard's lock. A change is *visible* when
//! other sessions can see it in the source, which is the database that the values are computed from. It is *through*
//! when the tier has it. A transaction announces the key before its change is visible, unless it sets a claimed key and
//! changes nothing else. The announcement hides the value of the key until the change is through. A computed value is the set of
//! the changes that were visible to the session that computed it. A set whose value is dropped at commit (see `set_and_fence.rs`)
//! is confirmed as a removal.
//!
//! A lease records what was visible when it was acquired. A statement that acquires a lease may compute the value on its own
//! snapshot, which is older than the lease. The tier's caller refuses such a value. A value that is set under a claim, while
//! another actor sets or removes the key, counts as having been set before that change.
//!
//! A *tier* is a cache in memory that several processes share. A *fill* and a *lease* are rights to compute the value of a key, and
//! a *claim* is the right to set a key that has no value.

mod properties;
mod scenarios;
mod state;
mod steps;

pub use scenarios::{Keys, Variant};
pub use state::{Change, State, Step, Value, Work, Worker, Write};

use crate::{Verdict, check, long};
use properties::{
    CLAIMS_END, LAST_THROUGH, LATER_IS_LATER, NOT_STALE, NOTHING_LOST, ONE_CLAIM, ONE_FIRST, ONE_LEADER,
};

/// The protocol as built must keep all properties in each scenario. Each other variant must break the property that is named, or be
/// harmless.
#[test]
fn keys() {
    use Variant::*;
    use Verdict::*;
    let run = |name: &str, make: fn(Variant) -> Keys, variant, verdict| {
        check(&format!("keys, {name}: {variant:?}"), make(variant), verdict);
    };
    let transactions = |variant, verdict| run("two transactions", Keys::two_transactions, variant, verdict);
    let workers = |variant, verdict| run("two workers", Keys::two_workers, variant, verdict);
    let at_once = |variant, verdict| run("at once", Keys::at_once, variant, verdict);
    let restart = |variant, verdict| run("restart", Keys::restart, variant, verdict);
    transactions(AsBuilt, Right);
    run("two sets", Keys::two_sets, AsBuilt, Right);
    at_once(AsBuilt, Right);
    workers(AsBuilt, Right);
    restart(AsBuilt, Right);
    run("one statement", Keys::one_statement, AsBuilt, Right);
    if long() {
        run("everybody", Keys::everybody, AsBuilt, Right);
    }
    for variant in [
        NotAnnounced,
        AnnouncedWhenVisible,
        AnnouncementIsAFlag,
        RemovedBeforeAnnounced,
        ConfirmInTwoSteps,
        PublishedOverAnnouncement,
        CheckedThenStored,
        VoidsNothing,
        VoidsWhenAnnounced,
        // A set whose value is dropped at commit must still remove the value that the key had.
        DroppedIsWithdrawn,
    ] {
        transactions(variant, Breaks(NOT_STALE));
    }
    transactions(CheckedThenStored, Breaks(LAST_THROUGH));
    transactions(WithdrawRemoves, Breaks(NOTHING_LOST));
    at_once(AtOnceVoidsNothing, Breaks(NOT_STALE));
    workers(AnyLeaseLands, Breaks(NOT_STALE));
    workers(AcquiredWithoutLooking, Breaks(ONE_LEADER));
    workers(LookedThenAcquired, Breaks(ONE_LEADER));
    restart(LeaseWithoutEpoch, Breaks(NOT_STALE));
    run("one statement", Keys::one_statement, LeaseBetterThanSnapshot, Breaks(NOT_STALE));
    run("one statement", Keys::one_statement, LeaseBetterThanSnapshot, Breaks(LAST_THROUGH));
    let claims = |variant, verdict| run("two claims", Keys::two_claims, variant, verdict);
    let beside_set = |variant, verdict| run("claim and set", Keys::claim_and_set, variant, verdict);
    let beside_removal =
        |variant, verdict| run("claim and removal", Keys::claim_and_removal, variant, verdict);
    claims(AsBuilt, Right);
    beside_set(AsBuilt, Right);
    beside_removal(AsBuilt, Right);
    claims(ClaimTakesNoSlot, Breaks(ONE_CLAIM));
    claims(ClaimTakesNoSlot, Breaks(ONE_FIRST));
    claims(LookedThenClaimed, Breaks(ONE_CLAIM));
    claims(ClaimLeavesLease, Breaks(ONE_CLAIM));
    claims(AbortKeepsClaim, Breaks(CLAIMS_END));
    beside_set(VoidedClaimLands, Breaks(LATER_IS_LATER));
    beside_set(VoidedClaimRemoves, Breaks(NOTHING_LOST));
    // A writer that has only announced its set has not set the key yet, and will void the claim when it confirms.
    // Refusing the claim only saves work that would probably be lost.
    beside_set(ClaimedBesideAnnouncement, Harmless);
    transactions(WithdrawVoids, Harmless);
    transactions(ReplacedThenUncovered, Harmless);
}
