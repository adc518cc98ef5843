//! Spaces: named caches with their own options, and the privileges of roles in them. `Role` 0 stands for every role.
//!
//! Each session remembers the spaces it has used, resolved for the role that used them, until it learns that a table of pg_cache
//! has changed (see `pg/catalog.rs`). So an access to the last space that the session used costs a comparison of names and roles.
//! `keyspace.rs` has the keys of a space.
//!
//! The *tier* is the cache in shared memory.

use crate::pg::catalog::{self, Row, Rows, Table, spaces};
use crate::pg::encoding::shown;
use crate::pg::error::Refused;
use crate::pg::interval;
use crate::pg::local::local;
use crate::pg::memory;
use crate::pg::relation::RelationOid;
use crate::pg::role::{self, Role};
use crate::pg::settings;
use crate::store::keyspace::{Keyspace, Tiers};
use pgrx::prelude::PgSqlErrorCode;
use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The most bytes of a name.
pub const NAME_BYTES_MAX: usize = 63;

/// The name of the space that always exists.
pub const DEFAULT: &str = "default";
/// The OID of the default space. No other space has it.
pub const DEFAULT_OID: u32 = 0;

/// The OID of the hidden space of observed statements (`query/observe.rs`). The server gives no object such a small OID.
const OBSERVED_OID: u32 = 1;
/// The share of the memory for entries that the hidden space may use.
const OBSERVED_SHARE: u64 = 32;

/// The most results that the option `keep_warm` keeps stored in a space.
pub const KEEP_WARM_MAX: u32 = 1000;

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

/// The rule for the time to live of the result of a query whose caller passes none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlPolicy {
    /// The default of the space.
    Fixed,
    /// How long the query took.
    Cost,
    /// Whether earlier results of the query still were right when they expired.
    Adaptive,
}

impl TtlPolicy {
    pub const NAMES: [&str; 3] = ["fixed", "cost", "adaptive"];

    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// The options of a space, see `cache_create_space`. If an option is none, the session's settings apply, or there is no limit.
/// Times are in milliseconds, and sizes in bytes.
#[derive(Clone, Debug)]
pub struct Options {
    /// The time to live of a value whose caller passes none.
    pub default_ttl_ms: Option<u64>,
    /// The longest time to live.
    pub max_ttl_ms: Option<u64>,
    /// How the time to live counts.
    pub ttl_policy: TtlPolicy,
    /// Where the space keeps its values.
    pub tiers: Tiers,
    /// The largest fraction of a time to live that is randomly taken off.
    pub jitter: f32,
    /// Whether each role has its own entries.
    pub by_role: bool,
    /// The most bytes that the space may use in the tier.
    pub quota: Option<u64>,
    /// The most bytes that a value may have.
    pub max_value: Option<u64>,
    /// The least cost of a result that is stored, in milliseconds.
    pub min_cost_ms: Option<u64>,
    /// The most bytes of a result that is stored, before compression.
    pub max_result: Option<u64>,
    /// The bytes of a result above which it is compressed.
    pub compress_above: Option<u64>,
    /// How many results of queries workers keep stored (`kept.rs`).
    pub keep_warm: u32,
    /// Whether Redis gets copies of the values.
    pub redis: bool,
    /// The content of notifications about changes in the space.
    pub notify: Notify,
    /// Whether the space is used at all.
    pub enabled: bool,
}

/// The names in notifications about changes in a space: the option `notify`. The journal of changes (`journal.rs`) has all changed
/// keys; the option does not change that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Notify {
    /// The names of keys if PUBLIC may read the space, and otherwise only the numbers of changes.
    #[default]
    Auto,
    /// Only the numbers of changes.
    Numbers,
    /// The names of keys.
    Names,
    /// Only the numbers of changes. Caches outside of the database may not keep values of the space.
    Off,
}

impl Notify {
    /// The values of the option `notify`.
    pub const NAMES: [&str; 4] = ["auto", "numbers", "names", "off"];

    /// Returns the value that a row of `pgcache.spaces` has. A null or an unknown name is `auto`.
    fn of_name(name: Option<&[u8]>) -> Self {
        match name {
            Some(b"numbers") => Self::Numbers,
            Some(b"names") => Self::Names,
            Some(b"off") => Self::Off,
            _ => Self::Auto,
        }
    }
}

impl Options {
    /// The options of a default space that was never altered.
    const BUILT_IN: Self = Self {
        default_ttl_ms: None,
        max_ttl_ms: None,
        ttl_policy: TtlPolicy::Fixed,
        tiers: Tiers::Both,
        jitter: 0.0,
        by_role: false,
        quota: None,
        max_value: None,
        min_cost_ms: None,
        max_result: None,
        compress_above: None,
        keep_warm: 0,
        redis: false,
        notify: Notify::Auto,
        enabled: true,
    };

    /// Reads the options from a row of `pgcache.spaces`.
    fn of(row: &Row<'_>) -> Self {
        let ms = |column| row.interval(column).map(|interval| interval::ms(interval).max(0) as u64);
        let bytes = |column| row.bigint(column).map(|bytes| bytes as u64);
        let is = |column, name: &str| row.text(column) == Some(name.as_bytes());
        Self {
            default_ttl_ms: ms(spaces::DEFAULT_TTL),
            max_ttl_ms: ms(spaces::MAX_TTL),
            ttl_policy: match row.text(spaces::TTL_POLICY) {
                Some(b"cost") => TtlPolicy::Cost,
                Some(b"adaptive") => TtlPolicy::Adaptive,
                _ => TtlPolicy::Fixed,
            },
            tiers: match row.text(spaces::TIERS) {
                Some(b"hot") => Tiers::Hot,
                Some(b"table") => Tiers::Table,
                _ => Tiers::Both,
            },
            jitter: row.real(spaces::JITTER).unwrap_or(0.0),
            by_role: is(spaces::SCOPE, "role"),
            quota: bytes(spaces::QUOTA),
            max_value: bytes(spaces::MAX_VALUE),
            min_cost_ms: ms(spaces::MIN_COST),
            max_result: bytes(spaces::MAX_RESULT_SIZE),
            compress_above: bytes(spaces::COMPRESS_ABOVE),
            keep_warm: u32::try_from(row.integer(spaces::KEEP_WARM).unwrap_or(0))
                .unwrap_or(0)
                .min(KEEP_WARM_MAX),
            redis: row.boolean(spaces::REDIS).unwrap_or(false),
            notify: Notify::of_name(row.text(spaces::NOTIFY)),
            enabled: row.boolean(spaces::ENABLED).unwrap_or(true),
        }
    }

    /// Returns the time to live of a value in milliseconds, from the one that the caller asked for, if any.
    pub fn ttl_ms(&self, wanted: Option<u64>) -> u64 {
        let wanted = wanted.or(self.default_ttl_ms).unwrap_or_else(settings::default_ttl_ms);
        self.max_ttl_ms.map_or(wanted, |most| wanted.min(most))
    }

    /// Returns the most bytes that a value may have by the options and the settings.
    pub fn max_value_bytes(&self) -> u64 {
        let most = settings::max_value_bytes() as u64;
        self.max_value.map_or(most, |own| own.min(most))
    }

    /// Returns the least cost of a result that is stored, in milliseconds.
    pub fn min_cost_ms(&self) -> u64 {
        self.min_cost_ms.unwrap_or_else(settings::min_cost_ms)
    }

    /// Returns the most bytes of a result that is stored, before compression. The limit for all values holds for what is stored.
    pub fn max_result_bytes(&self) -> u64 {
        self.max_result.unwrap_or_else(settings::max_result_bytes)
    }

    /// Returns the bytes of a result above which it is compressed.
    pub fn compress_above_bytes(&self) -> u64 {
        self.compress_above.unwrap_or_else(settings::compress_above_bytes)
    }
}

/// Returns the options of a space as its row says now. None if it has no row.
pub fn options(name: &str) -> Option<Options> {
    let mut options = None;
    catalog::read(Table::Spaces, Rows::Named(name), |row| options = Some(Options::of(row)));
    options
}

/// A space as it was resolved for a role.
#[derive(Debug)]
pub struct Space {
    /// The OID of the space, in the tables and in the tier.
    pub oid: u32,
    /// The name of the space.
    pub name: String,
    /// The options of the space.
    pub options: Options,
    /// The highest privilege of the role; none if it has no privilege.
    granted: Option<Privilege>,
    /// The role for which the space was resolved.
    role: Role,
    /// The keyspace of the space's keys, once it was found.
    keyspace: OnceCell<Keyspace>,
}

local! {
    static KNOWN: RefCell<Known> = RefCell::new(Known::NOTHING);
}

/// The spaces and privileges that this session remembers.
struct Known {
    /// The `catalog::generation` as of which everything here is valid.
    generation: u64,
    /// The space that was used last.
    last: Option<Rc<Space>>,
    /// The spaces by their name and the OID of the role for which they were resolved.
    spaces: BTreeMap<(String, u32), Rc<Space>>,
    /// Whether a role has the privilege write in any space, and so may invalidate tags.
    writers: BTreeMap<u32, bool>,
}

impl Known {
    const NOTHING: Self =
        Self { generation: 0, last: None, spaces: BTreeMap::new(), writers: BTreeMap::new() };
}

/// The most spaces, and the most roles, that a session remembers. If there are more spaces, the session forgets all spaces. If
/// there are more roles, it does not remember the others.
const KNOWN_MAX: usize = 1024;

/// Returns a space if the current role has this privilege in it. Otherwise, or if there is no such space, returns an error. May
/// raise errors.
#[inline]
pub fn with_privilege(name: &[u8], needed: Privilege) -> Result<Rc<Space>, Refused> {
    with_privilege_of(Role::current(), name, needed)
}

/// Does the same as [`with_privilege`] for a given role.
#[inline]
pub fn with_privilege_of(role: Role, name: &[u8], needed: Privilege) -> Result<Rc<Space>, Refused> {
    let last = || {
        KNOWN.with_borrow(|known| {
            let last = known.last.as_ref().filter(|_| known.generation == catalog::generation());
            last.filter(|space| space.name.as_bytes() == name && space.role == role).cloned()
        })
    };
    let mut known = last();
    if known.as_ref().is_some_and(|space| space.options.redis) {
        // A transaction that takes no locks learns of no changes. Values of a space that was dropped or left Redis must not get
        // there.
        catalog::accept_changes();
        known = last();
    }
    let space = known.map_or_else(|| resolve(name, role), Ok)?;
    match space.granted {
        Some(granted) if granted >= needed => Ok(space),
        _ => Err(space.denied(needed)),
    }
}

/// Returns a space without a check of privileges. The caller must know that the owner of the extension has allowed what the current
/// role is about to do.
pub fn without_privilege(name: &[u8]) -> Result<Rc<Space>, Refused> {
    resolve(name, Role::current())
}

/// Returns a space for a role, from memory or from the tables. Does not check the privilege. An error if there is no such space.
#[cold]
fn resolve(name: &[u8], role: Role) -> Result<Rc<Space>, Refused> {
    let Ok(name) = std::str::from_utf8(name) else { return Err(unknown(&shown(name))) };
    let at = (name.to_owned(), role.oid());
    let remembered = up_to_date(|known| {
        let space = known.spaces.get(&at).cloned()?;
        known.last = Some(Rc::clone(&space));
        Some(space)
    });
    if let Some(space) = remembered {
        return Ok(space);
    }
    // The generation must be read before the tables. If it has changed afterwards, the space is not remembered.
    let generation = catalog::generation();
    let space = Rc::new(load(name, role)?.ok_or_else(|| unknown(name))?);
    // The session keeps this memory for long, so it must not come from the reserve.
    memory::check();
    up_to_date(|known| {
        if known.generation == generation {
            if known.spaces.len() >= KNOWN_MAX {
                known.spaces.clear();
            }
            known.spaces.insert(at, Rc::clone(&space));
            known.last = Some(Rc::clone(&space));
        }
    });
    Ok(space)
}

/// Calls `with` with what the session remembers, emptied first if it is outdated.
fn up_to_date<R>(with: impl FnOnce(&mut Known) -> R) -> R {
    KNOWN.with_borrow_mut(|known| {
        if known.generation != catalog::generation() {
            *known = Known { generation: catalog::generation(), ..Known::NOTHING };
        }
        with(known)
    })
}

/// Returns the error for a space that does not exist.
pub fn unknown(name: &str) -> Refused {
    let can_be = !matches!(name, "" | "*") && name.len() <= NAME_BYTES_MAX;
    let name = shown(name.as_bytes());
    let code = PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT;
    let create = match can_be {
        true => format!("To create it, run: SELECT cache_create_space({}); ", role::literal(&name)),
        false => String::new(),
    };
    Refused::new(code, format!("space \"{name}\" does not exist"))
        .hint(format!("{create}To list the spaces, run: SELECT name FROM cache_spaces;"))
}

/// Returns the OID of the table of spaces. Returns an error if the database has no tables of pg_cache, or if the library does not
/// serve the version of the extension.
fn tables() -> Result<u32, Refused> {
    catalog::require_served()?;
    catalog::table_oid(Table::Spaces).ok_or_else(|| {
        let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
        Refused::new(code, "the tables of pg_cache are missing in this database")
            .hint("Run CREATE EXTENSION pg_cache; or ALTER EXTENSION pg_cache UPDATE;")
    })
}

/// Reads a space from the tables.
fn load(name: &str, role: Role) -> Result<Option<Space>, Refused> {
    tables()?;
    let mut found = (name == DEFAULT).then_some((DEFAULT_OID, Options::BUILT_IN));
    catalog::read(Table::Spaces, Rows::Named(name), |row| {
        found = Some((row.oid(spaces::OID).unwrap_or_default(), Options::of(row)));
    });
    let Some((oid, options)) = found else { return Ok(None) };
    let granted = granted(role, Rows::OfSpace(oid));
    let keyspace = OnceCell::new();
    Ok(Some(Space { oid, name: name.to_owned(), options, granted, role, keyspace }))
}

/// Returns the highest privilege of a role in some spaces. The owner of the extension has the privilege admin in all.
fn granted(role: Role, which: Rows<'_>) -> Option<Privilege> {
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

/// Returns an error unless the current role owns the extension. `what` completes the message "permission denied to …".
pub fn require_owner(what: &str) -> Result<(), Refused> {
    tables()?;
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
    tables()?;
    if may_monitor() {
        return Ok(());
    }
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    Err(Refused::new(code, format!("permission denied to {what}"))
        .hint(format!("As a superuser, run: GRANT pg_monitor TO {};", Role::current().quoted())))
}

/// Returns a keyspace of this database for operations that belong to no space. None if there is no cache, or if the extension does
/// not exist in this database.
pub fn any_keyspace() -> Option<Keyspace> {
    resolve(DEFAULT.as_bytes(), Role::current()).ok()?.keyspace()
}

/// Returns the default space if the current role owns the extension. `what` is as for [`require_owner`].
pub fn of_owner(what: &str) -> Result<Rc<Space>, Refused> {
    require_owner(what)?;
    resolve(DEFAULT.as_bytes(), Role::current())
}

/// Returns the default space if the current role may write in any space. Tags belong to the database, so each role that may write
/// in some space may invalidate them.
pub fn require_tag_writer() -> Result<Rc<Space>, Refused> {
    require_writer()?;
    resolve(DEFAULT.as_bytes(), Role::current())
}

/// Returns an error unless the current role has the privilege write in at least one space.
fn require_writer() -> Result<(), Refused> {
    tables()?;
    let role = Role::current();
    let may = match up_to_date(|known| known.writers.get(&role.oid()).copied()) {
        Some(may) => may,
        None => {
            let generation = catalog::generation();
            let may = granted(role, Rows::All) >= Some(Privilege::Write);
            memory::check();
            up_to_date(|known| {
                if known.generation == generation && known.writers.len() < KNOWN_MAX {
                    known.writers.insert(role.oid(), may);
                }
            });
            may
        }
    };
    if may {
        return Ok(());
    }
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    Err(Refused::new(code, "permission denied to invalidate tags")
        .detail("This requires the privilege write in at least one space.")
        .hint(grant_hint(DEFAULT, role, Privilege::Write)))
}

/// Returns the hidden space of observed statements, with the options of the default space. It has no name, so no view shows it, and
/// no function reaches it. Returns an error if the extension does not exist in this database.
pub fn observed() -> Result<Space, Refused> {
    let role = Role::current();
    let default = resolve(DEFAULT.as_bytes(), role)?;
    let options = Options {
        tiers: Tiers::Hot,
        by_role: false,
        quota: Some(settings::hot_bytes() as u64 / OBSERVED_SHARE),
        keep_warm: 0,
        redis: false,
        notify: Notify::Off,
        ..default.options.clone()
    };
    let (name, granted, keyspace) = (String::new(), Some(Privilege::Admin), OnceCell::new());
    Ok(Space { oid: OBSERVED_OID, name, options, granted, role, keyspace })
}

/// Calls `with` with the OID, name and options of each space that the current role may read, or of all spaces if the role may see
/// statistics.
pub fn each_visible(mut with: impl FnMut(u32, &str, &Options)) {
    let role = Role::current();
    let all = may_monitor();
    let mut granted = if all { Vec::new() } else { grants_to(role, Rows::All) };
    granted.sort_unstable();
    let visible = |oid: u32| all || granted.binary_search_by_key(&oid, |(space, _)| *space).is_ok();
    every(|oid, name, options| {
        if visible(oid) {
            with(oid, name, options);
        }
    });
}

/// Calls `with` with the OID, name and options of every space. The default space has no row if it was never altered.
pub fn every(mut with: impl FnMut(u32, &str, &Options)) {
    let mut is_altered = false;
    catalog::read(Table::Spaces, Rows::All, |row| {
        let oid = row.oid(spaces::OID).unwrap_or_default();
        is_altered |= oid == DEFAULT_OID;
        // In a database with another encoding, a restored dump may have a name that cannot be shown unchanged.
        with(oid, &shown(row.text(spaces::NAME).unwrap_or_default()), &Options::of(row));
    });
    if !is_altered {
        with(DEFAULT_OID, DEFAULT, &Options::BUILT_IN);
    }
}

/// Calls `with` with the OID and the name of every space. It takes less time for each space than [`every`].
pub fn each_name(mut with: impl FnMut(u32, &str)) {
    let mut is_altered = false;
    catalog::read(Table::Spaces, Rows::All, |row| {
        let oid = row.oid(spaces::OID).unwrap_or_default();
        is_altered |= oid == DEFAULT_OID;
        with(oid, &shown(row.text(spaces::NAME).unwrap_or_default()));
    });
    if !is_altered {
        with(DEFAULT_OID, DEFAULT);
    }
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

/// Calls `with` with the OID and options of each space that has a row. The default space has none if it was never altered.
pub fn each(mut with: impl FnMut(u32, &Options)) {
    catalog::read(Table::Spaces, Rows::All, |row| {
        with(row.oid(spaces::OID).unwrap_or_default(), &Options::of(row));
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

/// Returns the command that grants a privilege. `role` is an SQL identifier.
pub fn grant_to_run(space: &str, role: &str, privilege: &str) -> String {
    format!("SELECT cache_grant({}, {}, '{privilege}');", role::literal(space), role::literal(role))
}

/// Returns the hint for a role that lacks a privilege.
fn grant_hint(space: &str, role: Role, privilege: Privilege) -> String {
    let command = grant_to_run(space, &role.quoted(), privilege.name());
    format!("As a role with the privilege admin in the space, run: {command}")
}

impl Space {
    /// Returns whether the role for which the space was resolved has a privilege.
    pub fn allows(&self, needed: Privilege) -> bool {
        self.granted >= Some(needed)
    }

    fn denied(&self, needed: Privilege) -> Refused {
        let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
        Refused::new(code, format!("permission denied for space \"{}\"", self.name))
            .detail(format!("Role {} does not have the privilege {}.", self.role.quoted(), needed.name()))
            .hint(grant_hint(&self.name, self.role, needed))
    }

    /// Returns the keyspace of the space's keys, or none if there is no cache.
    #[inline]
    pub fn keyspace(&self) -> Option<Keyspace> {
        if let Some(keyspace) = self.keyspace.get() {
            return Some(*keyspace);
        }
        let keyspace = self.find()?;
        Some(*self.keyspace.get_or_init(|| keyspace))
    }

    /// Makes the keyspace. In a space with `scope => 'role'`, it is that of the role for which the space was resolved.
    #[cold]
    fn find(&self) -> Option<Keyspace> {
        let role = if self.options.by_role { self.role.oid() } else { 0 };
        // Redis does not know roles. A dump may have restored a row that has both options.
        let exported_as = Some(self.name.as_str()).filter(|_| self.options.redis && role == 0);
        Keyspace::of(self.oid, role, self.options.tiers, self.options.quota, exported_as)
    }
}
