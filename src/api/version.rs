//! The function that the scripts of CREATE EXTENSION and ALTER EXTENSION UPDATE call first. `sql/schema.sql` creates it.

use crate::pg::catalog;
use crate::pg::error::OrRaise;
use pgrx::prelude::*;

/// Raises an error if the version of the extension after the script needs a newer library than the one that the server has loaded.
/// Otherwise announces to all sessions that the version changes with the commit.
#[pg_extern(sql = false)]
fn require_library() {
    catalog::require_library().or_raise();
}
