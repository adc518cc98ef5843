//! Advises what is worth caching, and which cached results should not be cached (`cache_advise`). This file collects the figures of
//! statements and tables, and puts the decisions of `worth.rs` into words. It runs none of the statements: it only parses and
//! analyzes their texts, in subtransactions that are rolled back, so that no lock remains.

use super::job::{Rules, Wanted};
use super::refusals;
use super::result::{Asked, Search};
use super::worth::{self, Choice, Costs, Evidence, Figures, Limits, Verdict};
use crate::pg::encoding::clipped;
use crate::pg::error::{Failure, OrRaise, SqlState};
use crate::pg::jsonb::Array;
use crate::pg::memory;
use crate::pg::observed::TEXT_BYTES_MAX;
use crate::pg::observer;
use crate::pg::outline::{Outline, outline};
use crate::pg::query::{self, Arguments, Sketch};
use crate::pg::relation;
use crate::pg::role::{self, Role};
use crate::pg::settings;
use crate::pg::shared::{self, HotTier};
use crate::pg::statement_counts::{self, Counted, Observed, Windows};
use crate::pg::subtransaction;
use crate::store::note::Form;
use crate::store::results::{self, State};
use crate::store::space;
use pg_cache_core::Counter;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::rc::Rc;

/// A row of `cache_advise`.
#[derive(Debug)]
pub struct Advice {
    pub advice: &'static str,
    /// The beginning of the statement, in one line.
    pub query: Option<Vec<u8>>,
    /// The milliseconds that callers wait less in each second.
    pub saves: Option<f64>,
    pub reason: String,
    /// The statement to run.
    pub statement: Option<Vec<u8>>,
}

/// The most statements that are analyzed. Statements that have taken the most time come first.
const ANALYZED_MAX: usize = 1000;
/// The limit of the wait for a lock on a table of a statement, in milliseconds. After it, the statement is left out.
const LOCK_TIMEOUT_MS: u32 = 100;
/// The limit of each wait after the first wait that was in vain, in milliseconds.
const LATER_LOCK_TIMEOUT_MS: u32 = 1;
/// The most bytes of a statement's text that a row shows.
const SHOWN_BYTES: usize = 60;
/// The SQLSTATE that `pg_stat_statements` raises if its library is not preloaded: `object_not_in_prerequisite_state`.
const NOT_PRELOADED: &str = "55000";

/// The evidence that was collected, and what is missing.
struct Evidences {
    statements: BTreeMap<i64, Statement>,
    observed: BTreeMap<i64, Observed>,
    /// For how long the statements were counted, in seconds.
    seconds: f64,
    /// An upper limit of the calls that have changed rows. None if `pg_stat_statements` has forgotten statements.
    writing_calls: Option<f64>,
    /// The number of statements that the caller may not see.
    hidden: usize,
    /// The number of statements whose texts are too long to be analyzed.
    too_long: usize,
    notes: Vec<Advice>,
}

/// A statement, with the sums over all roles.
#[derive(Debug, Default)]
struct Statement {
    text: Vec<u8>,
    /// Whether the text is that of one call, seen by the observing mode: its constants may differ from those of other calls.
    is_of_one_call: bool,
    calls: f64,
    total_ms: f64,
    rows: f64,
    /// The calls by roles.
    roles: BTreeMap<u32, f64>,
}

/// A statement that may be worth caching, and what its analysis shows.
struct Candidate {
    id: i64,
    statement: Statement,
    sketch: Sketch,
    reads_clock: bool,
    /// Whether the query calls functions whose reads are not known before they run.
    reads_unknown: bool,
    /// The tables that it names. For a partition or a child, the topmost table above it.
    roots: BTreeSet<u32>,
}

/// Why a statement is left out.
enum LeftOut {
    /// It is no query.
    NoQuery,
    /// Its result would not be stored.
    Refused,
    /// It cannot be analyzed in this session, for instance because a table is not in the search path or is locked.
    Unclear,
}

/// The number of statements that were counted, and the numbers of those that are left out, by the reason.
#[derive(Default)]
struct Counts {
    seen: usize,
    cached: usize,
    refused: usize,
    unclear: usize,
    unworthy: usize,
}

/// The changes of a table and its partitions by the counted statements: at most so many calls and changed rows.
#[derive(Clone, Copy, Debug, Default)]
struct Writes {
    calls: f64,
    rows: f64,
}

/// Returns the advice, the greatest saving first: at most `most` rows, followed by the notes. May raise errors.
pub fn advise(most: usize) -> Vec<Advice> {
    let Some(tier) = shared::tier() else {
        return vec![note("the cache is switched off: see cache_health()".to_owned(), None)];
    };
    let words = Words {
        prefix: statement_counts::prefix_of("pg_cache", "cache_advise"),
        database: statement_counts::database(),
    };
    let windows = statement_counts::windows();
    let mut found = collect(&windows);
    let mut counts = Counts { seen: found.statements.len(), ..Counts::default() };

    let groups = groups();
    let writes = writes(&found.statements);
    let candidates = candidates(tier, &groups, &mut found, &mut counts);
    let roots: BTreeSet<u32> = candidates.iter().flat_map(|candidate| &candidate.roots).copied().collect();
    let roots = memory::collect(roots.into_iter());
    let tables = Tables {
        changed: statement_counts::rows_changed(&roots),
        last_changes: last_changes(tier),
        writes,
        writing_calls: found.writing_calls,
        windows,
        seconds: found.seconds,
    };
    let mut rows = Vec::new();
    for candidate in &candidates {
        let observed = found.observed.get(&candidate.id).filter(|seen| seen.calls >= worth::CALLS_MIN);
        match judge(candidate, observed, &tables, found.seconds) {
            Some((verdict, changes)) => {
                for row in words.of(candidate, observed, &verdict, &changes, found.seconds) {
                    memory::push(&mut rows, row);
                }
            }
            None => counts.unworthy += 1,
        }
    }
    stop_caching(tier, &groups, &words, &mut rows);
    // Rows whose saving is not known come after all others.
    rows.sort_by(|a, b| b.saves.unwrap_or(-1.0).total_cmp(&a.saves.unwrap_or(-1.0)));
    let left = rows.len().saturating_sub(most);
    rows.truncate(most);
    rows.append(&mut found.notes);
    rows.push(summary(&found, &counts, rows.len(), left));
    rows
}

fn note(reason: String, statement: Option<String>) -> Advice {
    let statement = statement.map(String::into_bytes);
    Advice { advice: "note", query: None, saves: None, reason, statement }
}

/// Collects the figures of statements. A view that is missing, or that the caller may not read, becomes a note.
fn collect(windows: &Windows) -> Evidences {
    let mut found = Evidences {
        statements: BTreeMap::new(),
        observed: BTreeMap::new(),
        seconds: windows.server,
        writing_calls: None,
        hidden: 0,
        too_long: 0,
        notes: Vec::new(),
    };
    if let Some(view) = statement_counts::view("pg_cache", "cache_observed") {
        match subtransaction::attempt(|| statement_counts::observed(&view)) {
            Ok(observed) => found.observed = observed.into_iter().map(|seen| (seen.id, seen)).collect(),
            Err(failure) => {
                found.notes.push(note(format!("cache_observed cannot be read: {}", failure.message), None));
            }
        }
    }
    let name = "pg_stat_statements";
    let Some(view) = statement_counts::view(name, name) else {
        let reason = "pg_stat_statements is not installed in this database, so the advice uses the observing mode only";
        found.notes.push(note(reason.to_owned(), Some("CREATE EXTENSION pg_stat_statements;".to_owned())));
        return with_observed(found);
    };
    if !view.is_recent() {
        let reason = "this version of pg_stat_statements is older than 1.8".to_owned();
        found.notes.push(note(reason, Some("ALTER EXTENSION pg_stat_statements UPDATE;".to_owned())));
        return with_observed(found);
    }
    match subtransaction::attempt(|| statement_counts::counted(&view)) {
        Ok(counted) => {
            let info = statement_counts::view(name, "pg_stat_statements_info");
            let since = info
                .and_then(|info| subtransaction::attempt(|| statement_counts::since_reset(&info)).ok())
                .flatten();
            if let Some((seconds, is_complete)) = since {
                found.seconds = seconds;
                found.writing_calls = is_complete.then(|| counted.iter().map(|row| row.writing_calls).sum());
            }
            counted.into_iter().for_each(|row| found.add(row));
        }
        Err(failure) => found.notes.push(unreadable(&failure)),
    }
    with_observed(found)
}

/// Returns the note about a `pg_stat_statements` that cannot be read.
fn unreadable(failure: &Failure) -> Advice {
    if failure.code.to_string() == NOT_PRELOADED {
        let reason = "pg_stat_statements is not in shared_preload_libraries: add it, and restart the server";
        let libraries = subtransaction::attempt(statement_counts::preloaded).ok();
        let statement = libraries.map(|libraries| {
            let names = libraries.split(',').map(str::trim).filter(|name| !name.is_empty());
            let names: Vec<_> = names.chain(["pg_stat_statements"]).map(role::literal).collect();
            format!("ALTER SYSTEM SET shared_preload_libraries = {};", names.join(", "))
        });
        return note(reason.to_owned(), statement);
    }
    let statement = (failure.code == SqlState::INSUFFICIENT_PRIVILEGE)
        .then(|| format!("GRANT pg_read_all_stats TO {};", Role::current().quoted()));
    note(format!("pg_stat_statements cannot be read: {}", failure.message), statement)
}

/// Adds the statements that only the observing mode has seen.
fn with_observed(mut found: Evidences) -> Evidences {
    for (id, seen) in &mut found.observed {
        let text = seen.text.take();
        if let (None, Some(text)) = (found.statements.get(id), text) {
            memory::check();
            let total_ms = if seen.hits > 0.0 { seen.saved_ms / seen.hits * seen.calls } else { 0.0 };
            let statement =
                Statement { text, is_of_one_call: true, calls: seen.calls, total_ms, ..Statement::default() };
            found.statements.insert(*id, statement);
        }
    }
    found
}

impl Evidences {
    fn add(&mut self, row: Counted) {
        memory::check();
        let Some(id) = row.id else {
            self.hidden += 1;
            return;
        };
        let Some(text) = row.text else {
            self.too_long += 1;
            return;
        };
        let statement = self.statements.entry(id).or_default();
        statement.text = text;
        statement.calls += row.calls;
        statement.total_ms += row.total_ms;
        statement.rows += row.rows;
        *statement.roles.entry(row.role).or_default() += row.calls;
    }
}

/// Returns the topmost table that a relation is a part of.
fn root_of(relation: u32) -> u32 {
    relation::ancestors_now(relation).last().copied().unwrap_or(relation)
}

/// Returns what the statements have changed, by the topmost tables. A statement whose table is unknown in this session is left out.
fn writes(statements: &BTreeMap<i64, Statement>) -> BTreeMap<u32, Writes> {
    let verbs: [&[u8]; 7] = [b"insert", b"update", b"delete", b"merge", b"copy", b"refresh", b"truncate"];
    let mut writes = BTreeMap::new();
    for statement in statements.values() {
        memory::check();
        shared::check_for_interrupts();
        let may_write = verbs
            .iter()
            .any(|verb| statement.text.windows(verb.len()).any(|part| part.eq_ignore_ascii_case(verb)));
        if !may_write {
            continue;
        }
        let Some(text) = memory::terminated(&statement.text) else { continue };
        let found = subtransaction::probe(LOCK_TIMEOUT_MS, || match outline(&text) {
            Outline::Writes { targets, counts_changes } => {
                (memory::collect(targets.into_iter().map(root_of)), counts_changes)
            }
            _ => (Vec::new(), false),
        });
        let (targets, counts_changes) = found.unwrap_or_default();
        for root in targets {
            let sum: &mut Writes = writes.entry(root).or_default();
            // A call that changes no row invalidates nothing.
            sum.calls += if counts_changes { statement.calls.min(statement.rows) } else { statement.calls };
            sum.rows += if counts_changes { statement.rows } else { 0.0 };
        }
    }
    writes
}

/// Returns the statements that take long enough and whose results the cache could store. The statement that has taken the most time
/// comes first.
fn candidates(tier: &HotTier, groups: &Groups, found: &mut Evidences, counts: &mut Counts) -> Vec<Candidate> {
    let floor_ms = worth::floor_ms(settings::min_cost_ms() as f64);
    let is_stored = |(_, group): &(_, &Group)| group.results > 0.0;
    let texts = groups.iter().filter(is_stored).map(|((_, text), _)| in_one_line(text));
    let cached: BTreeSet<Vec<u8>> = memory::collect(texts).into_iter().collect();
    let mut dear = Vec::new();
    for (id, statement) in std::mem::take(&mut found.statements) {
        if statement.calls > 0.0 && statement.total_ms / statement.calls >= floor_ms {
            memory::push(&mut dear, (id, statement));
        }
    }
    dear.sort_by(|a, b| b.1.total_ms.total_cmp(&a.1.total_ms));
    dear.truncate(ANALYZED_MAX);
    let mut candidates = Vec::new();
    let mut lock_timeout_ms = LOCK_TIMEOUT_MS;
    for (id, statement) in dear {
        memory::check();
        shared::check_for_interrupts();
        if cached.contains(&in_one_line(&statement.text)) {
            counts.cached += 1;
            continue;
        }
        match analyzed(tier, &statement, &mut lock_timeout_ms) {
            Ok((sketch, reads_clock, reads_unknown, roots)) => {
                let candidate = Candidate { id, statement, sketch, reads_clock, reads_unknown, roots };
                memory::push(&mut candidates, candidate);
            }
            Err(LeftOut::NoQuery) => {}
            Err(LeftOut::Refused) => counts.refused += 1,
            Err(LeftOut::Unclear) => counts.unclear += 1,
        }
    }
    candidates
}

type Analyzed = (Sketch, bool, bool, BTreeSet<u32>);

/// Returns the text of a query with a zero at its end, if its analysis runs no code of other roles.
fn without_strings(text: &[u8], is_of_one_call: bool) -> Result<CString, LeftOut> {
    let terminated = memory::terminated(text).ok_or(LeftOut::Unclear)?;
    match subtransaction::probe(LOCK_TIMEOUT_MS, || outline(&terminated)) {
        Ok(Outline::Query(constants)) if constants.strings || is_of_one_call && constants.any => {
            Err(LeftOut::Unclear)
        }
        Ok(Outline::Query(_)) => Ok(terminated),
        Ok(_) => Err(LeftOut::NoQuery),
        Err(_) => Err(LeftOut::Unclear),
    }
}

/// Analyzes a text as a statement of this session. After a wait for a lock that was in vain, further waits are short.
fn analyzed(tier: &HotTier, statement: &Statement, lock_timeout_ms: &mut u32) -> Result<Analyzed, LeftOut> {
    let text: &[u8] = &statement.text;
    // The observing mode keeps only the beginning of a long text, which ends with a whole character.
    if statement.is_of_one_call && text.len() + 4 > TEXT_BYTES_MAX {
        return Err(LeftOut::Unclear);
    }
    let terminated = without_strings(text, statement.is_of_one_call)?;
    let analyze = || {
        let (sketch, mut seen) = observer::observe(|| query::sketch(&terminated));
        let named = seen.relations_named.iter().chain(&sketch.relations).copied();
        let named: BTreeSet<u32> = memory::collect(named).into_iter().collect();
        named.iter().for_each(|oid| seen.note_relation(*oid, false));
        let asked = Asked {
            text,
            arguments: Arguments::Json(Array::EMPTY),
            ttl_ms: None,
            tags: &[],
            stale_ok_ms: None,
            refresh: false,
            depends: None,
            reader: None,
        };
        let search = Search::new(&asked, Form::Rows).or_raise();
        let space = space::without_privilege(b"default").or_raise();
        let wanted: Wanted<'_> = asked.wanted();
        let may_store = sketch.anonymous_record.is_none()
            && !search.may_be_temporary()
            && refusals::check_before(tier, &wanted, &seen).is_ok()
            && search.check(&space, &seen).is_ok();
        let reads_clock = search.ttl_ms_max(&seen).is_some();
        let roots: BTreeSet<u32> = seen.relations.iter().map(|oid| root_of(*oid)).collect();
        may_store.then_some((sketch, reads_clock, seen.user_function, roots))
    };
    match subtransaction::probe(*lock_timeout_ms, analyze) {
        Ok(Some(analyzed)) => Ok(analyzed),
        Ok(None) => Err(LeftOut::Refused),
        Err(failure) => {
            if failure.code == SqlState::LOCK_NOT_AVAILABLE {
                *lock_timeout_ms = LATER_LOCK_TIMEOUT_MS;
            }
            Err(LeftOut::Unclear)
        }
    }
}

/// The counted changes of tables.
struct Tables {
    /// The rows that were changed in each table.
    changed: BTreeMap<u32, f64>,
    /// For tables that cached values have depended on: how many seconds ago the last change was.
    last_changes: BTreeMap<u32, f64>,
    writes: BTreeMap<u32, Writes>,
    writing_calls: Option<f64>,
    windows: Windows,
    /// For how long the statements were counted.
    seconds: f64,
}

/// Returns how many seconds ago the last change of each table was, for tables that cached values have depended on. Returns nothing
/// if the caller may not see statistics.
fn last_changes(tier: &HotTier) -> BTreeMap<u32, f64> {
    let mut last = BTreeMap::new();
    if space::may_monitor() {
        for stats in tier.relation_stats(shared::database()) {
            if let (Some(oid), true) = (stats.relation, stats.last_change > 0) {
                memory::check();
                last.insert(oid, shared::ms_since(stats.last_change) as f64 / 1000.0);
            }
        }
    }
    last
}

/// The changes of the tables of a statement.
#[derive(Debug, Default)]
struct Changes {
    commits: f64,
    /// The table with the most commits, and an upper limit of these commits.
    most: Option<(u32, f64)>,
}

impl Tables {
    /// Returns an upper limit of the commits that have changed one of these tables while the statements were counted. Each call of
    /// a statement that writes to a table counts as one commit. Each changed row that these statements do not explain counts as one
    /// commit, too, up to the number of calls that have changed rows of any table.
    fn changes_of(&self, roots: &BTreeSet<u32>) -> Changes {
        let Windows { tables, commits, .. } = self.windows;
        // It is not known since when tables without a reset were counted: a crash also begins the counts anew. So all counts count.
        let share = tables.map_or(1.0, |counted| (self.seconds / counted.max(1e-3)).min(1.0));
        let mut changes = Changes::default();
        for root in roots {
            if self.last_changes.get(root).is_some_and(|ago| *ago > self.seconds) {
                continue;
            }
            let Writes { calls, rows } = self.writes.get(root).copied().unwrap_or_default();
            let changed = self.changed.get(root).copied().unwrap_or(0.0) * share;
            // Changes of an unlogged table write no WAL, so the calls that make them are not counted as writing ones.
            let writing_calls = self.writing_calls.filter(|_| !relation::is_unlogged(*root));
            let most = writing_calls.unwrap_or(f64::INFINITY).min(commits * share);
            let of_table = calls + (changed - rows).clamp(0.0, most);
            changes.commits += of_table;
            if of_table > changes.most.map_or(0.0, |(_, most)| most) {
                changes.most = Some((*root, of_table));
            }
        }
        changes
    }
}

/// Decides about a statement.
fn judge(
    candidate: &Candidate,
    observed: Option<&Observed>,
    tables: &Tables,
    seconds: f64,
) -> Option<(Verdict, Changes)> {
    let Candidate { statement, sketch, .. } = candidate;
    let changes = tables.changes_of(&candidate.roots);
    let evidence = match observed {
        Some(seen) if seen.refused.is_some() && seen.hits < 1.0 => return None,
        Some(seen) => Evidence::Observed {
            calls: seen.calls,
            hits: seen.hits,
            saved_ms: seen.saved_ms,
            seconds: seen.seconds,
            is_invalidated: seen.is_invalidated,
        },
        None if !sketch.parameters.is_empty() || candidate.reads_unknown => Evidence::Unknown,
        None => Evidence::Commits { commits: changes.commits, roles: statement.roles.len() as f64 },
    };
    let figures = Figures {
        calls: statement.calls,
        mean_ms: statement.total_ms / statement.calls,
        rows: statement.rows / statement.calls,
        seconds,
        evidence,
        reads_clock: candidate.reads_clock,
        suits_view: sketch.summarizes && sketch.fits_view,
        has_parameters: !sketch.parameters.is_empty(),
    };
    worth::decide(&figures, &limits()).map(|verdict| (verdict, changes))
}

fn limits() -> Limits {
    Limits {
        min_cost_ms: settings::min_cost_ms() as f64,
        ttl_seconds: settings::default_ttl_ms() as f64 / 1000.0,
    }
}

/// The names that the printed statements need in this session.
struct Words {
    /// The schema of the extension and a point. Empty if the search path finds the functions of the extension.
    prefix: String,
    database: String,
}

impl Words {
    /// Returns the rows about a statement.
    fn of(
        &self,
        candidate: &Candidate,
        observed: Option<&Observed>,
        verdict: &Verdict,
        changes: &Changes,
        seconds: f64,
    ) -> Vec<Advice> {
        let Candidate { id, statement, sketch, .. } = candidate;
        let ttl = verdict.ttl.map_or_else(String::new, |ttl| format!(", ttl => '{ttl}'"));
        let Costs { uncached, .. } = verdict.costs;
        let mut reason = format!("{} calls of {}", whole(statement.calls), time(uncached));
        if statement.rows >= statement.calls {
            let rows = statement.rows / statement.calls;
            reason += &format!(" and {} row{}", whole(rows), if rows < 1.5 { "" } else { "s" });
        }
        reason += &format!(" in {}", window(seconds));
        if let Some(ratio) = verdict.hit_ratio {
            let (ratio, needed) = (percent(ratio), percent(verdict.break_even));
            reason += &format!("\nexpected hit ratio {ratio}, break-even at {needed}: ");
            reason += &match observed {
                Some(seen) => {
                    format!("observed in {} calls in {}", whole(seen.calls), window(seen.seconds))
                }
                None if changes.commits < 1.0 => "no commit changed its tables".to_owned(),
                None => {
                    let plural = if changes.commits < 1.5 { "" } else { "s" };
                    format!("at most {} commit{plural} changed its tables", whole(changes.commits))
                }
            };
        }
        if let Some((table, writes)) = changes.most {
            let name = relation::name(table, space::may_monitor()).unwrap_or_else(|| "a table".to_owned());
            reason +=
                &format!("\n{name}: at most {:.1} writes per minute", writes * 60.0 / seconds.max(1e-3));
        }
        let row = |advice, saves, reason: String, run: Vec<u8>| Advice {
            advice,
            query: Some(shortened(&statement.text)),
            saves,
            reason,
            statement: Some(run),
        };
        let mut rows = Vec::new();
        match verdict.choice {
            Choice::Cache => {
                rows.push(row(
                    "cache",
                    Some(verdict.saves),
                    reason,
                    self.query(&statement.text, sketch, &ttl),
                ));
            }
            Choice::StaleOk => {
                reason += "\nits callers get rows that are up to a minute old";
                let stale_ok = ", stale_ok => '1 min'";
                let run = self.query(&statement.text, sketch, stale_ok);
                rows.push(row("stale_ok", Some(verdict.saves), reason, run));
            }
            Choice::View => {
                let name = view_name(*id, &candidate.roots);
                reason += &format!("\nread the view {name} instead");
                let run = self.call(
                    &format!("SELECT {}cache_create_view('{name}', ", self.prefix),
                    statement,
                    &ttl,
                );
                rows.push(row("view", Some(verdict.saves), reason, run));
            }
            Choice::Observe => {
                reason += match sketch.parameters.is_empty() {
                    true => "\ncalls functions, so it is not known which tables it reads",
                    false => "\nhas parameters: it is not known how often a call repeats an earlier one",
                };
                reason += &format!("\nsaves up to {:.2} ms per second", verdict.saves);
                let run = format!("ALTER DATABASE {} SET pg_cache.observe = on;", self.database);
                rows.push(row("observe", None, reason, run.into_bytes()));
            }
        }
        if let Some(saves) = verdict.warm {
            let most = statement.roles.iter().max_by(|a, b| a.1.total_cmp(b.1)).map(|(role, _)| *role);
            let role =
                most.map_or_else(String::new, |role| format!(" as role {}", Role::from_oid(role).quoted()));
            let reason = format!(
                "each miss takes {}; a worker computes the result after each change\nrun it{role}, in addition to the other advice for this query",
                time(verdict.costs.miss)
            );
            let run = format!("SELECT {}cache_warmer_add('statement {id}', ", self.prefix);
            rows.push(row("warm", Some(saves), reason, self.call(&run, statement, &ttl)));
        }
        rows
    }

    /// Returns a call that ends with the text of a statement and further arguments.
    fn call(&self, beginning: &str, statement: &Statement, more: &str) -> Vec<u8> {
        concatenated(&[beginning.as_bytes(), &quoted(&statement.text), more.as_bytes(), b");"])
    }

    /// Returns the cached twin of a query. The values of parameters are not known, so it has nulls with the types in a comment.
    fn query(&self, text: &[u8], sketch: &Sketch, more: &str) -> Vec<u8> {
        let begin = format!("SELECT * FROM {}cache_query(", self.prefix);
        let mut arguments = String::new();
        if !sketch.parameters.is_empty() {
            let nulls = vec!["null"; sketch.parameters.len()].join(", ");
            let types = sketch.parameters.iter().enumerate();
            let types: Vec<_> = types.map(|(at, kind)| format!("${}: {kind}", at + 1)).collect();
            let types = types.join(", ");
            // A role can name a type so that it would end the comment.
            let comment = if types.contains("*/") || types.contains("/*") { "" } else { &types };
            arguments = format!(", args => '[{nulls}]' /* {comment} */");
        }
        let end = format!("{arguments}{more}) AS ({});", sketch.columns);
        concatenated(&[begin.as_bytes(), &quoted(text), end.as_bytes()])
    }
}

/// The stored results of one text in a space.
#[derive(Default)]
struct Group {
    results: f64,
    hits: u64,
    cost_ms: f64,
    rows: f64,
    space_oid: u32,
    /// The tables whose changes are the reason that the query is left out for a while. None if it is not left out.
    left_out: Option<String>,
}

/// The least reads of a space before its hit ratio counts.
const READS_MIN: f64 = 100.0;
/// The least results of a text, none of which was read lately, before the advice is to remove them.
const UNREAD_MIN: f64 = 10.0;

/// The groups of all stored results, by their spaces and texts.
type Groups = BTreeMap<(Rc<str>, Vec<u8>), Group>;

/// Returns the stored results whose texts the caller may read.
fn groups() -> Groups {
    let mut groups = Groups::new();
    for result in results::of_database() {
        memory::check();
        let Some((text, false)) = result.text() else { continue };
        let key = (Rc::clone(&result.entry.space), memory::copy(text));
        let group = groups.entry(key).or_default();
        group.space_oid = result.entry.space_oid;
        if let State::LeftOut(_, by) = result.state() {
            group.left_out = Some(by.join(", "));
            continue;
        }
        group.results += 1.0;
        group.hits += result.entry.hits;
        group.cost_ms += result.entry.meta.cost.micros() as f64 / 1000.0;
        group.rows += result.facts().map_or(0.0, |facts| facts.rows as f64);
    }
    groups
}

/// Adds the advice about cached results that should not be cached.
fn stop_caching(tier: &HotTier, groups: &Groups, words: &Words, rows: &mut Vec<Advice>) {
    for ((space, text), group) in groups {
        memory::check();
        let query = Some(shortened(text));
        let remove = || {
            let begin = format!(
                "SELECT count({p}cache_delete(key, space)) FROM {p}cache_queries WHERE space = {} AND query = ",
                role::literal(space),
                p = words.prefix
            );
            concatenated(&[begin.as_bytes(), &quoted(text), b";"])
        };
        if let Some(by) = &group.left_out {
            let by = if by.is_empty() { "a table" } else { by };
            let reason = format!(
                "changes of {by} invalidate it faster than it runs, so nothing is stored\nrun the query without the cache, or accept old rows"
            );
            let sketch = without_strings(text, false)
                .ok()
                .and_then(|text| subtransaction::probe(LOCK_TIMEOUT_MS, || query::sketch(&text)).ok());
            let in_space = match &**space {
                "default" => String::new(),
                name => format!(", space => {}", role::literal(name)),
            };
            let more = format!(", stale_ok => '1 min'{in_space}");
            let statement = Some(sketch.map_or_else(remove, |sketch| words.query(text, &sketch, &more)));
            memory::push(rows, Advice { advice: "stop caching", query, saves: None, reason, statement });
            continue;
        }
        let Some(stats) = tier.space_stats(shared::database(), group.space_oid) else { continue };
        let sum = |all: &[Counter]| all.iter().map(|what| stats.counted(*what) as f64).sum::<f64>();
        let hits = sum(&[Counter::Hit, Counter::HitSaved]);
        let reads = hits + sum(&[Counter::MissAbsent, Counter::MissExpired, Counter::MissFenced]);
        let results = group.results.max(1.0);
        let needed = Costs::of(group.cost_ms / results, group.rows / results).break_even();
        if reads >= READS_MIN && hits / reads < needed && group.hits == 0 && results >= UNREAD_MIN {
            let reason = format!(
                "{} results are stored, none of which was read again lately\nhit ratio of the space {}, break-even at {}: run the query without the cache",
                whole(results),
                percent(hits / reads),
                percent(needed)
            );
            let statement = Some(remove());
            memory::push(rows, Advice { advice: "stop caching", query, saves: None, reason, statement });
        }
    }
}

/// Returns the last row: how many statements were read, and how many were left out for which reason.
fn summary(found: &Evidences, counts: &Counts, shown: usize, left: usize) -> Advice {
    let mut reason = format!("{} statements in {}", counts.seen, window(found.seconds));
    if shown == 0 {
        reason += ", none worth caching";
    }
    for (count, what) in [
        (left, "further rows: pass a greater n"),
        (counts.cached, "cached already"),
        (counts.refused, "that the cache would refuse"),
        (counts.unworthy, "not worth it"),
        (counts.unclear, "not understood in this session, for instance because of its search path"),
        (found.too_long, "longer than 64 kB"),
        (found.hidden, "of other roles, which pg_read_all_stats may see"),
    ] {
        if count > 0 {
            reason += &format!("\n{count} {what}");
        }
    }
    let statement =
        (found.hidden > 0).then(|| format!("GRANT pg_read_all_stats TO {};", Role::current().quoted()));
    note(reason, statement)
}

/// Returns the name of a cached view for a statement: the name of one of its tables, and a part of the statement's identifier.
fn view_name(id: i64, roots: &BTreeSet<u32>) -> String {
    let name = roots.first().and_then(|oid| relation::name(*oid, true)).unwrap_or_default();
    let table = name.rsplit('.').next().unwrap_or_default();
    let is_plain = |letter: &char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || *letter == '_';
    let table: String = table.chars().filter(is_plain).take(32).collect();
    let table = match table.chars().next() {
        Some(first) if !first.is_ascii_digit() => table,
        _ => "result".to_owned(),
    };
    format!("{table}_cached_{:04x}", id as u16)
}

fn concatenated(parts: &[&[u8]]) -> Vec<u8> {
    let mut whole = Vec::new();
    memory::reserve(&mut whole, parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole
}

/// Quotes a text between dollar signs, with a tag that does not occur in the text.
fn quoted(text: &[u8]) -> Vec<u8> {
    let occurs =
        |tag: &[u8]| text.windows(tag.len()).any(|part| part == tag) || text.ends_with(&tag[..tag.len() - 1]);
    let tags = ["$$".to_owned(), "$query$".to_owned()].into_iter();
    let mut tags = tags.chain((1_u32..).map(|number| format!("$query{number}$")));
    let tag = tags.find(|tag| !occurs(tag.as_bytes())).unwrap_or_default();
    concatenated(&[tag.as_bytes(), text, tag.as_bytes()])
}

/// Returns a text with one blank in place of each sequence of white space, and without a semicolon at its end.
fn in_one_line(text: &[u8]) -> Vec<u8> {
    let mut line = memory::zeroed(0);
    memory::reserve(&mut line, text.len() + 1);
    for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(b' ');
        }
        line.extend_from_slice(word);
    }
    while line.last().is_some_and(|last| matches!(last, b';' | b' ')) {
        line.pop();
    }
    line
}

/// Returns the beginning of a text, in one line.
fn shortened(text: &[u8]) -> Vec<u8> {
    let line = in_one_line(text);
    match line.len() > SHOWN_BYTES {
        true => memory::joined(clipped(&line, SHOWN_BYTES - 3), b"..."),
        false => line,
    }
}

fn whole(number: f64) -> String {
    format!("{number:.0}")
}

fn time(ms: f64) -> String {
    match ms {
        ms if ms >= 10_000.0 => format!("{:.1} s", ms / 1000.0),
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms => format!("{ms:.1} ms"),
    }
}

fn window(seconds: f64) -> String {
    match seconds {
        seconds if seconds >= 2.0 * 86_400.0 => format!("{:.1} days", seconds / 86_400.0),
        seconds if seconds >= 7200.0 => format!("{:.1} hours", seconds / 3600.0),
        seconds if seconds >= 120.0 => format!("{:.1} minutes", seconds / 60.0),
        seconds => format!("{seconds:.1} s"),
    }
}

fn percent(ratio: f64) -> String {
    match ratio * 100.0 {
        ratio if ratio < 1.0 => format!("{ratio:.2} %"),
        ratio if ratio < 10.0 => format!("{ratio:.1} %"),
        ratio => format!("{:.0} %", ratio.floor()),
    }
}
