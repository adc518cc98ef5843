//! The settings for the notifications about changes in the cache, which a background worker sends (`workers/sending.rs`).

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;
use std::ffi::CString;

static NOTIFY: GucSetting<bool> = GucSetting::<bool>::new(true);
static NOTIFY_CHANNEL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"pg_cache"));

/// How full the server's queue of notifications may be, in millionths, while a worker adds to it.
const NOTIFY_QUEUE_MAX: i32 = 500_000;
#[cfg(debug_assertions)]
static NOTIFY_QUEUE: GucSetting<i32> = GucSetting::<i32>::new(NOTIFY_QUEUE_MAX);

/// The most bytes of the name of a channel, as the server allows.
const CHANNEL_BYTES_MAX: usize = pg_sys::NAMEDATALEN as usize - 1;

/// Registers these settings.
pub(super) fn define() {
    GucRegistry::define_bool_guc(
        c"pg_cache.notify",
        c"Whether changes in the cache are announced with NOTIFY.",
        c"A background worker sends the notifications, shortly after the commits.",
        &NOTIFY,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pg_cache.notify_channel",
        c"The channel of the notifications about changes in the cache.",
        c"The name is used as it is written here: LISTEN must put other names than lower-case ones in double quotes.",
        &NOTIFY_CHANNEL,
        GucContext::Sighup,
        GucFlags::default(),
    );
    #[cfg(debug_assertions)]
    GucRegistry::define_int_guc(
        c"pg_cache.notify_queue",
        c"How full the queue of notifications may be, in millionths: it has 8 GB, too much for a test.",
        c"",
        &NOTIFY_QUEUE,
        0,
        1_000_000,
        GucContext::Sighup,
        GucFlags::NO_SHOW_ALL,
    );
}

/// Returns the channel of the notifications about changes, if they are to be sent. A name that the server would refuse switches
/// them off.
pub fn notify_channel() -> Option<CString> {
    let channel = NOTIFY_CHANNEL.get().filter(|_| NOTIFY.get())?;
    (1..=CHANNEL_BYTES_MAX).contains(&channel.as_bytes().len()).then_some(channel)
}

/// Returns how full the server's queue of notifications may be, from 0 to 1, while a worker adds to it. Always a half in a release
/// build.
pub fn notify_queue_max() -> f64 {
    #[cfg(debug_assertions)]
    let millionths = NOTIFY_QUEUE.get();
    #[cfg(not(debug_assertions))]
    let millionths = NOTIFY_QUEUE_MAX;
    f64::from(millionths) / 1e6
}

/// Returns whether notifications are on, but the name of their channel is one that the server would refuse.
pub fn has_bad_channel() -> bool {
    NOTIFY.get() && notify_channel().is_none()
}
