//! The settings for the copies of values in Redis. The URL may have a password, so SHOW hides it, and no error repeats it.
//! `log_mask.rs` keeps it out of the log.

#![allow(unsafe_code)]

use crate::pg::memory;
use pg_cache_redis::{Target, mask};
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;
use std::ffi::{CStr, CString, OsString, c_char, c_void};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

/// Empty: no Redis.
static REDIS_URL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static REDIS_PREFIX: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"pg_cache:"));
static REDIS_MAX_TTL: GucSetting<i32> = GucSetting::<i32>::new(60 * 60 * 1000);
static REDIS_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(500);
/// Empty: the certificate authorities that the system trusts.
static REDIS_CA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Registers these settings.
pub(super) fn define() {
    // SAFETY: the hooks raise no errors and do not panic.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"pg_cache.redis_url",
            c"The Redis that gets copies of the values of spaces with redis => true.",
            c"Empty: none. SHOW hides user and password.",
            &REDIS_URL,
            GucContext::Sighup,
            // pg_settings would show the password as the value after a reset.
            GucFlags::SUPERUSER_ONLY | GucFlags::NO_SHOW_ALL,
            Some(check_redis_url),
            None,
            Some(show_redis_url),
        );
    }
    GucRegistry::define_string_guc(
        c"pg_cache.redis_prefix",
        c"The beginning of all keys and channels in Redis.",
        c"The Redis worker removes all keys with this prefix that it does not know.",
        &REDIS_PREFIX,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_cache.redis_max_ttl",
        c"The longest time to live of a value in Redis.",
        c"It bounds how long a reader gets an old value from a Redis that this server cannot reach.",
        &REDIS_MAX_TTL,
        1000,
        24 * 60 * 60 * 1000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_cache.redis_timeout",
        c"How long the Redis worker waits for an answer before it connects anew.",
        c"",
        &REDIS_TIMEOUT,
        10,
        60 * 1000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_string_guc(
        c"pg_cache.redis_ca_file",
        c"A file in PEM format with the certificate authority of a Redis with TLS.",
        c"Empty: the certificate authorities that the system trusts.",
        &REDIS_CA_FILE,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
}

/// Refuses a URL that leads to no Redis. The message does not repeat the URL, because it may have a password.
unsafe extern "C-unwind" fn check_redis_url(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the server passes a text that ends with a zero, or a null pointer.
    let url = unsafe { (*value).as_ref() }.map_or(&[][..], |url| unsafe { CStr::from_ptr(url) }.to_bytes());
    let checked = match std::str::from_utf8(url) {
        Ok("") => return true,
        Ok(url) => Target::parse(url, Duration::from_secs(1), None).map(|_| ()),
        Err(_) => Err("The URL is not in UTF-8.".to_owned()),
    };
    let Err(why) = checked else { return true };
    // Zeroed, so that the copy ends with a zero. Null if there is no memory: then the error has no detail.
    let detail = memory::try_cleared(why.len() + 1).cast::<c_char>();
    // SAFETY: the allocation has room for the text. The server reads these variables after this function, and writes to none.
    unsafe {
        if !detail.is_null() {
            detail.cast::<u8>().copy_from_nonoverlapping(why.as_ptr(), why.len());
        }
        pg_sys::GUC_check_errmsg_string =
            c"invalid value for parameter \"pg_cache.redis_url\"".as_ptr().cast_mut();
        pg_sys::GUC_check_errdetail_string = detail;
        pg_sys::GUC_check_errhint_string = c"Use a URL such as redis://localhost:6379.".as_ptr().cast_mut();
    }
    false
}

/// Shows the URL without user and password.
unsafe extern "C-unwind" fn show_redis_url() -> *const c_char {
    let url = redis_url()
        .map_or_else(CString::default, |url| CString::new(mask(&url).as_ref()).unwrap_or_default());
    // SAFETY: copies the text to the current context. The server copies it from there at once.
    unsafe { pg_sys::pstrdup(url.as_ptr()) }
}

/// Returns the URL of Redis, with its password. None if there is none.
pub fn redis_url() -> Option<String> {
    REDIS_URL.get()?.into_string().ok().filter(|url| !url.is_empty())
}

/// Returns the beginning of all keys in Redis. Bytes that are not UTF-8 are replaced.
pub fn redis_prefix() -> String {
    REDIS_PREFIX.get().map(|prefix| prefix.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Returns the longest time to live of a value in Redis, in milliseconds.
pub fn redis_max_ttl_ms() -> u64 {
    REDIS_MAX_TTL.get() as u64
}

/// Returns how long the Redis worker waits for an answer.
pub fn redis_timeout() -> Duration {
    Duration::from_millis(REDIS_TIMEOUT.get() as u64)
}

/// Returns the file with the certificate authority of Redis. None if the system's are to be used.
pub fn redis_ca_file() -> Option<PathBuf> {
    let file = REDIS_CA_FILE.get().filter(|file| !file.is_empty())?;
    Some(PathBuf::from(OsString::from_vec(file.into_bytes())))
}
