//! SQL functions that create, change and drop spaces. A *space* is a named part of the cache with its own keys, options and
//! privileges. Privileges in spaces are in `grant.rs`.

use super::arguments::{self, invalid, null};
use super::grant;
use crate::pg::catalog::{self, Rows, Table};
use crate::pg::encoding::{letters, shown};
use crate::pg::error::{OrRaise, Refused};
use crate::pg::size::Size;
use crate::pg::varlena::TextArgument;
use crate::pg::{interval, shared};
use crate::store::entry;
use crate::store::keyspace::Tiers;
use crate::store::space::{
    self, DEFAULT, DEFAULT_OID, KEEP_WARM_MAX, NAME_BYTES_MAX, Notify, Privilege, TtlPolicy,
};
use crate::store::status::{self, Status};
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

/// The options of a space as the caller passes them. None stands for an option that was not passed. `sql/spaces.sql` explains the
/// options in the comments of the view `cache_spaces`, and `Notify` in `store/space/options.rs` explains `notify`.
///
/// A new option must be the last one everywhere: here and in [`checked`](Self::checked), in the macro `function_of_options`, and in
/// the statements of [`create`] and [`alter`], which number the options in the order of the columns of `pgcache.spaces`
/// (`sql/schema.sql`, `pg/catalog.rs`). `sql/comments.sql` has the signatures of the two functions.
struct Options<'a> {
    default_ttl: Option<Interval>,
    max_ttl: Option<Interval>,
    ttl_policy: Option<TextArgument<'a>>,
    jitter: Option<f32>,
    tiers: Option<TextArgument<'a>>,
    scope: Option<TextArgument<'a>>,
    quota: Option<Size>,
    max_value: Option<Size>,
    compress_above: Option<Size>,
    min_cost: Option<Interval>,
    max_result_size: Option<Size>,
    keep_warm: Option<i32>,
    redis: Option<bool>,
    notify: Option<TextArgument<'a>>,
    enabled: Option<bool>,
}

/// Returns the given word if it is one of `words`, and None if no word was given. Any other word is an error.
fn one_of(
    name: &str,
    given: Option<TextArgument<'_>>,
    words: &[&'static str],
) -> Result<Option<&'static str>, Refused> {
    let Some(TextArgument(given)) = given else { return Ok(None) };
    let known = words.iter().copied().find(|word| word.as_bytes() == given);
    known.map(Some).ok_or_else(|| {
        let refused = invalid(format!("invalid value for option \"{name}\": \"{}\"", shown(given)));
        refused.hint(format!("Available values: {}.", words.join(", ")))
    })
}

/// Returns an error if a number was given and is less than `least`.
fn at_least<T: PartialOrd + std::fmt::Display>(
    name: &str,
    value: Option<T>,
    least: T,
) -> Result<Option<T>, Refused> {
    match value {
        Some(value) if value < least => Err(invalid(format!("{name} must be at least {least}"))),
        value => Ok(value),
    }
}

impl Options<'_> {
    /// Checks each option by itself, and returns the values to write, in the order of the columns of `pgcache.spaces` after the
    /// name. [`check_together`] checks the options that depend on each other.
    fn checked(self) -> Result<[DatumWithOid<'static>; 15], Refused> {
        for (name, ttl) in [("default_ttl", self.default_ttl), ("max_ttl", self.max_ttl)] {
            ttl.map(|ttl| arguments::lifetime(name, ttl)).transpose()?;
        }
        if self.jitter.is_some_and(|jitter| !(0.0..1.0).contains(&jitter)) {
            return Err(invalid("jitter must be at least 0 and less than 1")
                .hint("Use jitter => 0.1 to take up to a tenth off each time to live."));
        }
        if self.min_cost.is_some_and(|cost| interval::ms(cost) < 0) {
            return Err(invalid("min_cost must not be negative"));
        }
        let bytes = |name, size: Option<Size>, least| at_least(name, size.map(|Size(bytes)| bytes), least);
        let keep_warm = at_least("keep_warm", self.keep_warm, 0)?;
        if keep_warm.is_some_and(|results| results as u32 > KEEP_WARM_MAX) {
            return Err(invalid(format!("keep_warm must be at most {KEEP_WARM_MAX}")));
        }
        Ok([
            self.default_ttl.into(),
            self.max_ttl.into(),
            one_of("ttl_policy", self.ttl_policy, &TtlPolicy::NAMES)?.into(),
            self.jitter.into(),
            one_of("tiers", self.tiers, &["hot", "table", "both"])?.into(),
            one_of("scope", self.scope, &["shared", "role"])?.into(),
            bytes("quota", self.quota, 1)?.into(),
            bytes("max_value", self.max_value, 1)?.into(),
            bytes("compress_above", self.compress_above, 0)?.into(),
            self.min_cost.into(),
            bytes("max_result_size", self.max_result_size, 1)?.into(),
            keep_warm.into(),
            self.redis.into(),
            one_of("notify", self.notify, &Notify::NAMES)?.into(),
            self.enabled.into(),
        ])
    }
}

/// Checks the options that depend on each other. Must be called after the row was written, because a call may change only one of
/// them. The error undoes the write.
fn check_together(name: &str) -> Result<(), Refused> {
    let options = space::options(name);
    if options.as_ref().is_some_and(|options| options.redis && options.by_role) {
        return Err(invalid("option \"redis\" requires scope => 'shared'")
            .detail(
                "Redis does not know the roles of the server, so it must not have values of single roles.",
            )
            .hint("Use scope => 'shared', or redis => false."));
    }
    if options.as_ref().is_some_and(|options| options.keep_warm > 0 && options.tiers == Tiers::Table) {
        return Err(invalid("option \"keep_warm\" requires tiers => 'both' or 'hot'")
            .detail("Workers keep results in memory.")
            .hint("Use another value of tiers, or keep_warm => 0."));
    }
    let ttls = options.and_then(|options| Some((options.default_ttl_ms?, options.max_ttl_ms?)));
    match ttls {
        Some((default_ttl, max_ttl)) if default_ttl > max_ttl => {
            Err(invalid("default_ttl must not be longer than max_ttl"))
        }
        _ => Ok(()),
    }
}

/// Checks the name of a space that is to be created, and returns it.
fn new_name(name: Option<TextArgument<'_>>) -> Result<String, Refused> {
    let bytes = name.ok_or_else(|| null("name"))?.0;
    let name = letters(bytes).ok_or_else(|| {
        invalid("name must contain only ASCII characters")
            .detail("The encoding of the database is not UTF-8.")
    })?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(invalid(format!("name must have 1 to {NAME_BYTES_MAX} bytes"))
            .detail(format!("The name has {} bytes.", name.len())));
    }
    if name == "*" {
        return Err(invalid("name must not be \"*\"").detail("The name \"*\" stands for all spaces."));
    }
    Ok(name.to_owned())
}

/// Defines an SQL function that takes a name and the options of a space, as creating and changing a space both do. The parentheses
/// may contain one more parameter with its default. `is` names the function that gets the name, the options and that parameter.
macro_rules! function_of_options {
    ($(#[$doc:meta])* $function:ident($($more:ident: $kind:ident!($($type:tt)*))?) is $does:ident) => {
        $(#[$doc])*
        #[pg_extern(volatile, parallel_unsafe)]
        #[allow(clippy::too_many_arguments)]
        fn $function(
            name: Option<TextArgument<'_>>,
            default_ttl: default!(Option<Interval>, "NULL"),
            max_ttl: default!(Option<Interval>, "NULL"),
            ttl_policy: default!(Option<TextArgument<'_>>, "NULL"),
            jitter: default!(Option<f32>, "NULL"),
            tiers: default!(Option<TextArgument<'_>>, "NULL"),
            scope: default!(Option<TextArgument<'_>>, "NULL"),
            quota: default!(Option<Size>, "NULL"),
            max_value: default!(Option<Size>, "NULL"),
            compress_above: default!(Option<Size>, "NULL"),
            min_cost: default!(Option<Interval>, "NULL"),
            max_result_size: default!(Option<Size>, "NULL"),
            keep_warm: default!(Option<i32>, "NULL"),
            redis: default!(Option<bool>, "NULL"),
            notify: default!(Option<TextArgument<'_>>, "NULL"),
            enabled: default!(Option<bool>, "NULL"),
            $($more: $kind!($($type)*),)?
        ) {
            let options = Options {
                default_ttl, max_ttl, ttl_policy, jitter, tiers, scope, quota, max_value, compress_above,
                min_cost, max_result_size, keep_warm, redis, notify, enabled,
            };
            $does(name, options $(, $more)?).or_raise();
            status::set(Status::Done);
        }
    };
}

function_of_options! {
    /// Creates a space. An option that is null gets its default.
    cache_create_space(if_not_exists: default!(Option<bool>, "false")) is create
}

function_of_options! {
    /// Changes the options of a space whose arguments are not null. The other options stay as they are. So an option that was
    /// changed once cannot be set back to null.
    cache_alter_space() is alter
}

/// Creates a space. Only the owner of the extension may do this.
fn create(
    name: Option<TextArgument<'_>>,
    options: Options<'_>,
    if_not_exists: Option<bool>,
) -> Result<(), Refused> {
    let if_not_exists = if_not_exists.ok_or_else(|| null("if_not_exists"))?;
    let name = new_name(name)?;
    space::require_owner("create a space")?;
    let mut arguments = vec![0_i64.into(), name.clone().into()];
    arguments.extend(options.checked()?);
    let exists = || {
        let mut found = name == DEFAULT;
        catalog::read(Table::Spaces, Rows::Named(&name), |_| found = true);
        found
    };
    // A dump from another cluster may have brought a space with this number, or grants for a number that has no space. The new
    // space must not get such a number. In the first case, `write` returns 0 rows, and the loop draws another number.
    let has_grants = |number: u32| {
        let mut found = false;
        catalog::read(Table::Grants, Rows::OfSpace(number), |_| found = true);
        found
    };
    let mut written = 0;
    while written == 0 {
        if exists() {
            let refused = |message| Refused::new(PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT, message);
            if if_not_exists {
                refused(format!("space \"{name}\" already exists, skipping")).notice();
                return Ok(());
            }
            return Err(refused(format!("space \"{name}\" already exists"))
                .hint("To change its options, run cache_alter_space."));
        }
        let number = catalog::new_oid().to_u32();
        if has_grants(number) {
            continue;
        }
        arguments[0] = i64::from(number).into();
        written = catalog::write(
            "INSERT INTO pgcache.spaces VALUES
             ($1::pg_catalog.oid, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
             ON CONFLICT DO NOTHING RETURNING 1",
            &arguments,
        );
    }
    check_together(&name)
}

/// Changes the options that were passed. This requires the privilege admin. Flushes the space if `scope` or `redis` was passed,
/// even with the present value, and if `enabled` was passed for a space with copies in Redis.
fn alter(name: Option<TextArgument<'_>>, options: Options<'_>) -> Result<(), Refused> {
    let space = space::with_privilege(name.ok_or_else(|| null("name"))?.0, Privilege::Admin)?;
    let must_flush = options.scope.is_some()
        || options.redis.is_some()
        || options.enabled.is_some() && space.options.redis;
    let mut arguments = vec![DatumWithOid::from(i64::from(space.oid))];
    arguments.extend(options.checked()?);
    if must_flush && !shared::is_in_recovery() {
        // Values that were stored with the other scope must not be found again if the option is ever changed back. Redis must have
        // either all readable values of a space or none. During recovery, the flush would be refused with a hint about
        // invalidation. Without the flush, the write below raises the server's own error.
        entry::flush(&space, false)?;
    }
    write_default_row(space.oid);
    let written = catalog::write(
        "UPDATE pgcache.spaces SET
             default_ttl = COALESCE($2, default_ttl), max_ttl = COALESCE($3, max_ttl),
             ttl_policy = COALESCE($4, ttl_policy), jitter = COALESCE($5, jitter),
             tiers = COALESCE($6, tiers), scope = COALESCE($7, scope), quota = COALESCE($8, quota),
             max_value = COALESCE($9, max_value), compress_above = COALESCE($10, compress_above),
             min_cost = COALESCE($11, min_cost), max_result_size = COALESCE($12, max_result_size),
             keep_warm = COALESCE($13, keep_warm), redis = COALESCE($14, redis),
             notify = COALESCE($15, notify), enabled = COALESCE($16, enabled)
         WHERE number OPERATOR(pg_catalog.=) $1::pg_catalog.oid RETURNING 1",
        &arguments,
    );
    if written == 0 {
        return Err(space::unknown(&space.name));
    }
    check_together(&space.name)
}

/// Writes the row of the default space when it is first altered. The default space must have no row before, because restoring a
/// dump would fail on an existing row.
fn write_default_row(number: u32) {
    if number == DEFAULT_OID {
        let statement = "INSERT INTO pgcache.spaces (number, name) VALUES ($1::pg_catalog.oid, $2) ON CONFLICT DO NOTHING";
        catalog::write(statement, &[i64::from(number).into(), DEFAULT.into()]);
    }
}

/// Drops a space, its values, its grants and the targets that events have in it.
#[pg_extern(volatile, parallel_unsafe)]
fn cache_drop_space(name: Option<TextArgument<'_>>) {
    let drop = || -> Result<_, Refused> {
        let space = space::with_privilege(name.ok_or_else(|| null("name"))?.0, Privilege::Admin)?;
        if space.oid == DEFAULT_OID {
            let code = PgSqlErrorCode::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST;
            return Err(Refused::new(code, "cannot drop space \"default\"")
                .hint("To remove its values, run: SELECT cache_flush('default');"));
        }
        entry::flush(&space, false)?;
        grant::forget_space(space.oid);
        catalog::write(
            "DELETE FROM pgcache.events WHERE space OPERATOR(pg_catalog.=) $1::pg_catalog.oid",
            &[i64::from(space.oid).into()],
        );
        catalog::write(
            "DELETE FROM pgcache.spaces WHERE number OPERATOR(pg_catalog.=) $1::pg_catalog.oid",
            &[i64::from(space.oid).into()],
        );
        Ok(())
    };
    drop().or_raise();
    status::set(Status::Done);
}

/// The function behind the view `cache_spaces`, and the function of the triggers `changed` and `emptied` of `sql/spaces.sql`.
#[pg_schema]
mod pgcache {
    use crate::api::arguments::TTL_MS_MAX;
    use crate::pg::catalog::{self, Table};
    use crate::pg::error::OrRaise;
    use crate::pg::relation::RelationOid;
    use crate::pg::shared;
    use crate::pg::size::Size;
    use crate::pg::varlena::OwnedTexts;
    use crate::pg::{interval, memory};
    use crate::store::transaction::pending;
    use crate::store::{space, watch};
    use pgrx::datum::TryFromDatumError;
    use pgrx::prelude::*;

    /// Announces to all sessions, with the commit, that the table of the trigger has changed. Raises an error if the current role
    /// must not write to the table. A change of the watches also invalidates tags. After a change of the grants, the caches that
    /// follow the journal drop all values of the database.
    #[pg_trigger]
    fn changed<'a>(
        trigger: &'a PgTrigger<'a>,
    ) -> Result<Option<PgHeapTuple<'a, AllocatedByRust>>, PgTriggerError> {
        let table = trigger.relation()?.oid();
        space::require_rights_of_owner(RelationOid::of(table.to_u32())).or_raise();
        catalog::announce_change(table);
        let is = |which| catalog::table_oid(which) == Some(table.to_u32());
        if is(Table::Watches) {
            // The tags are unknown after TRUNCATE, and if a superuser has changed the columns of the table.
            let rows = [trigger.old(), trigger.new()];
            let known = rows.iter().flatten().map(|row| {
                let relation = row.get_by_name::<RelationOid>("relation")?.map_or(0, RelationOid::get);
                Ok((relation, row.get_by_name::<OwnedTexts>("tags")?.unwrap_or_default().0))
            });
            match known.collect::<Result<Vec<_>, TryFromDatumError>>() {
                Ok(rows) if !rows.is_empty() => watch::changed(&rows),
                _ => watch::all_changed(),
            }
        }
        if is(Table::Grants) {
            pending::privileges_changed(shared::database());
        }
        Ok(None)
    }

    /// Returns the spaces that the caller may read, or all spaces if the caller may see statistics, with the values of their
    /// options that apply to this session.
    #[pg_extern(stable, parallel_restricted)]
    #[allow(clippy::type_complexity)]
    fn visible_spaces() -> TableIterator<
        'static,
        (
            name!(name, String),
            name!(default_ttl, Interval),
            name!(max_ttl, Interval),
            name!(ttl_policy, &'static str),
            name!(jitter, f32),
            name!(tiers, &'static str),
            name!(scope, &'static str),
            name!(quota, Option<String>),
            name!(max_value, String),
            name!(compress_above, String),
            name!(min_cost, Interval),
            name!(max_result_size, String),
            name!(keep_warm, i32),
            name!(redis, bool),
            name!(enabled, bool),
        ),
    > {
        let size = |bytes: u64| Size(i64::try_from(bytes).unwrap_or(i64::MAX)).to_string();
        let mut rows = Vec::new();
        space::each_visible(|_, name, options| {
            memory::check();
            memory::push(
                &mut rows,
                (
                    name.to_owned(),
                    interval::of_ms(options.ttl_ms(None)),
                    interval::of_ms(options.max_ttl_ms.unwrap_or(TTL_MS_MAX as u64)),
                    options.ttl_policy.name(),
                    options.jitter,
                    options.tiers.name(),
                    if options.by_role { "role" } else { "shared" },
                    options.quota.map(size),
                    size(options.max_value_bytes()),
                    size(options.compress_above_bytes()),
                    interval::of_ms(options.min_cost_ms()),
                    size(options.max_result_bytes().min(options.max_value_bytes())),
                    options.keep_warm as i32,
                    options.redis && !options.by_role,
                    options.enabled,
                ),
            );
        });
        TableIterator::new(rows)
    }
}
