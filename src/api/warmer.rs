//! SQL functions for warmers: named queries whose results a background worker keeps stored. The *launcher* is the background worker
//! that starts these workers. `store/warmer.rs` reads and writes the table `pgcache.warmers`, and `pg/warm_list.rs` keeps the runs
//! in shared memory.
//!
//! A worker runs the query as the *owner*, the role that has added the warmer. So only a role with the rights of the owner may
//! insert or change the row of a warmer, in whichever way it does so: a trigger of the table checks this.

use super::arguments::{self, invalid, null};
use crate::pg::encoding::shown;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::jsonb::Array;
use crate::pg::query::{self, Query};
use crate::pg::role::{self, Role};
use crate::pg::varlena::{
    Jsonb, JsonbArgument, OwnedJsonb, OwnedText, Text, TextArgument, TextsArgument, Varlena,
};
use crate::pg::warm_list::Run;
use crate::pg::{catalog, interval, memory, session, settings, shared, subtransaction};
use crate::query::warmer as runner;
use crate::store::space::{self, Privilege};
use crate::store::status::{self, Status};
use crate::store::warmer::{self, NAME_BYTES_MAX, Outcome, TEXT_BYTES_MAX, Warmer};
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Returns the bytes of a name. Null, an empty name and a name that is too long are errors.
fn name_of<'a>(argument: Option<TextArgument<'a>>) -> Result<&'a [u8], Refused> {
    let name = argument.ok_or_else(|| null("name"))?.bytes();
    match name.len() {
        0 => Err(invalid("name must not be empty")),
        length if length > NAME_BYTES_MAX => {
            Err(invalid(format!("name must not be longer than {NAME_BYTES_MAX} bytes"))
                .detail(format!("It has {length} bytes.")))
        }
        _ => Ok(name),
    }
}

/// Returns an error if a text is too long for a warmer. `what` is the name of the text.
fn limit(what: &str, bytes: usize) -> Result<(), Refused> {
    if bytes <= TEXT_BYTES_MAX {
        return Ok(());
    }
    let code = PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED;
    Err(Refused::new(code, format!("{what} of a warmer must not be longer than {TEXT_BYTES_MAX} bytes"))
        .detail(format!("It has {bytes} bytes.")))
}

/// Returns an error unless `every` is positive and at most a year.
fn check_every(every: Interval) -> Result<(), Refused> {
    if interval::ms(every) <= 0 {
        return Err(invalid("every must be positive").hint(
            "Omit every if the query is to run only when its result is missing. For every minute, use every => interval '1 minute'.",
        ));
    }
    arguments::lifetime("every", every).map(|_| ())
}

/// Returns the arguments of a query. JSON that is not an array, and an array that is too long, are errors.
fn array_of(args: Option<JsonbArgument<'_>>) -> Result<Array<'_>, Refused> {
    let array = args.map_or(Some(Array::EMPTY), Array::of).ok_or_else(|| {
        invalid("args must be an array of JSON")
            .hint("Use args => '[1, \"two\"]' for the parameters $1 and $2.")
    })?;
    limit("the arguments", array.bytes().len())?;
    Ok(array)
}

/// Returns an error if `cache_warmer_add` would refuse such a warmer. The check is needed because a restore, and a role that may
/// write to all tables, can write any row. It does not parse the query or look up the space, because a restore may create the
/// objects of the query, and the space, later.
fn check(warmer: &Warmer) -> Result<(), Refused> {
    limit("the query", warmer.query.len())?;
    array_of(warmer.args.as_ref().map(OwnedJsonb::as_argument))?;
    warmer.every.map_or(Ok(()), check_every)?;
    warmer.ttl.map(|ttl| arguments::lifetime("ttl", ttl)).transpose()?;
    arguments::tags(Some(TextsArgument(memory::collect(
        warmer.tags.iter().map(|tag| Some(tag.as_slice())),
    ))))?;
    match warmer.space.len() {
        1..=space::NAME_BYTES_MAX => Ok(()),
        _ => Err(space::unknown(&shown(&warmer.space))),
    }
}

/// Adds a warmer of the current role, which needs the privilege write in the space. Parses and checks the query, but does not run
/// it.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::too_many_arguments)]
fn cache_warmer_add(
    name: Option<TextArgument<'_>>,
    query: Option<TextArgument<'_>>,
    args: default!(Option<JsonbArgument<'_>>, "NULL"),
    every: default!(Option<Interval>, "NULL"),
    ttl: default!(Option<Interval>, "NULL"),
    tags: default!(Option<TextsArgument<'_>>, "NULL"),
    space: default!(Option<TextArgument<'_>>, "'default'"),
) {
    let add = || -> Result<(), Refused> {
        let name = name_of(name)?;
        let text = query.ok_or_else(|| null("query"))?.bytes();
        limit("the query", text.len())?;
        let array = array_of(args)?;
        every.map_or(Ok(()), check_every)?;
        ttl.map(|ttl| arguments::lifetime("ttl", ttl)).transpose()?;
        let tags = arguments::tags(tags)?;
        let space = space.ok_or_else(|| null("space"))?;
        arguments::space(Some(space), Privilege::Write)?;
        let terminated =
            memory::terminated(text).ok_or_else(|| invalid("query must not contain a zero byte"))?;
        let arguments = query::Arguments::Json(array);
        query::check(&Query { caller: "query of cache_warmer_add", text: &terminated, arguments });
        let owner = Role::current();
        let owned = |bytes: &[u8]| OwnedText(memory::copy(bytes));
        let args = args.map(|args| Jsonb(Varlena::of(args.bytes())));
        let tags = memory::collect(tags.iter().map(|tag| owned(tag)));
        let row: warmer::NewRow<'_> = [
            catalog::new_oid().into(),
            pg_sys::Oid::from(owner.oid()).into(),
            owned(name).into(),
            owned(text).into(),
            args.map_or_else(DatumWithOid::null::<Jsonb>, Into::into),
            every.map_or_else(DatumWithOid::null::<Interval>, Into::into),
            ttl.map_or_else(DatumWithOid::null::<Interval>, Into::into),
            tags.into(),
            owned(space.bytes()).into(),
        ];
        warmer::write(owner, name, &row)?;
        if !owner.may_log_in() {
            let quoted = owner.quoted();
            let code = PgSqlErrorCode::ERRCODE_WARNING;
            Refused::new(code, format!("role {quoted} may not log in, so its warmers do not run"))
                .hint(format!("Add the warmer as a role that the application logs in as, or run: ALTER ROLE {quoted} LOGIN;"))
                .warn();
        }
        Ok(())
    };
    add().or_raise();
    status::set(Status::Done);
}

/// Removes a warmer of the current role. Returns whether the role had this warmer. A result that the warmer has stored stays in the
/// cache.
#[pg_extern(volatile, parallel_unsafe)]
fn cache_warmer_drop(name: Option<TextArgument<'_>>) -> bool {
    let name = name_of(name).or_raise();
    let removed = warmer::remove(Role::current(), name);
    status::set(Status::Done);
    removed
}

/// Runs one warmer of the current role, or all its warmers, in this session. Returns a row for each warmer that was run.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity)]
fn cache_warm(
    name: default!(Option<TextArgument<'_>>, "NULL"),
) -> TableIterator<
    'static,
    (name!(name, Text), name!(ok, bool), name!(duration, Interval), name!(error, Option<String>)),
> {
    let role = Role::current();
    let mut warmers = warmer::to_run(role);
    if let Some(name) = name {
        warmers.retain(|warmer| warmer.name == name.bytes());
        if warmers.is_empty() {
            let code = PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT;
            let message = format!("role {} has no warmer \"{}\"", role.quoted(), shown(name.bytes()));
            Refused::new(code, message)
                .hint("To list the warmers, run: SELECT name, owner FROM cache_warmers;")
                .raise();
        }
    }
    let rows = memory::collect(warmers.iter().map(|warmer| {
        let (ok, micros, error) = run(warmer);
        (Text(Varlena::of(&warmer.name)), ok, Interval::from_micros(micros), error)
    }));
    status::set(Status::Done);
    TableIterator::new(rows)
}

/// Runs a warmer now. Returns whether its result is stored, the duration of the run in microseconds, and the error.
fn run(warmer: &Warmer) -> (bool, i64, Option<String>) {
    let began = Instant::now();
    let running = warmer.runs.begin();
    let outcome = match subtransaction::attempt(|| runner::run(warmer, true).or_raise()) {
        Ok(None) => Outcome::Stored,
        Ok(Some(why)) => Outcome::NotStored(why),
        Err(failure) => Outcome::Failed(failure),
    };
    let took = began.elapsed();
    running.end(took, &outcome);
    let error = outcome.in_words();
    (error.is_none(), i64::try_from(took.as_micros()).unwrap_or(i64::MAX), error)
}

/// A warmer as a dump has it: the owner by name, and the arguments and the tags as texts.
struct Dumped {
    owner: Vec<u8>,
    name: Vec<u8>,
    query: Vec<u8>,
    args: Option<OwnedText>,
    every: Option<Interval>,
    ttl: Option<Interval>,
    tags: Option<OwnedText>,
    space: Vec<u8>,
}

impl Dumped {
    /// Writes the warmer. If this cluster has no role with the owner's name, warns and leaves the warmer out, so that the other
    /// warmers are restored. If the current role may not act for the owner, that is an error.
    fn restore(self) {
        let Some(owner) = Role::named(&self.owner).filter(|owner| !owner.is_everybody()) else {
            let code = PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT;
            let quoted = memory::terminated(&self.owner).map(|name| role::identifier(&name));
            // No role can have the name "public".
            let hint = match (self.owner.as_slice(), quoted) {
                (b"public", _) | (_, None) => {
                    "Run cache_warmer_add as the role that is to run it.".to_owned()
                }
                (_, Some(name)) => {
                    format!("Run CREATE ROLE {name} LOGIN; and then cache_warmer_add as this role.")
                }
            };
            Refused::new(code, format!("role \"{}\" does not exist", shown(&self.owner)))
                .detail(format!("Its warmer \"{}\" is not restored.", shown(&self.name)))
                .hint(hint)
                .warn();
            return;
        };
        warmer::require_rights_of(owner).or_raise();
        let text = |bytes| DatumWithOid::from(OwnedText(bytes));
        catalog::write(
            "INSERT INTO pgcache.warmers
             VALUES ($1, $2, $3, $4, $5::pg_catalog.jsonb, $6, $7, $8::pg_catalog.text[], $9) ON CONFLICT DO NOTHING",
            &[
                catalog::new_oid().into(),
                pg_sys::Oid::from(owner.oid()).into(),
                text(self.name),
                text(self.query),
                self.args.map_or_else(DatumWithOid::null::<OwnedText>, Into::into),
                self.every.map_or_else(DatumWithOid::null::<Interval>, Into::into),
                self.ttl.map_or_else(DatumWithOid::null::<Interval>, Into::into),
                self.tags.map_or_else(DatumWithOid::null::<OwnedText>, Into::into),
                text(self.space),
            ],
        );
    }
}

/// Returns the state of a warmer, for the view: the first one that applies. `run` is its latest run, and whether that run is still
/// under way; None if no run is known. `was_due` says whether the warmer had to run when a worker looked at it last; None if no
/// worker has looked at it lately. A failed run with the code 0 has ended without an error, but its result was not stored.
fn state(warmer: &Warmer, run: Option<(Run, bool)>, is_in_template: bool) -> &'static str {
    match (run, warmer.runs.was_due()) {
        _ if !warmer.owner.exists() => "owner dropped",
        (Some((_, true)), _) => "running",
        _ if is_in_template => "template database",
        _ if is_paused() => "paused",
        _ if !warmer::is_trusted(warmer.owner) => "not trusted",
        _ if !warmer.owner.may_log_in() => "owner may not log in",
        _ if warmer.is_refused() => "owner cannot connect",
        (_, Some(false)) => "warm",
        (Some((run, _)), _) if run.failures > 0 => match run.code {
            0 => "not stored",
            _ => "failing",
        },
        (_, Some(true)) => "outdated",
        (_, None) => WAITING,
    }
}

/// Returns whether the workers start no warmers for some time because the server has crashed (`pg/warm_list.rs`).
fn is_paused() -> bool {
    shared::warm_list().is_some_and(|list| shared::ms_until(list.paused_until()) > 0)
}

/// The state of a warmer if no worker has checked lately whether its result is stored.
const WAITING: &str = "waiting";

/// Returns the reason why no worker runs warmers. None if no reason is known.
fn why_waiting() -> Option<&'static str> {
    let launcher = shared::launcher_slot()?;
    if shared::is_in_recovery() {
        Some("the server is in recovery")
    } else if settings::max_workers() == 0 {
        Some("pg_cache.max_workers is 0")
    } else if !session::is_alive(launcher.pid.load(Relaxed)) {
        Some("the launcher of pg_cache does not run")
    } else {
        launcher.error().map(|_| "the server has no free place for a worker, see max_worker_processes")
    }
}

/// The functions of the triggers of `sql/warmers.sql`, and the function behind the view `cache_warmers`.
#[pg_schema]
mod pgcache {
    use super::Dumped;
    use crate::pg::catalog;
    use crate::pg::error::{OrRaise, SqlState};
    use crate::pg::role::Role;
    use crate::pg::varlena::{Jsonb, OwnedText, Text, Varlena};
    use crate::pg::{background, memory, shared};
    use crate::store::space;
    use crate::store::warmer;
    use pgrx::prelude::*;

    /// Announces to all sessions, with the commit, that the table of warmers has changed. If there is a new row, also tells the
    /// launcher that its owner may have warmers. It is an error if the current role may not act for that owner, or if
    /// `cache_warmer_add` would refuse the warmer.
    #[pg_trigger]
    fn warmer_changed<'a>(
        trigger: &'a PgTrigger<'a>,
    ) -> Result<Option<PgHeapTuple<'a, AllocatedByRust>>, PgTriggerError> {
        catalog::announce_change(trigger.relation()?.oid());
        if let Some(row) = trigger.new() {
            let owner = row.get_by_name::<pg_sys::Oid>("owner").ok().flatten();
            let owner = Role::from_oid(owner.map_or(0, pg_sys::Oid::to_u32));
            warmer::require_rights_of(owner).or_raise();
            let number = row.get_by_name::<pg_sys::Oid>("number").ok().flatten();
            let written = warmer::written(owner, number.map_or(0, pg_sys::Oid::to_u32)).or_raise();
            written.iter().try_for_each(super::check).or_raise();
            warmer::announce(owner);
        }
        Ok(None)
    }

    /// Discards every insert, update and delete that logical replication applies (`sql/warmers.sql`). The owner of such a row is
    /// the OID of a role of another cluster.
    #[pg_trigger]
    fn warmer_replicated<'a>(
        _trigger: &'a PgTrigger<'a>,
    ) -> Result<Option<PgHeapTuple<'a, AllocatedByRust>>, PgTriggerError> {
        Ok(None)
    }

    /// Writes each row that a restore copies into `pgcache.dumped_warmers` to `pgcache.warmers` instead. The result None keeps the
    /// row out of `pgcache.dumped_warmers`, so that table is always empty.
    #[pg_trigger]
    fn warmer_restored<'a>(
        trigger: &'a PgTrigger<'a>,
    ) -> Result<Option<PgHeapTuple<'a, AllocatedByRust>>, PgTriggerError> {
        if let Some(row) = trigger.new() {
            let text = |name| row.get_by_name::<OwnedText>(name).ok().flatten();
            let required = |name| text(name).map(|text| text.0).unwrap_or_default();
            let time = |name| row.get_by_name::<Interval>(name).ok().flatten();
            let (owner, name, query) = (required("owner"), required("name"), required("query"));
            let (args, tags, space) = (text("args"), text("tags"), required("space"));
            let (every, ttl) = (time("every"), time("ttl"));
            Dumped { owner, name, query, args, every, ttl, tags, space }.restore();
        }
        Ok(None)
    }

    /// Returns the warmers of the current role, or those of all roles if the current role may see statistics. Only the owner of a
    /// warmer, and roles that may read the queries of other roles, see its query, arguments, tags and messages.
    #[pg_extern(
        volatile,
        parallel_restricted,
        sql = "
        CREATE FUNCTION pgcache.\"visible_warmers\"()
        RETURNS TABLE (name pg_catalog.text, owner pg_catalog.text, query pg_catalog.text, args pg_catalog.jsonb,
            every pg_catalog.interval, ttl pg_catalog.interval, tags pg_catalog.text[], space pg_catalog.text, state pg_catalog.text,
            last_run pg_catalog.timestamptz, duration pg_catalog.interval, runs pg_catalog.int8, error pg_catalog.text)
        VOLATILE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', 'visible_warmers_wrapper';
    "
    )]
    #[allow(clippy::type_complexity)]
    fn visible_warmers() -> TableIterator<
        'static,
        (
            name!(name, Text),
            name!(owner, Option<String>),
            name!(query, Option<Text>),
            name!(args, Option<Jsonb>),
            name!(every, Option<Interval>),
            name!(ttl, Option<Interval>),
            name!(tags, Option<Vec<Text>>),
            name!(space, Text),
            name!(state, &'static str),
            name!(last_run, Option<TimestampWithTimeZone>),
            name!(duration, Option<Interval>),
            name!(runs, i64),
            name!(error, Option<String>),
        ),
    > {
        let (role, sees_all, reads_all) = (Role::current(), space::may_monitor(), space::may_read_queries());
        let all = warmer::all(|owner| owner == role || sees_all);
        let is_in_template = !all.is_empty() && background::is_in_template();
        TableIterator::new(all.into_iter().map(move |warmer| {
            memory::check();
            let text = |bytes: &[u8]| Text(Varlena::of(bytes));
            let is_readable = warmer.owner == role || reads_all;
            let shown = warmer.runs.shown();
            let state = super::state(&warmer, shown, is_in_template);
            let run = shown.map(|(run, _)| run).filter(|run| run.began > 0);
            let tags = memory::collect(warmer.tags.iter().filter(|_| is_readable).map(|tag| text(tag)));
            let time = |tick| TimestampWithTimeZone::try_from(shared::time_of(tick)).ok();
            let error = run.filter(|run| run.failures > 0).map(|run| match (run.code, is_readable) {
                (0, true) => run.message(),
                (0, false) => "not stored".to_owned(),
                (code, true) => format!("{}: {}", SqlState(code), run.message()),
                (code, false) => SqlState(code).to_string(),
            });
            let why = || (state == super::WAITING).then(super::why_waiting).flatten().map(str::to_owned);
            let error = error.or_else(why);
            (
                text(&warmer.name),
                warmer.owner.exists().then(|| warmer.owner.quoted()),
                is_readable.then(|| text(&warmer.query)),
                warmer
                    .args
                    .as_ref()
                    .filter(|_| is_readable)
                    .map(|args| Jsonb(Varlena::of(args.as_argument().bytes()))),
                warmer.every,
                warmer.ttl,
                (!tags.is_empty()).then_some(tags),
                text(&warmer.space),
                state,
                run.and_then(|run| time(run.began)),
                run.filter(|run| run.runs > 0).map(|run| Interval::from_micros(run.duration_us as i64)),
                run.map_or(0, |run| run.runs as i64),
                error,
            )
        }))
    }
}
