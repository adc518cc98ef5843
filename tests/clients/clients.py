"""Uses the cache through psycopg 3: the Python value of each type, and the errors that new users meet.

    clients.py prepared|unprepared

"unprepared" is for a pooler that loses statements prepared on the server. Prints "done" at the end if all is as expected.
"""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import psycopg
from psycopg import errors
from psycopg.types.json import Json, Jsonb

PREPARED = sys.argv[1] == "prepared"
MEGABYTE = 1024 * 1024

connection = psycopg.connect(autocommit=True)
if not PREPARED:
    connection.prepare_threshold = None


def ask(query, *arguments, **options):
    """Returns the only value of the only row of a query."""
    return connection.execute(query, arguments, **options).fetchone()[0]


def expect(actual, expected):
    if actual != expected or type(actual) is not type(expected):
        raise AssertionError(f"{actual!r:.200} is not {expected!r:.200}")


def refused(error, literal, query, *arguments):
    """Fails unless the query raises this error, with this text in its message."""
    try:
        ask(query, *arguments)
    except error as found:
        if literal not in str(found):
            raise AssertionError(f"{str(found)!r} does not say {literal!r}") from None
        return
    raise AssertionError(f"{query} is no error")


# Each value comes back equal and with the same Python type.
def values():
    for value in [
        {"name": "Zoë", "nested": [1, 2.5, None, True, {"": "empty key"}], "🔑": "emoji"},
        [], {}, "text", "", 0, -1.5, 10**30, True, ["a", "b"], "line\nbreak \\ \" '",
    ]:
        expect(ask("SELECT cache_set('j', %s)", Jsonb(value)), True)
        expect(ask("SELECT cache_get('j')"), value)
    for value in ["", "text", "a\tb\n\\x00 ' \"", "Ünïcödé 日本語 🦀 e\u0301", "x" * (5 * MEGABYTE)]:
        expect(ask("SELECT cache_set_text('t', %s)", value), True)
        expect(ask("SELECT cache_get_text('t')"), value)
    for value in [b"", bytes(range(256)), bytes(range(256)) * (5 * MEGABYTE // 256)]:
        for form in ("%s", "%b", "%t"):
            expect(ask(f"SELECT cache_set_bytes('b', {form})", value), True)
            expect(ask("SELECT cache_get_bytes('b')"), value)
    large = {"large": ["é" * 1000] * 2500}
    expect(ask("SELECT cache_set('large', %s)", Jsonb(large)), True)
    expect(ask("SELECT cache_get('large')"), large)
    # The next results are in binary format on the wire, not in text format.
    expect(ask("SELECT cache_get('large')", binary=True), large)
    expect(ask("SELECT cache_get_bytes('b')", binary=True), value)


def misses_and_nulls():
    """None is a miss. The null of JSON looks the same: cache_exists and a cast to text tell them apart."""
    expect(ask("SELECT cache_get('none')"), None)
    expect(ask("SELECT cache_set('null', %s)", Jsonb(None)), True)
    expect(ask("SELECT cache_get('null')"), None)
    expect(ask("SELECT cache_exists('null')"), True)
    expect(ask("SELECT cache_exists('none')"), False)
    expect(ask("SELECT cache_get('null')::text"), "null")
    expect(connection.execute("SELECT * FROM cache_get_many(%s)", [["none", "null"]]).fetchall(), [("null", None)])
    refused(errors.NullValueNotAllowed, "value must not be null", "SELECT cache_set('k', %s)", None)
    refused(errors.NullValueNotAllowed, "key must not be null", "SELECT cache_get(%s)", None)


# Keys of 1 to 1024 bytes are told apart by their bytes. Under other keys, nothing is stored and reads miss.
def keys():
    names = ["ключ", "鍵", "🔑", "e\u0301", "é", "with space", "quote'\"", "back\\slash", "%s {} $1", "k" * 1024, "ü" * 512]
    for place, name in enumerate(names):
        expect(ask("SELECT cache_set(%s, %s)", name, Jsonb(place)), True)
    found = connection.execute("SELECT * FROM cache_get_many(%s)", [names + ["none"]]).fetchall()
    expect(found, [(name, place) for place, name in enumerate(names)])
    expect(ask("SELECT count(*) FROM cache_get_many(%s)", []), 0)
    expect(ask("SELECT cache_set_many(%s)", Jsonb({name: [name] for name in names})), len(names))
    expect(ask("SELECT cache_get(%s)", "🔑"), ["🔑"])
    expect(ask("SELECT cache_delete_many(%s)", names), len(names))
    for name in ["ü" * 512 + "k", ""]:
        expect(ask("SELECT cache_set(%s, %s)", name, Jsonb(1)), False)
        expect(ask("SELECT cache_get(%s)", name), None)
    # PostgreSQL's text and jsonb cannot contain a NUL.
    refused(psycopg.DataError, "NUL", "SELECT cache_get(%s)", "a\0b")
    refused(errors.UntranslatableCharacter, "unsupported Unicode escape", "SELECT cache_set('k', %s)", Jsonb("a\0b"))
    refused(UnicodeEncodeError, "surrogates not allowed", "SELECT cache_get(%s)", "\udc80")


# A timedelta is an interval. A plain number is not, and the error says so.
def lifetimes():
    expect(ask("SELECT cache_set('life', %s, %s)", Jsonb(1), timedelta(minutes=10)), True)
    left = ask("SELECT cache_ttl('life')")
    if not timedelta(minutes=9) < left <= timedelta(minutes=10):
        raise AssertionError(left)
    expect(ask("SELECT cache_touch('life', %s)", timedelta(days=1)), True)
    expect(ask("SELECT cache_ttl('none')"), None)
    expect(ask("SELECT cache_set('life', %s, ttl => %s)", Jsonb(1), "90 s"), True)
    refused(errors.UndefinedFunction, "function cache_set(unknown, jsonb, smallint) does not exist",
            "SELECT cache_set('life', %s, %s)", Jsonb(1), 60)
    expect(ask("SELECT cache_set('life', %s, %s)", Jsonb(1), timedelta(0)), False)
    expect(ask("SELECT cache_exists('life')"), False)
    refused(errors.InvalidParameterValue, "ttl must not be longer than a year", "SELECT cache_set('life', %s, %s)", Jsonb(1), timedelta(days=367))


def tags():
    expect(ask("SELECT cache_set('tagged', %s, tags => %s)", Jsonb(1), ["a", "b 🏷", "c,{}\""]), True)
    ask("SELECT cache_invalidate_tags(%s)", ["b 🏷"])
    expect(ask("SELECT cache_get('tagged')"), None)


def values_that_are_not_jsonb():
    """The exact errors, and the calls that avoid them."""
    refused(errors.InvalidTextRepresentation, "DETAIL:  Token \"hello\" is invalid.", "SELECT cache_set('k', 'hello')")
    refused(errors.InvalidTextRepresentation, "invalid input syntax for type json", "SELECT cache_set('k', %s)", "hello")
    refused(errors.InvalidTextRepresentation, "invalid input syntax for type json", "SELECT cache_set('k', %s)", ["a", "b"])
    refused(errors.UndefinedFunction, "function cache_set(unknown, smallint[]) does not exist", "SELECT cache_set('k', %s)", [1, 2])
    refused(errors.UndefinedFunction, "function cache_set(unknown, json) does not exist", "SELECT cache_set('k', %s)", Json({}))
    refused(psycopg.ProgrammingError, "cannot adapt type 'dict'", "SELECT cache_set('k', %s)", {})
    # The worst case raises no error: an empty list is sent as {}, which is an empty object in JSON.
    expect(ask("SELECT cache_set('k', %s)", []), True)
    expect(ask("SELECT cache_get('k')"), {})
    for value in ["hello", ["a", "b"], [1, 2], [], {}]:
        expect(ask("SELECT cache_set('k', %s)", Jsonb(value)), True)
        expect(ask("SELECT cache_get('k')"), value)
    refused(errors.DatatypeMismatch, "key \"k\" holds jsonb, not text\nHINT:  Use cache_get to read it.", "SELECT cache_get_text('k')")


def prepared():
    """Runs each statement 20 times, so that the server switches to a generic plan if psycopg prepares them."""
    for number in range(20):
        key = f"prepared {number % 3}"
        expect(ask("SELECT cache_set(%s, %s, %s)", key, Jsonb(number), timedelta(hours=1), prepare=PREPARED), True)
        expect(ask("SELECT cache_get(%s)", key, prepare=PREPARED), number)
        many = connection.execute("SELECT key, value FROM cache_get_many(%s)", [[key, "none"]], prepare=PREPARED)
        expect(many.fetchall(), [(key, number)])
        expect(ask("SELECT cache_incr('prepared')", prepare=PREPARED), number + 1)


# Other sessions see the changes of a transaction after its commit. A nested block is a savepoint.
def transactions():
    ask("SELECT cache_set('k', %s)", Jsonb("old"))
    with psycopg.connect(autocommit=True, prepare_threshold=None) as other:
        def elsewhere():
            return other.execute("SELECT cache_get('k')").fetchone()[0]
        with connection.transaction():
            ask("SELECT cache_set('k', %s)", Jsonb("new"))
            with connection.transaction(force_rollback=True):
                ask("SELECT cache_set('k', %s)", Jsonb("never"))
                expect(ask("SELECT cache_get('k')"), "never")
            expect(ask("SELECT cache_get('k')"), "new")
            expect(elsewhere(), "old")
        expect(elsewhere(), "new")
    # An error in a nested block rolls back only that block.
    with connection.transaction():
        ask("SELECT cache_set('k', %s)", Jsonb("kept"))
        try:
            with connection.transaction():
                ask("SELECT cache_set('k', %s)", Jsonb("never"))
                ask("SELECT cache_invalidate_tag('')")
        except errors.InvalidParameterValue:
            pass
    expect(ask("SELECT cache_get('k')"), "kept")


def many_at_once():
    """Pipelined statements, executemany, COPY and a server-side cursor."""
    with connection.pipeline():
        cursors = [connection.execute("SELECT cache_set(%s, %s)", [f"pipe {i}", Jsonb(i)]) for i in range(100)]
        cursors += [connection.execute("SELECT cache_get(%s)", [f"pipe {i}"]) for i in range(100)]
    expect([cursor.fetchone()[0] for cursor in cursors], [True] * 100 + list(range(100)))
    with connection.cursor() as cursor:
        cursor.executemany("SELECT cache_set_text(%s, %s)", [(f"row {i}", str(i)) for i in range(100)])
        with cursor.copy("COPY (SELECT cache_get_text('row ' || i) FROM generate_series(0, 99) AS i) TO STDOUT") as copy:
            expect([row[0] for row in copy.rows()], [str(i) for i in range(100)])
    with connection.transaction(), connection.cursor(name="held") as cursor:
        cursor.itersize = 10
        cursor.execute("SELECT cache_get('pipe ' || i) FROM generate_series(0, 99) AS i")
        expect([row[0] for row in cursor], list(range(100)))


def compute_once():
    """Two threads run the loop of the README, its only block of Python, at once: one computes, and both get the value."""
    readme = Path(__file__).parents[2] / "README.md"
    [loop] = re.findall("```python\n(.*?)```", readme.read_text(), re.DOTALL)
    computed = []

    def compute():
        computed.append(True)
        return {"rows": [1, None]}

    def run(_):
        with psycopg.connect(autocommit=True) as db:
            if not PREPARED:
                db.prepare_threshold = None
            scope = {"db": db, "key": "computed once", "compute": compute, "Jsonb": Jsonb}
            exec(loop, scope)
            return scope["value"]

    with ThreadPoolExecutor() as threads:
        expect(list(threads.map(run, range(2))), [{"rows": [1, None]}] * 2)
    expect(len(computed), 1)
    # A computation that fails releases the lease, so the next caller computes at once.
    failing = {"db": connection, "key": "fails", "compute": lambda: 1 / 0, "Jsonb": Jsonb}
    try:
        exec(loop, failing)
    except ZeroDivisionError:
        expect(ask("SELECT status FROM cache_acquire('fails')"), "compute")
    else:
        raise AssertionError("the error of the computation is lost")
    # Behind a pooler, each of these statements may run in another session.
    _, _, lease, _, _ = connection.execute("SELECT * FROM cache_acquire('leased')").fetchone()
    for _ in range(5):
        expect(ask("SELECT status FROM cache_acquire('leased')"), "wait")
    expect(ask("SELECT cache_set('leased', '1', lease => %s)", lease), True)
    expect(ask("SELECT status FROM cache_acquire('leased')"), "hit")


for part in [
    values,
    misses_and_nulls,
    keys,
    lifetimes,
    tags,
    values_that_are_not_jsonb,
    prepared,
    transactions,
    many_at_once,
    compute_once,
]:
    print(part.__name__, flush=True)
    part()
print("done")
