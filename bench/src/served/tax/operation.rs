//! The operations on tables whose times the part `tax` of the report compares. The tax is the slowdown of writes to tables that
//! cached values depend on.

use super::contest::Contender;
use super::sides::Side;

/// An operation on one of the tables of `tables.sql`, which exist in several schemas.
pub struct Operation {
    /// The name as shown.
    pub name: &'static str,
    /// The statement. `{schema}` stands for the schema, and `$1` for the number of a row.
    pub statement: &'static str,
    /// Whether the operation changes the table, so that values which depend on it become misses.
    pub writes: bool,
}

/// All operations. Each runs in a transaction of its own.
pub const OPERATIONS: [Operation; 3] = [
    Operation {
        name: "UPDATE",
        statement: "UPDATE {schema}.account SET balance = balance + 1 WHERE id = $1",
        writes: true,
    },
    Operation {
        name: "INSERT",
        statement: "INSERT INTO {schema}.entry (account, delta) VALUES ($1, 1)",
        writes: true,
    },
    Operation {
        name: "SELECT",
        statement: "SELECT balance FROM {schema}.account WHERE id = $1",
        writes: false,
    },
];

impl Operation {
    /// Returns the operation as a contender of a contest (`contest.rs`), on the tables of `schema` on one server.
    pub fn contender<'a>(&self, name: &'static str, side: &'a Side, schema: &'static str) -> Contender<'a> {
        Contender { name, side, schema, statement: self.statement.replace("{schema}", schema) }
    }
}
