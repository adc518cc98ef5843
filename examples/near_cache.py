"""A near-cache: keeps values of pg_cache in this process, and drops each when it changes. docs/near-caches.md proves the rules."""

import json
import threading
import time

import psycopg

ROWS_MAX = 1000  # of one answer of cache_changes. An answer with fewer rows has all changes
EVERYTHING = ("database", None, None)  # a name: kind, space and name of a row of cache_changes. All values depend on this one


class NearCache:
    def __init__(self, conninfo="", listen=True, poll_seconds=1.0, stale_seconds=2.0, entries_max=10_000):
        """`conninfo` must lead to the primary. Behind a pooler in transaction mode, pass listen=False."""
        self._conninfo, self._listen, self._poll_seconds = conninfo, listen, poll_seconds
        self._stale_seconds, self._entries_max = stale_seconds, entries_max
        self._lock = threading.Lock()  # guards the next four fields, and is never held during a query
        self._cursor = -1  # the last change that was applied. -1 is of no server, so the first answer is a reset
        self._proven = float("-inf")  # when the last answer was asked for that had all changes
        self._values = {}  # (space, key): (JSON, names that it depends on, when it expires)
        self._flights = {}  # for each read that is under way: the names that have changed since it began
        self._reader, self._reader_lock, self._closed = None, threading.Lock(), threading.Event()
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()

    def get(self, key, space="default"):
        """Returns the value of a key, or None. A value from this process is at most `stale_seconds` old."""
        place, flight, now = (space, key), object(), time.monotonic()
        with self._lock:
            text, _, expires = self._values.get(place, (None, None, now))
            # Without a recent answer, the value may have changed unnoticed: the server may be out of reach.
            if now < expires and now < self._proven + self._stale_seconds:
                return json.loads(text)  # a copy, which the caller may change
            # Before the read is sent: a change may be applied before the read's older answer arrives.
            self._flights[flight] = set()
        keep = False
        try:
            text, keep, ttl, tags = self._read(key, space)  # keep: whether the value may be kept at all, for ttl seconds
            names = {EVERYTHING, ("space", space, None), ("key", space, key), *(("tag", None, tag) for tag in tags or [])}
        finally:
            with self._lock:
                changed = self._flights.pop(flight)
                if keep and changed.isdisjoint(names):
                    if len(self._values) >= self._entries_max:
                        del self._values[next(iter(self._values))]
                    self._values[place] = (text, names, now + ttl)
        return None if text is None else json.loads(text)

    def close(self):
        self._closed.set()
        self._follower.join()
        if self._reader:
            self._reader.close()

    def _connect(self):
        # With autocommit, no transaction block hides later changes from a read. Poolers lose prepared statements.
        return psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None, client_encoding="UTF8")

    def _read(self, key, space):
        query = "SELECT value::text, keep, extract(epoch FROM ttl)::float8, tags FROM cache_get_near(%s, %s)"
        with self._reader_lock:
            if self._reader is None or self._reader.closed:
                self._reader = self._connect()
            return self._reader.execute(query, [key, space]).fetchone()

    def _follow(self):
        """Applies changes until the cache is closed. After a lost connection it goes on with the old cursor."""
        delay = 0.01
        while not self._closed.wait(delay):
            delay = min(2 * delay, 0.5)
            try:
                with self._connect() as connection:
                    if self._listen:
                        connection.execute("LISTEN pg_cache")
                    while not self._closed.is_set():
                        self._catch_up(connection)
                        delay = 0.01
                        if self._listen:  # A notification only wakes. Any role may send one, so it proves nothing.
                            list(connection.notifies(timeout=self._poll_seconds, stop_after=1))
                        else:
                            self._closed.wait(self._poll_seconds)
            except psycopg.Error:
                pass  # the next turn connects again

    def _catch_up(self, connection):
        rows = [None] * ROWS_MAX
        while len(rows) >= ROWS_MAX:
            asked, query = time.monotonic(), "SELECT seq, kind, space, name FROM cache_changes(%s, %s)"
            rows = connection.execute(query, [self._cursor, ROWS_MAX]).fetchall()
            # A reset means that the server cannot tell what has changed, so everything counts as changed.
            names = {EVERYTHING if kind == "reset" else (kind, space, name) for _, kind, space, name in rows}
            with self._lock:
                for changed in self._flights.values():
                    changed |= names
                for place in [place for place, entry in self._values.items() if not names.isdisjoint(entry[1])]:
                    del self._values[place]
                self._cursor = rows[-1][0] if rows else self._cursor  # after all rows: some share one number
                self._proven = asked if len(rows) < ROWS_MAX else self._proven
