"""A cache backend of Django that keeps its values in pg_cache, through the connection of the application. See README.md.

A *space* is a named cache of pg_cache. A *lease* is the right to compute a missing value. For each call, `cache_acquire` returns
the value (status `hit` or `stale`), or a lease (`compute`), or the status `wait` if another caller has the lease. The rules of a
lease:

- The value must be computed in statements that begin after `cache_acquire` has returned.
- A set with the lease stores nothing if the key or one of the tags has changed since then. A set that stores ends the lease.
- Otherwise the caller must release the lease, also after an error: the others would wait until `hold` is over.
"""

import base64
import contextlib
import hashlib
import pickle
import time

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.db import DatabaseError, connections

KEY_BYTES_MAX = 1024
TTL_SECONDS_MAX = 366 * 24 * 60 * 60
INTEGERS = range(-(2**63), 2**63)
POLL_SECONDS = 0.005, 0.1  # between two calls of cache_acquire: the shortest and the longest pause

# An integer is stored as its digits, which cache_incr can add to, and any other value as a pickle in base64. Both are texts:
# a function for one kind of values raises an error if the key has a value of another kind, and an error fails the transaction.
SETTINGS = "make_interval(secs => %(ttl)s), %(tags)s::text[], %(space)s"
SET = f"cache_set_text(%(key)s, %(value)s, {SETTINGS}, %(mode)s, make_interval(secs => %(stale)s), %(lease)s)"
SET_MANY = f"SELECT cache_set_many_text(%(keys)s::text[], %(values)s::text[], {SETTINGS})"
ACQUIRE = "SELECT value, status, lease FROM cache_acquire_text(%(key)s, %(space)s, hold => make_interval(secs => %(hold)s))"
# If a table or a tag has changed since the lease, the set stores nothing, and the next caller must not wait for this lease.
STORE = f"SELECT CASE WHEN NOT {SET} THEN cache_release(%(key)s, %(lease)s, %(space)s) END"
# cache_incr raises an error if the value is a pickle.
INCR = r"""SELECT CASE WHEN cache_get_text(%(key)s, %(space)s) ~ '^-?\d+$'
    THEN cache_incr(%(key)s, %(by)s, space => %(space)s, mode => 'present') END"""
TOUCH = "SELECT cache_touch(%(key)s, make_interval(secs => %(ttl)s), %(space)s)"


class PgCache(BaseCache):
    """`LOCATION` is the name of a space. `OPTIONS` are `database` (an alias), and `wait` and `hold` in seconds, for get_or_set."""

    def __init__(self, space, params):
        super().__init__(params)
        options = params.get("OPTIONS") or {}
        self._space, self._database = space or "default", options.get("database", "default")
        self._wait, self._hold = options.get("wait", 5), options.get("hold", 30)

    def get(self, key, default=None, version=None):
        text, = self._ask("SELECT cache_get_text(%(key)s, %(space)s)", key=self._key(key, version))
        return default if text is None else _value(text)

    def get_many(self, keys, version=None):
        names = {self._key(key, version): key for key in keys}
        rows = self._rows("SELECT key, value FROM cache_get_many_text(%(keys)s::text[], %(space)s)", keys=list(names))
        return {names[key]: _value(text) for key, text in rows}

    def set(self, key, value, timeout=DEFAULT_TIMEOUT, version=None, tags=(), stale=0, mode="always"):
        """Stores a value. get_or_set may return it for `stale` seconds more, while another session computes a new one."""
        return self._set("SELECT " + SET, self._key(key, version), value, timeout, tags, stale, mode)

    def add(self, key, value, timeout=DEFAULT_TIMEOUT, version=None, tags=()):
        if self.get_backend_timeout(timeout) == 0:
            return not self.has_key(key, version)
        return self.set(key, value, timeout, version, tags, mode="absent")

    def set_many(self, data, timeout=DEFAULT_TIMEOUT, version=None, tags=()):
        names, ttl = {self._key(key, version): key for key in data}, self.get_backend_timeout(timeout)
        values = [_text(data[key]) for key in names.values()]
        count, = self._ask(SET_MANY, keys=list(names), values=values, ttl=ttl, tags=list(tags))
        if count == len(names) or ttl == 0:
            return []
        query = "SELECT key FROM unnest(%(keys)s::text[]) AS key WHERE NOT cache_exists(key, %(space)s)"
        return [names[name] for name, in self._rows(query, keys=list(names))]

    def get_or_set(self, key, default, timeout=DEFAULT_TIMEOUT, version=None, tags=(), stale=0):
        """Returns the value. If there is none, one caller computes it, and the others wait for it."""
        name, deadline, pause = self._key(key, version), time.monotonic() + self._wait, POLL_SECONDS[0]
        while True:
            text, status, lease = self._ask(ACQUIRE, key=name, hold=self._hold)
            if status in ("hit", "stale"):
                return _value(text)
            if status == "compute":
                break
            if time.monotonic() > deadline:
                return default() if callable(default) else default
            time.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS[1])
        try:
            value = default() if callable(default) else default
            self._set(STORE, name, value, timeout, tags, stale, "always", lease)
        except BaseException:
            # In a failed transaction this is an error, and the rollback releases the lease.
            with contextlib.suppress(DatabaseError):
                self._ask("SELECT cache_release(%(key)s, %(lease)s, %(space)s)", key=name, lease=lease)
            raise
        return value

    def incr(self, key, delta=1, version=None):
        """Adds to an integer, at once for all sessions: a rollback does not undo it. Other numbers are read and set again."""
        if type(delta) is int:
            total, = self._ask(INCR, key=self._key(key, version), by=delta)
            if total is not None:
                return total
        return super().incr(key, delta, version)

    def touch(self, key, timeout=DEFAULT_TIMEOUT, version=None):
        ttl = self.get_backend_timeout(timeout)
        return self._ask(TOUCH, key=self._key(key, version), ttl=ttl)[0] if ttl else self.delete(key, version)

    def has_key(self, key, version=None):
        return self._ask("SELECT cache_exists(%(key)s, %(space)s)", key=self._key(key, version))[0]

    def delete(self, key, version=None):
        return self._ask("SELECT cache_delete(%(key)s, %(space)s)", key=self._key(key, version))[0]

    def delete_many(self, keys, version=None):
        self._ask("SELECT cache_delete_many(%(keys)s::text[], %(space)s)", keys=[self._key(key, version) for key in keys])

    def clear(self):
        self._ask("SELECT cache_flush(%(space)s)")

    def invalidate_tags(self, *tags):
        """Invalidates all values with one of the tags, in all spaces of the database."""
        self._ask("SELECT cache_invalidate_tags(%(tags)s::text[])", tags=list(tags))

    def get_backend_timeout(self, timeout=DEFAULT_TIMEOUT):
        timeout = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        return TTL_SECONDS_MAX if timeout is None else max(0, min(timeout, TTL_SECONDS_MAX))

    # Returns the first column of the query: SET returns whether the value was stored.
    def _set(self, query, name, value, timeout, tags, stale, mode, lease=None):
        return self._ask(query, key=name, value=_text(value), ttl=self.get_backend_timeout(timeout), tags=list(tags),
                         mode=mode, stale=stale or None, lease=lease)[0]

    def _key(self, key, version):
        key = self.make_and_validate_key(key, version)
        if len(key.encode()) <= KEY_BYTES_MAX and "\0" not in key:
            return key
        return "sha256:" + hashlib.sha256(key.encode()).hexdigest()

    def _ask(self, query, **parameters):
        return self._rows(query, **parameters)[0]

    def _rows(self, query, **parameters):
        with connections[self._database].cursor() as cursor:
            cursor.execute(query, {"space": self._space, **parameters})
            return cursor.fetchall()


def _text(value):
    if type(value) is int and value in INTEGERS:
        return str(value)
    return base64.b64encode(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)).decode()


def _value(text):
    return int(text) if text.removeprefix("-").isdigit() else pickle.loads(base64.b64decode(text))


def _in_thread(name):
    async def call(self, *arguments, **options):
        return await sync_to_async(getattr(self, name), thread_sensitive=True)(*arguments, **options)
    return call


# The asynchronous methods of BaseCache call one method for each key, and know no tags.
for _name in ("get get_many set add set_many get_or_set incr touch has_key delete delete_many clear invalidate_tags").split():
    setattr(PgCache, "a" + _name, _in_thread(_name))
