//! SQL functions that grant and revoke the privileges read, write and admin in spaces (`store/space/privileges.rs`), the function
//! behind the view of grants, and the trigger function that restores the grants of a dump.

use super::arguments::{self, invalid, null};
use crate::pg::catalog;
use crate::pg::encoding::shown;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::memory;
use crate::pg::role::{self, Role};
use crate::pg::varlena::TextArgument;
use crate::store::space::{self, Privilege};
use crate::store::status::{self, Status};
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

/// Removes the grants of dropped roles, because PostgreSQL may give the OID of a dropped role to another role. Role 0 stands for
/// every role and is never dropped. The call skips grants that another transaction has locked, so it never waits. In a REPEATABLE
/// READ or SERIALIZABLE transaction, it does nothing (`catalog::clean_up`).
fn forget_dropped_roles() {
    catalog::clean_up(
        "DELETE FROM pgcache.grants WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(
             SELECT g.ctid FROM pgcache.grants AS g
             WHERE g.role OPERATOR(pg_catalog.<>) 0::pg_catalog.oid
                 AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid OPERATOR(pg_catalog.=) g.role)
             FOR UPDATE SKIP LOCKED))",
    );
}

/// Removes the grants in the space with this OID, which is being dropped. The caller must have checked the privilege admin. Waits
/// if another transaction has locked a grant of an existing role in this space.
pub fn forget_space(number: u32) {
    // The grants of dropped roles are left to `forget_dropped_roles`: another transaction that has nothing to do with this space
    // may have locked them.
    forget_dropped_roles();
    catalog::write(
        "DELETE FROM pgcache.grants
         WHERE space OPERATOR(pg_catalog.=) $1::pg_catalog.oid
             AND (role OPERATOR(pg_catalog.=) 0::pg_catalog.oid
                 OR EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid OPERATOR(pg_catalog.=) role))",
        &[i64::from(number).into()],
    );
}

/// The arguments of `cache_grant` and `cache_revoke`.
struct Grant<'a, R> {
    space: Option<TextArgument<'a>>,
    /// Looks up the role. None if the caller passed null. It may raise the server's error for a role that does not exist.
    role: Option<R>,
    privilege: Option<TextArgument<'a>>,
}

impl<R: FnOnce() -> Role> Grant<'_, R> {
    /// Checks the arguments and the privilege of the caller, and returns the values of the row in `pgcache.grants`: the space, the
    /// role and the privilege.
    fn checked(self) -> Result<[DatumWithOid<'static>; 3], Refused> {
        let space = arguments::space(self.space, Privilege::Admin)?;
        let role = self.role.ok_or_else(|| null("role"))?;
        let name = self.privilege.ok_or_else(|| null("privilege"))?.0;
        let privilege = Privilege::of_name(name).ok_or_else(|| {
            invalid(format!("unrecognized privilege: \"{}\"", shown(name)))
                .hint("Available values: read, write, admin.")
        })?;
        let role = role();
        if !role.is_everybody() && !role.exists() {
            let code = PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT;
            return Err(Refused::new(code, format!("role with OID {} does not exist", role.oid())));
        }
        Ok([i64::from(space.oid).into(), i64::from(role.oid()).into(), privilege.name().to_owned().into()])
    }

    /// Grants the privilege. An invalid argument, and a caller without the privilege admin in the space, are errors.
    fn grant(self) {
        write_grant(&self.checked().or_raise());
        status::set(Status::Done);
    }

    /// Revokes the privilege, under the same conditions. Does nothing if the privilege was not granted.
    fn revoke(self) {
        let grant = self.checked().or_raise();
        let statement = "DELETE FROM pgcache.grants
             WHERE space OPERATOR(pg_catalog.=) $1::pg_catalog.oid AND role OPERATOR(pg_catalog.=) $2::pg_catalog.oid
                 AND privilege OPERATOR(pg_catalog.=) $3";
        catalog::write(statement, &grant);
        status::set(Status::Done);
    }
}

/// Writes the row of a grant, if the table does not have it. The caller must have checked the privilege admin, or must be a
/// restore.
fn write_grant(grant: &[DatumWithOid<'_>; 3]) {
    forget_dropped_roles();
    catalog::write(
        "INSERT INTO pgcache.grants
         VALUES ($1::pg_catalog.oid, $2::pg_catalog.oid::pg_catalog.regrole, $3) ON CONFLICT DO NOTHING",
        grant,
    );
}

/// Grants a privilege in a space to a role. The role is given by its name, as in GRANT.
#[pg_extern(volatile, parallel_unsafe, name = "cache_grant")]
fn grant_to_named(
    space: Option<TextArgument<'_>>,
    role: Option<TextArgument<'_>>,
    privilege: Option<TextArgument<'_>>,
) {
    let role = role.map(|name| move || Role::from_text(name.0));
    Grant { space, role, privilege }.grant();
}

/// Does the same for a role that is passed as a `regrole`.
#[pg_extern(volatile, parallel_unsafe)]
fn cache_grant(space: Option<TextArgument<'_>>, role: Option<Role>, privilege: Option<TextArgument<'_>>) {
    Grant { space, role: role.map(|role| move || role), privilege }.grant();
}

/// Revokes a privilege in a space from a role. The role is given by its name, as in REVOKE.
#[pg_extern(volatile, parallel_unsafe, name = "cache_revoke")]
fn revoke_from_named(
    space: Option<TextArgument<'_>>,
    role: Option<TextArgument<'_>>,
    privilege: Option<TextArgument<'_>>,
) {
    let role = role.map(|name| move || Role::from_text(name.0));
    Grant { space, role, privilege }.revoke();
}

/// Does the same for a role that is passed as a `regrole`.
#[pg_extern(volatile, parallel_unsafe)]
fn cache_revoke(space: Option<TextArgument<'_>>, role: Option<Role>, privilege: Option<TextArgument<'_>>) {
    Grant { space, role: role.map(|role| move || role), privilege }.revoke();
}

/// Writes a grant from a dump. If this cluster has no role with this name, warns and leaves the grant out, so that the other grants
/// are restored. The caller must have checked that the current role has the rights of the owner of the extension.
fn restore_grant(space: u32, space_name: &[u8], role: &[u8], privilege: &[u8]) {
    let (space_name, privilege) = (shown(space_name), shown(privilege));
    if let Some(role) = Role::named(role) {
        write_grant(&[i64::from(space).into(), i64::from(role.oid()).into(), privilege.into_owned().into()]);
        return;
    }
    let quoted = memory::terminated(role).map(|role| role::identifier(&role)).unwrap_or_default();
    let code = PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT;
    let command = space::grant_to_run(&space_name, &quoted, &privilege);
    Refused::new(code, format!("role \"{}\" does not exist", shown(role)))
        .detail(format!("Its privilege {privilege} in space \"{space_name}\" is not restored."))
        .hint(format!("Run: CREATE ROLE {quoted}; {command}"))
        .warn();
}

/// The function behind the view `cache_grants`, and the function of the trigger `restored` of `sql/spaces.sql`.
#[pg_schema]
mod pgcache {
    use crate::pg::error::OrRaise;
    use crate::pg::memory;
    use crate::pg::relation::RelationOid;
    use crate::pg::varlena::{OwnedText, Text, Varlena};
    use crate::store::space::{self, DEFAULT_OID};
    use pgrx::prelude::*;

    /// Writes each row that a restore copies into `pgcache.dumped_grants` to `pgcache.grants` instead. The result None keeps the
    /// row out of `pgcache.dumped_grants`, so that table is always empty. A row without a space is a grant in the default space.
    #[pg_trigger]
    fn grant_restored<'a>(
        trigger: &'a PgTrigger<'a>,
    ) -> Result<Option<PgHeapTuple<'a, AllocatedByRust>>, PgTriggerError> {
        space::require_rights_of_owner(RelationOid::of(trigger.relation()?.oid().to_u32())).or_raise();
        if let Some(row) = trigger.new() {
            let text = |name| {
                row.get_by_name::<OwnedText>(name).ok().flatten().map(|text| text.0).unwrap_or_default()
            };
            let space = row.get_by_name::<pg_sys::Oid>("space").ok().flatten();
            let space = space.map_or(DEFAULT_OID, pg_sys::Oid::to_u32);
            super::restore_grant(space, &text("space_name"), &text("role"), &text("privilege"));
        }
        Ok(None)
    }

    /// Returns the grants that the caller may see (`space::each_visible_grant`).
    #[pg_extern(stable, parallel_restricted)]
    #[allow(clippy::type_complexity)]
    fn visible_grants()
    -> TableIterator<'static, (name!(space, String), name!(grantee, String), name!(privilege, Text))> {
        let mut rows = Vec::new();
        space::each_visible_grant(|space, grantee, privilege| {
            memory::check();
            memory::push(&mut rows, (space.to_owned(), grantee.quoted(), Text(Varlena::of(privilege))));
        });
        TableIterator::new(rows)
    }
}
