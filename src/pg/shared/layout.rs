//! The sizes and the positions of the parts of shared memory:
//!
//! ```text
//! control   when the clock began | seed | epoch | timeline                        one cache line, `Control`
//! queues    sessions that wait for a key                                          condition.rs
//! names     tags that were invalidated lately                                     name_slot.rs
//! sleepers  background workers that wait for changes                              sleepers.rs
//! redis     the state of the Redis worker                                         redis_state.rs
//! warmers   the owners of warmers, and the runs of warmers                        warm_list.rs
//! observed  the figures of observed statements                                    observed.rs
//! workers   the background workers, and the databases closed to them              worker_slot.rs
//! region    the hot tier with its fences                                          pg_cache_core
//! waits     for whom each backend waits                                           deadlock.rs
//! ```
//!
//! A *fence* is the word in shared memory that says when a dependency of values last changed. The *tier* is the cache itself.

#![allow(unsafe_code)]

use super::control::Control;
use super::host::Backend;
use crate::pg::condition::Condition;
use crate::pg::name_slot::{NAME_SLOTS, Slot};
use crate::pg::observed::Observed;
use crate::pg::redis_state::RedisState;
use crate::pg::settings;
use crate::pg::sleepers::Sleepers;
use crate::pg::warm_list::WarmList;
use crate::pg::worker_slot::{WORKER_SLOTS, WorkerSlot};
use pg_cache_core::{Region, Sizes, Tier};
use pgrx::pg_sys;
use std::sync::atomic::AtomicU64;

/// The bytes of a cache line.
pub(super) const LINE: usize = 64;

/// The number of fences for databases (up to five each), spaces (one each) and the roles of the server. Each fence comes with a
/// cell of statistics, and both together take 704 bytes. When all are taken, further databases and spaces share fences.
const RESERVED_FENCES: u32 = 1024;
/// The number of relations that have a fence and counters of their own, 64 bytes each. Further ones share.
const RELATION_FENCES: u32 = 8192;
/// The number of patterns of `cache_invalidate_pattern` that can be kept at the same time (`src/core/patterns/`). Each takes 1056
/// bytes.
const PATTERNS: u32 = 1024;

/// The number of queues: enough that waiting sessions are rarely woken by changes of other keys.
pub const QUEUES: usize = 128;

/// Returns the sizes of the tier. They depend only on settings that cannot change while the server runs, so each process computes
/// the same.
pub(super) fn sizes() -> Sizes {
    let fences = Sizes {
        bytes: 0,
        reserved_fences: RESERVED_FENCES,
        relation_fences: RELATION_FENCES,
        tag_fences: settings::fence_slots(),
        // The numbers of backends begin with 0 (`slot`), so one slot less would be enough: the last one is spare.
        // SAFETY: the server's own limit of backends, which it sets before it asks for sizes.
        backends: unsafe { pg_sys::MaxBackends } as u32 + 1,
        shards: 0,
        locations: settings::table_entries(),
        journal_lines: settings::journal_lines(),
        patterns: PATTERNS,
    };
    // The setting is the memory for entries. The structures beside the entries come on top.
    Sizes { bytes: settings::hot_bytes() + Tier::<Backend>::bytes_beside_entries(fences), ..fences }
}

/// Returns the bytes to request: for all parts in the table at the head of this file, and for the alignment to a cache line. One of
/// the waits is spare, because [`waits_at`] may have to round up the end of the region to a word.
pub(super) fn bytes(sizes: Sizes) -> usize {
    let queues = QUEUES * size_of::<Condition>();
    let workers = WORKER_SLOTS * size_of::<WorkerSlot>() + size_of::<Sleepers>() + size_of::<RedisState>();
    let workers = workers + size_of::<WarmList>() + size_of::<Observed>();
    let waits = (sizes.backends as usize + 1) * size_of::<AtomicU64>();
    sizes.bytes + size_of::<Control>() + queues + NAME_SLOTS * size_of::<Slot>() + workers + waits + LINE
}

/// Returns the region, the memory of the tier. `control` must be the start of shared memory, and `sizes` the result of [`sizes`].
/// The error says why the memory cannot be a region.
pub(super) fn region(
    control: *mut Control,
    sizes: Sizes,
) -> Result<Region<'static>, pg_cache_core::RegionError> {
    // SAFETY: `bytes` has requested so many bytes behind the parts that come before the region. Shared memory exists as long as the
    // process does; a process that detaches from it does not call this code any more. Only regions access this memory.
    unsafe { Region::from_raw(region_start(control), sizes.bytes) }
}

/// Returns the start of the region, which follows the workers.
pub(super) fn region_start(control: *mut Control) -> *mut u8 {
    workers(control).wrapping_add(WORKER_SLOTS).cast()
}

// The parts of shared memory follow each other in the order of the table at the head of this file: each begins where the part
// before it ends. So the type of each part before the region must be `#[repr(C, align(64))]`, which makes its size a number of
// cache lines. Then no part shares a cache line with another one, and all are aligned.
//
// A new part needs such a type, a line in the table, its size in `bytes`, a function here, code in `creation.rs` that formats it,
// and a function in `parts.rs` that returns it.

pub(super) fn queues(control: *mut Control) -> *mut Condition {
    control.wrapping_add(1).cast()
}

pub(super) fn names(control: *mut Control) -> *mut Slot {
    queues(control).wrapping_add(QUEUES).cast()
}

pub(super) fn sleepers(control: *mut Control) -> *mut Sleepers {
    names(control).wrapping_add(NAME_SLOTS).cast()
}

pub(super) fn redis_state_at(control: *mut Control) -> *mut RedisState {
    sleepers(control).wrapping_add(1).cast()
}

pub(super) fn warm_list_at(control: *mut Control) -> *mut WarmList {
    redis_state_at(control).wrapping_add(1).cast()
}

pub(super) fn observed_at(control: *mut Control) -> *mut Observed {
    warm_list_at(control).wrapping_add(1).cast()
}

pub(super) fn workers(control: *mut Control) -> *mut WorkerSlot {
    observed_at(control).wrapping_add(1).cast()
}

pub(super) fn waits_at(control: *mut Control, sizes: Sizes) -> *mut AtomicU64 {
    // The region begins at a cache line. Its end is rounded up to a word, in case its size is no number of words.
    region_start(control).wrapping_add(sizes.bytes.next_multiple_of(size_of::<AtomicU64>())).cast()
}
