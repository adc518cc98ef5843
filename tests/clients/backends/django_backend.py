"""Tests what examples/backends/django adds to Django's own tests. Prints "done" at the end if all is as expected.

    django_backend.py DIRECTORY      DIRECTORY contains pg_cache_django.py

`backends.rs` runs it on a new database, to which the variables of libpq lead. A *lease* is the right to compute the value of a key,
while other callers wait. After `cache_watch('product')`, a write to the table `product` invalidates the values with the tag
`product`. Each part is a function that the end of this file calls.
"""

import asyncio
import os
import sys
import time
import warnings

import django
from django.conf import settings

from check import at_once, expect, refused

sys.path.insert(0, sys.argv[1])
# The variables of libpq lead to the server.
database = {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"]}
# Longer than a lease lasts: a lease that is not released costs 30 seconds.
backend = {"BACKEND": "pg_cache_django.PgCache", "LOCATION": "django", "OPTIONS": {"wait": 60}}
PROMPT_SECONDS = 20
settings.configure(
    DATABASES={"default": database},
    CACHES={"default": backend, "impatient": {**backend, "OPTIONS": {"wait": 0.1}}},
)

django.setup()

from django.core.cache import CacheKeyWarning, cache, caches  # noqa: E402
from django.db import DataError, connection, transaction  # noqa: E402


def ask(query, *parameters):
    """Returns the only value of the only row of a query, through a connection that Django does not know."""
    return other.execute(query, parameters).fetchone()[0]


# Keys may be longer than memcached allows.
warnings.simplefilter("ignore", CacheKeyWarning)


class Rollback(Exception):
    pass


def rolled_back(function):
    try:
        with transaction.atomic():
            function()
            raise Rollback
    except Rollback:
        pass


# Each thread has its own connection. One of them computes.
def one_thread_computes():
    calls = []

    def compute():
        calls.append(1)
        time.sleep(0.3)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 42")
            return cursor.fetchone()[0]

    def thread():
        try:
            return cache.get_or_set("stampede", compute)
        finally:
            connection.close()

    expect(at_once(20, thread), [42] * 20)
    expect(calls, [1])
    # get_or_set stores an integer as set does, so that incr is atomic.
    expect(cache.incr("stampede"), 43)
    expect(at_once(20, lambda: (cache.incr("stampede"), connection.close())) and cache.get("stampede"), 63)


def a_caller_waits_only_so_long():
    lease = ask("SELECT lease FROM cache_acquire_text(':1:held', 'django')")
    expect(caches["impatient"].get_or_set("held", 1), 1)
    expect(cache.get("held"), None)
    ask("SELECT cache_release(':1:held', %s, 'django')", lease)
    expect(cache.get_or_set("held", 2), 2)
    expect(cache.get("held"), 2)


def the_value_of_a_failed_call_is_not_stored():
    began = time.monotonic()
    for _ in range(2):
        refused(ZeroDivisionError, cache.get_or_set, "fails", lambda: 1 / 0)
        # A value that cannot be pickled releases the lease, too.
        refused(AttributeError, cache.get_or_set, "fails", lambda: lambda: 0)
    expect(cache.get_or_set("fails", "no more"), "no more")

    # In a failed transaction, the error of the function arrives, and the rollback releases the lease.
    def fail():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 / 0")

    def attempt():
        with transaction.atomic():
            cache.get_or_set("fails_in_transaction", fail)

    for _ in range(2):
        refused(DataError, attempt)
    expect(time.monotonic() - began < PROMPT_SECONDS, True)


def tags():
    cache.set("a", "one", tags=["x"])
    cache.set_many({"b": 2, "c": "three"}, tags=["x", "y"])
    cache.add("d", 4, tags=["y"])
    expect(cache.get_or_set("e", lambda: "five", tags=["y"]), "five")
    expect(cache.get_many("abcde"), {"a": "one", "b": 2, "c": "three", "d": 4, "e": "five"})
    rolled_back(lambda: cache.invalidate_tags("x", "y"))
    expect(len(cache.get_many("abcde")), 5)
    cache.invalidate_tags("y")
    expect(cache.get_many("abcde"), {"a": "one"})


# Other sessions see changes of the cache at the commit of the transaction, and never those of a rollback.
def transactions():
    cache.set("answer", "old")
    seen = "SELECT position(%s::bytea IN decode(cache_get_text(':1:answer', 'django'), 'base64')) > 0"

    def change():
        cache.set("answer", "new")
        cache.set("number", 7)
        expect(cache.get("answer"), "new")
        expect(ask(seen, b"old"), True)

    rolled_back(change)
    expect([cache.get("answer"), cache.get("number")], ["old", None])
    with transaction.atomic():
        change()
    expect([cache.get("answer"), cache.get("number"), ask(seen, b"new")], ["new", 7, True])
    rolled_back(cache.clear)
    expect(cache.get("answer"), "new")


# A tag of a watched table makes a value depend on the table. An outdated value is not stored.
def a_write_to_a_watched_table_invalidates():
    def price():
        return cache.get_or_set("price", lambda: ask("SELECT cents FROM product"), timeout=None, tags=["product"])

    def write(cents):
        with connection.cursor() as cursor:
            cursor.execute("UPDATE product SET cents = %s", [cents])

    def write_and_return_the_old_price():
        cents = ask("SELECT cents FROM product")
        write(102)
        return cents

    began = time.monotonic()
    expect([price(), cache.get("price")], [100, 100])
    rolled_back(lambda: (write(0), expect(cache.get("price"), None)))
    expect(cache.get("price"), 100)
    with transaction.atomic():
        write(101)
    expect([cache.get("price"), price(), cache.get("price")], [None, 101, 101])
    cache.delete("price")
    expect(cache.get_or_set("price", write_and_return_the_old_price, tags=["product"]), 101)
    expect([cache.get("price"), price(), price()], [None, 102, 102])
    rolled_back(lambda: (write(0), price(), price()))
    expect(time.monotonic() - began < PROMPT_SECONDS, True)


def limits():
    cache.set("k" * 2000, "long")
    expect([cache.get("k" * 2000), cache.get("k" * 2001), cache.incr_version("k" * 2000)], ["long", None, 2])
    expect(cache.set_many({"fits": 1, "large": "x" * 9_000_000, "fits_too": "y"}), ["large"])
    expect(cache.get_many(["fits", "large", "fits_too"]), {"fits": 1, "fits_too": "y"})
    for number in (2**63 - 1, -(2**63), 2**63, 10**30, True, 1.5, None):
        cache.set("n", number)
        expect(cache.get("n"), number)
    cache.set("n", 1.5)
    expect(cache.incr("n"), 2.5)
    cache.set("n", 2**63)
    expect([cache.incr("n"), cache.decr("n", 2**63), cache.incr("n")], [2**63 + 1, 1, 2])
    cache.set("n", 1, stale=60)
    refused(ValueError, cache.incr, "missing")
    # incr acts at once, like a sequence.
    rolled_back(lambda: cache.incr("n"))
    expect(cache.get("n"), 2)


async def coroutines():
    expect(await cache.aset("async", 1, tags=["async"]), True)
    expect(await cache.aset_many({"async2": 2}, tags=["async"]), [])
    expect(await cache.aget_many(["async", "async2"]), {"async": 1, "async2": 2})
    expect(await asyncio.gather(*[cache.aget_or_set("async3", 3, tags=["async"]) for _ in range(5)]), [3] * 5)
    expect([await cache.aincr("async"), await cache.adecr("async")], [2, 1])
    await cache.ainvalidate_tags("async")
    expect(await cache.aget_many(["async", "async2", "async3"]), {})


if __name__ == "__main__":
    import psycopg

    other = psycopg.connect(autocommit=True)
    ask("SELECT cache_create_space('django', max_ttl => '30 days', if_not_exists => true)")
    other.execute("CREATE TABLE product (cents int); INSERT INTO product VALUES (100); SELECT cache_watch('product')")
    try:
        one_thread_computes()
        a_caller_waits_only_so_long()
        the_value_of_a_failed_call_is_not_stored()
        tags()
        transactions()
        a_write_to_a_watched_table_invalidates()
        limits()
        asyncio.run(coroutines())
    finally:
        connection.close()
        other.execute("DROP TABLE product")
    print("done")
