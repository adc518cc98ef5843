//! Texts of statements and numbers, as rows of the advice show them.

use crate::pg::encoding::clipped;
use crate::pg::memory;

/// The most bytes of a statement's text that a row shows.
const SHOWN_BYTES: usize = 60;

/// Joins texts without anything between them.
pub fn concatenated(parts: &[&[u8]]) -> Vec<u8> {
    let mut whole = Vec::new();
    memory::reserve(&mut whole, parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole
}

/// Quotes a text between dollar signs, with a tag that does not occur in the text. The text must not end with the tag without its
/// last dollar sign either: the first sign of the closing tag would complete it.
pub fn quoted(text: &[u8]) -> Vec<u8> {
    let occurs =
        |tag: &[u8]| text.windows(tag.len()).any(|part| part == tag) || text.ends_with(&tag[..tag.len() - 1]);
    let tags = ["$$".to_owned(), "$query$".to_owned()].into_iter();
    let mut tags = tags.chain((1_u32..).map(|number| format!("$query{number}$")));
    let tag = tags.find(|tag| !occurs(tag.as_bytes())).unwrap_or_default();
    concatenated(&[tag.as_bytes(), text, tag.as_bytes()])
}

/// Returns a text with one blank in place of each sequence of white space, and without a semicolon at its end.
pub fn in_one_line(text: &[u8]) -> Vec<u8> {
    let mut line = memory::zeroed(0);
    memory::reserve(&mut line, text.len() + 1);
    for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(b' ');
        }
        line.extend_from_slice(word);
    }
    while line.last().is_some_and(|last| matches!(last, b';' | b' ')) {
        line.pop();
    }
    line
}

/// Returns the beginning of a text, in one line.
pub fn shortened(text: &[u8]) -> Vec<u8> {
    let line = in_one_line(text);
    match line.len() > SHOWN_BYTES {
        true => memory::joined(clipped(&line, SHOWN_BYTES - 3), b"..."),
        false => line,
    }
}

/// Shows a number without its fraction, such as `12`.
pub fn whole(number: f64) -> String {
    format!("{number:.0}")
}

/// Shows a short time, such as `4.2 ms` or `12.5 s`.
pub fn time(ms: f64) -> String {
    match ms {
        ms if ms >= 10_000.0 => format!("{:.1} s", ms / 1000.0),
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms => format!("{ms:.1} ms"),
    }
}

/// Shows the time for which statements were counted, such as `30.0 minutes` or `2.5 days`.
pub fn window(seconds: f64) -> String {
    match seconds {
        seconds if seconds >= 2.0 * 86_400.0 => format!("{:.1} days", seconds / 86_400.0),
        seconds if seconds >= 7200.0 => format!("{:.1} hours", seconds / 3600.0),
        seconds if seconds >= 120.0 => format!("{:.1} minutes", seconds / 60.0),
        seconds => format!("{seconds:.1} s"),
    }
}

/// Shows a ratio in percent, such as `0.35 %`, `4.2 %` or `97 %`. Rounds down from 10 % on, so that 99.9 % is not shown as 100 %.
pub fn percent(ratio: f64) -> String {
    match ratio * 100.0 {
        ratio if ratio < 1.0 => format!("{ratio:.2} %"),
        ratio if ratio < 10.0 => format!("{ratio:.1} %"),
        ratio => format!("{:.0} %", ratio.floor()),
    }
}
