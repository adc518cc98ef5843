//! Spaces: named caches with a policy of their own, and who may do what in them.
//!
//! Each session keeps the spaces it has used, resolved for the role that used them, until it learns that something has changed
//! (see `pg/catalog.rs`). So an access to a space that it used before costs a comparison of its name.

use crate::pg::catalog::{self, Row, Rows, Table};
use crate::pg::encoding::shown;
use crate::pg::error::Refused;
use crate::pg::interval;
use crate::pg::local::local;
use crate::pg::memory;
use crate::pg::role::{self, Role};
use crate::pg::shared::{self, HotTier};
use crate::store::status::Status;
use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use pg_cache_core::{
    Counter, FenceId, IncrError, Key, Lingering, NewValue, Refusal, Reservation, Reserved, Scope,
};
use pgrx::prelude::PgSqlErrorCode;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::hash::Hasher;
use std::rc::Rc;

/// So long a name may be.
pub const NAME_BYTES_MAX: usize = 63;

/// The space that is always there.
pub const DEFAULT: &str = "default";
/// Its number, which no other has.
pub const DEFAULT_NUMBER: u32 = 0;

/// What one may do in a space. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// Look at values.
    Read,
    /// Set and remove values.
    Write,
    /// Change and drop the space, flush it, and grant.
    Admin,
}

impl Privilege {
    /// The privilege of a name.
    pub fn of_name(name: &[u8]) -> Option<Self> {
        [Self::Read, Self::Write, Self::Admin].into_iter().find(|known| known.name().as_bytes() == name)
    }

    /// Its name, as one grants it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// The options of a space that matter to the tier in memory. What nobody has set is as the session's settings say.
#[derive(Clone, Debug)]
pub struct Options {
    pub default_ttl_ms: Option<u64>,
    pub max_ttl_ms: Option<u64>,
    /// Whether results of queries live by what they have cost to compute.
    pub by_cost: bool,
    /// The part of a time to live that chance may take off.
    pub jitter: f32,
    /// Whether entries are kept in memory.
    pub in_memory: bool,
    /// Whether entries belong to the role that has set them.
    pub by_role: bool,
    /// The most bytes that the space may take of the tier.
    pub quota: Option<u64>,
    /// The most bytes that a value may have.
    pub max_value: Option<u64>,
    /// What a result has to have cost at least, to be stored.
    pub min_cost_ms: Option<u64>,
    /// The most bytes that a result may have, to be stored.
    pub max_result: Option<u64>,
    pub enabled: bool,
}

impl Options {
    const BUILT_IN: Self = Self {
        default_ttl_ms: None,
        max_ttl_ms: None,
        by_cost: false,
        jitter: 0.0,
        in_memory: true,
        by_role: false,
        quota: None,
        max_value: None,
        min_cost_ms: None,
        max_result: None,
        enabled: true,
    };

    /// Those of a row of `pgcache.spaces`, whose columns these are the places of.
    fn of(row: &Row<'_>) -> Self {
        let ms = |column| row.interval(column).map(|interval| interval::ms(interval).max(0) as u64);
        let bytes = |column| row.bigint(column).map(|bytes| bytes as u64);
        let is = |column, name: &str| row.text(column) == Some(name.as_bytes());
        Self {
            default_ttl_ms: ms(2),
            max_ttl_ms: ms(3),
            by_cost: is(4, "cost") || is(4, "adaptive"),
            jitter: row.real(5).unwrap_or(0.0),
            in_memory: !is(6, "table"),
            by_role: is(7, "role"),
            quota: bytes(8),
            max_value: bytes(9),
            min_cost_ms: ms(11),
            max_result: bytes(12),
            enabled: row.boolean(16).unwrap_or(true),
        }
    }
}

/// A space as a role finds it.
#[derive(Debug)]
pub struct Space {
    /// Its number, in the tables and in the tier.
    pub number: u32,
    pub name: String,
    pub options: Options,
    /// The greatest privilege that the role has.
    granted: Option<Privilege>,
    role: Role,
    place: OnceCell<Place>,
}

/// Where the keys of a space are, for a role.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub tier: &'static HotTier,
    pub scope: Scope,
    /// What everything there depends on: the database, and the space.
    pub fences: [FenceId; 2],
    quota: Option<u64>,
}

/// Buckets that are looked through at most to make room within a quota: some milliseconds, where the space is a thousandth of the
/// tier.
const QUOTA_BUDGET: u32 = 16_384;

local! {
    static KNOWN: RefCell<Known> = RefCell::new(Known::NOTHING);
}

/// What this session remembers.
struct Known {
    generation: u64,
    last: Option<Rc<Space>>,
    spaces: BTreeMap<(String, u32), Rc<Space>>,
    /// Whether a role may write in any space, and so invalidate tags.
    writers: BTreeMap<u32, bool>,
}

impl Known {
    const NOTHING: Self =
        Self { generation: 0, last: None, spaces: BTreeMap::new(), writers: BTreeMap::new() };
}

/// A session that uses more spaces than that begins to remember anew.
const KNOWN_MAX: usize = 1024;

/// A space, if the current role has a privilege in it.
#[inline]
pub fn with_privilege(name: &[u8], needed: Privilege) -> Result<Rc<Space>, Refused> {
    let role = Role::current();
    let known = KNOWN.with_borrow(|known| {
        let last = known.last.as_ref().filter(|_| known.generation == catalog::generation());
        last.filter(|space| space.name.as_bytes() == name && space.role == role).cloned()
    });
    let space = known.map_or_else(|| resolve(name, role), Ok)?;
    match space.granted {
        Some(granted) if granted >= needed => Ok(space),
        _ => Err(space.denied(needed)),
    }
}

#[cold]
fn resolve(name: &[u8], role: Role) -> Result<Rc<Space>, Refused> {
    let Ok(name) = std::str::from_utf8(name) else { return Err(unknown(&shown(name))) };
    let at = (name.to_owned(), role.number());
    let remembered = up_to_date(|known| {
        let space = known.spaces.get(&at).cloned()?;
        known.last = Some(Rc::clone(&space));
        Some(space)
    });
    if let Some(space) = remembered {
        return Ok(space);
    }
    // Read before it is remembered under: what changes meanwhile makes it a thing of the past.
    let generation = catalog::generation();
    let space = Rc::new(load(name, role)?.ok_or_else(|| unknown(name))?);
    // What the session remembers must not lie in the reserve.
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

fn up_to_date<R>(with: impl FnOnce(&mut Known) -> R) -> R {
    KNOWN.with_borrow_mut(|known| {
        if known.generation != catalog::generation() {
            *known = Known { generation: catalog::generation(), ..Known::NOTHING };
        }
        with(known)
    })
}

/// There is no such space.
pub fn unknown(name: &str) -> Refused {
    let can_be = !matches!(name, "" | "*") && name.len() <= NAME_BYTES_MAX;
    let name = shown(name.as_bytes());
    let code = PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT;
    let to_create = match can_be {
        true => format!("cache_create_space({}) to create it, or ", role::literal(&name)),
        false => String::new(),
    };
    Refused::new(code, format!("space \"{name}\" does not exist"))
        .hint(format!("Use {to_create}the view cache_spaces to see which there are."))
}

fn tables() -> Result<u32, Refused> {
    catalog::number(Table::Spaces).ok_or_else(|| {
        let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
        Refused::new(code, "the tables of pg_cache are missing in this database")
            .hint("Run CREATE EXTENSION pg_cache, or ALTER EXTENSION pg_cache UPDATE.")
    })
}

fn load(name: &str, role: Role) -> Result<Option<Space>, Refused> {
    tables()?;
    let mut found = (name == DEFAULT).then_some((DEFAULT_NUMBER, Options::BUILT_IN));
    catalog::read(Table::Spaces, Rows::Named(name), |row| {
        found = Some((row.number(0).unwrap_or_default(), Options::of(row)));
    });
    let Some((number, options)) = found else { return Ok(None) };
    let granted = granted(role, Rows::OfSpace(number));
    let place = OnceCell::new();
    Ok(Some(Space { number, name: name.to_owned(), options, granted, role, place }))
}

/// The greatest privilege that a role has in some spaces: all of them, for the owner of the extension.
fn granted(role: Role, which: Rows<'_>) -> Option<Privilege> {
    if is_owner(role) {
        return Some(Privilege::Admin);
    }
    grants_to(role, which).into_iter().filter_map(|(_, privilege)| privilege).max()
}

/// What a role was granted in some spaces: their numbers, and the privileges.
fn grants_to(role: Role, which: Rows<'_>) -> Vec<(u32, Option<Privilege>)> {
    let mut grants = Vec::new();
    catalog::read(Table::Grants, which, |row| {
        let [space, grantee] = [0, 1].map(|column| row.number(column).unwrap_or_default());
        let privilege = row.text(2).and_then(Privilege::of_name);
        memory::push(&mut grants, (space, Role::from_number(grantee), privilege));
    });
    let own = grants.into_iter().filter(|(_, grantee, _)| role.has_rights_of(*grantee));
    memory::collect(own.map(|(space, _, privilege)| (space, privilege)))
}

/// Whether a role owns the extension, or may do whatever its owner may.
pub fn is_owner(role: Role) -> bool {
    catalog::owner().is_some_and(|owner| role.has_rights_of(Role::from_number(owner.to_u32())))
}

/// Whether the current role may look at statistics.
pub fn may_monitor() -> bool {
    let role = Role::current();
    role.has_rights_of(Role::MONITOR) || is_owner(role)
}

/// Whether the current role may read any space, or look at statistics.
pub fn may_look() -> bool {
    may_monitor() || granted(Role::current(), Rows::All).is_some()
}

/// Refuses whoever does not own the extension.
pub fn require_owner(what: &str) -> Result<(), Refused> {
    tables()?;
    if is_owner(Role::current()) {
        return Ok(());
    }
    let owner = catalog::owner().map(|owner| Role::from_number(owner.to_u32()).quoted()).unwrap_or_default();
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    Err(Refused::new(code, format!("permission denied to {what}"))
        .detail(format!("Only the owner of the extension, {owner}, may do this.")))
}

/// Refuses whoever may not look at statistics.
pub fn require_monitor(what: &str) -> Result<(), Refused> {
    tables()?;
    if may_monitor() {
        return Ok(());
    }
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    Err(Refused::new(code, format!("permission denied to {what}"))
        .hint(format!("Run GRANT pg_monitor TO {}.", Role::current().quoted())))
}

/// A place of this database, for what belongs to no space.
pub fn any_place() -> Option<Place> {
    resolve(DEFAULT.as_bytes(), Role::current()).ok()?.place()
}

/// The default space, for its owner only.
pub fn of_owner(what: &str) -> Result<Rc<Space>, Refused> {
    require_owner(what)?;
    resolve(DEFAULT.as_bytes(), Role::current())
}

/// The default space, for whoever may write in any: tags belong to the database, and so to all who may write somewhere.
pub fn for_tags() -> Result<Rc<Space>, Refused> {
    require_writer()?;
    resolve(DEFAULT.as_bytes(), Role::current())
}

fn require_writer() -> Result<(), Refused> {
    tables()?;
    let role = Role::current();
    let may = match up_to_date(|known| known.writers.get(&role.number()).copied()) {
        Some(may) => may,
        None => {
            let generation = catalog::generation();
            let may = granted(role, Rows::All) >= Some(Privilege::Write);
            memory::check();
            up_to_date(|known| {
                if known.generation == generation && known.writers.len() < KNOWN_MAX {
                    known.writers.insert(role.number(), may);
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
        .detail("It takes the privilege write in any space.")
        .hint(grant_to_run(DEFAULT, role, Privilege::Write)))
}

/// All spaces that the current role may read, or look at as a monitor: `with` gets their rows, and none for the default space if
/// nobody has altered it.
pub fn each_visible(mut with: impl FnMut(u32, &str, Option<&Row<'_>>)) {
    let role = Role::current();
    let all = may_monitor();
    let mut granted = if all { Vec::new() } else { grants_to(role, Rows::All) };
    granted.sort_unstable();
    let visible = |number: u32| all || granted.binary_search_by_key(&number, |(space, _)| *space).is_ok();
    let mut altered = false;
    catalog::read(Table::Spaces, Rows::All, |row| {
        let number = row.number(0).unwrap_or_default();
        altered |= number == DEFAULT_NUMBER;
        if visible(number) {
            // In a database of another encoding a restore may have brought a name that cannot be shown as it is.
            with(number, &shown(row.text(1).unwrap_or_default()), Some(row));
        }
    });
    if !altered && visible(DEFAULT_NUMBER) {
        with(DEFAULT_NUMBER, DEFAULT, None);
    }
}

fn grant_to_run(space: &str, role: Role, privilege: Privilege) -> String {
    format!(
        "Somebody with the privilege admin can run: SELECT cache_grant({}, {}, '{}');",
        role::literal(space),
        role::literal(&role.quoted()),
        privilege.name()
    )
}

impl Space {
    /// Whether the role that it was found by has a privilege.
    pub fn allows(&self, needed: Privilege) -> bool {
        self.granted >= Some(needed)
    }

    fn denied(&self, needed: Privilege) -> Refused {
        let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
        Refused::new(code, format!("permission denied for space \"{}\"", self.name))
            .detail(format!("Role {} does not have the privilege {}.", self.role.quoted(), needed.name()))
            .hint(grant_to_run(&self.name, self.role, needed))
    }

    /// Where its keys are; nowhere while there is no cache.
    #[inline]
    pub fn place(&self) -> Option<Place> {
        if let Some(place) = self.place.get() {
            return Some(*place);
        }
        let place = self.find()?;
        Some(*self.place.get_or_init(|| place))
    }

    #[cold]
    fn find(&self) -> Option<Place> {
        let tier = shared::tier()?;
        let (database, space) = (shared::database(), self.number);
        let role = if self.options.by_role { self.role.number() } else { 0 };
        let reserved = [Reserved::Database(database), Reserved::Space { database, space }];
        let fences = reserved.map(|what| tier.fences().reserved(what));
        Some(Place { tier, scope: tier.scope(database, space, role), fences, quota: self.options.quota })
    }
}

impl Place {
    /// A key of this place; none if it has a length that no key has.
    #[inline]
    pub fn key<'k>(&self, bytes: &'k [u8], hash: u64) -> Option<Key<'k>> {
        Key::new(self.scope, bytes, hash)
    }

    /// Refuses an entry that is too large for whatever room there is, and counts that.
    pub fn admit(&self, bytes: usize) -> Result<(), Status> {
        if bytes > self.tier.entry_bytes_max() {
            self.tier.note(&self.scope, Counter::RefusedSize, 1);
            return Err(Refusal::TooLarge.into());
        }
        if self.quota.is_some_and(|quota| bytes as u64 > quota) {
            self.tier.note(&self.scope, Counter::RefusedQuota, 1);
            return Err(Status::Refused("larger than the quota of the space"));
        }
        Ok(())
    }

    /// Writes a value where nobody can see it yet, within what the space may take.
    pub fn reserve(
        &self,
        key: &Key<'_>,
        value: &NewValue<'_>,
        lingering: Option<Lingering>,
    ) -> Result<Reservation, Refusal> {
        match self.quota {
            Some(quota) => self.tier.reserve_lingering_within(key, value, lingering, quota, QUOTA_BUDGET),
            None => self.tier.reserve_lingering(key, value, lingering),
        }
    }

    /// Adds to a counter, which if it is a new one is within what the space may take.
    pub fn incr(&self, key: &Key<'_>, by: i64, new: &NewValue<'_>) -> Result<i64, IncrError> {
        match self.quota {
            Some(quota) => self.tier.incr_within(key, by, new, quota, QUOTA_BUDGET),
            None => self.tier.incr(key, by, new),
        }
    }

    /// The fence of the space.
    pub fn own_fence(&self) -> FenceId {
        self.fences[1]
    }
}

/// The fence of a tag: tags belong to the database, so the same name in another one is another tag.
pub fn tag(tier: &HotTier, name: &[u8]) -> FenceId {
    // Apart from the keys' hashes, though nothing compares the two.
    tier.fences().tag(hash(name).rotate_left(17) ^ hash(&shared::database().to_ne_bytes()))
}

/// The hash of some bytes, the same in all backends: each runs the same library, and the seed is shared.
#[inline]
pub fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FoldHasher::with_seed(shared::hash_seed(), SharedSeed::global_fixed());
    hasher.write(bytes);
    hasher.finish()
}
