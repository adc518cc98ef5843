//! The readers of the staleness hunter (`mod.rs`). A table holds one *version*, a number that grows with each commit. The version
//! that a reader gets through the cache must lie between the bounds of `mod.rs`; otherwise the reader reports a finding.
//!
//! A reader must load `at_least` before it sends the statement, and call `Hunt::judge` after the statement has ended.
//!
//! A key has the result of one query. If only some readers called `cache_fetch` with another query under that key, they would
//! replace the results of the others, and few reads would be hits. So the query must depend only on the version of the table (the
//! `turn`), not on the dice of the reader.

use super::DATABASES;
use super::dice::Dice;
use super::hunt::{Hunt, version_of};
use super::session::Session;
use super::table::{Kind, Table};
use std::sync::atomic::Ordering::SeqCst;

impl Hunt<'_> {
    /// Reads at random until the hunt is over.
    pub fn read(&self, slot: usize, seed: u64) {
        let mut dice = Dice(seed);
        let mut session = Session::reader(self, slot);
        while !self.over.load(SeqCst) {
            if dice.roll(500) == 0 {
                session.go_to(dice.roll(DATABASES.len()));
            }
            let done = match dice.roll(10) {
                0 => self.read_moment(&mut session, &mut dice),
                1..=3 => self.read_leased(&mut session, &mut dice),
                4 => self.read_block(&mut session, &mut dice),
                _ => self.read_fetched(&mut session, &mut dice),
            };
            if let Err(error) = done {
                session.recover(&error, "a read");
            }
        }
    }

    /// Returns the version of the table through `cache_fetch`. The query and its options change with every few versions.
    fn fetch(
        &self,
        session: &mut Session<'_>,
        table: &Table,
        dice: &mut Dice,
    ) -> Result<Option<String>, postgres::Error> {
        if self.plan.queries {
            return self.query(session, table, dice);
        }
        let name = &table.name;
        // Readers use the same query at the same time: another query under the same key would replace the result.
        let turn = table.at_least.load(SeqCst) / 8;
        // If the kind mixes moments, the function may find a version that was never visible, so it is not called.
        let by_function = !table.kind.mixes_moments() && turn % 4 == 0;
        if table.kind.is_defined() {
            // `cache_fetch` stores what it has read from a table with row security only in a space with `scope => 'role'`.
            let query = if by_function { format!("SELECT {name}_read()") } else { table.read() };
            return self.call(session, name, &query, ", space => 'own'", dice);
        }
        let (query, arguments) = match turn % 5 {
            _ if by_function => (format!("SELECT {name}_read()"), ""),
            0 => (format!("SELECT v FROM {name} WHERE id = $1"), ", args => '[1]'"),
            1 => (format!("SELECT max(v) FROM {name} WHERE id < 2"), ""),
            2 => (format!("SELECT a.v FROM {name} AS a JOIN {name} AS b USING (id) WHERE b.id = 1"), ""),
            _ => (table.read(), ""),
        };
        // Results with other `depends` also replace each other.
        let (key, depends) = match turn / 5 % 3 {
            _ if dice.roll(4) == 0 && !by_function => {
                (format!("tagged {name}"), format!(", tags => '{{{name}}}'"))
            }
            0 => (name.clone(), format!(", depends => '{{{name}}}'")),
            1 => (name.clone(), format!(", depends => '{{}}', tags => '{{{name}}}'")),
            _ => (name.clone(), String::new()),
        };
        self.call(session, &key, &query, &format!("{arguments}{depends}"), dice)
    }

    /// Returns the version of the table as the result of a query. The query and the form of its result change with every few
    /// versions.
    fn query(
        &self,
        session: &mut Session<'_>,
        table: &Table,
        dice: &mut Dice,
    ) -> Result<Option<String>, postgres::Error> {
        let turn = table.at_least.load(SeqCst) as usize / 8;
        let queries = table.queries();
        let mut query = queries[turn % queries.len()].clone();
        if self.plan.width > 0 {
            query = format!("SELECT rpad(v::text, {}) AS v FROM ({query}) AS narrow", self.plan.width);
        }
        let call = match turn / queries.len() % 3 {
            0 => format!("SELECT cache_query_json($cached${query}$cached$) -> 0 ->> 'v', cache_status()"),
            _ => {
                let of = if self.plan.width > 0 { "text" } else { "bigint" };
                format!(
                    "SELECT v::text, cache_status() FROM cache_query($cached${query}$cached$) AS cached (v {of})"
                )
            }
        };
        // One of three calls uses the extended protocol.
        let row = match dice.roll(3) {
            0 => match session.client().query_opt(&call, &[])? {
                Some(row) => vec![row.get(0), row.get(1)],
                None => vec![None, None],
            },
            _ => session.row(&call)?,
        };
        self.count(row.get(1).and_then(|status| status.as_deref()));
        Ok(row[0].as_deref().map(|value| version_of(value).to_owned()))
    }

    /// Calls `cache_fetch` with further arguments, which begin with a comma, and counts the outcome. `query` must not contain a
    /// single quote. One of three calls uses the extended protocol.
    fn call(
        &self,
        session: &mut Session<'_>,
        key: &str,
        query: &str,
        more: &str,
        dice: &mut Dice,
    ) -> Result<Option<String>, postgres::Error> {
        let query = &match self.plan.width {
            0 => query.to_owned(),
            width => format!("SELECT rpad(({query})::text, {width})"),
        };
        let row = match dice.roll(3) {
            0 => {
                let call = format!("SELECT cache_fetch($1, $2{more})::text, cache_status()");
                let row = session.client().query_one(&call, &[&key, &query])?;
                vec![row.get(0), row.get(1)]
            }
            _ => session.row(&format!("SELECT cache_fetch('{key}', '{query}'{more}), cache_status()"))?,
        };
        self.count(row.get(1).and_then(|status| status.as_deref()));
        Ok(row[0].as_deref().map(|value| version_of(value).to_owned()))
    }

    /// Reads a version with one call of `cache_fetch`, and judges it.
    fn read_fetched(&self, session: &mut Session<'_>, dice: &mut Dice) -> Result<(), postgres::Error> {
        let table = self.choose(session.database, dice);
        let at_least = table.at_least.load(SeqCst);
        let value = self.fetch(session, table, dice)?;
        let how = if self.plan.queries { "cache_query" } else { "cache_fetch" };
        self.judge(table, at_least, value.as_deref(), how);
        Ok(())
    }

    /// Reads in several statements of one READ COMMITTED transaction. Each statement has bounds of its own.
    fn read_block(&self, session: &mut Session<'_>, dice: &mut Dice) -> Result<(), postgres::Error> {
        session.run("BEGIN")?;
        for _ in 0..3 {
            self.read_fetched(session, dice)?;
        }
        session.run("COMMIT")
    }

    /// Reads in one snapshot, through the cache and without it. Both must return the same.
    fn read_moment(&self, session: &mut Session<'_>, dice: &mut Dice) -> Result<(), postgres::Error> {
        session.run(match dice.roll(2) {
            0 => "BEGIN ISOLATION LEVEL REPEATABLE READ",
            _ => "BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        })?;
        for _ in 0..4 {
            let table = self.choose(session.database, dice);
            // In an old snapshot, a TRUNCATE and changes of names and rules are seen at once, so the two may differ.
            if table.kind == Kind::Emptied || table.kind.is_defined() {
                continue;
            }
            let cached_first = dice.roll(2) == 0;
            let mut cached = if cached_first { Some(self.fetch(session, table, dice)?) } else { None };
            let direct = session.row(&table.read())?.swap_remove(0);
            if !cached_first {
                cached = Some(self.fetch(session, table, dice)?);
            }
            let cached = cached.flatten();
            if cached != direct {
                self.stale.fetch_add(1, SeqCst);
                self.report(format!(
                    "REPEATABLE READ of {}: {cached:?} in the cache, {direct:?} in the table",
                    table.name
                ));
            }
        }
        session.run("COMMIT")
    }

    /// Reads a value that a reader computes under a lease (`cache_acquire`), or a value that a writer has set in the transaction of
    /// its change.
    fn read_leased(&self, session: &mut Session<'_>, dice: &mut Dice) -> Result<(), postgres::Error> {
        let table = self.choose(session.database, dice);
        if table.kind.is_defined() {
            // A tag stands for rows, and not for names and rules.
            return Ok(());
        }
        let name = &table.name;
        let at_least = table.at_least.load(SeqCst);
        if dice.roll(4) == 0 {
            if let Some(value) = session.row(&format!("SELECT cache_get('set {name}')"))?.swap_remove(0) {
                self.judge(table, at_least, Some(&value), "cache_get of what was set with the change");
            }
            return Ok(());
        }
        let in_block = dice.roll(3) == 0;
        if in_block {
            session.run("BEGIN")?;
        }
        let asked = format!("SELECT value, status, lease FROM cache_acquire('leased {name}', hold => '2 s')");
        let row = session.row(&asked)?;
        // The status of the session tells whether the value came from a table.
        let found = session.row("SELECT cache_status()")?.swap_remove(0);
        self.count(found.as_deref());
        if row[1].as_deref() == Some("hit") {
            self.judge(table, at_least, row[0].as_deref(), "cache_acquire");
        } else {
            // A later statement has later bounds: commits may have returned since the first one.
            let at_least = table.at_least.load(SeqCst);
            let value = session.row(&table.read())?.swap_remove(0);
            self.judge(table, at_least, value.as_deref(), "the table itself");
            if let (Some(value), Some(lease)) = (value, &row[2]) {
                let width = self.plan.width;
                session.run(&format!(
                    "SELECT cache_set('leased {name}', '\"{value:width$}\"', tags => '{{{name}}}', lease => {lease})"
                ))?;
            }
        }
        if in_block { session.run("COMMIT") } else { Ok(()) }
    }
}
