"""Runs Django's own tests of cache backends with examples/backends/django. Prints the counts of tests, like unittest.

    django_suite.py DIRECTORY DJANGO      DIRECTORY contains pg_cache_django.py, DJANGO is an unpacked source distribution of Django
"""

import os
import sys
import unittest
from pathlib import Path

import django
from django.conf import settings

sys.path[:0] = [sys.argv[1], str(Path(sys.argv[2]) / "tests")]
database = {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"]}
settings.configure(
    SECRET_KEY="tests",
    DATABASES={"default": database},
    INSTALLED_APPS=["cache"],
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    USE_TZ=False,
)
django.setup()

from cache import tests  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import TestCase, TransactionTestCase, override_settings  # noqa: E402
from django.test.utils import setup_test_environment  # noqa: E402

# The suite counts entries with the settings "cull" and "zero_cull", and expects a third of them to be removed.
caches = override_settings(
    CACHES=tests.caches_setting_for_tests(BACKEND="pg_cache_django.PgCache", exclude={"cull", "zero_cull"})
)


@caches
class PgCacheTests(tests.BaseCacheTests, TransactionTestCase):
    """Each call of the cache commits."""

    available_apps = ["cache"]
    incr_decr_type_error = TypeError


@caches
class PgCacheInTransactionTests(tests.BaseCacheTests, TestCase):
    """All calls of a test belong to one transaction, which is rolled back."""

    incr_decr_type_error = TypeError


setup_test_environment()
call_command("migrate", run_syncdb=True, verbosity=0)
loader = unittest.defaultTestLoader
suite = unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in (PgCacheTests, PgCacheInTransactionTests))
result = unittest.TextTestRunner(verbosity=1).run(suite)
for test, reason in result.skipped:
    print(f"skipped {test.id().rsplit('.', 1)[-1]}: {reason}")
print(f"{result.testsRun - len(result.skipped) - len(result.failures) - len(result.errors)} passed")
sys.exit(not result.wasSuccessful())
