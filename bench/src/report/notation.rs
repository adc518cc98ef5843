//! Formats numbers of the report for people, mostly with three significant digits: see [`digits`].

use crate::machine::Machine;
use crate::statistics::Summary;

/// Returns the names and versions of the programs that ran.
pub fn versions(machine: &Machine) -> String {
    let servers = machine.servers.as_ref();
    let servers =
        servers.map(|servers| format!("PostgreSQL {}, Redis {}, ", servers.postgresql, servers.redis));
    format!("{}pg_cache {}", servers.unwrap_or_default(), machine.pg_cache)
}

/// Formats operations per second: 940, 52.7 k, 1.04 M. The next unit begins where three digits would round to 1000.
pub fn rate(per_second: f64) -> String {
    match per_second {
        big if big >= 999_500.0 => format!("{} M", digits(big / 1e6)),
        some if some >= 999.5 => format!("{} k", digits(some / 1e3)),
        few => digits(few),
    }
}

/// Formats nanoseconds: 96.1 ns, 12.5 µs, 14.1 ms. The next unit begins where three digits would round to 10 000.
pub fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        longest if longest >= 9_995_000.0 => format!("{} ms", digits(longest / 1e6)),
        long if long >= 9_995.0 => format!("{} µs", digits(long / 1e3)),
        short => format!("{} ns", digits(short)),
    }
}

/// Formats a count: 812, 12 300, 1 040 000. A narrow no-break space (U+202F) separates groups of three digits.
pub fn count(number: f64) -> String {
    let rounded = digits(number);
    let (whole, rest) = rounded.split_once('.').map_or((rounded.as_str(), None), |(w, r)| (w, Some(r)));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    rest.map_or(grouped.clone(), |rest| format!("{grouped}.{rest}"))
}

/// Formats a median, followed by its confidence interval in parentheses if there is more than one sample.
pub fn with_interval(summary: Summary, notation: impl Fn(f64) -> String) -> String {
    match interval(summary, &notation) {
        Some(interval) => format!("{} ({interval})", notation(summary.median)),
        None => notation(summary.median),
    }
}

/// Formats an interval. If both ends have the same unit, the unit stands only once. Returns `None` if there was only one sample.
pub fn interval(summary: Summary, notation: impl Fn(f64) -> String) -> Option<String> {
    if summary.samples < 2 {
        return None;
    }
    let (low, high) = (notation(summary.low), notation(summary.high));
    let low = match (low.rsplit_once(' '), high.rsplit_once(' ')) {
        (Some((number, unit)), Some((_, same))) if unit == same => number.to_owned(),
        _ => low,
    };
    Some(format!("{low} – {high}"))
}

/// Formats a number with three significant digits; further digits before the decimal point are zeroes. A number below 1 has two
/// decimal places. A number below 0.0995, which would round to less than 0.10, has four, except 0, which is 0.00.
pub fn digits(number: f64) -> String {
    match number.abs() {
        n if n >= 99.95 => {
            // In a long number, only the first three digits are significant.
            let unit = 10_f64.powi((n.log10().floor() as i32 - 2).max(0));
            format!("{:.0}", (number / unit).round() * unit)
        }
        n if n >= 9.995 => format!("{number:.1}"),
        n if n >= 0.0995 || n == 0.0 => format!("{number:.2}"),
        _ => format!("{number:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a number has another count of digits than `digits` says, especially where rounding adds a digit.
    #[test]
    fn three_digits_are_kept() {
        assert_eq!(
            ["0.0168", "0.85", "9.99", "10.0", "52.7", "100", "940", "12300"].map(str::to_owned),
            [0.01684, 0.851, 9.991, 9.996, 52.71, 99.96, 940.4, 12_345.0].map(digits)
        );
    }

    /// Fails if a rate is shown as 1000 or 1000 k instead of in the next unit.
    #[test]
    fn rates_change_their_unit_where_the_digits_do() {
        assert_eq!(
            ["940", "999", "1.00 k", "52.7 k", "999 k", "1.00 M", "10.4 M"].map(str::to_owned),
            [940.0, 999.4, 999.6, 52_660.0, 999_400.0, 999_600.0, 10_400_000.0].map(rate)
        );
    }

    /// Fails if a time changes its unit at another limit, or if the digits of a count are not grouped from the right.
    #[test]
    fn times_and_counts() {
        assert_eq!(
            ["96.1 ns", "2900 ns", "12.5 µs", "9990 µs", "14.1 ms"].map(str::to_owned),
            [96.1, 2900.0, 12_500.0, 9_994_000.0, 14.1e6].map(time)
        );
        assert_eq!(
            ["812", "12\u{202f}300", "1\u{202f}040\u{202f}000", "1.50"].map(str::to_owned),
            [812.0, 12_345.0, 1_040_000.0, 1.5].map(count)
        );
    }

    /// Fails if equal units stand at both ends, if one of two different units is left out, or if a single sample has an interval.
    #[test]
    fn an_interval_names_its_unit_once_if_there_is_one() {
        let summary = |low, high, samples| Summary { samples, median: 1.0, low, high, confidence: 0.96 };
        assert_eq!(interval(summary(51e3, 53e3, 9), rate).as_deref(), Some("51.0 – 53.0 k"));
        assert_eq!(interval(summary(990e3, 1.1e6, 9), rate).as_deref(), Some("990 k – 1.10 M"));
        assert_eq!(interval(summary(1.0, 1.0, 1), rate), None);
    }
}
