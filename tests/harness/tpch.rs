//! Tables and queries in the manner of the benchmark TPC-H: eight tables of a trade, whose size a scale decides, and 22 analytical
//! queries (`tpch/tables.sql`, `tpch/queries.sql`).

use postgres::Client;

/// A query of the benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Its number in the specification, from 1 on.
    pub number: u32,
    /// Its title in the specification.
    pub title: &'static str,
    /// The statement, without a semicolon.
    pub text: &'static str,
}

/// Creates the tables in the database of the session, and fills them. At scale 1, the largest table has about six million rows. The
/// session must find no tables with the names of these.
pub fn load(session: &mut Client, scale: f64) -> Result<(), postgres::Error> {
    session.batch_execute(&format!(
        "SET tpch.scale = '{scale}'; {}; RESET tpch.scale",
        include_str!("tpch/tables.sql")
    ))?;
    // VACUUM must be the only statement of its message. It sets the bits that let index-only scans work.
    session.batch_execute("VACUUM")
}

/// Returns the queries, in the order of their numbers.
pub fn queries() -> Vec<Query> {
    // The text before the first blank line is a comment on the file.
    let parts = include_str!("tpch/queries.sql").split("\n-- ").skip(1);
    parts.filter_map(query).collect()
}

/// Reads a query: the line with its number and its title, and the statement. `None` if the first line has no number.
fn query(part: &'static str) -> Option<Query> {
    let (head, text) = part.split_once('\n')?;
    let (number, title) = head.split_once(' ')?;
    Some(Query { number: number.parse().ok()?, title, text: text.trim() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a query is lost, or if a statement has a part of another one.
    #[test]
    fn there_are_22_queries() {
        let queries = queries();
        let numbers: Vec<_> = queries.iter().map(|query| query.number).collect();
        assert_eq!(numbers, (1..=22).collect::<Vec<_>>());
        for query in queries {
            assert!(query.text.starts_with("SELECT ") || query.text.starts_with("WITH "), "{query:?}");
            assert!(!query.text.contains("--") && !query.text.contains(';'), "{query:?}");
        }
    }
}
