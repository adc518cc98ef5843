//! A session that listens to notifications, on a thread of its own, so that it receives each one as soon as it arrives.

use pg_cache_testbed::Cluster;
use postgres::Notification;
use postgres::fallible_iterator::FallibleIterator;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the thread looks whether it should end.
const LOOK: Duration = Duration::from_millis(100);

/// The session. It ends when this value is dropped. This value must be dropped before its server stops: the thread panics when it
/// loses the session, and the drop reports that by a panic.
pub struct Listener {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Connects and listens on these channels, whose names must be SQL identifiers. `receive` is called with each notification, as
    /// soon as it arrives, on the thread of the listener.
    pub fn start(
        cluster: &Cluster,
        channels: &[&str],
        mut receive: impl FnMut(&Notification) + Send + 'static,
    ) -> Self {
        let mut session = cluster.connect("postgres");
        for channel in channels {
            session.batch_execute(&format!("LISTEN {channel}")).expect("it listens");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !is_over.load(Relaxed) {
                let mut notifications = session.notifications();
                let mut arriving = notifications.timeout_iter(LOOK);
                while let Some(notification) = arriving.next().expect("the session lives") {
                    receive(&notification);
                    if is_over.load(Relaxed) {
                        return;
                    }
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        // A panic of this thread must not hide the first one.
        assert!(
            std::thread::panicking() || matches!(ended, Some(Ok(()))),
            "the listener has lost its session"
        );
    }
}
