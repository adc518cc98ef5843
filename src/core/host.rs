//! The host of a tier: the process that the tier runs in. A *tier* is a cache in memory that several processes share, and a *shard*
//! is a part of it with a lock of its own. The extension lends the tier the server's locks and its clock (`pg/shared/host.rs`);
//! tests have hosts of their own (`testing.rs`).

/// The services that the tier needs from its host, the process that it runs in. While the tier holds a lock, it calls only `now`,
/// `moment`, `refuses_blocks` and `unlock`. These must not fail: a panic under a lock switches the shard off (`tier/guard.rs`).
pub trait Host {
    /// Returns the present time in ticks, units of time that the host chooses. All processes of a region must count the same ticks
    /// from the same moment. Ticks never go back, even when the system's clock does.
    fn now(&self) -> u32;
    /// Acquires the exclusive lock of a shard, and waits until it is free. It must not fail. The tier holds it for a bounded number
    /// of steps, and never asks for a second one meanwhile. Shards have the numbers from 0 to [`shards_of`](crate::Tier::shards_of)
    /// - 1.
    fn lock(&self, shard: u32);
    /// Releases the lock of a shard, which this process holds. It is also called while a panic unwinds.
    fn unlock(&self, shard: u32);
    /// Returns the time on the clock by which the host tells when a statement began. Each lease, the right of a caller to compute a
    /// value (`tier/flight.rs`), keeps the time at which it was acquired. A host that never reads
    /// [`Lease::acquired`](crate::Lease::acquired) does not need such a clock.
    #[inline]
    fn moment(&self) -> u64 {
        0
    }
    /// Lets other processes make progress. The tier holds no lock when it calls this. It may unwind, for example because the user
    /// cancels the call: only the check of all structures (`tier/check/`) calls it.
    fn pause(&self) {}
    /// Whether a request for blocks must fail although blocks are free. Tests return true now and then.
    #[inline]
    fn refuses_blocks(&self) -> bool {
        false
    }
}
