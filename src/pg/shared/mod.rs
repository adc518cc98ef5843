//! Shared memory: requested before the server creates it, formatted by the postmaster, and attached by every backend.
//!
//! The *tier* is the cache in shared memory: the entries, and the words of *fences* that tell when something has changed on which
//! entries depend (`docs/architecture.md`). A separate piece of shared memory holds the records of prepared transactions
//! (`prepared.rs`).
//!
//! The *control line* is the cache line at the beginning of our shared memory (`control.rs`). Only the postmaster writes it, before
//! any backend exists. It never changes until shared memory is created anew. Each *shard*, a part of the tier with its own entries,
//! has a lightweight lock of the server. The table of observed statements (`pg/observed.rs`) has one, too, the last one of the
//! tranche.
//!
//! ```text
//! creation.rs   requests and formats shared memory; loads and saves the tier
//! layout.rs     which part is where
//! control.rs    the control line
//! tier.rs       attaches this backend's tier
//! parts.rs      the parts beside the tier
//! host.rs       lends the crate pg_cache_core the server's locks and its clock
//! moments.rs    moments on the clock of the tier
//! process.rs    this process, and the state of the server
//! ```

mod control;
mod creation;
mod host;
mod layout;
mod moments;
mod parts;
mod process;
mod tier;

pub use control::{content_id, epoch, hash_seed};
pub use creation::hook;
pub use host::{HotTier, LWLockAcquire, LWLockRelease};
pub use layout::QUEUES;
pub use moments::{ms_of, ms_since, ms_until, tick, tick_before, tick_in, ticks, time_of};
pub use parts::{
    database_slots, launcher_slot, name_slot, queue, redis_slot, redis_state, waits, wake_on_change,
    wake_sleepers, warm_list, warmer_slots, with_observed, worker_slots,
};
pub use process::{chance, check_for_interrupts, database, is_in_recovery, slot, time_now};
pub use tier::{is_tier_to_be_found, known_tier, tier};
