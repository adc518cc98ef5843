"""Runs the tests that dogpile.cache has for backends with examples/backends/dogpile, under pytest.

DOGPILE_BACKEND is the directory of pg_cache_dogpile.py.
"""

import os
import sys

import psycopg_pool
from dogpile.testing.fixtures import (
    _GenericBackendTestSuite,
    _GenericMutexTestSuite,
    _GenericSerializerTestSuite,
)

sys.path.insert(0, os.environ["DOGPILE_BACKEND"])
import pg_cache_dogpile  # noqa: E402, F401

pool = psycopg_pool.ConnectionPool(min_size=1, max_size=5, kwargs={"autocommit": True}, open=True)


class _PgCache:
    backend = "pg_cache"
    config_args = {"arguments": {"connection": pool.connection}}


class TestBackend(_PgCache, _GenericBackendTestSuite):
    pass


class TestSerializedBackend(_GenericSerializerTestSuite, _PgCache, _GenericBackendTestSuite):
    pass


class TestMutex(_PgCache, _GenericMutexTestSuite):
    pass
