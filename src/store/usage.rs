//! The content of the cache and how full it is, as the views `cache_stats` and `cache_usage` show it.

use super::space;
use crate::pg::memory;
use crate::pg::shared::{self, HotTier};
use pg_cache_core::{Census, Fill};

/// Counts the entries of the spaces that the current role may see, each with its name. It reads the header of every entry in the
/// cache. The call can be cancelled.
pub fn of_spaces() -> Vec<(String, Census)> {
    let database = shared::database();
    let mut named = Vec::new();
    space::each_visible(|oid, name, _| {
        memory::check();
        memory::push(&mut named, (name.to_owned(), Census { database, space: oid, ..Census::default() }));
    });
    named.sort_unstable_by_key(|(_, census)| census.space);
    let mut counted = memory::collect(named.iter().map(|(_, census)| *census));
    if let Some(tier) = shared::tier() {
        let mut bucket = Some(0);
        while let Some(next) = bucket {
            shared::check_for_interrupts();
            bucket = tier.count_entries(next, &mut counted);
        }
    }
    for ((_, census), counted) in named.iter_mut().zip(counted) {
        *census = counted;
    }
    named
}

/// A limited resource, or the share of one database in it.
#[derive(Debug)]
pub struct Part {
    pub resource: &'static str,
    /// The database, if the row is the share of one.
    pub database: Option<u32>,
    pub unit: &'static str,
    pub fill: Fill,
}

/// Returns the resources in the order in which the view shows them, each followed by the shares of databases, the largest first.
pub fn parts(tier: &HotTier) -> Vec<Part> {
    let usage = tier.usage();
    let memory = |database, used| Part {
        resource: "memory",
        database,
        unit: "bytes",
        fill: Fill { used, capacity: usage.block_bytes },
    };
    let mut parts = Vec::new();
    let mut add = |part| memory::push(&mut parts, part);
    add(memory(None, usage.used_bytes));
    of_databases(tier).into_iter().for_each(|(database, bytes)| add(memory(Some(database), bytes)));
    for (resource, unit, fill) in [
        ("space records", "records", tier.space_records()),
        ("table records", "records", tier.relation_records()),
        ("tag slots", "slots", tier.tag_fences()),
        ("lease places", "places", tier.flight_slots()),
    ] {
        add(Part { resource, database: None, unit, fill });
    }
    parts
}

/// Returns the databases that have entries, each with the bytes of its spaces. Spaces that share a record count for no database.
fn of_databases(tier: &HotTier) -> Vec<(u32, u64)> {
    let spaces = tier.all_stats().filter_map(|stats| Some((stats.space?.0, stats.bytes())));
    let mut spaces: Vec<(u32, u64)> = memory::collect(spaces.filter(|(_, bytes)| *bytes > 0));
    spaces.sort_unstable();
    spaces.dedup_by(|(database, bytes), (kept, sum)| {
        let same = database == kept;
        *sum += if same { *bytes } else { 0 };
        same
    });
    spaces.sort_unstable_by_key(|(database, bytes)| (std::cmp::Reverse(*bytes), *database));
    spaces
}
