//! Code that the server runs as the current role while it plans a query: whether another role has written it. A worker asks this before
//! it runs a query again without its role.

#![allow(unsafe_code)]

use super::query::{self, Snapshot};
use super::{invalidations, memory, observer};
use pgrx::pg_sys;

/// Locks relations as a query that reads them does, until the end of the transaction. Then accepts the changes of definitions that
/// other sessions have committed meanwhile. The relations need not exist. Raises an error if the wait for a lock ends.
pub fn lock(relations: impl Iterator<Item = u32>) {
    for relation in relations {
        // SAFETY: the server's own function, called within a transaction. It needs only the OID.
        unsafe { pg_sys::LockRelationOid(relation.into(), pg_sys::AccessShareLock as i32) };
    }
    invalidations::accept_messages();
}

/// Returns whether the planner may run a function of another role for a query of the current role on these relations. The planner
/// computes constants in the predicates and expressions of indexes and of extended statistics, and in partition keys, and does so
/// as the role of the query. Functions of superusers do not count.
pub fn may_be_foreign(relations: impl Iterator<Item = u32>) -> bool {
    let oids: Vec<String> = memory::collect(relations.map(|oid| oid.to_string()));
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
    observer::apart(|| {
        // A new snapshot sees what was committed before the locks were granted.
        query::within_spi(Snapshot::New, || {
            // SAFETY: a statement of one command without parameters, while the connection is open.
            unsafe {
                let status = pg_sys::SPI_execute(statement.as_ptr(), true, 1);
                status != pg_sys::SPI_OK_SELECT as i32 || pg_sys::SPI_processed > 0
            }
        })
    })
}
