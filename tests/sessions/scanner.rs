//! Tests of the normal text of a query (`src/query/text.rs`): the text without comments, and with one blank for each gap between
//! tokens. Queries with the same normal text share a result. So to the server, the normal text must mean the same as the query's
//! own text.

#[path = "../../src/query/text.rs"]
mod text;

use pg_cache_testbed::Database;
use postgres::error::SqlState;
use postgres::{Client, SimpleQueryMessage};

/// Pieces of texts. Put together at random, most texts are errors, which must be the same as well.
const PIECES: [&str; 64] = [
    " ", " ", " ", "  ", "\t", "\n", "\n", "\r", "\x0c", "\x0b", "--", "-- x\n", "/*", "*/", "/* y */", "'",
    "'", "''", "'a'", "'b  c'", "E'", "e'\\'  '", "B'1'", "X'f'", "N'n'", "U&'u  '", "\"", "\"q  q\"",
    "U&\"u\"", "$$", "$$", "$x$", "$1", "$", "\\", ";", ";", ",", ",", "(", ")", "+", "-", "*", "/", "<",
    ">", "=", "@", "|", "a", "b$b", "\u{e4}", "1", "1.5", ".5", "1e5", "1e", "e", "x", "n", "u&", "::text",
    "select 1",
];

/// Returns what the server makes of a text: the values of all rows, or its error.
fn meaning(session: &mut Client, text: &str) -> Result<Vec<Option<String>>, String> {
    let messages = session.simple_query(text).map_err(|error| match error.as_db_error() {
        // The message shows a piece of the text, or the end, which may be that of a comment.
        Some(error) if *error.code() == SqlState::SYNTAX_ERROR => "syntax error".to_owned(),
        Some(error) => error.message().to_owned(),
        None => panic!("{text:?}: {error}"),
    })?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned))),
        _ => None,
    });
    Ok(rows.flatten().collect())
}

/// The seed is printed if the test fails; `TEXT_SEED` sets it, and `TEXT_COUNT` the number of texts.
#[test]
fn the_normal_text_means_the_same_to_the_server() {
    let database = Database::create_empty();
    let mut session = database.connect();
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64);
    let mut seed = number("TEXT_SEED").unwrap_or_else(clock) | 1;
    println!("TEXT_SEED={seed}");
    let mut below = |limit: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % limit as u64) as usize
    };
    let lexing = text::Lexing { standard_strings: true, utf8: true };
    let (mut valid, mut shorter) = (0, 0);
    for _ in 0..number("TEXT_COUNT").unwrap_or(4_000) {
        let pieces: String = (0..below(8)).map(|_| PIECES[below(PIECES.len())]).collect();
        let raw = match below(3) {
            0 => pieces,
            1 => format!("select {pieces}"),
            _ => format!("select 'a'{pieces} , 'b'"),
        };
        let normal = String::from_utf8(text::analyse(raw.as_bytes(), lexing).unwrap().normal).unwrap();
        shorter += usize::from(normal != raw);
        let expected = meaning(&mut session, &raw);
        valid += usize::from(expected.is_ok());
        assert_eq!(meaning(&mut session, &normal), expected, "{raw:?} and {normal:?}");
        let again = text::analyse(normal.as_bytes(), lexing).unwrap().normal;
        assert_eq!(String::from_utf8(again).unwrap(), normal, "{raw:?}");
    }
    assert!(
        valid > 100 && shorter > 1000,
        "{valid} valid texts, and {shorter} that have another normal text"
    );
}
