//! Invalidations by a pattern over keys, such as `user:42:*` (`cache_invalidate_pattern`). `slots.rs` has the table of patterns,
//! and `tier/patterns.rs` announces patterns and compares keys with them.
//!
//! A pattern ([`Glob`](crate::Glob)) invalidates the keys of one space (a set of keys in one database) and one role that it
//! matches. It would take too long to find their entries in memory and their saved values. So the tier keeps the pattern itself, in
//! a table with a fixed number of *slots*, and each reader compares its key with the patterns that are later than the entry. A
//! *writer* is a transaction that invalidates by a pattern. The *tier* is the cache; it consists of *shards*, each with a lock of
//! its own.
//!
//! Each space has a *pattern fence*, beside the fence of the space on the same cache line. It is a fence like any other
//! (`fence/mod.rs`), a word that says when its dependency last changed: it is raised while the pattern of a committing transaction
//! is announced, and has the number of the last pattern of the space. An entry's *stamp* is the number of the clock of changes as
//! of which its value is right. If the stamp is not below that number, the reader compares nothing. So in a space without patterns,
//! a hit pays only for a look at this fence.
//!
//! The protocol of a writer. The order of these steps matters:
//! 1. It takes a slot, writes the pattern, and marks the slot as *announced*.
//! 2. It raises the pattern fence.
//! 3. Its transaction becomes visible.
//! 4. It draws a number from the clock of changes, marks the slot as *live* since that number, and lowers the pattern fence with
//!    the number. A writer that aborts withdraws the pattern fence and frees the slot.
//!
//! The protocol of a reader, for an entry in memory and for a saved value alike. If the pattern fence does not hold for the entry:
//! 1. It looks at all slots. An announced pattern of the space, and a live one with a number beyond the stamp or beyond the safe
//!    stamp, are compared with the key. If one matches, the read is a miss.
//! 2. It checks the fence of the space, *after* it has looked at the slots.
//!
//! A slot is *retired* when another pattern needs it: the fence of the space gets the number of the retired pattern, and only then
//! the new pattern takes the slot. So the fence of the space is the *floor* of the space: each value that was stored, leased,
//! computed or saved before a retired pattern is refused, also if the pattern does not match its key. A reader that looked at the
//! slot too late finds the floor in its step 2.
//!
//! *Renewal* keeps the floor from invalidating keys that no pattern matches. A reader reads the clock before it looks at the slots.
//! If no pattern matches and all fences hold, then the value is as right at that moment as it was at its stamp: a later change
//! draws a greater number. So the entry gets that moment as its stamp, under the lock of its shard, if it is still the same entry.
//! The next reader compares nothing. The sweep ([`Tier::sweep`](crate::Tier::sweep)) removes and renews entries in the same way. If
//! more than half of the slots are taken, each new pattern sweeps a part of the entries, within a limit of time. If there are few
//! entries, all of them are renewed before a slot is needed again. If there are many, an entry is lost if no session reads it and
//! no sweep reaches it while as many new patterns come as there are slots. A saved value is never renewed: each read compares it
//! again, and it is refused after the first later pattern is retired.
//!
//! If no slot can be retired, or if the space has no cache line of its own for its fences, there is no room for the pattern. The
//! writer must then invalidate the whole space. A new pattern takes a slot of the space that has the most patterns, so a space does
//! not lose its patterns to a space that uses more. The patterns are counted for groups of spaces, so two spaces of one group may
//! take slots from each other.
//!
//! The time of a comparison is limited ([`STEPS_MAX`]): patterns that are slow on purpose cost misses, not time.
//!
//! ```text
//! used     the number of slots that were ever taken, on a cache line of its own
//! heads    for each slot:
//!   word 0   number : 46 | state : 2
//!   word 1   database : 32 | space : 32
//!   word 2   role : 32 | length : 32
//!   word 3   the first bytes of the key: up to 7 bytes, and in the lowest byte their number
//! bytes    for each slot, as many as a key may have
//! ```
//!
//! Access: only the writer that took a slot writes to it, until it has marked it as live. After that, any writer may retire it, by
//! one atomic exchange of word 0. Readers take no lock. If the slot is retired meanwhile, a reader may copy the bytes of another
//! pattern. If these bytes match, the miss is needless; if not, the floor decides. `tests/protocol/patterns/` tries every order of
//! these steps.

mod slots;
#[cfg(all(test, not(any(loom, counting))))]
mod tests;

pub use slots::AnnouncedPattern;
pub(crate) use slots::{Patterns, Question, STEPS_MAX, Verdict};
