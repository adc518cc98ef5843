//! Sessions that change keys as fast as they can, while Redis is disturbed, for instance restarted. Afterwards each key in Redis
//! must have the value of the cache, or be absent. The other files of this folder call [`storm`] with their disturbance.

use super::{compare, run};
use pg_cache_testbed::{Cluster, Redis, wait_until};
use postgres::Client;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The part of a storm that the function `disturb` sees.
pub(super) struct Storm<'s> {
    /// The number of steps that the sessions have finished.
    commits: &'s AtomicUsize,
}

impl Storm<'_> {
    /// Waits until the sessions have made this many further commits.
    pub(super) fn await_commits(&self, more: usize) {
        let goal = self.commits.load(Ordering::Relaxed) + more;
        wait_until("the sessions to commit", || self.commits.load(Ordering::Relaxed) >= goal);
    }
}

/// Returns the next step of a session, as requests that follow each other. All sessions change the key `one`, and 300 keys, some of
/// which have a tag or depend on the table `stormy`. Now and then, a session empties the space, changes many keys in one
/// transaction, or prepares a transaction.
fn commands(session: usize, number: usize) -> Vec<String> {
    let key = (number * 7919 + session * 101) % 300;
    let value = session * 10_000_000 + number;
    let tag = key % 3;
    let command = match number % 10 {
        0 | 1 => format!("SELECT cache_set('one', '{value}', space => 'r')"),
        2 => "SELECT cache_delete('one', 'r')".to_owned(),
        3 => format!("SELECT cache_delete('k{key}', 'r')"),
        4 => format!("SELECT cache_set('k{key}', '\"tagged {value}\"', tags => '{{t{tag}}}', space => 'r')"),
        5 => match number / 10 % 20 {
            0 | 5 => format!("SELECT cache_invalidate_tag('t{tag}')"),
            1 => "INSERT INTO stormy VALUES (1)".to_owned(),
            2 if session == 1 => "SELECT cache_flush('r')".to_owned(),
            3 if session == 2 => format!(
                "SELECT count(cache_set('k' || i, '\"many {value}\"', space => 'r')) FROM generate_series(1, 1100) AS i"
            ),
            4 => {
                let prepare = format!(
                    "BEGIN; SELECT cache_set('k{key}', '\"prepared {value}\"', space => 'r'), cache_invalidate_tag('t{tag}');
                     PREPARE TRANSACTION '{value}'"
                );
                return vec![prepare, format!("COMMIT PREPARED '{value}'")];
            }
            _ => format!("SELECT cache_set('w{key}', '{value}', tags => '{{stormy,t{tag}}}', space => 'r')"),
        },
        // The sessions share the counters.
        6 => format!("SELECT cache_incr('n{}', 1, '1 hour', 'r')", number / 10 % 10),
        7 => format!(
            "BEGIN; SELECT cache_set('k{key}', '{value}', space => 'r'), cache_set('one', '{value}', space => 'r'); ROLLBACK"
        ),
        8 => format!(
            "SELECT cache_set_text('x{key}', 'text {value}', space => 'r'), cache_delete('x{}', 'r')",
            (key + 7) % 300
        ),
        _ => format!("SELECT cache_set('k{key}', '{{\"n\": {value}}}', space => 'r')"),
    };
    vec![command]
}

/// Lets eight sessions change keys until `disturb` returns. Then each key in Redis must have the last committed value or be absent.
/// `nodes` returns the servers that hold the keys then; it is called when the sessions have ended. `session` must be that of
/// `start` in `mod.rs`, or one like it.
pub(super) fn storm<'r>(
    cluster: &Cluster,
    session: &mut Client,
    disturb: impl FnOnce(&Storm<'_>, &mut Client),
    nodes: impl FnOnce() -> Vec<&'r Redis>,
) {
    run(session, "CREATE TABLE IF NOT EXISTS stormy (v int); SELECT cache_watch('stormy')");
    let (is_over, commits) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 1..=8 {
            let (is_over, commits) = (&is_over, &commits);
            scope.spawn(move || {
                let mut session = cluster.connect("postgres");
                for step in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    for command in commands(number, step) {
                        run(&mut session, &command);
                    }
                    commits.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // The writers must end even if the disturber panics.
        let over = Over(&is_over);
        disturb(&Storm { commits: &commits }, session);
        drop(over);
    });
    compare(&nodes(), session);
}

/// Tells the sessions to end when the value is dropped, also by a panic.
struct Over<'s>(&'s AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
