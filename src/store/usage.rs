//! The content of the cache and how full it is, as the views `cache_stats` and `cache_usage` show it: live and dead entries of each
//! *space* (a named cache), and the used parts of the resources whose size is fixed.

use super::space;
use super::table::record;
use crate::pg::memory;
use crate::pg::settings;
use crate::pg::shared::{self, HotTier};
use pg_cache_core::{Census, Fullness};

/// Counts the live and dead entries of the spaces that the current role may see. Returns the counts of each space with its name. It
/// reads the header of every entry in the cache. The call can be cancelled.
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
    /// The name of the resource.
    pub resource: &'static str,
    /// The database, if the row is the share of one.
    pub database: Option<u32>,
    /// The unit of `fill`.
    pub unit: &'static str,
    /// How much of the resource is in use, and how much there is.
    pub fill: Fullness,
}

/// Returns the resources in the order in which the view shows them. Bytes are followed by the shares of databases, the largest
/// first.
pub fn parts(tier: &HotTier) -> Vec<Part> {
    let usage = tier.usage();
    let mut parts = Vec::new();
    let memory = Fullness { used: usage.used_bytes, capacity: usage.block_bytes };
    add_bytes(&mut parts, "memory", memory, memory_of_databases(tier));
    for (resource, unit, fill) in [
        ("space records", "records", tier.space_records()),
        ("table records", "records", tier.relation_records()),
        ("tag slots", "slots", tier.tag_fences()),
        ("lease places", "places", tier.flight_slots()),
        ("saved values", "values", tier.saved_values()),
    ] {
        memory::push(&mut parts, Part { resource, database: None, unit, fill });
    }
    let saved = Fullness { used: record::bytes(tier), capacity: settings::table_bytes() };
    add_bytes(&mut parts, "saved bytes", saved, saved_of_databases(tier));
    parts
}

/// Adds a resource that is counted in bytes, and the share of each database in it. `shares` may name a database more than once.
fn add_bytes(parts: &mut Vec<Part>, resource: &'static str, fill: Fullness, shares: Vec<(u32, u64)>) {
    let part = |database, used| Part { resource, database, unit: "bytes", fill: Fullness { used, ..fill } };
    memory::push(parts, part(None, fill.used));
    for (database, used) in summed(shares) {
        memory::push(parts, part(Some(database), used));
    }
}

/// Returns the bytes of spaces in memory, each with its database. Spaces that share a record count for no database.
fn memory_of_databases(tier: &HotTier) -> Vec<(u32, u64)> {
    memory::collect(tier.all_stats().filter_map(|stats| Some((stats.space?.0, stats.bytes()))))
}

/// Returns the bytes of the tables for saved values, each with its database.
fn saved_of_databases(tier: &HotTier) -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    record::each(tier, |_, record| memory::push(&mut found, (record.database, record.bytes)));
    found
}

/// Adds up the bytes of each database. Leaves out databases without any. The largest comes first.
fn summed(mut shares: Vec<(u32, u64)>) -> Vec<(u32, u64)> {
    shares.retain(|(_, bytes)| *bytes > 0);
    shares.sort_unstable();
    shares.dedup_by(|(database, bytes), (kept, sum)| {
        let same = database == kept;
        *sum += if same { *bytes } else { 0 };
        same
    });
    shares.sort_unstable_by_key(|(database, bytes)| (std::cmp::Reverse(*bytes), *database));
    shares
}
