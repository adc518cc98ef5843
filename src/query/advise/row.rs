//! A row of the advice.

/// A row of `cache_advise`.
#[derive(Debug)]
pub struct Advice {
    pub advice: &'static str,
    /// The beginning of the statement, in one line.
    pub query: Option<Vec<u8>>,
    /// The milliseconds that callers wait less in each second.
    pub saves: Option<f64>,
    pub reason: String,
    /// The statement to run.
    pub statement: Option<Vec<u8>>,
}

/// Returns a row that says what the advice lacks, with the statement that repairs it.
pub fn note(reason: String, statement: Option<String>) -> Advice {
    let statement = statement.map(String::into_bytes);
    Advice { advice: "note", query: None, saves: None, reason, statement }
}
