//! Fences: one word in shared memory for each dependency of entries, which says when the dependency last changed. An *entry* is a
//! cached value with its key. A *dependency* is what makes the value wrong when it changes: a relation, a tag that the user gave
//! the entry, or one of those in `reserved.rs`. A *writer* is a transaction that changes a dependency.
//!
//! A fence is `(seq : 46 | pending : 18)`. The *clock of changes* is a word that each committing writer increments; its value is
//! the number of the writer's change. `seq` is the greatest number of a committed change of the dependency. `pending` counts the
//! transactions that are about to commit a change.
//!
//! The protocol of a writer. The proof rests on the order of these steps:
//! 1. The writer [raises](Fences::raise) the fence before any other session can see its changes.
//! 2. Its changes become visible.
//! 3. The writer draws a number from the clock and [lowers](Fences::lower) the fence: one atomic step writes the number to `seq`
//!    and subtracts 1 from `pending`. A writer that aborts after step 1 [withdraws](Fences::withdraw) instead and leaves `seq` as
//!    it was.
//!
//! The protocol of a session that computes a value to store (a *fill*): take a *stamp*, the present number of the clock, with
//! [`Fences::now`], *then* take a snapshot, then read the source. An entry is valid while, for each of its fences, `pending` is 0
//! and `seq` is not greater than the entry's stamp. A reader may have a limit, its *safe stamp*: then `seq` must not be greater
//! than that either.
//!
//! Why that is enough: a reader that starts after step 2 finds `pending` or, after step 3, a `seq` that was drawn from the clock
//! after step 2. A stamp at least as large was taken after that draw, so the snapshot of such a value saw the change. No lock
//! protects fences: every access is one atomic operation on one word. Every access of the protocol must be sequentially consistent,
//! because a stamp and a fence are different words.
//!
//! *Set and fence*: a transaction that sets a value and lowers the fences of the value's dependencies would invalidate its own
//! value. To prevent that, the value is published as of the commit. All of these conditions must hold, or the value is dropped and
//! the key removed:
//! - The stamp was taken before the snapshot that the value was computed on, and the transaction has not changed any of the value's
//!   dependencies since it computed the value.
//! - The transaction [draws](Fences::draw) one number when its changes are visible, and lowers all its fences [with
//!   it](Fences::lower_as). This number becomes the value's stamp.
//! - Each of the transaction's own fences among the value's dependencies was [alone](Lowered::was_alone_since) since the stamp when
//!   it was lowered. Each other dependency [held](Fences::holds) for the stamp when the transaction looked at it after the draw.
//!
//! The fences need not agree at one moment. A writer that raises a fence after the transaction has looked at it draws a later
//! number, and so invalidates the value. The transaction's look finds a writer that raised the fence earlier. One number for each
//! fence would be wrong: the value would need the last of them, and that number also covers changes that other writers numbered in
//! between. If a fence fails its check after others were lowered, only the value is lost: lowering is the same either way.
//!
//! *Relations.* A relation *claims* a record, with fences of its own, when an entry first depends on it
//! ([`Fences::dependency_fences`]). It also claims one when the journal must name its changes ([`Fences::mark_named`]); the
//! *journal* tells caches outside of the database what has changed. A writer claims a record only if its commit has to look again
//! and again ([`Fences::claim_fence`]), so tables that are never cached do not use up the records. Other writers of a relation
//! without a record raise an *unclaimed* fence instead. Such relations share unclaimed fences by their hash. Three rules make the
//! claim safe:
//! - A writer that has raised its fences must check whether a record was claimed meanwhile ([`Fences::claim_count`]). If so, it
//!   must also raise the fence of the record that its relation has by now.
//! - The record is *settled* once a look after the claim finds no pending changes on the unclaimed fence. Before that, a writer
//!   that looked before the claim may still be under way, and an entry must also depend on the unclaimed fence. It must also do so
//!   if such a writer has ended since the entry's stamp. A record that relations share is never settled, so each new entry looks at
//!   the unclaimed fence.
//! - Before a record is settled, its fence takes over the number of the unclaimed fence. So the record's fence covers all changes
//!   from before the claim: for entries with an earlier stamp, and for readers with an earlier safe stamp
//!   ([`Reader`](crate::Reader)). Until then, an entry also depends on the unclaimed fence if that has the greater number.
//!
//! *Rows.* A record has two fences: the *first fence*, which every writer raises, and the *bulk fence*. An entry may depend on
//! single rows of a relation only. Then it depends on the tags of these rows and on the bulk fence
//! ([`Fences::row_dependency_fences`]). A writer that has invalidated the tags of all rows that it changes need not raise the bulk
//! fence; any other writer must. The first such entry *marks* the record, and writers raise the bulk fence of marked records only
//! ([`Fences::bulk_fence_to_raise`]). Four rules make the mark safe:
//! - A mark counts as a claim, so a writer that looked before the mark looks again.
//! - A writer that will not look again, because it has claimed the record, must raise the bulk fence even if the record is not
//!   marked. A fill may mark the record and look at its first fence before the writer raises that fence.
//! - The mark is settled once the record is settled and a look after the mark finds no pending changes on the first fence. Before
//!   that, an entry must also depend on the first fence. The mark of a shared record is never settled.
//! - Before the mark is settled, the bulk fence takes over the number of the first fence.
//!
//! A fill that takes long should claim the records before it runs its query: until a record is settled, changes of other relations
//! on the same unclaimed fence make its result worthless.
//!
//! The models in `tests/protocol/` try every order of these steps.

mod fences;
mod id;
mod records;
mod reserved;
mod reviving;
mod stamp;
#[cfg(all(test, not(loom)))]
mod tests;

pub use fences::{Fences, Lowered};
pub use id::{FenceId, RelationFence};
pub use reserved::Reserved;
pub(crate) use reserved::ReservedKind;
pub(crate) use reviving::Dependents;
pub use stamp::Stamp;
