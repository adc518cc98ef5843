"""Caches the results of functions in pg_cache: a decorator for functions and coroutines, with psycopg 3. See README.md.

A *space* is a named cache of pg_cache. A *lease* is the right to compute a missing value: `cache_acquire` returns the value (status
`hit` or `stale`), or a lease (`compute`), or the status `wait` if another caller has the lease. A set with the lease stores nothing
if the key or one of the tags has changed since the lease was acquired. A set that stores ends the lease. Otherwise the caller must
release it, also after an error: the others would wait until `hold` is over.

The generator `_get_or_compute` has these steps. It does nothing itself: the wrapper of a function and that of a coroutine take each
step that it yields, and send back the result, or throw in the error.
"""

import asyncio
import functools
import hashlib
import inspect
import pickle
import time

import psycopg

KEY_BYTES_MAX = 1024
POLL_SECONDS = 0.005, 0.1  # between two calls of cache_acquire: the shortest and the longest pause
ACQUIRE = "SELECT value, status, lease FROM cache_acquire_bytes(%s, %s, hold => make_interval(secs => %s))"
# If a table or a tag has changed since the lease, the set stores nothing, and the next caller must not wait for this lease.
STORE = """SELECT CASE WHEN NOT cache_set_bytes(
    %(key)s, %(value)s, %(ttl)s, %(tags)s, %(space)s, stale_ok => %(stale_ok)s, lease => %(lease)s
) THEN cache_release(%(key)s, %(lease)s, %(space)s) END"""
RELEASE = "SELECT cache_release(%s, %s, %s)"
DELETE = "SELECT cache_delete(%s, %s)"
INVALIDATE = "SELECT cache_invalidate_tags(%s)"
SIMPLE = (str, int, float, bytes, type(None))


class Cache:
    """Caches results in one space. `cached` returns a decorator. A decorated function has two functions with the same arguments:
    `key` returns the key of the value, and `invalidate` removes the value."""

    def __init__(self, connection, space="default", wait=5.0, hold=30.0, dumps=pickle.dumps, loads=pickle.loads):
        """`connection` returns a context manager of a connection, such as `pool.connection`.

        A call that finds no value, while another session computes it, waits up to `wait` seconds. Then it computes the value
        itself, without storing it. Others wait up to `hold` seconds for a session that computes.
        """
        self._connection, self._space, self._wait, self._hold = connection, space, wait, hold
        self._dumps, self._loads = dumps, loads

    def cached(self, ttl=None, key=None, tags=(), stale_ok=None):
        """Decorates a function. `key` and `tags` are templates of its arguments: `key="price:{product}"`.

        `ttl` and `stale_ok` are timedeltas. Without `key`, the arguments must be strings, numbers, bytes, None or tuples of these.
        """
        def decorate(function):
            signature = inspect.signature(function)

            def named(args, kwargs):
                bound = signature.bind(*args, **kwargs)
                bound.apply_defaults()
                return bound.arguments

            def name(*args, **kwargs):
                arguments = named(args, kwargs)
                text = key.format(**arguments) if key else f"{function.__module__}.{function.__qualname__}{_text(arguments)}"
                # PostgreSQL's text holds no NUL.
                if len(text.encode()) <= KEY_BYTES_MAX and "\0" not in text:
                    return text
                return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

            def steps(args, kwargs):
                arguments = named(args, kwargs)
                settings = {"ttl": ttl, "tags": [tag.format(**arguments) for tag in tags], "stale_ok": stale_ok}
                return self._get_or_compute(name(*args, **kwargs), settings)

            wrapper = self._wrapper(function, steps)
            wrapper.key = name
            wrapper.invalidate = lambda *args, **kwargs: self._ask(DELETE, [name(*args, **kwargs), self._space])
            return wrapper
        return decorate

    def invalidate_tags(self, *tags, on=None):
        """Invalidates all values with one of the tags. `on` is a connection: other sessions see it when its transaction commits."""
        return self._ask(INVALIDATE, [list(tags)], on)

    def _get_or_compute(self, key, settings):
        """Yields what the caller must do: a query with its parameters, a number of seconds to sleep, or None, to compute."""
        deadline, pause = time.monotonic() + self._wait, POLL_SECONDS[0]
        while True:
            # cache_acquire could wait itself, but would keep a connection of the pool, which the computing function may need.
            value, status, lease = yield ACQUIRE, [key, self._space, self._hold]
            if status in ("hit", "stale"):
                return self._loads(value)
            if status == "compute":
                break
            if time.monotonic() > deadline:
                return (yield None)
            yield pause
            pause = min(2 * pause, POLL_SECONDS[1])
        try:
            result = yield None
            value = self._dumps(result)
        except BaseException:
            try:
                yield RELEASE, [key, lease, self._space]
            except psycopg.Error:
                pass  # in a failed transaction: its rollback releases the lease
            raise
        yield STORE, {"key": key, "value": value, "space": self._space, "lease": lease, **settings}
        return result

    def _ask(self, query, parameters, on=None):
        if on is not None:
            return on.execute(query, parameters).fetchone()
        with self._connection() as connection:
            return connection.execute(query, parameters).fetchone()

    def _wrapper(self, function, steps):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            flow, result = steps(args, kwargs), None
            proceed = flow.send
            while True:
                try:
                    step = proceed(result)
                except StopIteration as end:
                    return end.value
                try:
                    proceed = flow.send
                    if step is None:
                        result = function(*args, **kwargs)
                    else:
                        result = self._ask(*step) if isinstance(step, tuple) else time.sleep(step)
                except BaseException as error:
                    proceed, result = flow.throw, error
        return wrapper


class AsyncCache(Cache):
    """The same for coroutines: `connection` is `pool.connection` of an AsyncConnectionPool, and `invalidate` is awaited."""

    async def _ask(self, query, parameters, on=None):
        if on is not None:
            return await (await on.execute(query, parameters)).fetchone()
        async with self._connection() as connection:
            return await (await connection.execute(query, parameters)).fetchone()

    def _wrapper(self, function, steps):
        @functools.wraps(function)
        async def wrapper(*args, **kwargs):
            flow, result = steps(args, kwargs), None
            proceed = flow.send
            while True:
                try:
                    step = proceed(result)
                except StopIteration as end:
                    return end.value
                try:
                    proceed = flow.send
                    if step is None:
                        result = await function(*args, **kwargs)
                    else:
                        result = await (self._ask(*step) if isinstance(step, tuple) else asyncio.sleep(step))
                except BaseException as error:
                    proceed, result = flow.throw, error
        return wrapper


def _text(arguments):
    def check(value):
        if isinstance(value, tuple):
            return all(map(check, value))
        return isinstance(value, SIMPLE)

    flat = [*arguments.items()]
    if not all(check(value) for _, value in flat):
        raise TypeError("an argument is not a string, a number, bytes, None or a tuple of these: pass a key template")
    return repr(flat)
