//! Functions that spread numbers over a range or over all bits. The core uses them to choose slots, buckets and shards by a hash,
//! and for checksums. A region that was saved in a file relies on their results, so a change of one needs a new version of the
//! layout (`layout.rs`).

/// Returns a number below `bound`, evenly distributed if the upper halves of the hashes are: the lower half is ignored. Returns 0
/// if `bound` is 0.
#[inline]
pub(crate) fn reduce(hash: u64, bound: u32) -> u32 {
    (((hash >> 32) * u64::from(bound)) >> 32) as u32
}

/// Scatters numbers that lie close together. The function is reversible, so distinct numbers stay distinct. It is the last step of
/// the generator SplitMix64 (Steele and others, 2014), which has the constants.
#[inline]
pub(crate) fn scatter(number: u64) -> u64 {
    let mut bits = number;
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}
