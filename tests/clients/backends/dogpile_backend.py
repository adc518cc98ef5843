"""Tests what examples/backends/dogpile adds to the tests of dogpile.cache. Prints "done" at the end if all is as expected.

    dogpile_backend.py DIRECTORY      DIRECTORY contains pg_cache_dogpile.py

`backends.rs` runs it on a new database, to which the variables of libpq lead. A *lease* is the right to compute the value of a key,
while other callers wait. After `cache_watch('product')`, a write to the table `product` invalidates the values with the tag
`product`. Each part is a function that the end of this file calls.
"""

import sys
import threading
import time
from contextlib import nullcontext
from datetime import timedelta

import psycopg
from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE
from psycopg_pool import ConnectionPool

from check import at_once, expect, refused

sys.path.insert(0, sys.argv[1])
import pg_cache_dogpile  # noqa: E402, F401

# A lease that is not released costs 30 seconds.
PROMPT_SECONDS = 20
owner = psycopg.connect(autocommit=True)
# One pool for each region, as in several processes.
pools = [ConnectionPool(min_size=1, max_size=3, open=True) for _ in range(2)]
arguments = {"space": "dogpile", "tags": lambda key: ["product"] if key.startswith("price") else [], "ttl": timedelta(hours=1)}
regions = [make_region().configure("pg_cache", arguments={**arguments, "connection": pool.connection}) for pool in pools]
region = regions[0]


def ask(query, *parameters):
    return owner.execute(query, parameters).fetchone()[0]


def cents():
    with pools[0].connection() as connection:
        return connection.execute("SELECT cents FROM product").fetchone()[0]


# Threads of two regions, with as many connections as two small pools have. One of them creates the value.
def one_thread_creates():
    calls, turns = [], iter(range(40))

    def create():
        calls.append(1)
        time.sleep(0.3)
        return cents()

    expect(at_once(40, lambda: regions[next(turns) % 2].get_or_create("price of 7", create)), [100] * 40)
    expect(calls, [1])


# While one thread creates a new value, the others get the value that dogpile.cache considers expired.
def one_thread_renews():
    numbers = iter(range(1000))
    for region in regions:
        region.set("number", next(numbers))
    time.sleep(0.1)
    began, go_on = threading.Event(), threading.Event()

    def create():
        began.set()
        go_on.wait()
        return next(numbers)

    renewer = threading.Thread(target=lambda: regions[0].get_or_create("number", create, expiration_time=0.1))
    renewer.start()
    began.wait()
    got = at_once(20, lambda: regions[1].get_or_create("number", lambda: next(numbers), expiration_time=0.1))
    go_on.set()
    renewer.join()
    expect(got, [1] * 20)
    expect([region.get("number") for region in regions], [2, 2])


def the_value_of_a_failed_call_is_not_stored():
    began = time.monotonic()
    for _ in range(2):
        refused(ZeroDivisionError, region.get_or_create, "fails", lambda: 1 / 0)
    expect(regions[1].get_or_create("fails", lambda: "no more"), "no more")
    expect(region.get_or_create("unwanted", lambda: 1, should_cache_fn=lambda value: False), 1)
    expect(regions[1].get_or_create("unwanted", lambda: 2), 2)
    expect(time.monotonic() - began < PROMPT_SECONDS, True)


def a_write_to_a_watched_table_invalidates():
    def write(connection, number):
        connection.execute("UPDATE product SET cents = %s", [number])

    def create_and_change():
        old = cents()
        write(owner, 103)
        return old

    began = time.monotonic()
    region.delete("price")
    expect([region.get_or_create("price", cents), region.get("price")], [100, 100])
    with psycopg.connect() as writer:
        write(writer, 0)
        writer.rollback()
        expect(regions[1].get("price"), 100)
        write(writer, 101)
        expect(regions[1].get("price"), 100)
        writer.commit()
    expect(regions[1].get("price"), NO_VALUE)
    expect(region.get_or_create_multi(["price", "price 2"], lambda *keys: [cents()] * len(keys)), [101, 101])
    expect(regions[1].get_multi(["price", "price 2"]), [101, 101])
    write(owner, 102)
    # An outdated value is returned once, and not stored.
    expect([region.get_or_create("price", create_and_change), region.get("price")], [102, NO_VALUE])
    write(owner, 102)
    expect(region.get_or_create_multi(["price", "price 2"], lambda *keys: [create_and_change()] * len(keys)), [102, 102])
    expect(region.get_multi(["price", "price 2"]), [NO_VALUE, NO_VALUE])
    expect(region.get_or_create("price", cents), 103)
    region.actual_backend.invalidate_tags("product")
    expect(region.get("price"), NO_VALUE)
    expect(time.monotonic() - began < PROMPT_SECONDS, True)


# A value that another thread sets while one is being created stays, also if it is newer than the lease of the creator.
def a_set_during_the_creation():
    def create():
        old = cents()
        owner.execute("UPDATE product SET cents = 104")
        at_once(1, lambda: region.set("price of 8", cents()))
        return old

    expect([region.get_or_create("price of 8", create), region.get("price of 8")], [103, 104])


# A region on the connection of a transaction: its changes are visible at the commit.
def transactions():
    with psycopg.connect() as connection:
        own = make_region().configure("pg_cache", arguments={**arguments, "connection": lambda: nullcontext(connection)})
        own.set("mine", 1)
        expect([own.get("mine"), region.get("mine")], [1, NO_VALUE])
        connection.rollback()
        expect([own.get("mine"), region.get("mine")], [NO_VALUE, NO_VALUE])
        own.set("mine", 2)
        connection.commit()
        expect([own.get("mine"), region.get("mine")], [2, 2])


def keys_and_times():
    region.set("k" * 5000, "long")
    expect([region.get("k" * 5000), region.get("k" * 5001)], ["long", NO_VALUE])
    region.set("a\0b", "NUL")
    expect(region.get("a\0b"), "NUL")
    left = ask("SELECT cache_ttl('mine', 'dogpile')")
    expect(timedelta(minutes=59) < left <= timedelta(hours=1), True)


ask("SELECT cache_create_space('dogpile', if_not_exists => true)")
owner.execute("CREATE TABLE product (cents int); INSERT INTO product VALUES (100); SELECT cache_watch('product')")
try:
    one_thread_creates()
    one_thread_renews()
    the_value_of_a_failed_call_is_not_stored()
    a_write_to_a_watched_table_invalidates()
    a_set_during_the_creation()
    transactions()
    keys_and_times()
finally:
    owner.execute("DROP TABLE product")
    for pool in pools:
        pool.close()
print("done")
