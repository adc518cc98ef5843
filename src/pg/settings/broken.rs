//! The setting by which tests break the fences of tables on purpose, to prove that the tests would find such a bug. A *fence* is
//! the word in shared memory that a transaction raises before its change of a table becomes visible, so that values from before the
//! change are not served (`docs/architecture.md`). Only debug builds have the setting.

#[cfg(debug_assertions)]
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};

#[cfg(debug_assertions)]
static BREAK_FENCING: GucSetting<Broken> = GucSetting::<Broken>::new(Broken::Off);

/// Ways to break the fences of tables on purpose. For tests, in debug builds only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, pgrx::PostgresGucEnum)]
pub enum Broken {
    /// Fences work as usual.
    #[name = c"off"]
    Off,
    /// Fences are raised only after the change is visible.
    #[name = c"late"]
    Late,
    /// Fences are lowered before the catalog invalidations are sent.
    #[name = c"early"]
    Early,
    /// Fences are never raised.
    #[name = c"never"]
    Never,
    /// Fences are never raised, and the check at the commit reports that as an error.
    #[name = c"unseen"]
    Unseen,
    /// A table counts as unchanged if its lock is the weakest one of a writer, although the server has counted changed rows.
    #[name = c"uncounted"]
    Uncounted,
    /// All changed rows of a table with tags that have placeholders count as reported.
    #[name = c"unreported"]
    Unreported,
}

/// Registers the setting.
#[cfg(debug_assertions)]
pub(super) fn define() {
    GucRegistry::define_enum_guc(
        c"pg_cache.break_fencing",
        c"How changes of tables are not fenced, for tests that have to find it.",
        c"",
        &BREAK_FENCING,
        GucContext::Suset,
        GucFlags::NO_SHOW_ALL,
    );
}

/// Returns how the fences of tables are broken on purpose. Always `Off` in a release build.
#[inline]
pub fn broken() -> Broken {
    #[cfg(debug_assertions)]
    return BREAK_FENCING.get();
    #[cfg(not(debug_assertions))]
    Broken::Off
}
