//! Decides what a statement gains from the cache, and in which form it should be cached. The file is pure Rust without PostgreSQL,
//! so that unit tests can use it (`tests/units/worth.rs`). The files of `advise/` collect the figures and put the decision into
//! words.
//!
//! All times are in milliseconds, except those with `seconds` or `SECONDS` in their names. The costs and limits below are estimates
//! and choices, not measurements of this server. `docs/advice.md` explains the decision to users.

/// The cost of a hit without its rows, in milliseconds: finding the result, and starting to return it.
const HIT_MS: f64 = 0.05;
/// The cost of each row of a hit, in milliseconds.
const HIT_ROW_MS: f64 = 0.0003;
/// The cost of a miss in addition to that of the query, without its rows, in milliseconds: looking for the result, observing the
/// query, storing the result.
const MISS_MS: f64 = 0.2;
/// The additional cost of each row of a miss, in milliseconds.
const MISS_ROW_MS: f64 = 0.0005;

/// The least number of calls, counted or observed, that allow a prediction of the later calls of a statement.
pub const CALLS_MIN: f64 = 5.0;
/// A statement is worth caching only if it takes at least this many times as long as a hit.
const HIT_TIMES: f64 = 4.0;
/// The least saving that is worth a change of the application: 0.05 ms in each second, which are 4 s in a day.
const SAVES_MIN: f64 = 0.05;
/// A statement must take at least this many milliseconds before the advice is that its callers accept old rows.
const STALE_MS: f64 = 20.0;
/// A statement must take at least this many milliseconds before the advice is that a worker computes its result.
const WARM_MS: f64 = 1000.0;
/// A statement must have at least this many calls for each miss before the advice is that a worker computes its result.
const WARM_HITS: f64 = 10.0;
/// The age in seconds up to which callers accept old rows if they follow the advice to use `stale_ok`.
pub const STALE_SECONDS: f64 = 60.0;
/// The times to live that the advice chooses from if the default is too short: seconds, and the name in SQL.
const LONGER: [(f64, &str); 2] = [(3600.0, "1 hour"), (86_400.0, "1 day")];

/// The costs of one call in milliseconds: without the cache, as a hit, and as a miss.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    pub uncached: f64,
    pub hit: f64,
    pub miss: f64,
}

impl Costs {
    /// Estimates the costs of a statement that takes `uncached` milliseconds and returns `rows` rows.
    pub fn of(uncached: f64, rows: f64) -> Self {
        let hit = HIT_MS + rows * HIT_ROW_MS;
        Self { uncached, hit, miss: uncached + MISS_MS + rows * MISS_ROW_MS }
    }

    /// Returns the hit ratio above which the cache saves time. It is greater than 1 if no ratio is enough.
    pub fn break_even(self) -> f64 {
        if self.miss <= self.hit || self.uncached <= self.hit {
            return f64::INFINITY;
        }
        (self.miss - self.uncached) / (self.miss - self.hit)
    }

    /// Returns the milliseconds that the cache saves in `calls` calls, of which `misses` are misses.
    fn saved(self, calls: f64, misses: f64) -> f64 {
        (calls - misses) * (self.uncached - self.hit) - misses * (self.miss - self.uncached)
    }
}

/// Where the expected number of hits comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Evidence {
    /// The observing mode has counted calls, and among them the calls that would have been hits. `saved_ms` is the time that these
    /// hits took without the cache.
    Observed { calls: f64, hits: f64, saved_ms: f64, seconds: f64, is_invalidated: bool },
    /// At most `commits` commits have changed a table of the statement. Between two commits, the statement always returns the same
    /// rows. `roles` is the number of roles that call it. Each role has results of its own.
    Commits { commits: f64, roles: f64 },
    /// It is not known how often a call repeats an earlier one.
    Unknown,
}

/// The figures of a statement.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub calls: f64,
    /// The mean time of a call without the cache.
    pub mean_ms: f64,
    /// The mean number of rows of a call.
    pub rows: f64,
    /// The time in which the calls were counted, in seconds.
    pub seconds: f64,
    pub evidence: Evidence,
    /// Whether the result depends on the clock. Such a result lives at most a minute.
    pub reads_clock: bool,
    /// Whether a business intelligence tool is likely to read the result: the statement summarizes rows, and a view can have its
    /// columns.
    pub suits_view: bool,
    pub has_parameters: bool,
}

/// The limits of this server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `pg_cache.min_cost` in milliseconds.
    pub min_cost_ms: f64,
    /// `pg_cache.default_ttl` in seconds.
    pub ttl_seconds: f64,
}

/// The form in which a statement should be cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Call the statement through `cache_query`.
    Cache,
    /// Read a cached view of the statement (`cache_create_view`).
    View,
    /// As `Cache`, with `stale_ok`: callers accept rows that are up to [`STALE_SECONDS`] old.
    StaleOk,
    /// Switch the observing mode on (`pg_cache.observe`), because it is not known how many calls would be hits.
    Observe,
}

/// The decision about a statement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    pub choice: Choice,
    pub costs: Costs,
    /// The expected share of hits among the calls. None if it is not known.
    pub hit_ratio: Option<f64>,
    /// The hit ratio above which the cache saves time.
    pub break_even: f64,
    /// The milliseconds of waiting that callers save in each second. For [`Choice::Observe`], the saving if every call was a hit.
    pub saves: f64,
    /// The time to live that calls should ask for. None: the default.
    pub ttl: Option<&'static str>,
    /// The additional milliseconds that callers save in each second if a worker computes the result after each change.
    pub warm: Option<f64>,
}

impl PartialEq for Costs {
    fn eq(&self, other: &Self) -> bool {
        (self.uncached, self.hit, self.miss) == (other.uncached, other.hit, other.miss)
    }
}

/// The expected calls and misses in a number of seconds, and the milliseconds that callers save.
#[derive(Clone, Copy, Debug)]
struct Expected {
    calls: f64,
    misses: f64,
    saved_ms: f64,
    seconds: f64,
}

impl Expected {
    fn of(costs: Costs, calls: f64, misses: f64, seconds: f64) -> Self {
        let misses = misses.clamp(0.0, calls);
        Self { calls, misses, saved_ms: costs.saved(calls, misses), seconds }
    }

    fn hit_ratio(self) -> f64 {
        1.0 - self.misses / self.calls
    }

    fn saves(self) -> f64 {
        self.saved_ms / self.seconds
    }

    fn is_worth(self, costs: Costs) -> bool {
        self.hit_ratio() > costs.break_even() && self.saves() >= SAVES_MIN
    }
}

/// Returns the mean time of a call, in milliseconds, below which no statement is worth caching, even if it returns no rows.
pub fn floor_ms(min_cost_ms: f64) -> f64 {
    min_cost_ms.max(HIT_TIMES * HIT_MS)
}

/// Returns what to do with a statement. None if it is not worth caching, as far as is known. Compares two uses of the cache:
/// `exact`, whose callers get only current rows, and `stale`, whose callers accept old ones.
pub fn decide(figures: &Figures, limits: &Limits) -> Option<Verdict> {
    let Figures { calls, mean_ms, rows, .. } = *figures;
    let seconds = figures.seconds.max(1e-3);
    let costs = Costs::of(mean_ms, rows.max(0.0));
    if calls < CALLS_MIN || mean_ms < limits.min_cost_ms.max(HIT_TIMES * costs.hit) {
        return None;
    }
    let verdict = |choice, expected: Expected, ttl, warm| Verdict {
        choice,
        costs,
        hit_ratio: Some(expected.hit_ratio()),
        break_even: costs.break_even(),
        saves: expected.saves(),
        ttl,
        warm,
    };
    let (exact, stale, ttl, changes) = match figures.evidence {
        Evidence::Unknown => {
            let most = Expected::of(costs, calls, 0.0, seconds);
            let observe = Verdict { hit_ratio: None, ..verdict(Choice::Observe, most, None, None) };
            return (observe.saves >= SAVES_MIN).then_some(observe);
        }
        Evidence::Observed { calls, hits, saved_ms, seconds, is_invalidated } => {
            let (seconds, misses) = (seconds.max(1e-3), (calls - hits).clamp(0.0, calls));
            let lost = hits * costs.hit + misses * (costs.miss - costs.uncached);
            let exact = Expected { calls, misses, saved_ms: saved_ms - lost, seconds };
            // With parameters, some misses may be calls with new arguments. The observing mode does not count these separately, so
            // the misses do not show what `stale_ok` would save.
            let stale = (is_invalidated && !figures.has_parameters)
                .then(|| Expected::of(costs, calls, 1.0 + seconds / STALE_SECONDS, seconds));
            (exact, stale, None, if is_invalidated { misses } else { 0.0 })
        }
        Evidence::Commits { commits, roles } => {
            let roles = roles.max(1.0);
            let misses = |each: f64| roles * (1.0 + each);
            let with_ttl = |ttl: f64| Expected::of(costs, calls, misses(commits + seconds / ttl), seconds);
            let default = limits.ttl_seconds.max(1.0);
            let (exact, ttl) = if figures.reads_clock {
                (with_ttl(default.min(60.0)), None)
            } else {
                let best = with_ttl(LONGER[1].0).saves();
                let is_enough = |ttl: f64| with_ttl(ttl).saves() >= 0.9 * best;
                let longer = LONGER.iter().find(|(ttl, _)| *ttl > default && is_enough(*ttl));
                match longer.filter(|_| !is_enough(default)) {
                    Some((ttl, name)) => (with_ttl(*ttl), Some(*name)),
                    None => (with_ttl(default), None),
                }
            };
            let stale = Expected::of(costs, calls, misses(seconds / STALE_SECONDS), seconds);
            (exact, (commits > 0.0).then_some(stale), ttl, commits)
        }
    };
    let is_stale_better = |stale: &Expected| {
        let twice = !exact.is_worth(costs) || exact.hit_ratio() < 0.5 && stale.saves() > 2.0 * exact.saves();
        mean_ms >= STALE_MS && stale.is_worth(costs) && twice
    };
    if let Some(stale) = stale.filter(is_stale_better) {
        return Some(verdict(Choice::StaleOk, stale, None, None));
    }
    if !exact.is_worth(costs) {
        return None;
    }
    let suits_view = figures.suits_view && !figures.has_parameters;
    let choice = if suits_view { Choice::View } else { Choice::Cache };
    let is_hot = mean_ms >= WARM_MS && changes >= 1.0 && exact.calls >= WARM_HITS * exact.misses;
    let warm = (is_hot && !figures.has_parameters).then(|| exact.misses * costs.miss / exact.seconds);
    Some(verdict(choice, exact, ttl, warm))
}
