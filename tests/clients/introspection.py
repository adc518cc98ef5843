"""Uses a view of cache_create_view through SQLAlchemy: its introspection, reflected tables and the ORM treat it as a table.

    introspection.py prepared|unprepared

"unprepared" is for a pooler that loses statements prepared on the server. Prints "done" at the end if all is as expected.
"""

import sys
from datetime import datetime, timezone
from decimal import Decimal
from uuid import UUID

from sqlalchemy import MetaData, Table, create_engine, func, inspect, select, types
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Session

options = {} if sys.argv[1] == "prepared" else {"prepare_threshold": None}
# The environment has the address of the server.
engine = create_engine("postgresql+psycopg://", connect_args=options)

SET_UP = """
    DROP SCHEMA IF EXISTS shop CASCADE;
    CREATE SCHEMA shop;
    CREATE TYPE shop.mood AS ENUM ('sad', 'happy');
    CREATE TABLE shop.sales (region varchar(20), cents numeric(10, 2), sold timestamptz, tags text[], data jsonb,
        mood shop.mood, id uuid);
    INSERT INTO shop.sales VALUES
        ('north', 10.50, '2024-01-02 03:04:05+00', '{a,b}', '{"n": [1, null]}', 'happy', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'),
        ('north', 2, NULL, NULL, NULL, 'sad', NULL), ('south', 7.25, NULL, '{}', '[]', NULL, NULL);
    SELECT cache_create_view('shop.sales_cached', 'SELECT region, cents, sold, tags, data, mood, id FROM shop.sales');
    SELECT cache_create_view('shop.by_region', 'SELECT region, sum(cents) AS cents, count(*) AS n FROM shop.sales GROUP BY region');
    DO $$ BEGIN CREATE ROLE reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
    GRANT USAGE ON SCHEMA shop TO reader;
    GRANT SELECT ON shop.sales_cached, shop.by_region TO reader"""


def expect(actual, expected):
    if actual != expected:
        raise AssertionError(f"{actual!r:.500} is not {expected!r:.500}")


def status(connection):
    """Returns what the last call of the cache in this transaction did."""
    return connection.exec_driver_sql("SELECT cache_status()").scalar_one()


def names_and_columns():
    """The inspector lists the views, and gives their columns the types that the columns of the query have."""
    expected = {
        "region": types.VARCHAR, "cents": types.NUMERIC, "sold": postgresql.TIMESTAMP, "tags": postgresql.ARRAY,
        "data": postgresql.JSONB, "mood": postgresql.ENUM, "id": types.UUID,
    }
    inspector = inspect(engine)
    names = set(inspector.get_view_names(schema="shop"))
    if not {"sales_cached", "by_region"} <= names:
        raise AssertionError(names)
    expect(inspector.has_table("sales_cached", schema="shop"), True)
    expect(inspector.get_table_names(schema="shop"), ["sales"])
    expect(inspector.get_pk_constraint("sales_cached", schema="shop")["constrained_columns"], [])
    expect(inspector.get_foreign_keys("sales_cached", schema="shop"), [])
    if not inspector.get_view_definition("sales_cached", schema="shop"):
        raise AssertionError("the view has no definition")
    columns = inspector.get_columns("sales_cached", schema="shop")
    expect([column["name"] for column in columns], list(expected))
    for column in columns:
        expect((column["name"], isinstance(column["type"], expected[column["name"]])), (column["name"], True))
    # Lengths, precisions, labels and the types of elements are those of the table.
    shown = {column["name"]: repr(column["type"]) for column in columns}
    of_table = {column["name"]: repr(column["type"]) for column in inspector.get_columns("sales", schema="shop")}
    expect(shown, of_table)
    by_region = inspector.get_columns("by_region", schema="shop")
    expect([(c["name"], str(c["type"])) for c in by_region], [("region", "VARCHAR(20)"), ("cents", "NUMERIC"), ("n", "BIGINT")])


def a_reader_sees_the_same():
    """A role with SELECT on the views only reflects them and reads them."""
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL ROLE reader")
        expect(len(inspect(connection).get_columns("sales_cached", schema="shop")), 7)
        table = Table("by_region", MetaData(), schema="shop", autoload_with=connection)
        for expected in ["miss: not there", "hot"]:
            rows = connection.execute(select(table).where(table.c.region == "south")).all()
            expect(rows, [("south", Decimal("7.25"), 1)])
            expect(status(connection), expected)


def reflected_tables():
    """A reflected view is a table in statements: filters, sorts, functions and joins read one stored result."""
    metadata = MetaData()
    metadata.reflect(engine, schema="shop", views=True)
    sales, regions = metadata.tables["shop.sales_cached"], metadata.tables["shop.by_region"]
    happy = select(sales).where(sales.c.mood == "happy", sales.c.cents > 1, sales.c.tags.contains(["a"]))
    row = ("north", Decimal("10.50"), datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc), ["a", "b"], {"n": [1, None]}, "happy",
           UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"))
    with engine.begin() as connection:
        expect(connection.execute(happy).all(), [row])
        first = status(connection)
        if first == "hot":
            raise AssertionError("the first call is a hit")
        for statement, expected in [
            (happy, [row]),
            (select(sales.c.region, sales.c.cents).order_by(sales.c.cents.desc()).limit(1), [("north", Decimal("10.50"))]),
            (select(func.count()).select_from(sales).where(sales.c.sold.is_(None)), [(2,)]),
            (select(sales.c.region).where(sales.c.region.in_(["south", "west"])), [("south",)]),
        ]:
            expect(connection.execute(statement).all(), expected)
            expect(status(connection), "hot")
        joined = select(sales.c.cents, regions.c.n).join(regions, sales.c.region == regions.c.region).where(regions.c.n == 1)
        for _ in range(2):
            expect(connection.execute(joined).all(), [(Decimal("7.25"), 1)])
        expect(status(connection), "hot")


def mapped_classes():
    """A class of the ORM that is mapped to a reflected view: the second query is a hit, and a write is seen by the next one."""
    class Base(DeclarativeBase):
        pass

    reflected = Table("by_region", Base.metadata, schema="shop", autoload_with=engine)

    class Region(Base):
        __table__ = reflected
        # A view has no primary key, so the class names the columns that identify a row.
        __mapper_args__ = {"primary_key": [reflected.c.region]}

    def north(session):
        found = session.scalars(select(Region).where(Region.region == "north")).one()
        return (found.cents, found.n), status(session.connection())

    expect_hot = ((Decimal("12.50"), 2), "hot")
    with Session(engine) as session:
        north(session)
    for _ in range(2):
        with Session(engine) as session:
            expect(north(session), expect_hot)
            expect(session.get(Region, "south").n, 1)
            expect(status(session.connection()), "hot")
    sales = Table("sales", MetaData(), schema="shop", autoload_with=engine)
    with engine.begin() as connection:
        connection.execute(sales.insert().values(region="north", cents=Decimal("1")))
    with Session(engine) as session:
        rows, after = north(session)
        expect(rows, (Decimal("13.50"), 3))
        if after == "hot":
            raise AssertionError("a hit after a write")
    with Session(engine) as session:
        expect(north(session), ((Decimal("13.50"), 3), "hot"))


with engine.begin() as connection:
    connection.exec_driver_sql(SET_UP)
for part in [names_and_columns, a_reader_sees_the_same, reflected_tables, mapped_classes]:
    print(part.__name__, flush=True)
    part()
engine.dispose()
print("done")
