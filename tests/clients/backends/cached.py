"""Tests examples/backends/python/pg_cached.py. Prints "done" at the end if all is as expected.

    cached.py DIRECTORY      DIRECTORY contains pg_cached.py

`backends.rs` runs it on a new database, to which the variables of libpq lead. A *lease* is the right to compute the value of a key,
while other callers wait. After `cache_watch('product')`, a write to the table `product` invalidates the values with the tag
`product`. Each part is a function that the end of this file calls.
"""

import asyncio
import sys
import time
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from check import at_once, expect, refused

sys.path.insert(0, sys.argv[1])
from pg_cached import AsyncCache, Cache  # noqa: E402

owner = psycopg.connect(autocommit=True)
pool = ConnectionPool(min_size=2, max_size=4, open=True)
# Longer than a lease lasts: a lease that is not released costs 30 seconds.
PATIENT = {"wait": 60}
PROMPT_SECONDS = 20
cache = Cache(pool.connection, **PATIENT)


@contextmanager
def rolled_back(connection):
    with connection.transaction(force_rollback=True):
        yield


def counted(cents):
    """Returns a function with the attribute `calls`. It returns the price of a product, which it reads through the pool."""
    def price(product):
        price.calls += 1
        time.sleep(cents / 100)
        with pool.connection() as connection:
            return connection.execute("SELECT cents FROM product WHERE id = %s", [product]).fetchone()[0]

    price.calls = 0
    return price


# 40 threads miss at once, and share four connections with the function. One of them calls the function.
def one_thread_computes():
    function = counted(30)
    price = cache.cached(key="stampede:{product}")(function)
    expect(at_once(40, lambda: price(7)), [100] * 40)
    expect(function.calls, 1)


def the_result_of_a_failed_call_is_not_stored():
    calls = []

    @cache.cached()
    def fails(number):
        calls.append(number)
        if len(calls) < 3:
            raise ValueError(number)
        return "a result"

    # Without a release, the second call would wait for the lease of the first one.
    began = time.monotonic()
    for _ in range(2):
        expect(str(refused(ValueError, fails, 7)), "7")
    expect([fails(7), fails(7)], ["a result"] * 2)
    expect(len(calls), 3)
    expect(time.monotonic() - began < PROMPT_SECONDS, True)


def a_caller_waits_only_so_long():
    impatient = Cache(pool.connection, wait=0.1)
    answer = impatient.cached(key="held")(lambda: 42)
    lease = owner.execute("SELECT lease FROM cache_acquire_bytes('held')").fetchone()[0]
    expect(answer(), 42)
    expect(owner.execute("SELECT cache_exists('held')").fetchone()[0], False)
    owner.execute("SELECT cache_release('held', %s)", [lease])
    expect(answer(), 42)
    expect(owner.execute("SELECT cache_exists('held')").fetchone()[0], True)


# The tag `product` stands for the table. A commit invalidates the value, and a rollback leaves it as it is.
def a_write_to_a_watched_table_invalidates():
    function = counted(0)
    price = cache.cached(key="watched:{product}", tags=["product"])(function)
    expect([price(8), price(8), function.calls], [200, 200, 1])
    with psycopg.connect() as writer:
        writer.execute("UPDATE product SET cents = 201 WHERE id = 8")
        expect([price(8), function.calls], [200, 1])
        writer.rollback()
        expect([price(8), function.calls], [200, 1])
        writer.execute("UPDATE product SET cents = 201 WHERE id = 8")
        writer.commit()
    expect([price(8), function.calls], [201, 2])


# The function has read a row that another session then changes. The old result is returned once, but not stored.
def an_outdated_result_is_not_stored():
    calls = []

    @cache.cached(key="outdated", tags=["product"])
    def price():
        cents = owner.execute("SELECT cents FROM product WHERE id = 9").fetchone()[0]
        if not calls:
            with psycopg.connect() as writer:
                writer.execute("UPDATE product SET cents = 301 WHERE id = 9")
        calls.append(cents)
        return cents

    began = time.monotonic()
    expect([price(), price(), price()], [300, 301, 301])
    expect(calls, [300, 301])
    # The refused set has released the lease: the second call has not waited.
    expect(time.monotonic() - began < PROMPT_SECONDS, True)


# A cache on the connection of the application's transaction sees what this transaction has written.
def the_own_transaction():
    began = time.monotonic()
    with psycopg.connect() as connection:
        function = counted(0)
        own = Cache(lambda: nullcontext(connection), **PATIENT)

        @own.cached(key="own", tags=["product"])
        def price():
            function.calls += 1
            return connection.execute("SELECT cents FROM product WHERE id = 10").fetchone()[0]

        expect([price(), price(), function.calls], [400, 400, 1])
        connection.commit()
        connection.execute("UPDATE product SET cents = 401 WHERE id = 10")
        expect([price(), price(), function.calls], [401, 401, 3])
        connection.rollback()
        expect([price(), function.calls], [400, 3])
        connection.rollback()
        connection.execute("UPDATE product SET cents = 402 WHERE id = 10")
        expect([price(), function.calls], [402, 4])
        connection.commit()
        expect([price(), price(), function.calls], [402, 402, 5])

        # The error of the function arrives, not the error of the failed transaction.
        fails = own.cached()(lambda: connection.execute("SELECT 1 / 0"))
        refused(psycopg.errors.DivisionByZero, fails)
        connection.rollback()
        refused(psycopg.errors.DivisionByZero, fails)
    # The refused sets have released their leases.
    expect(time.monotonic() - began < PROMPT_SECONDS, True)


def tags_and_keys():
    calls = []

    @cache.cached(ttl=timedelta(hours=1), tags=["user:{user}", "names"])
    def name(user, *, upper=False):
        calls.append(user)
        return f"{'USER' if upper else 'user'} {user}"

    expect([name(1), name(1, upper=False), name(1, upper=True), name(2)], ["user 1", "user 1", "USER 1", "user 2"])
    expect(calls, [1, 1, 2])
    cache.invalidate_tags("user:1")
    expect([name(1), name(2)], ["user 1", "user 2"])
    expect(calls, [1, 1, 2, 1])
    with rolled_back(owner):
        cache.invalidate_tags("names", on=owner)
    expect([name(1), name(2), len(calls)], ["user 1", "user 2", 4])
    name.invalidate(2)
    expect([name(1), name(2), len(calls)], ["user 1", "user 2", 5])
    left = owner.execute("SELECT cache_ttl(%s)", [name.key(2)]).fetchone()[0]
    expect(timedelta(minutes=59) < left <= timedelta(hours=1), True)

    echo = cache.cached()(lambda *values: (calls.append(values), values)[1])
    for values in [("x" * 5000,), ("a\0b",), ("a", "b"), ("a,b",), (1,), (True,), ((1, 2), None), ()]:
        calls.clear()
        expect([echo(*values), echo(*values)], [values, values])
        expect(calls, [values])
    refused(TypeError, echo, object())
    nothing = cache.cached()(lambda: calls.append(1))
    calls.clear()
    expect([nothing(), nothing(), calls], [None, None, [1]])


# While one caller computes a new value, the others get the old one.
def stale_values():
    numbers = iter(range(10))
    number = cache.cached(key="stale", tags=["stale"], stale_ok=timedelta(hours=1))(lambda: next(numbers))
    expect(number(), 0)
    cache.invalidate_tags("stale")
    lease = owner.execute("SELECT lease FROM cache_acquire_bytes('stale')").fetchone()[0]
    expect(number(), 0)
    owner.execute("SELECT cache_release('stale', %s)", [lease])
    expect([number(), number()], [1, 1])


async def coroutines():
    calls = []
    async with AsyncConnectionPool(min_size=1, max_size=3, open=False) as connections:
        async_cache = AsyncCache(connections.connection, **PATIENT)

        @async_cache.cached(key="async:{product}", tags=["async"])
        async def price(product):
            calls.append(product)
            await asyncio.sleep(0.2)
            async with connections.connection() as connection:
                return (await (await connection.execute("SELECT cents FROM product WHERE id = %s", [product])).fetchone())[0]

        expect(await asyncio.gather(*[price(7) for _ in range(60)]), [100] * 60)
        expect(calls, [7])
        await async_cache.invalidate_tags("async")
        expect([await price(7), len(calls)], [100, 2])
        await price.invalidate(7)

        # A cancelled caller releases its lease.
        task = asyncio.create_task(price(7))
        while len(calls) < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        began = time.monotonic()
        expect([await price(7), len(calls)], [100, 4])
        expect(time.monotonic() - began < PROMPT_SECONDS, True)


owner.execute("CREATE TABLE product (id int PRIMARY KEY, cents int)")
owner.execute("INSERT INTO product SELECT id, 100 * (id - 6) FROM generate_series(7, 10) AS id")
owner.execute("SELECT cache_watch('product')")
try:
    one_thread_computes()
    the_result_of_a_failed_call_is_not_stored()
    a_caller_waits_only_so_long()
    a_write_to_a_watched_table_invalidates()
    an_outdated_result_is_not_stored()
    the_own_transaction()
    tags_and_keys()
    stale_values()
    asyncio.run(coroutines())
finally:
    owner.execute("DROP TABLE product")
    pool.close()
print("done")
