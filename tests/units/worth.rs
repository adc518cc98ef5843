//! Tests of the decision about what a statement gains from the cache, and in which form it should be cached (`src/query/worth.rs`).
//! `cache_advise` gives this advice.

use crate::query::worth::{Choice, Costs, Evidence, Figures, Limits, decide, floor_ms};

const LIMITS: Limits = Limits { min_cost_ms: 1.0, ttl_seconds: 300.0 };

/// A report without parameters: 1000 calls of 50 ms in an hour, and its tables never change.
const REPORT: Figures = Figures {
    calls: 1000.0,
    mean_ms: 50.0,
    rows: 10.0,
    seconds: 3600.0,
    evidence: Evidence::Commits { commits: 0.0, roles: 1.0 },
    reads_clock: false,
    suits_view: false,
    has_parameters: false,
};

/// The evidence that at most so many commits have changed a table of the statement.
fn commits(commits: f64) -> Evidence {
    Evidence::Commits { commits, roles: 1.0 }
}

/// The evidence of the observing mode (`pg_cache.observe`), which has counted for 100 seconds: the calls, those of them that would
/// have been hits, and the milliseconds that these took without the cache.
fn observed(calls: f64, hits: f64, saved_ms: f64) -> Evidence {
    Evidence::Observed { calls, hits, saved_ms, seconds: 100.0, is_invalidated: calls > hits }
}

/// Fails if the hit ratio from which caching pays differs from the examples of `docs/queries.md`.
#[test]
fn the_break_even_ratio_is_that_of_the_documentation() {
    let report = Costs { uncached: 20.0, hit: 0.5, miss: 21.0 };
    assert!((report.break_even() - 0.0488).abs() < 0.0001);
    let lookup = Costs { uncached: 0.05, hit: 0.04, miss: 0.25 };
    assert!((lookup.break_even() - 0.952).abs() < 0.001);
    // A hit that costs as much as the query never pays.
    assert!(Costs { uncached: 0.05, hit: 0.05, miss: 0.25 }.break_even() > 1.0);
    assert!(Costs { uncached: 0.05, hit: 0.5, miss: 0.3 }.break_even() > 1.0);
}

/// Fails if a statement gets another form of caching than the one that fits its figures. Each case is a statement, its figures, and
/// what to do with it. None: caching it does not pay.
#[test]
fn each_statement_gets_the_form_that_fits() {
    let cases: &[(&str, Figures, Option<Choice>)] = &[
        ("a report", REPORT, Some(Choice::Cache)),
        ("a report for a BI tool", Figures { suits_view: true, ..REPORT }, Some(Choice::View)),
        ("few calls", Figures { calls: 4.0, ..REPORT }, None),
        ("a point read", Figures { mean_ms: 0.05, calls: 1e6, ..REPORT }, None),
        ("faster than min_cost", Figures { mean_ms: 0.9, calls: 1e6, ..REPORT }, None),
        ("many rows, as fast as a hit", Figures { mean_ms: 30.0, rows: 1e5, ..REPORT }, None),
        ("rarely called", Figures { calls: 6.0, mean_ms: 20.0, ..REPORT }, None),
        ("a commit for each call", Figures { evidence: commits(1e4), mean_ms: 5.0, ..REPORT }, None),
        ("the same, slow", Figures { evidence: commits(1e4), ..REPORT }, Some(Choice::StaleOk)),
        ("the same, slow and rare", Figures { evidence: commits(1e4), calls: 50.0, ..REPORT }, None),
        ("half of the calls are hits", Figures { evidence: commits(499.0), ..REPORT }, Some(Choice::Cache)),
        ("unknown arguments", Figures { evidence: Evidence::Unknown, ..REPORT }, Some(Choice::Observe)),
        ("unknown, and too fast", Figures { evidence: Evidence::Unknown, mean_ms: 0.5, ..REPORT }, None),
        (
            "unknown, and rare",
            Figures { evidence: Evidence::Unknown, calls: 5.0, mean_ms: 2.0, ..REPORT },
            None,
        ),
        ("observed hits", Figures { evidence: observed(100.0, 90.0, 4500.0), ..REPORT }, Some(Choice::Cache)),
        (
            "observed hits with arguments",
            Figures {
                evidence: observed(100.0, 90.0, 4500.0),
                has_parameters: true,
                suits_view: true,
                ..REPORT
            },
            Some(Choice::Cache),
        ),
        (
            "observed arguments that never come again",
            Figures { evidence: observed(100.0, 0.0, 0.0), has_parameters: true, ..REPORT },
            None,
        ),
        (
            "observed invalidations",
            Figures { evidence: observed(100.0, 0.0, 0.0), ..REPORT },
            Some(Choice::StaleOk),
        ),
        (
            "many roles",
            Figures { evidence: Evidence::Commits { commits: 0.0, roles: 1000.0 }, ..REPORT },
            None,
        ),
    ];
    for (name, figures, choice) in cases {
        assert_eq!(decide(figures, &LIMITS).map(|verdict| verdict.choice), *choice, "{name}");
    }
}

/// Fails if the saving is not the time of the calls that are hits, less the cost of these hits and the additional cost of the
/// misses.
#[test]
fn the_saving_is_that_of_the_expected_hits() {
    let verdict = decide(&Figures { evidence: commits(99.0), ..REPORT }, &LIMITS).expect("it pays");
    // The first call is a miss, then one after each of the 99 commits, and 12 because the result expires every five minutes.
    let misses = 112.0;
    assert_eq!(verdict.hit_ratio, Some(1.0 - misses / 1000.0));
    let Costs { uncached, hit, miss } = verdict.costs;
    let saved = 1000.0 * uncached - (1000.0 - misses) * hit - misses * miss;
    assert!((verdict.saves - saved / 3600.0).abs() < 1e-9, "{verdict:?}");
    let seen =
        decide(&Figures { evidence: observed(100.0, 90.0, 4500.0), ..REPORT }, &LIMITS).expect("it pays");
    let saved = 4500.0 - 90.0 * hit - 10.0 * (miss - uncached);
    assert!((seen.saves - saved / 100.0).abs() < 1e-9, "{seen:?}");
    assert_eq!(seen.hit_ratio, Some(0.9));
}

/// A statement that is called less often than its result expires needs a longer time to live. Fails if the advice keeps the
/// default.
#[test]
fn the_time_to_live_fits_the_calls() {
    let ttl = |calls: f64, mean_ms: f64, reads_clock: bool| {
        let figures = Figures { calls, mean_ms, seconds: 864_000.0, reads_clock, ..REPORT };
        decide(&figures, &LIMITS).map(|verdict| verdict.ttl)
    };
    assert_eq!(ttl(1e6, 50.0, false), Some(None));
    assert_eq!(ttl(10_000.0, 50.0, false), Some(Some("1 hour")));
    assert_eq!(ttl(200.0, 5000.0, false), Some(Some("1 day")));
    // A result that has read the clock lives a minute, so nearly every call is a miss.
    assert_eq!(ttl(200.0, 5000.0, true), None);
    assert_eq!(ttl(1e6, 50.0, true), Some(None));
}

/// `cache_advise` recommends that a background worker computes the result if the query is slow and there are some changes, but far
/// fewer than calls. Fails if it does so in another case.
#[test]
fn a_worker_computes_what_is_slow_and_hot_and_rarely_changes() {
    let is_warm = |mean_ms, calls, changes| {
        let figures = Figures { mean_ms, calls, evidence: commits(changes), ..REPORT };
        decide(&figures, &LIMITS).is_some_and(|verdict| verdict.warm.is_some())
    };
    assert!(is_warm(2000.0, 1000.0, 5.0));
    assert!(!is_warm(200.0, 1000.0, 5.0), "a miss does not hurt");
    assert!(!is_warm(2000.0, 1000.0, 0.0), "nothing changes");
    assert!(!is_warm(2000.0, 1000.0, 300.0), "too many changes");
}

/// Statements below this time are not analyzed. Fails if it is not `min_cost`, or without `min_cost` four times the 0.05 ms of a
/// hit.
#[test]
fn fast_statements_need_no_analysis() {
    assert_eq!(floor_ms(1.0), 1.0);
    assert_eq!(floor_ms(0.0), 0.2);
}
