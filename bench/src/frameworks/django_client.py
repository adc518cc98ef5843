"""Runs Django's cache backends for the part frameworks-django of make bench. client.rs describes and sends the commands.

    django_client.py DIRECTORY SOCKET SPACE KEYS BYTES MANY

DIRECTORY contains pg_cache_django.py, SOCKET is that of Redis, and SPACE a space, a named cache, of pg_cache. KEYS is the number of
keys, BYTES the length of a value, and MANY the number of keys in a call that gets many.

client.rs calls a contender by its position in `contenders`. The first must be pg_cache, and must take part in all operations. An
operation that reads must raise an error after a miss: a fast miss must not be timed.
"""

import json
import os
import random
import sys
import time
from importlib.metadata import version

import django
import hiredis  # noqa: F401  redis-py uses it if it is there
from django.conf import settings

directory, socket, space = sys.argv[1:4]
key_count, value_bytes, many = map(int, sys.argv[4:])
sys.path.insert(0, directory)
TTL_SECONDS = 86400


def database_cache(table):
    # By default, a cache has at most 300 entries.
    options = {"MAX_ENTRIES": 100 * key_count}
    return {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": table, "OPTIONS": options}


# The variables of libpq lead to the server.
database = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": os.environ["PGDATABASE"],
    "CONN_MAX_AGE": None,
    "OPTIONS": {"server_side_binding": True, "prepare_threshold": 5},
}
contenders = {
    "pg_cache": {"BACKEND": "pg_cache_django.PgCache", "LOCATION": space},
    "DatabaseCache": database_cache("cache_entry"),
    "DatabaseCache, UNLOGGED": database_cache("cache_entry_unlogged"),
    "RedisCache": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"unix://{socket}"},
}
settings.configure(
    DATABASES={"default": database},
    CACHES={"default": contenders["pg_cache"]} | {name: {**one, "TIMEOUT": TTL_SECONDS} for name, one in contenders.items()},
)
django.setup()

from django.core.cache import caches  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402

keys = [f"key:{number:04}" for number in range(key_count)]
random.Random(1).shuffle(keys)
counters = [f"counter:{key}" for key in keys]
value = "x" * value_bytes
groups = [[keys[(start + step) % key_count] for step in range(many)] for start in range(key_count)]


def get(cache, turn):
    if len(cache.get(keys[turn])) != value_bytes:
        raise ValueError("get returns another value")


def set_value(cache, turn):
    cache.set(keys[turn], value)


def get_many(cache, turn):
    if len(cache.get_many(groups[turn])) != many:
        raise ValueError("get_many misses a key")


def incr(cache, turn):
    if cache.incr(counters[turn]) < 1:
        raise ValueError("incr does not count up")


operations = {"get": get, "set": set_value, "get_many": get_many, "incr": incr}
titles = {name: f"`cache.{name}`" for name in operations}
titles["get_many"] += f", {many} keys"
# A read does not depend on whether a table is UNLOGGED.
takes_part = {name: ["set", "incr"] if name.endswith("UNLOGGED") else list(operations) for name in contenders}


def fill(cache):
    with transaction.atomic():
        cache.set_many(dict.fromkeys(keys, value))
        cache.set_many(dict.fromkeys(counters, 0))


def run(operation, cache, nanoseconds):
    """Repeats an operation for a while. Returns the number of calls, and the nanoseconds that they took."""
    count, began = 0, time.perf_counter_ns()
    while True:
        operation(cache, count % key_count)
        count += 1
        passed = time.perf_counter_ns() - began
        if passed >= nanoseconds:
            return count, passed


call_command("createcachetable", verbosity=0)
with connection.cursor() as cursor:
    cursor.execute("ALTER TABLE cache_entry_unlogged SET UNLOGGED")
for name in contenders:
    fill(caches[name])
with connection.cursor() as cursor:
    cursor.execute("ANALYZE cache_entry, cache_entry_unlogged")

packages = {"Django": "Django", "psycopg": "psycopg", "redis": "redis-py", "hiredis": "hiredis"}
versions = [f"{name} {version(package)}" for package, name in packages.items()]
roster = {
    "versions": f"Python {sys.version.split()[0]}, {', '.join(versions)}",
    "operations": [{"id": name, "title": titles[name]} for name in operations],
    "contenders": [{"name": name, "operations": takes_part[name]} for name in contenders],
    "missing": [],
    "notes": [
        "All contenders in PostgreSQL use the one connection of Django, outside of transactions, with the options "
        "`server_side_binding` and `prepare_threshold`, so that psycopg prepares the statements.",
        "`DatabaseCache` may have more entries than there are (`MAX_ENTRIES`), so it deletes none.",
        "Its `incr` reads and sets, and may lose a change of another client; those of pg_cache and Redis do not.",
    ],
}
print(json.dumps(roster), flush=True)
for line in sys.stdin:
    number, operation, milliseconds = line.split()
    cache = caches[list(contenders)[int(number)]]
    print(*run(operations[operation], cache, int(milliseconds) * 1_000_000), flush=True)
connection.close()
