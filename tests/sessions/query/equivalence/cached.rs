//! Runs queries with and without the cache, and compares the answers.

use super::grammar::Text;
use super::schema::Type;
use postgres::{Client, SimpleQueryMessage};

/// The rows that a query returns, each with its columns as text, or the SQLSTATE and the message of its error.
#[derive(Clone, Debug)]
pub enum Answer {
    Rows(Vec<Vec<Option<String>>>),
    Failed(String, String),
}

impl Answer {
    /// Returns the value of an answer with one row and one column. Panics if it is another one.
    pub fn single(&self) -> Option<&str> {
        match self {
            Self::Rows(rows) if rows.len() == 1 && rows[0].len() == 1 => rows[0][0].as_deref(),
            other => panic!("one value was expected: {other:?}"),
        }
    }

    /// Returns whether the query failed.
    pub fn has_failed(&self) -> bool {
        matches!(self, Self::Failed(..))
    }

    /// Returns whether two answers have the same rows, in the same order if that matters, or fail with the same error.
    pub fn is_same(&self, other: &Self, in_order: bool) -> bool {
        match (self, other) {
            (Self::Rows(one), Self::Rows(two)) if in_order => one == two,
            (Self::Rows(one), Self::Rows(two)) => {
                let sorted = |rows: &Vec<_>| {
                    let mut rows: Vec<Vec<Option<String>>> = Vec::clone(rows);
                    rows.sort_unstable();
                    rows
                };
                sorted(one) == sorted(two)
            }
            (Self::Failed(one, message), Self::Failed(two, other)) => one == two && message == other,
            _ => false,
        }
    }
}

/// Returns the answers to the statements of one message, one for each, and an empty one behind them. After an error, returns only
/// the error.
fn answers(session: &mut Client, statements: &str) -> Vec<Answer> {
    let mut answers = vec![Vec::new()];
    match session.simple_query(statements) {
        Ok(messages) => {
            for message in messages {
                match message {
                    SimpleQueryMessage::Row(row) => {
                        let columns = (0..row.len()).map(|place| row.get(place).map(str::to_owned)).collect();
                        answers.last_mut().expect("one is there").push(columns);
                    }
                    SimpleQueryMessage::CommandComplete(_) => answers.push(Vec::new()),
                    _ => {}
                }
            }
            answers.into_iter().map(Answer::Rows).collect()
        }
        Err(error) => match error.as_db_error() {
            Some(failed) => {
                vec![Answer::Failed(failed.code().code().to_owned(), failed.message().to_owned())]
            }
            None => panic!("the session ended: {error}\n{statements}"),
        },
    }
}

/// Runs a statement without the cache.
pub fn answer(session: &mut Client, statement: &str) -> Answer {
    answers(session, statement).swap_remove(0)
}

impl Text {
    /// A query without arguments.
    pub fn plain(query: &str) -> Self {
        Self { query: query.to_owned(), arguments: Vec::new(), is_ordered: false, types: Vec::new() }
    }

    /// Returns the query with its arguments in the places of the parameters.
    pub fn inlined(&self) -> String {
        let mut query = self.query.clone();
        // The parameter `$1` is part of `$10`.
        for (place, argument) in self.arguments.iter().enumerate().rev() {
            query = query.replace(&format!("${}", place + 1), &argument.literal);
        }
        query
    }

    /// Runs the query without the cache.
    pub fn direct(&self, session: &mut Client) -> Answer {
        answer(session, &self.inlined())
    }

    /// Returns the column definition list of the query for this session, in parentheses. None if the session cannot plan the query.
    pub fn columns(&self, session: &mut Client) -> Option<String> {
        let statement = session.prepare(&self.query).ok()?;
        let types: Vec<u32> = statement.columns().iter().map(|column| column.type_().oid()).collect();
        drop(statement);
        // A server sends the type below a domain instead of the domain.
        let domains: Vec<bool> =
            (0..types.len()).map(|place| self.types.get(place) == Some(&Type::Small)).collect();
        if types.is_empty() {
            return None;
        }
        // The search path may lead to other functions and operators than those of the server.
        let names = "SELECT pg_catalog.concat('(', pg_catalog.string_agg(pg_catalog.concat('c', place, ' ',
                         CASE WHEN is_small THEN 'small' ELSE pg_catalog.format_type(of, NULL) END), ', ' ORDER BY place), ')')
                       FROM ROWS FROM (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::bool[]))
                            WITH ORDINALITY AS types (of, is_small, place)";
        Some(session.query_one(names, &[&types, &domains]).expect("a catalog").get(0))
    }

    /// Returns the arguments of `cache_query`: the query, and `args` if there are any.
    fn call(&self) -> String {
        let json: Vec<&str> = self.arguments.iter().map(|argument| argument.json.as_str()).collect();
        let arguments = match json[..] {
            [] => String::new(),
            _ => format!(", args => $args$[{}]$args$", json.join(", ")),
        };
        format!("$cached${}$cached${arguments}", self.query)
    }

    /// Runs the query through `cache_query`. Returns the answer and the status of the session.
    pub fn cached(&self, session: &mut Client, columns: &str) -> (Answer, String) {
        let call = self.call();
        with_status(session, &format!("SELECT * FROM public.cache_query({call}) AS cached {columns}"))
    }

    /// Runs the query through `cache_query_json`. Returns its objects as rows of one column, and the status of the session.
    pub fn cached_json(&self, session: &mut Client) -> (Answer, String) {
        let call = self.call();
        // The objects keep their order.
        let list = format!("SELECT value::text FROM jsonb_array_elements(public.cache_query_json({call}))");
        with_status(session, &list)
    }

    /// Runs the query without the cache, with its rows as JSON objects. The planner must not mix the query with the calls.
    pub fn direct_json(&self, session: &mut Client) -> Answer {
        let query = self.inlined();
        answer(
            session,
            &format!("WITH direct AS MATERIALIZED ({query}) SELECT to_jsonb(direct)::text FROM direct"),
        )
    }
}

/// Returns the cost of a query by the estimate of the planner. None if the query cannot be planned.
pub fn cost(session: &mut Client, query: &str) -> Option<u64> {
    let Answer::Rows(plan) = answer(session, &format!("EXPLAIN {query}")) else { return None };
    let (_, costs) = plan[0][0].as_deref()?.split_once("..")?;
    costs.split('.').next()?.parse().ok()
}

/// Runs a single statement that calls the cache. Returns its answer, and the status of the session after it, or `failed` if the
/// statement failed.
pub fn with_status(session: &mut Client, statement: &str) -> (Answer, String) {
    let mut found = answers(session, &format!("{statement}; SELECT public.cache_status()"));
    let status = match found.get(1) {
        Some(status) => status.single().unwrap_or_default().to_owned(),
        None => "failed".to_owned(),
    };
    (found.swap_remove(0), status)
}

/// Returns whether the status is that of a hit.
pub fn is_hit(status: &str) -> bool {
    status == "hot" || status == "hit: table"
}
