//! The part `core-memory` of the report: measures which share of a *region*, the memory of a tier (the cache of the crate
//! `pg_cache_core`), holds keys and values. The rest is the headers of entries, the index, free space, the fences (words that say
//! when a dependency last changed, `src/core/fence/`), the flights (records of keys that a session computes,
//! `src/core/tier/flight.rs`), and the statistics.

use super::{KEY_BYTES, Writer, megabytes, size};
use crate::eviction::traces::Random;
use crate::pace::Pace;
use crate::private_tier::{self, Alone, Memory};
use crate::report::section::{Goal, Section, Table};
use pg_cache_core::{Host, Tier, Usage};
use std::time::Duration;

/// The size of the region in bytes.
const REGION: usize = megabytes(64);
/// The least share of the region that keys and values must have. For small entries, [`ENTRY_COST`] bytes per entry are added to
/// them.
const SHARE_MIN: f64 = 0.9;
/// The bytes that a small entry may need besides its key and value, its share of all other parts of the region included.
const ENTRY_COST: usize = 64;

/// Returns about how long the part takes.
pub fn estimate(_: &Pace) -> Duration {
    Duration::from_secs(3)
}

/// Measures the part.
pub fn measure(_: &Pace) -> Section {
    let mut random = Random::of_seed(5);
    // Sizes from 16 bytes to 16 · 2^12 bytes. Each doubling of the size is equally likely.
    let mixed = Fill::make(|| (16.0 * 2_f64.powf(random.fraction() * 12.0)) as usize);
    let small = Fill::make(|| super::VALUE_BYTES);

    let region = REGION as f64;
    let mixed_share = mixed.live_bytes as f64 / region;
    let small_share = (small.live_bytes + small.entries * ENTRY_COST as u64) as f64 / region;
    let beside = |fill: &Fill| (region - fill.live_bytes as f64) / fill.entries as f64;

    let mut table =
        Table::new(1, ["region of 64 MB, full", "entries", "key + value", "share", "overhead per entry"]);
    for (name, fill) in [("16 B to 64 KB", &mixed), ("100 B", &small)] {
        table.rows.push(vec![
            name.into(),
            fill.entries.to_string(),
            size(fill.live_bytes as f64),
            format!("{:.1} %", fill.live_bytes as f64 / region * 100.0),
            format!("{:.1} bytes", beside(fill)),
        ]);
    }
    let usage = small.usage;
    let mut parts = Table::new(1, ["part of the region", "bytes", "share"]);
    for (name, bytes) in [
        ("blocks", usage.block_bytes),
        ("fences", usage.fence_bytes),
        ("flights", usage.flight_bytes),
        ("statistics", usage.statistics_bytes),
    ] {
        let share = format!("{:.2} %", bytes as f64 / region * 100.0);
        parts.rows.push(vec![name.into(), size(bytes as f64), share]);
    }
    let at_least = |wanted: &str, share: f64| Goal {
        wanted: format!("{wanted} at least {:.0} % of the region", SHARE_MIN * 100.0),
        found: format!("{:.1} %", share * 100.0),
        met: share >= SHARE_MIN,
    };
    Section {
        id: "core-memory".into(),
        title: "The core by itself: memory".into(),
        goals: vec![
            at_least("keys and values of mixed sizes are", mixed_share),
            at_least(
                &format!("20-byte keys, 100-byte values and {ENTRY_COST} bytes for each entry are"),
                small_share,
            ),
            Goal {
                wanted: format!("an entry costs at most {ENTRY_COST} bytes besides its key and value"),
                found: format!("{:.1} bytes", beside(&small)),
                met: beside(&small) <= ENTRY_COST as f64,
            },
        ],
        tables: vec![table, parts],
        explained: vec![format!(
            "The region is filled with new keys of {KEY_BYTES} bytes until three times its size was stored, so that its free space is \
             fragmented. Values have 100 bytes, or 16 bytes to 64 KB, where each power of two is equally likely (log-uniform). \
             `overhead per entry` is the size of the region without keys and values, divided by the number of entries. It includes \
             fences and index. The region has {} shards and {} fences for tags.",
            usage.shards,
            private_tier::sizes(REGION).tag_fences,
        )],
        figures: serde_json::json!({
            "region_bytes": REGION,
            "mixed": { "entries": mixed.entries, "live_bytes": mixed.live_bytes, "share": mixed_share },
            "small": {
                "entries": small.entries,
                "live_bytes": small.live_bytes,
                "share_with_64_each": small_share,
                "bytes_beside_each": beside(&small),
            },
            "block_bytes": usage.block_bytes,
            "fence_bytes": usage.fence_bytes,
            "flight_bytes": usage.flight_bytes,
            "statistics_bytes": usage.statistics_bytes,
        }),
    }
}

/// The content of a tier after three times the size of its region was stored.
struct Fill {
    /// The number of entries that a reader would get.
    entries: u64,
    /// The bytes of the keys and values of these entries.
    live_bytes: u64,
    /// The sizes of the parts of the region.
    usage: Usage,
}

impl Fill {
    /// Stores new keys, with values of as many bytes as `value_bytes` returns for each.
    fn make(mut value_bytes: impl FnMut() -> usize) -> Self {
        let memory = Memory::of_bytes(REGION);
        let tier = Tier::format(memory.region(), private_tier::sizes(REGION), Alone, 0)
            .expect("the tier is large enough");
        let mut writer = Writer::new(&tier);
        let mut put = 0;
        for number in 0.. {
            let bytes = value_bytes();
            writer.put(number, bytes);
            put += KEY_BYTES + bytes;
            if put >= 3 * REGION {
                break;
            }
        }
        let (entries, live_bytes) = live(&tier);
        Self { entries, live_bytes, usage: tier.usage() }
    }
}

/// Returns the number of entries that a reader would get, and the bytes of their keys and values.
fn live<H: Host>(tier: &Tier<'_, H>) -> (u64, u64) {
    let entries = (0..)
        .map_while(|bucket| tier.inspect(bucket).expect("there is memory"))
        .flatten()
        .filter(|entry| entry.valid);
    entries.fold((0, 0), |(count, bytes), entry| {
        (count + 1, bytes + (entry.key.len() + entry.meta.value_len) as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a replaced value is counted, or if the blocks of an entry are counted instead of its bytes.
    #[test]
    fn live_bytes_are_the_bytes_of_live_keys_and_values() {
        let memory = Memory::of_bytes(megabytes(1));
        let tier = Tier::format(memory.region(), private_tier::sizes(0), Alone, 0).unwrap();
        let mut writer = Writer::new(&tier);
        writer.put(1, 100);
        writer.put(2, 5000);
        writer.put(1, 200);
        assert_eq!(live(&tier), (2, 5200 + 2 * KEY_BYTES as u64));
    }
}
