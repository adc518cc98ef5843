//! The options of a space: `cache_create_space` and `cache_alter_space` write them to the space's row of `pgcache.spaces`, and
//! `rows.rs` reads them. An option that is not set leaves the decision to a setting of the session, or sets no limit.
//!
//! A *space* is a named cache with its own options. The *tier* is the cache in shared memory.
//!
//! A new option needs a field in [`Options`], a value in `BUILT_IN`, a line in `of`, and a column of the table (`sql/schema.sql`,
//! `pg/catalog.rs`, `api/space.rs`).

use crate::pg::catalog::{Row, spaces};
use crate::pg::interval;
use crate::pg::settings;
use crate::store::keyspace::Tiers;

/// The most results that the option `keep_warm` keeps stored in a space.
pub const KEEP_WARM_MAX: u32 = 1000;

/// The rule for the time to live of the result of a query whose caller passes none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlPolicy {
    /// The default of the space.
    Fixed,
    /// How long the query took.
    Cost,
    /// Whether earlier results of the query still were right when they expired.
    Adaptive,
}

impl TtlPolicy {
    /// The values of the option `ttl_policy`, in the order of the variants.
    pub const NAMES: [&str; 3] = ["fixed", "cost", "adaptive"];

    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// The options of a space, see `cache_create_space`. If an option is none, the session's settings apply, or there is no limit.
/// Times are in milliseconds, and sizes in bytes.
#[derive(Clone, Debug)]
pub struct Options {
    /// The time to live of a value whose caller passes none.
    pub default_ttl_ms: Option<u64>,
    /// The longest time to live.
    pub max_ttl_ms: Option<u64>,
    /// The rule for the time to live of query results.
    pub ttl_policy: TtlPolicy,
    /// Where the space keeps its values.
    pub tiers: Tiers,
    /// The largest fraction of a time to live that is randomly taken off.
    pub jitter: f32,
    /// Whether each role has its own entries.
    pub by_role: bool,
    /// The most bytes that the space may use in the tier.
    pub quota: Option<u64>,
    /// The most bytes that a value may have.
    pub max_value: Option<u64>,
    /// The least cost of a result that is stored, in milliseconds.
    pub min_cost_ms: Option<u64>,
    /// The most bytes of a result that is stored, before compression.
    pub max_result: Option<u64>,
    /// The bytes of a result above which it is compressed.
    pub compress_above: Option<u64>,
    /// How many results of queries workers keep stored (`kept.rs`).
    pub keep_warm: u32,
    /// Whether Redis gets copies of the values.
    pub redis: bool,
    /// The content of notifications about changes in the space.
    pub notify: Notify,
    /// Whether the space is used at all.
    pub enabled: bool,
}

/// The names in notifications about changes in a space: the option `notify`. The journal of changes (`journal.rs`) has all changed
/// keys; the option does not change that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Notify {
    /// The names of keys if PUBLIC may read the space, and otherwise only the numbers of changes.
    #[default]
    Auto,
    /// Only the numbers of changes.
    Numbers,
    /// The names of keys.
    Names,
    /// Only the numbers of changes. Caches outside of the database may not keep values of the space.
    Off,
}

impl Notify {
    /// The values of the option `notify`.
    pub const NAMES: [&str; 4] = ["auto", "numbers", "names", "off"];

    /// Returns the value that a row of `pgcache.spaces` has. A null or an unknown name is `auto`.
    fn of_name(name: Option<&[u8]>) -> Self {
        match name {
            Some(b"numbers") => Self::Numbers,
            Some(b"names") => Self::Names,
            Some(b"off") => Self::Off,
            _ => Self::Auto,
        }
    }
}

impl Options {
    /// The options of a default space that was never altered.
    pub(super) const BUILT_IN: Self = Self {
        default_ttl_ms: None,
        max_ttl_ms: None,
        ttl_policy: TtlPolicy::Fixed,
        tiers: Tiers::Both,
        jitter: 0.0,
        by_role: false,
        quota: None,
        max_value: None,
        min_cost_ms: None,
        max_result: None,
        compress_above: None,
        keep_warm: 0,
        redis: false,
        notify: Notify::Auto,
        enabled: true,
    };

    /// Reads the options from a row of `pgcache.spaces`.
    pub(super) fn of(row: &Row<'_>) -> Self {
        let ms = |column| row.interval(column).map(|interval| interval::ms(interval).max(0) as u64);
        let bytes = |column| row.bigint(column).map(|bytes| bytes as u64);
        let is = |column, name: &str| row.text(column) == Some(name.as_bytes());
        Self {
            default_ttl_ms: ms(spaces::DEFAULT_TTL),
            max_ttl_ms: ms(spaces::MAX_TTL),
            ttl_policy: match row.text(spaces::TTL_POLICY) {
                Some(b"cost") => TtlPolicy::Cost,
                Some(b"adaptive") => TtlPolicy::Adaptive,
                _ => TtlPolicy::Fixed,
            },
            tiers: match row.text(spaces::TIERS) {
                Some(b"hot") => Tiers::Hot,
                Some(b"table") => Tiers::Table,
                _ => Tiers::Both,
            },
            jitter: row.real(spaces::JITTER).unwrap_or(0.0),
            by_role: is(spaces::SCOPE, "role"),
            quota: bytes(spaces::QUOTA),
            max_value: bytes(spaces::MAX_VALUE),
            min_cost_ms: ms(spaces::MIN_COST),
            max_result: bytes(spaces::MAX_RESULT_SIZE),
            compress_above: bytes(spaces::COMPRESS_ABOVE),
            keep_warm: u32::try_from(row.integer(spaces::KEEP_WARM).unwrap_or(0))
                .unwrap_or(0)
                .min(KEEP_WARM_MAX),
            redis: row.boolean(spaces::REDIS).unwrap_or(false),
            notify: Notify::of_name(row.text(spaces::NOTIFY)),
            enabled: row.boolean(spaces::ENABLED).unwrap_or(true),
        }
    }

    /// Returns the time to live of a value in milliseconds, from the one that the caller asked for, if any.
    pub fn ttl_ms(&self, wanted: Option<u64>) -> u64 {
        let wanted = wanted.or(self.default_ttl_ms).unwrap_or_else(settings::default_ttl_ms);
        self.max_ttl_ms.map_or(wanted, |most| wanted.min(most))
    }

    /// Returns the most bytes that a value may have by the options and the settings.
    pub fn max_value_bytes(&self) -> u64 {
        let most = settings::max_value_bytes() as u64;
        self.max_value.map_or(most, |own| own.min(most))
    }

    /// Returns the least cost of a result that is stored, in milliseconds.
    pub fn min_cost_ms(&self) -> u64 {
        self.min_cost_ms.unwrap_or_else(settings::min_cost_ms)
    }

    /// Returns the most bytes of a result that is stored, before compression. The limit for all values holds for what is stored.
    pub fn max_result_bytes(&self) -> u64 {
        self.max_result.unwrap_or_else(settings::max_result_bytes)
    }

    /// Returns the bytes of a result above which it is compressed.
    pub fn compress_above_bytes(&self) -> u64 {
        self.compress_above.unwrap_or_else(settings::compress_above_bytes)
    }
}
