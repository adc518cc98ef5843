"""A backend of dogpile.cache that keeps its values in pg_cache, with psycopg 3. See README.md.

A *space* is a named cache of pg_cache. A *lease* is the right to compute a missing value. `cache_acquire` returns the value (status
`hit`), or a lease (`compute`), or the status `wait` if another caller has the lease; with `hold => NULL` it only looks. A set with
a lease stores nothing if the key or one of the tags has changed since the lease was acquired. A lease ends with a set that stores,
with `cache_release`, after `hold`, or with its session.

dogpile.cache acquires the mutex of a key, creates and sets the value, and releases the mutex. So the mutex is the lease, and a set
by the thread that holds the mutex uses the lease.
"""

import hashlib
import threading
import time

from dogpile.cache import register_backend
from dogpile.cache.api import NO_VALUE, BytesBackend, CacheMutex

KEY_BYTES_MAX = 1000  # pg_cache allows 1024; the rest is for LOCK
LOCK = "lock of "
POLL_SECONDS = 0.005, 0.1  # between two calls of cache_acquire: the shortest and the longest pause

# A lease of a key without a value: what is computed now is stored only if nothing has changed meanwhile. If there is a value that
# dogpile.cache considers expired, the lease of another key, which never has a value, keeps the other creators away.
ACQUIRE = f"""SELECT creator.status, creator.lease, renewer.status, renewer.lease
    FROM cache_acquire_bytes(%(key)s, %(space)s, hold => %(hold)s) AS creator LEFT JOIN LATERAL (
        SELECT * FROM cache_acquire_bytes('{LOCK}' || %(key)s, %(space)s, hold => %(hold)s) WHERE creator.status = 'hit' OFFSET 0
    ) AS renewer ON true"""
LOCKED = f"""SELECT 'wait' IN ((SELECT status FROM cache_acquire_bytes(%(key)s, %(space)s, hold => NULL)),
    (SELECT status FROM cache_acquire_bytes('{LOCK}' || %(key)s, %(space)s, hold => NULL)))"""
SET = "SELECT cache_set_bytes(%(key)s, %(value)s, %(ttl)s, %(tags)s::text[], %(space)s, lease => %(lease)s)"


class PgCacheBackend(BytesBackend):
    """`arguments`: `connection` returns a context manager of a connection, such as `pool.connection`. `space`, `ttl` (a timedelta)
    and `hold` (in seconds; others wait so long for a creator) are optional. `tags` is a list, or a function that returns the list
    for a key."""

    def __init__(self, arguments):
        self._connection, self.space = arguments["connection"], arguments.get("space", "default")
        self._ttl, self.hold = arguments.get("ttl"), f"{arguments.get('hold', 30)} s"
        tags = arguments.get("tags", ())
        self._tags = tags if callable(tags) else lambda key: tags
        self.leases = {}  # key: (lease, the thread that creates the value)

    def key_mangler(self, key):
        if len(key.encode()) <= KEY_BYTES_MAX and "\0" not in key:
            return key
        return "sha256:" + hashlib.sha256(key.encode()).hexdigest()

    def get_mutex(self, key):
        return PgCacheMutex(self, key)

    def get_serialized(self, key):
        return self.get_serialized_multi([key])[0]

    def get_serialized_multi(self, keys):
        found = dict(self.ask("SELECT * FROM cache_get_many_bytes(%(keys)s::text[], %(space)s)", keys=list(keys)))
        return [found.get(key, NO_VALUE) for key in keys]

    def set_serialized(self, key, value):
        self.set_serialized_multi({key: value})

    def set_serialized_multi(self, mapping):
        if mapping:
            with self._connection() as connection, connection.cursor() as cursor:
                cursor.executemany(SET, [self._entry(key, value) for key, value in mapping.items()])

    def delete(self, key):
        self.delete_multi([key])

    def delete_multi(self, keys):
        self.ask("SELECT cache_delete_many(%(keys)s::text[], %(space)s)", keys=list(keys))

    def invalidate_tags(self, *tags):
        """Invalidates all values with one of the tags: `region.actual_backend.invalidate_tags("news")`."""
        self.ask("SELECT cache_invalidate_tags(%(tags)s::text[])", tags=list(tags))

    def ask(self, query, **parameters):
        with self._connection() as connection:
            return connection.execute(query, {"space": self.space, "hold": self.hold, **parameters}).fetchall()

    def _entry(self, key, value):
        lease, thread = self.leases.get(key, (None, None))
        # Another thread sets a value of its own, which needs no lease.
        lease = lease if thread == threading.get_ident() else None
        return {"key": key, "value": value, "ttl": self._ttl, "tags": list(self._tags(key)), "space": self.space, "lease": lease}


class PgCacheMutex(CacheMutex):
    """The right to create the value of a key, among all processes. It is lost after `hold` seconds."""

    def __init__(self, backend, key):
        self._backend, self._key = backend, key
        self._held = None  # the key of the lease, and the lease

    def acquire(self, wait=True):
        pause = POLL_SECONDS[0]
        while not self._try():
            if not wait:
                return False
            # cache_acquire could wait itself, but would keep a connection of the pool, which the creator may need.
            time.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS[1])
        return True

    def _try(self):
        (creator, lease, renewer, lock), = self._backend.ask(ACQUIRE, key=self._key)
        if creator == "compute":
            self._held = self._key, lease
            self._backend.leases[self._key] = lease, threading.get_ident()
        elif renewer == "compute":
            self._held = LOCK + self._key, lock
        return "compute" in (creator, renewer)

    def release(self):
        (key, lease), self._held = self._held, None
        self._backend.leases.pop(key, None)
        self._backend.ask("SELECT cache_release(%(key)s, %(lease)s, %(space)s)", key=key, lease=lease)

    def locked(self):
        return self._backend.ask(LOCKED, key=self._key)[0][0]


register_backend("pg_cache", __name__, "PgCacheBackend")
