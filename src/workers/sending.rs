//! Sends notifications (NOTIFY) about the changes in a database. The background worker of the database (`database.rs`) calls this.
//!
//! A commit never sends a notification. It writes to the *journal*, a ring in shared memory whose records name what has changed,
//! and the worker sends few notifications for many changes. If the server's queue of notifications fills because a listening
//! session does not read, the worker pauses. So the queue keeps room for the notifications of applications.

use crate::pg::shared::{self, HotTier};
use crate::pg::worker_slot::WorkerSlot;
use crate::pg::{background, notify, settings};
use crate::store::broadcast::Batch;
use crate::store::journal;
use pg_cache_core::Event;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// The least time between two batches, so that a batch has many changes while many transactions commit.
const GAP: Duration = Duration::from_millis(5);
/// The least time after a batch with more than [`MANY`] changes. Longer than [`GAP`], because the worker and the listeners share
/// the processors with the transactions that commit so fast.
const LONG_GAP: Duration = Duration::from_millis(20);
/// How many changes of a batch are many: those of about 10 000 in a second.
const MANY: u64 = 50;
/// How long the worker waits before it checks again whether the queue has room.
const PAUSE: Duration = Duration::from_secs(1);

/// The state of sending. It outlives an error of the worker, so that the worker then goes on after the last change that was sent.
#[derive(Debug)]
pub struct Sender {
    /// The number of the journal up to which everything was sent.
    sent: u64,
    /// The moment before which nothing is sent.
    next: Instant,
}

impl Sender {
    /// Begins after the change with this number, or at the end of the journal if there is no number. Returns None if there is no
    /// journal.
    pub fn behind(number: Option<u64>) -> Option<Self> {
        let tier = shared::tier().filter(|tier| tier.journal().exists())?;
        journal::begin(tier);
        let sent = number.or_else(|| tier.journal().last())?;
        Some(Self { sent, next: Instant::now() })
    }

    /// Returns how long the worker may sleep before it must send: None if there is nothing to send.
    pub fn due_in(&self) -> Option<Duration> {
        let last = shared::tier()?.journal().last()?;
        (last != self.sent).then(|| self.next.saturating_duration_since(Instant::now()))
    }

    /// Sends the next batch, if there is one and it is due, and notes in the worker's slot what was sent, for the view
    /// `cache_workers`. Returns whether a notification was sent. May raise errors.
    pub fn send(&mut self, slot: &WorkerSlot) -> bool {
        let Some(tier) = shared::tier().filter(|_| self.due_in().is_some_and(|rest| rest.is_zero())) else {
            return false;
        };
        let batch = Batch::read(tier, self.sent);
        let has_many = batch.number().saturating_sub(self.sent) > MANY;
        self.next = Instant::now() + if has_many { LONG_GAP } else { GAP };
        let sent = if batch.is_empty() { Some(0) } else { send_batch(tier, &batch) };
        match sent {
            Some(count) => {
                self.sent = batch.number();
                slot.notified.fetch_add(count, Relaxed);
                tier.count_event(Event::Notified, count);
            }
            None => self.next = Instant::now() + PAUSE,
        }
        if slot.is_paused.swap(sent.is_none().into(), Relaxed) < sent.is_none().into() {
            tier.count_event(Event::Paused, 1);
        }
        slot.sent.store(self.sent, Relaxed);
        sent > Some(0)
    }
}

/// Sends a batch, unless notifications are off. Returns the number of notifications, or None if the queue has no room. May raise
/// errors.
fn send_batch(tier: &'static HotTier, batch: &Batch) -> Option<u64> {
    let Some(channel) = settings::notify_channel() else { return Some(0) };
    background::in_transaction(|| {
        if notify::queue_usage() > settings::notify_queue_max() {
            return None;
        }
        let payloads = batch.payloads(tier);
        payloads.iter().for_each(|payload| notify::send(&channel, payload));
        Some(payloads.len() as u64)
    })
}
