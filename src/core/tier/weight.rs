//! The weight of an entry: what it costs to lose, in relation to the room that it takes. `eviction.rs` keeps heavy entries longer.
//!
//! An eviction policy that knows neither size nor cost is right only if all entries are alike. GreedyDual-Size-Frequency
//! (Cherkasova, 1998) therefore compares what entries cost per byte. The weight of an entry is its cost per block, divided by that
//! of the entry to which an average block belongs. This is a large entry: a block counts, and not an entry, because an eviction is
//! to free blocks. All of it is calculated with logarithms: costs and sizes differ by factors of thousands, and one large value
//! must not move an average much.
//!
//! An entry whose cost is not known counts as one with an average cost.

use super::header::Header;

/// The averages of the entries that the policy has looked at lately, as [logarithms](log). 0 means that there was none. Any value
/// is harmless: it makes some decisions worse until the averages are right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Averages {
    /// The logarithm of the average number of blocks.
    blocks: u32,
    /// The logarithm of the average cost.
    cost: u32,
}

/// One entry moves an average by at most 1 / 2^4, a sixteenth, of the difference.
const LEAST_COVERED: u32 = 4;
/// The bits of a logarithm behind the point.
const FRACTION: u32 = 24;
/// The difference between the logarithms of a number and of twice the number.
pub(super) const DOUBLING: i64 = 1 << FRACTION;

impl Averages {
    /// Reads the averages from the word that a shard keeps: `blocks : 32 | cost : 32`.
    pub(super) fn of(state: u64) -> Self {
        Self { blocks: (state >> 32) as u32, cost: state as u32 }
    }

    /// Returns the word for [`of`](Self::of).
    pub(super) fn state(self) -> u64 {
        u64::from(self.blocks) << 32 | u64::from(self.cost)
    }

    /// Includes the blocks of an entry in the averages. They cover about as many blocks as the shard has; `capacity` is that
    /// number.
    pub(super) fn learn(&mut self, header: &Header, capacity: u32) {
        let blocks = header.blocks();
        self.blocks = moved(self.blocks, log(blocks.into()), blocks, capacity);
        self.cost = moved(self.cost, log(header.cost().micros()), blocks, capacity);
    }

    /// Returns the weight of an entry as a logarithm: 0 for an average entry, and below 0 for a lighter one.
    pub(super) fn weight(self, header: &Header) -> i64 {
        difference(log(header.cost().micros()), self.cost)
            - difference(log(header.blocks().into()), self.blocks)
    }
}

/// Returns an average that has moved a little to the value of some blocks. An unknown value, 0, does not move it.
fn moved(average: u32, value: u32, blocks: u32, capacity: u32) -> u32 {
    let covered = capacity.checked_ilog2().unwrap_or(0).max(LEAST_COVERED);
    let blocks = i64::from(blocks.min(1 << (covered - LEAST_COVERED)));
    match (average, value) {
        (_, 0) => average,
        (0, _) => value,
        _ => {
            let difference = i64::from(value) - i64::from(average);
            (i64::from(average) + (difference.saturating_mul(blocks) >> covered)) as u32
        }
    }
}

/// Returns the difference between a value and an average, and 0 if one of them is not known.
fn difference(value: u32, average: u32) -> i64 {
    if value == 0 || average == 0 { 0 } else { i64::from(value) - i64::from(average) }
}

/// Returns one more than the binary logarithm of a number, with [`FRACTION`] bits behind the point, and 0 for 0. Between two powers
/// of two, the function is a straight line, which is less than 0.09 below the logarithm.
pub(super) fn log(number: u64) -> u32 {
    let zeros = number.leading_zeros();
    let digits = number.checked_shl(zeros + 1).unwrap_or(0);
    (u64::BITS - zeros) << FRACTION | (digits >> (u64::BITS - FRACTION)) as u32
}

/// Returns a difference of logarithms in whole steps, of which there are `steps` for each doubling.
pub(super) fn in_steps(log: i64, steps: i64) -> i64 {
    log.saturating_mul(steps) >> FRACTION
}

#[cfg(test)]
mod tests {
    use super::super::header::HEADER_WORDS;
    use super::*;
    use crate::figures::Cost;
    use std::time::Duration;

    const CAPACITY: u32 = 1 << 15;

    /// Returns the header of an entry with this size and cost.
    fn entry(bytes: u64, micros: u64) -> Header {
        let mut words = [0; HEADER_WORDS];
        words[3] = bytes;
        words[6] = u64::from(Cost::of(Duration::from_micros(micros)).bits()) << 48;
        Header { words }
    }

    /// Returns the averages after many rounds over these entries.
    fn after(entries: &[Header]) -> Averages {
        let mut averages = Averages::of(0);
        for _ in 0..10_000 {
            entries.iter().for_each(|header| averages.learn(header, CAPACITY));
        }
        averages
    }

    /// Returns a weight in thousandths of a doubling.
    fn weight(averages: Averages, header: Header) -> i64 {
        in_steps(averages.weight(&header), 1000)
    }

    /// The straight line between two powers of two is at most 0.0861 below the logarithm, about a twelfth, and never above it.
    /// Fails if the error is more than an eleventh.
    #[test]
    fn a_logarithm_is_right_to_a_twelfth() {
        assert_eq!([log(0), log(1), log(2), log(3), log(4)], [0, 2, 4, 5, 6].map(|half| half << 23));
        assert_eq!(log(u64::MAX) >> FRACTION, 64);
        for number in 1..5_000_u64 {
            let exact = (number as f64).log2() + 1.0;
            let error = exact - f64::from(log(number)) / f64::from(1 << FRACTION);
            assert!((-0.001..1.0 / 11.0).contains(&error), "{number}: {error}");
        }
    }

    /// The weight is the cost per block. Fails if half the size or twice the cost is not one doubling, within a twentieth.
    #[test]
    fn half_the_size_or_twice_the_cost_is_one_doubling() {
        let averages = after(&[entry(2048, 2000)]);
        let average = entry(2048, 2000);
        assert!(weight(averages, average).abs() < 50, "{}", weight(averages, average));
        for (header, doublings) in [
            (entry(1024, 2000), 1),
            (entry(4096, 2000), -1),
            (entry(2048, 4000), 1),
            (entry(2048, 250), -3),
            (entry(8192, 8000), 0),
        ] {
            assert!((weight(averages, header) - doublings * 1000).abs() < 50, "{doublings}");
        }
    }

    /// A block counts, and not an entry. If entries counted, the six small ones would outweigh the large one, and the average entry
    /// would be about as small as they are.
    #[test]
    fn the_averages_count_blocks_and_not_entries() {
        let small = entry(1000, 1000);
        let averages = after(&[small, small, small, small, small, small, entry(6000, 64_000)]);
        // Half of the blocks belong to the large entry.
        let average = entry(2450, 8000);
        assert!(weight(averages, average).abs() < 150, "{}", weight(averages, average));
    }

    /// Without a limit, the many blocks of a large entry would move the average far, and everything else would look small for a
    /// long time. This entry has 2^15 times the size of the others, so it may move the average by 15 / 16 of a doubling.
    #[test]
    fn one_large_entry_moves_the_averages_by_a_sixteenth() {
        let mut averages = after(&[entry(1024, 0)]);
        averages.learn(&entry(1 << 25, 0), CAPACITY);
        let moved = weight(averages, entry(1024, 0));
        assert!((850..1000).contains(&moved), "{moved}");
    }

    /// An entry whose cost is not known must not look cheap. Fails if the cost 0 counts as a cost. If no cost is known, costs do
    /// not count at all.
    #[test]
    fn an_unknown_cost_is_an_average_cost() {
        let averages = after(&[entry(1024, 1000), entry(1024, 4000), entry(1024, 0)]);
        assert!(weight(averages, entry(1024, 0)).abs() < 50);
        assert!((weight(averages, entry(1024, 2000)) - weight(averages, entry(1024, 0))).abs() < 50);
        let unknown = after(&[entry(1024, 0)]);
        assert_eq!(weight(unknown, entry(1024, 1_000_000)), 0);
    }

    /// If all entries are alike, or if nothing is known yet, the weights must be 0, so that the policy treats all entries alike.
    #[test]
    fn equal_entries_have_no_weight() {
        let averages = after(&[entry(100, 0)]);
        assert_eq!(averages.weight(&entry(100, 0)), 0);
        assert_eq!(Averages::of(0).weight(&entry(100, 70)), 0);
    }

    /// The averages and a header may be damaged. No value may cause an overflow, which panics in tests, and the averages must
    /// recover.
    #[test]
    fn any_averages_are_bearable() {
        let damaged = Header { words: [u64::MAX; HEADER_WORDS] };
        for state in [0, u64::MAX, u64::from(u32::MAX), !u64::from(u32::MAX), 1] {
            let mut averages = Averages::of(state);
            for header in [damaged, Header::default(), entry(100, 100)] {
                in_steps(averages.weight(&header), i64::MAX);
                for capacity in [0, CAPACITY, u32::MAX] {
                    averages.learn(&header, capacity);
                }
            }
            (0..50_000).for_each(|_| averages.learn(&entry(2048, 2000), CAPACITY));
            assert!(weight(averages, entry(2048, 2000)).abs() < 50, "the averages do not recover");
        }
    }
}
