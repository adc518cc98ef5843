//! Saves the values of a worker's database in the segments of the database. A *segment* is one of the tables of saved values. The
//! worker saves in *passes*: each pass copies the entries that must be saved now, and frees segments if there are too few.

use crate::pg::worker_slot::WorkerSlot;
use crate::pg::{background, settings, shared};
use crate::store::table::saver::{DueEntries, Saver};
use pg_cache_core::Event;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// The time between two passes. Entries that are about to be evicted must be saved within this time.
pub const PASS: Duration = Duration::from_millis(100);
/// The time between two passes if so many entries are evicted that some would not be saved within [`PASS`].
const HURRIED_PASS: Duration = Duration::from_millis(5);

/// The state of saving since the worker started or since its last error.
pub struct Saving {
    /// The saver, which copies entries to tables.
    saver: Saver,
    /// The number of saved values in the worker's slot when the saver began.
    saved: u64,
    /// The number of outdated copies in the worker's slot when the saver began.
    outdated: u64,
    /// When the segments were last maintained.
    maintained: Instant,
    /// When the saver last walked through the entries in memory to save some of them.
    walked: Instant,
    /// When the next pass is due.
    next: Instant,
    /// Whether the saver may copy rows to another segment to free a segment. It must not do so in the first pass after an error: a
    /// full disk may need segments to be freed first.
    copies: bool,
}

impl Saving {
    /// Makes a saver for the database. Returns None if values cannot be saved in this database.
    pub fn begin(slot: &WorkerSlot, copies: bool) -> Option<Self> {
        let saver = background::in_transaction(Saver::new)?;
        let now = Instant::now();
        let (saved, outdated) = (slot.saved.load(Relaxed), slot.outdated.load(Relaxed));
        Some(Self { saver, saved, outdated, maintained: now, walked: now, next: now, copies })
    }

    /// Returns how long the worker may sleep before the next pass.
    pub fn due_in(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Makes a pass, if one is due. Returns whether the pass has done something useful, or None if there is nothing more to do in
    /// this database. May raise errors.
    pub fn pass(&mut self, slot: &WorkerSlot) -> Option<bool> {
        if !self.due_in().is_zero() {
            return Some(false);
        }
        let (mut is_busy, mut due) = (false, DueEntries::None);
        let interval = Duration::from_millis(settings::sweep_interval_ms());
        if !self.copies || self.saver.needs_segment() || self.maintained.elapsed() >= interval {
            self.maintained = Instant::now();
            let freed = background::in_transaction(|| self.saver.maintain(self.copies))?;
            is_busy |= freed;
            slot.freed.fetch_add(freed.into(), Relaxed);
            count(Event::Recycled, freed.into());
        }
        if settings::table_bytes() > 0 {
            due = background::in_transaction(|| self.saver.save_due());
            is_busy |= due > DueEntries::None;
            let budget = (self.walked.elapsed().as_secs_f64() * settings::save_rate() as f64) as u64;
            self.walked = Instant::now();
            is_busy |= background::in_transaction(|| self.saver.save_rest(budget));
        } else if self.saver.is_empty() {
            return None;
        }
        self.copies = true;
        let saved = self.saved + self.saver.saved;
        count(Event::Saved, saved - slot.saved.swap(saved, Relaxed));
        let outdated = self.outdated + self.saver.outdated;
        count(Event::SavedTooLate, outdated - slot.outdated.swap(outdated, Relaxed));
        self.next = Instant::now() + if due == DueEntries::Many { HURRIED_PASS } else { PASS };
        Some(is_busy)
    }
}

/// Counts events of this worker in the statistics of the server.
fn count(event: Event, by: u64) {
    if let Some(tier) = shared::tier() {
        tier.count_event(event, by);
    }
}
