//! A row of the advice (`cache_advise`): about a statement (`words.rs`, `stop_caching.rs`), or a note about the advice itself
//! ([`note`]).

/// A row of `cache_advise`.
#[derive(Debug)]
pub struct Advice {
    /// The action: `cache`, `stale_ok`, `view`, `observe`, `warm`, `stop caching`, or `note` (`docs/advice.md`).
    pub advice: &'static str,
    /// The beginning of the statement, in one line. None for a note.
    pub query: Option<Vec<u8>>,
    /// The milliseconds that callers wait less in each second. None if that is not known. Rows are sorted by this number. Rows
    /// without it follow, and then the notes.
    pub saves: Option<f64>,
    /// The reason, in one or more lines.
    pub reason: String,
    /// The statement to run. None if there is nothing to run.
    pub statement: Option<Vec<u8>>,
}

/// Returns a row that says what the advice lacks, with the statement that repairs it.
pub fn note(reason: String, statement: Option<String>) -> Advice {
    let statement = statement.map(String::into_bytes);
    Advice { advice: "note", query: None, saves: None, reason, statement }
}
