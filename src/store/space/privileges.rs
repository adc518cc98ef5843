//! The privileges of roles in spaces, the named caches: which roles may read, write and administer a space, and which roles may see
//! statistics and the texts of queries. The rows of `pgcache.grants` have the privileges; `cache_grant` writes them.
//!
//! Each privilege includes those before it: *read*, *write*, *admin*. A privilege that was granted to a role also counts for the
//! members of the role, and one that was granted to PUBLIC for all roles. The owner of the extension has the privilege admin in
//! every space. Each function that looks for grants or for the owner reads catalogs, so it may raise errors.

use super::options::Options;
use super::rows::{DEFAULT, DEFAULT_OID, each_space, require_tables};
use crate::pg::catalog::{self, Rows, Table, spaces};
use crate::pg::encoding::shown;
use crate::pg::error::Refused;
use crate::pg::memory;
use crate::pg::relation::RelationOid;
use crate::pg::role::{self, Role};
use pgrx::prelude::PgSqlErrorCode;
use std::collections::{BTreeMap, BTreeSet};

/// A privilege in a space. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// Read values.
    Read,
    /// Set and remove values.
    Write,
    /// Change, drop and flush the space, and grant privileges in it.
    Admin,
}

impl Privilege {
    /// Returns the privilege with this name, or none if the name is unknown.
    pub fn of_name(name: &[u8]) -> Option<Self> {
        [Self::Read, Self::Write, Self::Admin].into_iter().find(|known| known.name().as_bytes() == name)
    }

    /// Returns the name of the privilege, as `cache_grant` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// Returns the highest privilege of a role in some spaces. The owner of the extension has the privilege admin in all.
pub(super) fn granted(role: Role, which: Rows<'_>) -> Option<Privilege> {
    if is_owner(role) {
        return Some(Privilege::Admin);
    }
    grants_to(role, which).into_iter().filter_map(|(_, privilege)| privilege).max()
}

/// Returns the privileges that count for a role in some spaces, each with the OID of its space: those that were granted to itself,
/// to the roles whose privileges it has, and to every role. A privilege is none if its name is unknown.
fn grants_to(role: Role, which: Rows<'_>) -> Vec<(u32, Option<Privilege>)> {
    let mut grants = Vec::new();
    catalog::read(Table::Grants, which, |row| {
        let [space, grantee] = [0, 1].map(|column| row.oid(column).unwrap_or_default());
        let privilege = row.text(2).and_then(Privilege::of_name);
        memory::push(&mut grants, (space, Role::from_oid(grantee), privilege));
    });
    let own = grants.into_iter().filter(|(_, grantee, _)| role.has_rights_of(*grantee));
    memory::collect(own.map(|(space, _, privilege)| (space, privilege)))
}

/// Returns whether a role owns the extension, or has the rights of its owner.
pub fn is_owner(role: Role) -> bool {
    catalog::owner().is_some_and(|owner| role.has_rights_of(Role::from_oid(owner.to_u32())))
}

/// Returns whether the current role may see statistics.
pub fn may_monitor() -> bool {
    let role = Role::current();
    role.has_rights_of(Role::MONITOR) || is_owner(role)
}

/// Returns the spaces that the current role may read. None stands for all.
pub fn readable() -> Option<BTreeSet<u32>> {
    let role = Role::current();
    (!is_owner(role)).then(|| granted_to(role))
}

/// Returns whether the current role may read the text of the queries of other roles.
pub fn may_read_queries() -> bool {
    let role = Role::current();
    role.has_rights_of(Role::READS_QUERIES) || is_owner(role)
}

/// Returns whether the current role may read any space, or see statistics.
pub fn may_look() -> bool {
    may_monitor() || granted(Role::current(), Rows::All).is_some()
}

/// Returns whether grants allow a role to write in every space of the database. Does not check whether it owns the extension.
pub fn may_write_everywhere(role: Role) -> bool {
    let mut writable = grants_to(role, Rows::All);
    writable.retain(|(_, privilege)| *privilege >= Some(Privilege::Write));
    let is_writable = |oid: u32| writable.iter().any(|(space, _)| *space == oid);
    let mut all = is_writable(DEFAULT_OID);
    catalog::read(Table::Spaces, Rows::All, |row| {
        all &= is_writable(row.oid(spaces::OID).unwrap_or_default())
    });
    all
}

/// Returns the spaces in which a role was granted a privilege.
pub fn granted_to(role: Role) -> BTreeSet<u32> {
    let grants = grants_to(role, Rows::All);
    grants.into_iter().filter(|(_, privilege)| privilege.is_some()).map(|(space, _)| space).collect()
}

/// Returns the spaces in which PUBLIC was granted a privilege.
pub fn granted_to_public() -> BTreeSet<u32> {
    let mut public = BTreeSet::new();
    catalog::read(Table::Grants, Rows::All, |row| {
        memory::check();
        let [space, grantee] = [0, 1].map(|column| row.oid(column).unwrap_or_default());
        if Role::from_oid(grantee).is_everybody() {
            public.insert(space);
        }
    });
    public
}

/// Calls `with` with the OID, name and options of each space that the current role may read, or of all spaces if the role may see
/// statistics.
pub fn each_visible(mut with: impl FnMut(u32, &str, &Options)) {
    let role = Role::current();
    let all = may_monitor();
    let mut granted = if all { Vec::new() } else { grants_to(role, Rows::All) };
    granted.sort_unstable();
    let visible = |oid: u32| all || granted.binary_search_by_key(&oid, |(space, _)| *space).is_ok();
    each_space(|oid, name, options| {
        if visible(oid) {
            with(oid, name, options);
        }
    });
}

/// Calls `with` with each grant that the current role may see, as the space, the role and the privilege: all grants in spaces in
/// which it has the privilege admin, and the grants that count for itself. A role that may see statistics sees all grants. Grants
/// of dropped roles and in dropped spaces are left out.
pub fn each_visible_grant(mut with: impl FnMut(&str, Role, &[u8])) {
    let (role, sees_all) = (Role::current(), may_monitor());
    let mut names = BTreeMap::from([(DEFAULT_OID, DEFAULT.to_owned())]);
    catalog::read(Table::Spaces, Rows::All, |row| {
        memory::check();
        let name = shown(row.text(spaces::NAME).unwrap_or_default()).into_owned();
        names.insert(row.oid(spaces::OID).unwrap_or_default(), name);
    });
    let admin = Some(Privilege::Admin);
    let mut administered = if sees_all { Vec::new() } else { grants_to(role, Rows::All) };
    administered.retain(|(_, privilege)| *privilege == admin);
    catalog::read(Table::Grants, Rows::All, |row| {
        let [space, grantee] = [0, 1].map(|column| row.oid(column).unwrap_or_default());
        let grantee = Role::from_oid(grantee);
        let is_visible = sees_all || administered.contains(&(space, admin)) || role.has_rights_of(grantee);
        if let Some(name) =
            names.get(&space).filter(|_| is_visible && (grantee.is_everybody() || grantee.exists()))
        {
            with(name, grantee, row.text(2).unwrap_or_default());
        }
    });
}

/// Returns an error unless the current role owns the extension. `what` completes the message "permission denied to …".
pub fn require_owner(what: &str) -> Result<(), Refused> {
    require_tables()?;
    if is_owner(Role::current()) {
        return Ok(());
    }
    let owner = catalog::owner().map(|owner| Role::from_oid(owner.to_u32()).quoted()).unwrap_or_default();
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    Err(Refused::new(code, format!("permission denied to {what}"))
        .detail(format!("Only the owner of the extension, {owner}, may do this.")))
}

/// Returns an error unless the current role has the rights of the owner of a table of the extension. The triggers of these tables
/// call this function: a role that may write to all tables (`pg_write_all_data`) could otherwise give itself every privilege.
pub fn require_rights_of_owner(table: RelationOid) -> Result<(), Refused> {
    let Some(owner) = table.owner().filter(|owner| !Role::current().has_rights_of(*owner)) else {
        return Ok(());
    };
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    Err(Refused::new(code, "permission denied to write to the tables of pg_cache")
        .detail(format!("Only the owner of the table, {}, may do this.", owner.quoted()))
        .hint("Use the functions of the extension, such as cache_grant."))
}

/// Returns an error unless the current role may see statistics. `what` completes the message "permission denied to …".
pub fn require_monitor(what: &str) -> Result<(), Refused> {
    require_tables()?;
    if may_monitor() {
        return Ok(());
    }
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    Err(Refused::new(code, format!("permission denied to {what}"))
        .hint(format!("As a superuser, run: GRANT pg_monitor TO {};", Role::current().quoted())))
}

/// Returns the command that grants a privilege. `role` is an SQL identifier.
pub fn grant_to_run(space: &str, role: &str, privilege: &str) -> String {
    format!("SELECT cache_grant({}, {}, '{privilege}');", role::literal(space), role::literal(role))
}

/// Returns the hint for a role that lacks a privilege.
pub(super) fn grant_hint(space: &str, role: Role, privilege: Privilege) -> String {
    let command = grant_to_run(space, &role.quoted(), privilege.name());
    format!("As a role with the privilege admin in the space, run: {command}")
}
