//! The SQL functions for monitoring: `cache_metrics_text`, and the functions behind the views of the metrics, of the times of
//! operations, and of the verification of hits. `store/metrics/` collects the numbers.

use crate::pg::error::OrRaise;
use crate::pg::varlena::{Text, Varlena};
use crate::store::{metrics, space};
use pgrx::prelude::*;

/// Returns all metrics in the text format of Prometheus.
#[pg_extern(volatile, parallel_restricted)]
fn cache_metrics_text() -> Text {
    space::require_monitor("look at the metrics").or_raise();
    let mut text = metrics::Text::default();
    metrics::collect(&mut text);
    Text(Varlena::of(&text.0))
}

/// The functions behind the views `cache_metrics`, `cache_latency` and `cache_verification`.
#[pg_schema]
mod pgcache {
    use crate::pg::error::OrRaise;
    use crate::pg::{memory, shared};
    use crate::store::metrics::{self, Family, Owner, Sink, Type, Value};
    use crate::store::space;
    use pg_cache_core::{Histogram, Operation, bucket_limit_nanos};
    use pgrx::prelude::*;

    /// A row of the view. The labels are a JSON object as text.
    type Row = (&'static str, String, &'static str, f64, &'static str);

    /// Collects the rows of the view. `kind` and `help` are those of the family of the next sample.
    #[derive(Default)]
    struct Table {
        rows: Vec<Row>,
        kind: &'static str,
        help: &'static str,
    }

    impl Sink for Table {
        fn family(&mut self, family: &Family) {
            // The samples of a histogram are counters.
            let kind = if family.kind == Type::Histogram { Type::Counter } else { family.kind };
            (self.kind, self.help) = (kind.name(), family.help);
        }

        fn sample(
            &mut self,
            name: &'static str,
            owner: &Owner,
            labels: &[(&'static str, &str)],
            value: Value,
        ) {
            memory::check();
            let mut json = String::from("{");
            json.push_str(&owner.json);
            for (label, value) in labels {
                let comma = if json.len() > 1 { "," } else { "" };
                json.extend([comma, "\"", label, "\":\"", value, "\""]);
            }
            json.push('}');
            memory::push(&mut self.rows, (name, json, self.kind, value.number(), self.help));
        }
    }

    /// Returns all metrics. A histogram has a row for each bucket, a row for the sum and a row for the count. The rows of the
    /// buckets are cumulative and have the label `le`.
    #[pg_extern(volatile, parallel_restricted)]
    #[allow(clippy::type_complexity)]
    fn metrics() -> TableIterator<
        'static,
        (
            name!(name, &'static str),
            name!(labels, String),
            name!(kind, &'static str),
            name!(value, f64),
            name!(help, &'static str),
        ),
    > {
        space::require_monitor("look at the metrics").or_raise();
        let mut table = Table::default();
        metrics::collect(&mut table);
        TableIterator::new(table.rows)
    }

    /// Returns, for each kind of operation, the number of timed operations and their times in milliseconds. A percentile is the
    /// upper limit of the bucket that contains it. Each limit is twice the limit before it, so a percentile may be up to twice the
    /// exact time.
    #[pg_extern(volatile, parallel_restricted)]
    #[allow(clippy::type_complexity)]
    fn latency() -> TableIterator<
        'static,
        (
            name!(operation, &'static str),
            name!(tier, Option<&'static str>),
            name!(timed, i64),
            name!(mean_ms, Option<f64>),
            name!(p50_ms, Option<f64>),
            name!(p95_ms, Option<f64>),
            name!(p99_ms, Option<f64>),
            name!(max_ms, Option<f64>),
        ),
    > {
        space::require_monitor("look at the times of operations").or_raise();
        let figures = shared::tier().map(|tier| tier.figures().or_raise());
        let rows = figures.into_iter().flat_map(|figures| {
            Operation::ALL.map(|operation| {
                let (name, tier) = metrics::names_of(operation);
                let times = figures.histograms.of(operation);
                let count = times.count();
                // The mean is rounded to nanoseconds.
                let mean = (count > 0).then(|| (times.sum_nanos as f64 / count as f64).round() / 1e6);
                let [p50, p95, p99, max] = [0.5, 0.95, 0.99, 1.0].map(|share| quantile_ms(times, share));
                (name, tier, count as i64, mean, p50, p95, p99, max)
            })
        });
        TableIterator::new(rows)
    }

    /// Returns how many hits of queries were verified in this server, how many of them had a wrong stored result, how many were
    /// drawn but could not be verified, and the least share of right hits that these numbers prove with a confidence of 95 %.
    #[pg_extern(volatile, parallel_restricted)]
    #[allow(clippy::type_complexity)]
    fn verification() -> TableIterator<
        'static,
        (
            name!(verified, i64),
            name!(different, i64),
            name!(skipped, i64),
            name!(consistency, Option<String>),
            name!(nines, Option<f64>),
        ),
    > {
        space::require_monitor("look at the verification of hits").or_raise();
        let figures = shared::tier().map(|tier| tier.figures().or_raise());
        let rows = figures.into_iter().map(|figures| {
            let [same, different, skipped] = metrics::verified(&figures);
            let verified = same.wrapping_add(different);
            let bound = metrics::Bound::of(verified, different);
            (
                verified as i64,
                different as i64,
                skipped as i64,
                bound.map(metrics::Bound::consistency),
                bound.map(metrics::Bound::nines),
            )
        });
        TableIterator::new(rows)
    }

    /// Returns the limit of the first bucket at which the cumulative count reaches this share of all times, in milliseconds. None
    /// if nothing was timed. The limit of the last bucket is infinite.
    fn quantile_ms(times: &Histogram, share: f64) -> Option<f64> {
        let needed = (times.count() as f64 * share).ceil().max(1.0) as u64;
        let mut count = 0;
        let bucket = times.buckets.iter().position(|times| {
            count += times;
            count >= needed
        })?;
        Some(bucket_limit_nanos(bucket).map_or(f64::INFINITY, |nanos| nanos as f64 / 1e6))
    }
}
