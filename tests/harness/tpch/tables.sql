-- The tables of TPC-H, with generated rows. The caller sets tpch.scale: at scale 1, lineitem has about six million rows. The rows
-- follow the rules of the specification as far as they decide how many rows the queries select. The texts are simpler, order numbers
-- have no gaps, and no official tool has checked the rows, so times are not results of the benchmark TPC-H.

SELECT setseed(0.42);

CREATE TABLE region (
    r_regionkey  integer PRIMARY KEY,
    r_name       char(25) NOT NULL,
    r_comment    varchar(152) NOT NULL
);

CREATE TABLE nation (
    n_nationkey  integer PRIMARY KEY,
    n_name       char(25) NOT NULL,
    n_regionkey  integer NOT NULL,
    n_comment    varchar(152) NOT NULL
);

CREATE TABLE supplier (
    s_suppkey    integer PRIMARY KEY,
    s_name       char(25) NOT NULL,
    s_address    varchar(40) NOT NULL,
    s_nationkey  integer NOT NULL,
    s_phone      char(15) NOT NULL,
    s_acctbal    numeric(15,2) NOT NULL,
    s_comment    varchar(101) NOT NULL
);

CREATE TABLE customer (
    c_custkey    integer PRIMARY KEY,
    c_name       varchar(25) NOT NULL,
    c_address    varchar(40) NOT NULL,
    c_nationkey  integer NOT NULL,
    c_phone      char(15) NOT NULL,
    c_acctbal    numeric(15,2) NOT NULL,
    c_mktsegment char(10) NOT NULL,
    c_comment    varchar(117) NOT NULL
);

CREATE TABLE part (
    p_partkey     integer PRIMARY KEY,
    p_name        varchar(55) NOT NULL,
    p_mfgr        char(25) NOT NULL,
    p_brand       char(10) NOT NULL,
    p_type        varchar(25) NOT NULL,
    p_size        integer NOT NULL,
    p_container   char(10) NOT NULL,
    p_retailprice numeric(15,2) NOT NULL,
    p_comment     varchar(23) NOT NULL
);

CREATE TABLE partsupp (
    ps_partkey    integer NOT NULL,
    ps_suppkey    integer NOT NULL,
    ps_availqty   integer NOT NULL,
    ps_supplycost numeric(15,2) NOT NULL,
    ps_comment    varchar(199) NOT NULL
);

CREATE TABLE orders (
    o_orderkey      bigint PRIMARY KEY,
    o_custkey       integer NOT NULL,
    o_orderstatus   char(1) NOT NULL,
    o_totalprice    numeric(15,2) NOT NULL,
    o_orderdate     date NOT NULL,
    o_orderpriority char(15) NOT NULL,
    o_clerk         char(15) NOT NULL,
    o_shippriority  integer NOT NULL,
    o_comment       varchar(79) NOT NULL
);

CREATE TABLE lineitem (
    l_orderkey      bigint NOT NULL,
    l_partkey       integer NOT NULL,
    l_suppkey       integer NOT NULL,
    l_linenumber    integer NOT NULL,
    l_quantity      numeric(15,2) NOT NULL,
    l_extendedprice numeric(15,2) NOT NULL,
    l_discount      numeric(15,2) NOT NULL,
    l_tax           numeric(15,2) NOT NULL,
    l_returnflag    char(1) NOT NULL,
    l_linestatus    char(1) NOT NULL,
    l_shipdate      date NOT NULL,
    l_commitdate    date NOT NULL,
    l_receiptdate   date NOT NULL,
    l_shipinstruct  char(25) NOT NULL,
    l_shipmode      char(10) NOT NULL,
    l_comment       varchar(44) NOT NULL
);

-- The numbers of rows. Tables that are not listed here follow from them.
CREATE TABLE size AS
SELECT greatest((10000 * scale)::int, 4) AS suppliers, (150000 * scale)::int AS customers, (200000 * scale)::int AS parts,
       (1500000 * scale)::int AS orders
  FROM (SELECT current_setting('tpch.scale')::numeric AS scale) AS given;

CREATE FUNCTION pick(VARIADIC words text[]) RETURNS text LANGUAGE sql VOLATILE
AS 'SELECT words[1 + floor(random() * cardinality(words))::int]';

-- An integer of a range, with both ends.
CREATE FUNCTION between_random(low int, high int) RETURNS int LANGUAGE sql VOLATILE
AS 'SELECT low + floor(random() * (high - low + 1))::int';

CREATE FUNCTION words() RETURNS text LANGUAGE sql VOLATILE AS $$
SELECT pick('special', 'pending', 'unusual', 'express', 'final', 'ironic', 'regular', 'bold')
    || ' ' || pick('packages', 'requests', 'accounts', 'deposits', 'theodolites', 'pinto beans', 'foxes', 'ideas')
$$;

CREATE FUNCTION phone(nation int) RETURNS text LANGUAGE sql VOLATILE AS $$
SELECT 10 + nation || '-' || between_random(100, 999) || '-' || between_random(100, 999) || '-' || between_random(1000, 9999)
$$;

-- The price of a part, which its number decides.
CREATE FUNCTION price(part int) RETURNS numeric LANGUAGE sql IMMUTABLE
AS 'SELECT (90000 + part / 10 % 20001 + 100 * (part % 1000)) / 100.0';

-- The first to fourth supplier (number 0 to 3) of a part.
CREATE FUNCTION supplier_of(part int, number int, suppliers int) RETURNS int LANGUAGE sql IMMUTABLE
AS 'SELECT (part + part / suppliers + number * (suppliers / 4)) % suppliers + 1';

INSERT INTO region
SELECT number - 1, name, 'a part of the world'
  FROM unnest(ARRAY['AFRICA', 'AMERICA', 'ASIA', 'EUROPE', 'MIDDLE EAST']) WITH ORDINALITY AS list(name, number);

INSERT INTO nation
SELECT number - 1, name, regions[number], 'a country'
  FROM unnest(ARRAY['ALGERIA', 'ARGENTINA', 'BRAZIL', 'CANADA', 'EGYPT', 'ETHIOPIA', 'FRANCE', 'GERMANY', 'INDIA', 'INDONESIA', 'IRAN',
                    'IRAQ', 'JAPAN', 'JORDAN', 'KENYA', 'MOROCCO', 'MOZAMBIQUE', 'PERU', 'CHINA', 'ROMANIA', 'SAUDI ARABIA', 'VIETNAM',
                    'RUSSIA', 'UNITED KINGDOM', 'UNITED STATES']) WITH ORDINALITY AS list(name, number),
       (SELECT ARRAY[0, 1, 1, 1, 4, 0, 3, 3, 2, 2, 4, 4, 2, 4, 0, 0, 0, 1, 2, 3, 4, 2, 3, 3, 1] AS regions) AS of_nations;

INSERT INTO supplier
SELECT s, 'Supplier#' || lpad(s::text, 9, '0'), 'street ' || s, nation, phone(nation), between_random(-99999, 999999) / 100.0,
       CASE WHEN s % 200 = 7 THEN 'Customer Complaints ' ELSE '' END || words()
  FROM (SELECT s, between_random(0, 24) AS nation FROM size, generate_series(1, suppliers) AS s) AS new;

INSERT INTO customer
SELECT c, 'Customer#' || lpad(c::text, 9, '0'), 'road ' || c, nation, phone(nation), between_random(-99999, 999999) / 100.0,
       pick('AUTOMOBILE', 'BUILDING', 'FURNITURE', 'MACHINERY', 'HOUSEHOLD'), words() || ' ' || words()
  FROM (SELECT c, between_random(0, 24) AS nation FROM size, generate_series(1, customers) AS c) AS new;

INSERT INTO part
SELECT p,
       pick('almond', 'azure', 'black', 'forest', 'gainsboro', 'ivory', 'lace', 'navy', 'peru', 'tan')
           || ' ' || pick('beige', 'green', 'blush', 'cornsilk', 'khaki', 'linen', 'magenta', 'orchid', 'plum', 'salmon')
           || ' ' || pick('antique', 'chiffon', 'drab', 'floral', 'honeydew', 'midnight', 'misty', 'powder', 'smoke', 'spring'),
       'Manufacturer#' || maker, 'Brand#' || maker || between_random(1, 5),
       pick('STANDARD', 'SMALL', 'MEDIUM', 'LARGE', 'ECONOMY', 'PROMO')
           || ' ' || pick('ANODIZED', 'BURNISHED', 'PLATED', 'POLISHED', 'BRUSHED') || ' ' || pick('TIN', 'NICKEL', 'BRASS', 'STEEL', 'COPPER'),
       between_random(1, 50), pick('SM', 'LG', 'MED', 'JUMBO', 'WRAP') || ' ' || pick('CASE', 'BOX', 'BAG', 'JAR', 'PKG', 'PACK', 'CAN', 'DRUM'),
       price(p), words()
  FROM (SELECT p, between_random(1, 5) AS maker FROM size, generate_series(1, parts) AS p) AS new;

INSERT INTO partsupp
SELECT p, supplier_of(p, number, suppliers), between_random(1, 9999), between_random(100, 100000) / 100.0, words() || ' ' || words()
  FROM size, generate_series(1, parts) AS p, generate_series(0, 3) AS number;

-- The orders before their lines are known. Customers whose number is divisible by 3 never order anything.
CREATE TABLE ordered AS
SELECT o, customer - CASE WHEN customer % 3 = 0 THEN 1 ELSE 0 END AS customer, date '1992-01-01' + between_random(0, 2405) AS day,
       between_random(1, 7) AS lines
  FROM (SELECT o, between_random(1, customers) AS customer FROM size, generate_series(1, orders) AS o) AS new;

INSERT INTO lineitem
SELECT o, part, supplier_of(part, number, suppliers), line, quantity, quantity * price(part), between_random(0, 10) / 100.0,
       between_random(0, 8) / 100.0,
       CASE WHEN received > date '1995-06-17' THEN 'N' WHEN number % 2 = 0 THEN 'R' ELSE 'A' END,
       CASE WHEN shipped > date '1995-06-17' THEN 'O' ELSE 'F' END,
       shipped, day + between_random(30, 90), received,
       pick('DELIVER IN PERSON', 'COLLECT COD', 'NONE', 'TAKE BACK RETURN'),
       pick('REG AIR', 'AIR', 'RAIL', 'SHIP', 'TRUCK', 'MAIL', 'FOB'), words()
  FROM (SELECT *, shipped + between_random(1, 30) AS received
          FROM (SELECT o, day, line, suppliers, between_random(1, parts) AS part, between_random(0, 3) AS number,
                       between_random(1, 50) AS quantity, day + between_random(1, 121) AS shipped
                  FROM size, ordered, LATERAL generate_series(1, lines) AS line) AS sold) AS delivered;

INSERT INTO orders
SELECT o, customer, CASE WHEN closed THEN 'F' WHEN open THEN 'O' ELSE 'P' END, total, day,
       pick('1-URGENT', '2-HIGH', '3-MEDIUM', '4-NOT SPECIFIED', '5-LOW'),
       'Clerk#' || lpad(between_random(1, 1000)::text, 9, '0'), 0, words() || ' ' || words()
  FROM ordered
  JOIN (SELECT l_orderkey AS o, bool_and(l_linestatus = 'F') AS closed, bool_and(l_linestatus = 'O') AS open,
               sum(l_extendedprice * (1 + l_tax) * (1 - l_discount)) AS total
          FROM lineitem
         GROUP BY l_orderkey) AS lines USING (o);

DROP TABLE ordered, size;
DROP FUNCTION pick, between_random, words, phone, price, supplier_of;

ALTER TABLE partsupp ADD PRIMARY KEY (ps_partkey, ps_suppkey);
ALTER TABLE lineitem ADD PRIMARY KEY (l_orderkey, l_linenumber);
CREATE INDEX ON lineitem (l_partkey, l_suppkey);
CREATE INDEX ON orders (o_custkey);
CREATE INDEX ON partsupp (ps_suppkey);
ANALYZE region, nation, supplier, customer, part, partsupp, orders, lineitem;
