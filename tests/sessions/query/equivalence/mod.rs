//! Tests that compare cached results with those of the queries themselves, over one schema.
//!
//! - `rounds`: random queries with and without the cache, between random changes.
//! - `smith`: the same with the queries of sqlsmith, a generator from elsewhere. `make/sqlsmith.sh` runs it.
//! - `pairs`: texts that look alike, and texts whose results must agree although they have nothing in common.
//! - `definitions`: every change of a definition that a query depends on, and many that it does not depend on.
//! - `schema`: the objects that the queries use; `grammar` writes queries, `changes` changes the objects, `cached` runs and
//!   compares the queries.

mod cached;
mod changes;
mod definitions;
mod grammar;
mod pairs;
mod rounds;
mod schema;
mod smith;

use postgres::Client;

/// Returns whether `make test-long` runs the tests.
fn is_long() -> bool {
    std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty())
}

/// Creates the schema with its roles, and lets the roles read and write the default space, the named cache that calls use if they
/// name no other one.
fn set_up(owner: &mut Client) {
    owner.batch_execute("CREATE ROLE alice; CREATE ROLE bob; CREATE ROLE clerks").expect("roles");
    owner.batch_execute(schema::SETUP).expect("a schema");
    for (role, privilege) in schema::ROLES.iter().flat_map(|role| [(role, "read"), (role, "write")]) {
        let call = format!("SELECT cache_grant('default', '{role}', '{privilege}')");
        owner.batch_execute(&call).unwrap_or_else(|error| panic!("{call}: {error}"));
    }
}
