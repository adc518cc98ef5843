//! Finds code of other roles that the server may run while it plans a query. The server runs such code with the privileges of the
//! current role.
//!
//! A worker that keeps a result stored (`query/keep.rs`) runs its query again as the role that ran it before, although no session
//! of that role asks for the result. So the worker first locks the query's relations with [`lock`], and does not run the query if
//! [`may_be_foreign`] returns true.

#![allow(unsafe_code)]

use super::query::{self, Snapshot};
use super::{invalidations, memory, observer};
use pgrx::pg_sys;

/// Locks relations as a query that reads them does, until the end of the transaction. Then accepts the changes of definitions that
/// other sessions have committed meanwhile. The relations need not exist. Raises an error if it does not get a lock: after
/// `lock_timeout`, because of a deadlock, or because the call is cancelled.
pub fn lock(relations: impl Iterator<Item = u32>) {
    for relation in relations {
        // SAFETY: the server's own function, called within a transaction. It needs only the OID.
        unsafe { pg_sys::LockRelationOid(relation.into(), pg_sys::AccessShareLock as i32) };
    }
    invalidations::accept_messages();
}

/// Returns whether the planner may run code of another role for a query of the current role on these relations. The planner
/// evaluates constant parts of the predicates and expressions of indexes and extended statistics, and of partition keys. Returns
/// true if one of these uses
/// - a function of another role,
/// - an operator whose function belongs to another role, or
/// - a domain of another role, because the owner of a domain chooses the functions in its constraints.
///
/// Superusers do not count as other roles. The caller must hold locks on the relations ([`lock`]). Otherwise another role can
/// change a definition after the check.
pub fn may_be_foreign(relations: impl Iterator<Item = u32>) -> bool {
    let oids: Vec<String> = memory::collect(relations.map(|oid| oid.to_string()));
    // `pg_depend` says which functions, operators and types the relations, their indexes and their statistics use. A dependency
    // with `objsubid` above 0 belongs to a column. It is ignored for types: the domain of a column is no part of an expression.
    let statement = format!(
        "WITH tables AS MATERIALIZED (SELECT pg_catalog.unnest('{{{}}}'::pg_catalog.oid[]) AS oid),
             trusted AS MATERIALIZED (
                 SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolsuper OR r.rolname OPERATOR(pg_catalog.=) CURRENT_USER),
             objects AS (
                 SELECT 'pg_catalog.pg_class'::pg_catalog.regclass AS class, oid FROM tables
                 UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, i.indexrelid
                     FROM pg_catalog.pg_index AS i JOIN tables AS t ON i.indrelid OPERATOR(pg_catalog.=) t.oid
                 UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid
                     FROM pg_catalog.pg_statistic_ext AS s JOIN tables AS t ON s.stxrelid OPERATOR(pg_catalog.=) t.oid)
         SELECT FROM objects AS o
             JOIN pg_catalog.pg_depend AS d ON d.classid OPERATOR(pg_catalog.=) o.class AND d.objid OPERATOR(pg_catalog.=) o.oid
             LEFT JOIN pg_catalog.pg_operator AS op
                 ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_operator'::pg_catalog.regclass
                 AND op.oid OPERATOR(pg_catalog.=) d.refobjid
             LEFT JOIN pg_catalog.pg_type AS ty
                 ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
                 AND d.objsubid OPERATOR(pg_catalog.=) 0
                 AND ty.oid OPERATOR(pg_catalog.=) d.refobjid AND ty.typtype OPERATOR(pg_catalog.=) 'd'
             LEFT JOIN pg_catalog.pg_proc AS p
                 ON p.oid OPERATOR(pg_catalog.=) op.oprcode
                 OR d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
                 AND p.oid OPERATOR(pg_catalog.=) d.refobjid
         WHERE coalesce(p.proowner, ty.typowner) IS NOT NULL
             AND NOT EXISTS (SELECT FROM trusted AS r WHERE r.oid OPERATOR(pg_catalog.=) coalesce(p.proowner, ty.typowner))
         LIMIT 1",
        oids.join(",")
    );
    let statement = memory::terminated(statement.as_bytes()).unwrap_or_default();
    // If a query whose result may be stored is running, the relations that this statement reads must not count as read by that
    // query (`observer.rs`).
    observer::apart(|| {
        // A new snapshot sees what was committed before the locks were granted.
        query::within_spi(Snapshot::New, || {
            // If the statement fails without an error, the answer is true, so that the query does not run.
            // SAFETY: a statement of one command without parameters, while the connection is open.
            unsafe {
                let status = pg_sys::SPI_execute(statement.as_ptr(), true, 1);
                status != pg_sys::SPI_OK_SELECT as i32 || pg_sys::SPI_processed > 0
            }
        })
    })
}
