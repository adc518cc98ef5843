//! The host of a tier: the process that it runs in.

/// The services that the tier needs from its host, the process that it runs in.
pub trait Host {
    /// Returns the present time in ticks. Ticks never go back, even when the system's clock does.
    fn now(&self) -> u32;
    /// Acquires the lock of a shard. The tier holds it for a bounded number of steps.
    fn lock(&self, shard: u32);
    /// Releases the lock of a shard.
    fn unlock(&self, shard: u32);
    /// Returns the time on the clock that the host times statements with. Each lease keeps it. A host that never reads
    /// [`Lease::acquired`](crate::Lease::acquired) does not need such a clock.
    #[inline]
    fn moment(&self) -> u64 {
        0
    }
    /// Lets other processes make progress. The tier holds no lock when it calls this.
    fn pause(&self) {}
    /// Whether a request for blocks must fail although blocks are free. Tests return true now and then.
    #[inline]
    fn refuses_blocks(&self) -> bool {
        false
    }
}
