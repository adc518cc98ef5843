//! The DDL race with a gate. A transaction *stands*: it waits after its rows have become visible and before its catalog
//! invalidation messages are sent. Meanwhile, another session fills: it calls `cache_fetch` or `cache_query`, which computes the
//! result. No session may get that result after the commit has returned. The tests are deterministic.
//!
//! The library `neighbour.c` makes the transaction stand: in its own COMMIT callback, or where the messages are sent, because a
//! third session holds SInvalWriteLock.
//!
//! A *fence* is a word in shared memory that says when something that values depend on last changed (`docs/invalidation.md`). To
//! *fill* is to run the query and to store its result. A commit *raises* the fences of its changes before these become visible, and
//! *lowers* them after its messages are sent. A result that depends on a raised fence is no hit.
//!
//! `changes.rs` has the changes and says what a new one must satisfy.

use super::changes::{CHANGES, Change, become_member, prepare};
use crate::memory::{cluster, findings};
use pg_cache_testbed::{Cluster, Conf, Server, wait_until};
use postgres::Client;
use std::path::{Path, PathBuf};

/// The place where the transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// In the COMMIT callback of another library.
    Callback,
    /// In the COMMIT callback, but in another database, in which the extension is not installed.
    Elsewhere,
    /// At the sending of its catalog invalidation messages.
    Messages,
    /// At the sending of the messages, in a `COMMIT PREPARED`.
    MessagesOfPrepared,
}

/// A server with the neighbour (`neighbour.c`) loaded.
pub struct Ground {
    pub cluster: Cluster,
    /// The path of a file. While the file exists, sessions wait, but at most about five minutes.
    pub gate: PathBuf,
    /// A superuser's session, which sets up the changes and looks at the other sessions. It never waits at the gate.
    pub witness: Client,
}

/// How a session fills: by which function, and whether the query runs in a PL/pgSQL function that the session has planned before.
const WAYS: [(Through, bool); 4] =
    [(Through::Fetch, false), (Through::Fetch, true), (Through::Query, false), (Through::Query, true)];

/// The function of the cache through which sessions get the result of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    Fetch,
    Query,
}

impl Ground {
    /// Starts the server, with the roles and the space of `prepare` and the function `hold_messages`. The gate is open. If the
    /// neighbour is loaded first, its callbacks run after those of pg_cache.
    pub fn new(neighbour_first: bool) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("sessions/neighbour.c");
        let neighbour = Server::from_env().compile("pg_cache_test_neighbour", &source);
        let order =
            if neighbour_first { format!("{neighbour}, pg_cache") } else { format!("pg_cache, {neighbour}") };
        let conf = Conf::preloaded().set("pg_cache.hot_size", "4MB").set("pg_cache.fence_slots", "65536");
        let cluster = cluster(&conf.set("shared_preload_libraries", &order));
        let mut witness = cluster.connect("postgres");
        prepare(&mut witness);
        witness
            .batch_execute(&format!(
                "CREATE FUNCTION hold_messages(text) RETURNS void
                    AS '{neighbour}', 'neighbour_hold_messages' LANGUAGE C STRICT"
            ))
            .expect("a function");
        let gate = cluster.socket_dir().join("gate");
        Self { cluster, gate, witness }
    }

    /// Closes the gate. From now on, a session that has set `neighbour.gate` waits there when it commits, and so does
    /// `hold_messages`.
    pub fn close(&self) {
        std::fs::write(&self.gate, "").expect("the directory is ours");
    }

    /// Opens the gate: the sessions that wait there go on.
    pub fn open(&self) {
        std::fs::remove_file(&self.gate).expect("it was closed");
    }

    /// Waits until the backend `process` meets a condition on its row of `pg_stat_activity`. `what` names it if that takes too
    /// long.
    pub fn wait_for(&mut self, process: i32, what: &str, condition: &str) {
        let query = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND {condition}");
        wait_until(what, || {
            self.witness.query_one(&query, &[&process]).expect("a view").get::<_, i64>(0) == 1
        });
    }

    /// Commits a change, fills in another session while the commit stands, and returns which sessions then get a result
    /// other than the new one, if any. The committing session runs `setting` first.
    fn race(
        &mut self,
        change: &Change,
        (through, in_function): (Through, bool),
        stand: Stand,
        setting: &str,
    ) -> Option<String> {
        let query = change.set_up(&mut self.witness, in_function);
        let [mut filler, mut reader, mut holder] = [(); 3].map(|()| self.cluster.connect("postgres"));
        let mut committer =
            self.cluster.connect(if stand == Stand::Elsewhere { "template1" } else { "postgres" });
        for session in [&mut filler, &mut reader] {
            become_member(session);
            // After this, the session has read the catalogs and planned the function.
            assert_eq!(direct(session, &query), change.results.0, "{}", change.name);
            through.ask(session, &query);
        }
        let processes = [&mut committer, &mut filler, &mut holder].map(process);
        committer.batch_execute(setting).expect("it is set");
        let mut commit = change.change.to_owned();
        match stand {
            Stand::Callback | Stand::Elsewhere => {
                let gate = self.gate.display();
                committer.batch_execute(&format!("SET neighbour.gate = '{gate}'")).expect("it is set");
            }
            Stand::Messages => {}
            Stand::MessagesOfPrepared => {
                let prepared = format!("BEGIN; {commit}; PREPARE TRANSACTION 'race'");
                committer.batch_execute(&prepared).expect("it is prepared");
                commit = "COMMIT PREPARED 'race'".to_owned();
            }
        }
        self.close();
        let is_held = [Stand::Messages, Stand::MessagesOfPrepared].contains(&stand);
        let holding = is_held.then(|| {
            let hold = format!("SELECT hold_messages('{}')", self.gate.display());
            let holding = std::thread::spawn(move || holder.batch_execute(&hold));
            self.wait_for(processes[2], "the lock to be held", "wait_event = 'Extension'");
            holding
        });
        let committing = std::thread::spawn(move || committer.batch_execute(&commit));
        let stands = if is_held { "SInvalWrite" } else { "Extension" };
        self.wait_for(processes[0], "the commit to stand", &format!("wait_event = '{stands}'"));
        let call = query.clone();
        let filling = std::thread::spawn(move || {
            through.ask(&mut filler, &call);
            filler
        });
        if change.blocks {
            self.wait_for(processes[1], "the fill to wait", "wait_event_type = 'Lock'");
        } else {
            wait_until("the fill", || filling.is_finished());
        }
        self.open();
        committing.join().expect("it ends").expect("it commits");
        if let Some(holding) = holding {
            holding.join().expect("it ends").expect("it holds");
        }
        let mut filler = filling.join().expect("it fills");
        let mut fresh = self.cluster.connect("postgres");
        become_member(&mut fresh);
        assert_eq!(direct(&mut fresh, &query), change.results.1, "{}", change.name);
        let mut wrong = Vec::new();
        for after in ["", " after its next fill"] {
            let readers =
                [("the filler", &mut filler), ("another session", &mut reader), ("a new one", &mut fresh)];
            for (who, session) in readers {
                if through.ask(session, &query) != change.results.1 {
                    wrong.push(format!("{who}{after}"));
                }
            }
            // A plan that the filler has made in the race must not be used by its next fill.
            self.witness.batch_execute("SELECT cache_flush('own')").expect("it is removed");
        }
        let way = if in_function { " in a function" } else { "" };
        (!wrong.is_empty()).then(|| format!("{}{way} through {through:?}: {}", change.name, wrong.join(", ")))
    }
}

/// Returns the process id of a session's backend.
pub fn process(session: &mut Client) -> i32 {
    session.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0)
}

/// Returns the result of the query without the cache.
pub fn direct(session: &mut Client, query: &str) -> i32 {
    session.query_one(&format!("SELECT ({query})::int"), &[]).expect("it reads").get(0)
}

/// Returns the result of the query through the cache, in the space in which each role has its own entries.
pub fn fetch(session: &mut Client, query: &str) -> i32 {
    let call = "SELECT cache_fetch('k', $1, space => 'own')::int";
    session.query_one(call, &[&query]).expect("it fetches").get(0)
}

impl Through {
    /// Returns the result of the query through the cache, in the space in which each role has its own entries.
    fn ask(self, session: &mut Client, query: &str) -> i32 {
        if self == Self::Fetch {
            return fetch(session, query);
        }
        let call = "SELECT v FROM cache_query($1, space => 'own') AS cached (v int)";
        session.query_one(call, &[&format!("SELECT ({query})::int AS v")]).expect("it is asked for").get(0)
    }
}

/// Returns the changes that fit a stand, each with all ways to fill.
fn rounds(stand: Stand) -> impl Iterator<Item = (&'static Change, (Through, bool))> {
    let fits = move |change: &&Change| match stand {
        Stand::MessagesOfPrepared => change.in_block,
        Stand::Elsewhere => change.of_roles,
        Stand::Callback | Stand::Messages => true,
    };
    CHANGES.iter().filter(fits).flat_map(|change| WAYS.map(|way| (change, way)))
}

/// Runs all races of a stand. Panics if a session gets an old result, or a fence stays raised. The committing session needs no
/// setting of its own, so it gets the default of one.
fn assert_exact(neighbour_first: bool, stand: Stand) {
    let mut ground = Ground::new(neighbour_first);
    let wrong: Vec<_> = rounds(stand)
        .filter_map(|(change, way)| ground.race(change, way, stand, "SET lock_timeout = 0"))
        .collect();
    assert!(wrong.is_empty(), "{} races are lost: {wrong:#?}", wrong.len());
    assert_eq!(findings(&mut ground.witness), Vec::<String>::new());
}

/// The neighbour's callback runs after pg_cache's.
#[test]
fn a_fill_while_a_ddl_commit_waits_in_a_later_callback_is_not_kept() {
    assert_exact(true, Stand::Callback);
}

/// The neighbour's callback runs before pg_cache's.
#[test]
fn a_fill_while_a_ddl_commit_waits_in_an_earlier_callback_is_not_kept() {
    assert_exact(false, Stand::Callback);
}

/// The extension is not installed in the database of the change.
#[test]
fn a_fill_while_a_change_of_roles_in_another_database_waits_is_not_kept() {
    assert_exact(true, Stand::Elsewhere);
}

/// All COMMIT callbacks have run. The transaction itself waits for the lock.
#[test]
fn a_fill_while_a_ddl_commit_sends_its_messages_is_not_kept() {
    assert_exact(true, Stand::Messages);
}

/// The transaction that `COMMIT PREPARED` ends waits for the lock.
#[test]
fn a_fill_while_a_commit_prepared_sends_its_messages_is_not_kept() {
    assert_exact(true, Stand::MessagesOfPrepared);
}

/// Checks the race itself: if fences are lowered too early, which `pg_cache.break_fencing` does in debug builds, it must find
/// stale results.
#[test]
fn the_race_finds_stale_results_if_fences_are_lowered_early() {
    let mut ground = Ground::new(true);
    let mut missed = Vec::new();
    // Only changes that no reader waits for are used, and only those of one transaction: `DETACH PARTITION CONCURRENTLY` has two,
    // and the second one invalidates again.
    let is_open = |(change, _): &(&Change, (Through, bool))| !change.blocks && change.in_block;
    // The key of a result of `cache_query` contains the search path as it was resolved. So after a change of a schema, no session
    // asks for what was stored before.
    // Newer servers also resolve the search path again if a role gains or loses a membership that gives it a schema.
    let is_old = ground.cluster.server().major() < 16;
    let is_found = |(change, (through, _)): &(&Change, (Through, bool))| {
        *through == Through::Fetch
            || !change.name.contains("schema") && (is_old || !change.change.contains("race_group"))
    };
    for (change, way) in rounds(Stand::Callback).filter(is_open).filter(is_found) {
        let early = "SET pg_cache.break_fencing = 'early'";
        if ground.race(change, way, Stand::Callback, early).is_none() {
            missed.push((change.name, way));
        }
    }
    assert!(missed.is_empty(), "nothing is stale after {missed:?}");
}
