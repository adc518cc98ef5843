-- The 22 queries of TPC-H for PostgreSQL, with the parameters that the specification uses for validation. Each column has a name, and
-- each order of rows is total, so that two runs of a query return the same rows in the same order. A query begins behind a line with its
-- number and its title, and ends before the next one. `tpch.rs` reads the file by these lines, so a query must contain neither a
-- comment nor a semicolon.

-- 1 pricing summary report
SELECT l_returnflag, l_linestatus, sum(l_quantity) AS quantity, sum(l_extendedprice) AS base_price,
       sum(l_extendedprice * (1 - l_discount)) AS discounted_price,
       sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) AS charge,
       avg(l_quantity) AS average_quantity, avg(l_extendedprice) AS average_price, avg(l_discount) AS average_discount, count(*) AS lines
  FROM lineitem
 WHERE l_shipdate <= date '1998-12-01' - interval '90 days'
 GROUP BY l_returnflag, l_linestatus
 ORDER BY l_returnflag, l_linestatus

-- 2 minimum cost supplier
SELECT s_acctbal, s_name, n_name, p_partkey, p_mfgr, s_address, s_phone, s_comment
  FROM part
  JOIN partsupp ON ps_partkey = p_partkey
  JOIN supplier ON s_suppkey = ps_suppkey
  JOIN nation ON n_nationkey = s_nationkey
  JOIN region ON r_regionkey = n_regionkey
 WHERE p_size = 15 AND p_type LIKE '%BRASS' AND r_name = 'EUROPE'
   AND ps_supplycost = (SELECT min(cheapest.ps_supplycost)
                          FROM partsupp AS cheapest
                          JOIN supplier AS seller ON seller.s_suppkey = cheapest.ps_suppkey
                          JOIN nation AS home ON home.n_nationkey = seller.s_nationkey
                          JOIN region AS there ON there.r_regionkey = home.n_regionkey
                         WHERE cheapest.ps_partkey = p_partkey AND there.r_name = 'EUROPE')
 ORDER BY s_acctbal DESC, n_name, s_name, p_partkey
 LIMIT 100

-- 3 shipping priority
SELECT l_orderkey, sum(l_extendedprice * (1 - l_discount)) AS revenue, o_orderdate, o_shippriority
  FROM customer
  JOIN orders ON o_custkey = c_custkey
  JOIN lineitem ON l_orderkey = o_orderkey
 WHERE c_mktsegment = 'BUILDING' AND o_orderdate < date '1995-03-15' AND l_shipdate > date '1995-03-15'
 GROUP BY l_orderkey, o_orderdate, o_shippriority
 ORDER BY revenue DESC, o_orderdate, l_orderkey
 LIMIT 10

-- 4 order priority checking
SELECT o_orderpriority, count(*) AS orders
  FROM orders
 WHERE o_orderdate >= date '1993-07-01' AND o_orderdate < date '1993-07-01' + interval '3 months'
   AND EXISTS (SELECT FROM lineitem WHERE l_orderkey = o_orderkey AND l_commitdate < l_receiptdate)
 GROUP BY o_orderpriority
 ORDER BY o_orderpriority

-- 5 local supplier volume
SELECT n_name, sum(l_extendedprice * (1 - l_discount)) AS revenue
  FROM customer
  JOIN orders ON o_custkey = c_custkey
  JOIN lineitem ON l_orderkey = o_orderkey
  JOIN supplier ON s_suppkey = l_suppkey AND s_nationkey = c_nationkey
  JOIN nation ON n_nationkey = s_nationkey
  JOIN region ON r_regionkey = n_regionkey
 WHERE r_name = 'ASIA' AND o_orderdate >= date '1994-01-01' AND o_orderdate < date '1994-01-01' + interval '1 year'
 GROUP BY n_name
 ORDER BY revenue DESC, n_name

-- 6 forecasting revenue change
SELECT sum(l_extendedprice * l_discount) AS revenue
  FROM lineitem
 WHERE l_shipdate >= date '1994-01-01' AND l_shipdate < date '1994-01-01' + interval '1 year'
   AND l_discount BETWEEN 0.05 AND 0.07 AND l_quantity < 24

-- 7 volume shipping
SELECT supplying, buying, extract(year FROM l_shipdate) AS year, sum(l_extendedprice * (1 - l_discount)) AS revenue
  FROM supplier
  JOIN lineitem ON l_suppkey = s_suppkey
  JOIN orders ON o_orderkey = l_orderkey
  JOIN customer ON c_custkey = o_custkey
  JOIN (SELECT n_nationkey AS s_nationkey, n_name AS supplying FROM nation) AS seller USING (s_nationkey)
  JOIN (SELECT n_nationkey AS c_nationkey, n_name AS buying FROM nation) AS buyer USING (c_nationkey)
 WHERE (supplying, buying) IN (('FRANCE', 'GERMANY'), ('GERMANY', 'FRANCE'))
   AND l_shipdate BETWEEN date '1995-01-01' AND date '1996-12-31'
 GROUP BY supplying, buying, year
 ORDER BY supplying, buying, year

-- 8 national market share
SELECT year, sum(volume) FILTER (WHERE seller = 'BRAZIL') / sum(volume) AS share
  FROM (SELECT extract(year FROM o_orderdate) AS year, l_extendedprice * (1 - l_discount) AS volume, of_supplier.n_name AS seller
          FROM part
          JOIN lineitem ON l_partkey = p_partkey
          JOIN supplier ON s_suppkey = l_suppkey
          JOIN orders ON o_orderkey = l_orderkey
          JOIN customer ON c_custkey = o_custkey
          JOIN nation AS of_customer ON of_customer.n_nationkey = c_nationkey
          JOIN region ON r_regionkey = of_customer.n_regionkey
          JOIN nation AS of_supplier ON of_supplier.n_nationkey = s_nationkey
         WHERE r_name = 'AMERICA' AND p_type = 'ECONOMY ANODIZED STEEL'
           AND o_orderdate BETWEEN date '1995-01-01' AND date '1996-12-31') AS sales
 GROUP BY year
 ORDER BY year

-- 9 product type profit measure
SELECT n_name, extract(year FROM o_orderdate) AS year,
       sum(l_extendedprice * (1 - l_discount) - ps_supplycost * l_quantity) AS profit
  FROM part
  JOIN lineitem ON l_partkey = p_partkey
  JOIN supplier ON s_suppkey = l_suppkey
  JOIN partsupp ON ps_partkey = l_partkey AND ps_suppkey = l_suppkey
  JOIN orders ON o_orderkey = l_orderkey
  JOIN nation ON n_nationkey = s_nationkey
 WHERE p_name LIKE '%green%'
 GROUP BY n_name, year
 ORDER BY n_name, year DESC

-- 10 returned item reporting
SELECT c_custkey, c_name, sum(l_extendedprice * (1 - l_discount)) AS revenue, c_acctbal, n_name, c_address, c_phone, c_comment
  FROM customer
  JOIN orders ON o_custkey = c_custkey
  JOIN lineitem ON l_orderkey = o_orderkey
  JOIN nation ON n_nationkey = c_nationkey
 WHERE o_orderdate >= date '1993-10-01' AND o_orderdate < date '1993-10-01' + interval '3 months' AND l_returnflag = 'R'
 GROUP BY c_custkey, n_nationkey
 ORDER BY revenue DESC, c_custkey
 LIMIT 20

-- 11 important stock identification
WITH stock AS (
    SELECT ps_partkey, sum(ps_supplycost * ps_availqty) AS value
      FROM partsupp
      JOIN supplier ON s_suppkey = ps_suppkey
      JOIN nation ON n_nationkey = s_nationkey
     WHERE n_name = 'GERMANY'
     GROUP BY ps_partkey
)
SELECT ps_partkey, value
  FROM stock
 WHERE value > (SELECT sum(value) FROM stock) / (SELECT count(*) FROM supplier)
 ORDER BY value DESC, ps_partkey

-- 12 shipping modes and order priority
SELECT l_shipmode,
       count(*) FILTER (WHERE o_orderpriority IN ('1-URGENT', '2-HIGH')) AS urgent,
       count(*) FILTER (WHERE o_orderpriority NOT IN ('1-URGENT', '2-HIGH')) AS other
  FROM orders
  JOIN lineitem ON l_orderkey = o_orderkey
 WHERE l_shipmode IN ('MAIL', 'SHIP') AND l_commitdate < l_receiptdate AND l_shipdate < l_commitdate
   AND l_receiptdate >= date '1994-01-01' AND l_receiptdate < date '1994-01-01' + interval '1 year'
 GROUP BY l_shipmode
 ORDER BY l_shipmode

-- 13 customer distribution
SELECT orders, count(*) AS customers
  FROM (SELECT c_custkey, count(o_orderkey) AS orders
          FROM customer
          LEFT JOIN orders ON o_custkey = c_custkey AND o_comment NOT LIKE '%special%requests%'
         GROUP BY c_custkey) AS of_customer
 GROUP BY orders
 ORDER BY customers DESC, orders DESC

-- 14 promotion effect
SELECT 100 * sum(l_extendedprice * (1 - l_discount)) FILTER (WHERE p_type LIKE 'PROMO%')
           / sum(l_extendedprice * (1 - l_discount)) AS promotion_percent
  FROM lineitem
  JOIN part ON p_partkey = l_partkey
 WHERE l_shipdate >= date '1995-09-01' AND l_shipdate < date '1995-09-01' + interval '1 month'

-- 15 top supplier
WITH revenue AS (
    SELECT l_suppkey AS s_suppkey, sum(l_extendedprice * (1 - l_discount)) AS total
      FROM lineitem
     WHERE l_shipdate >= date '1996-01-01' AND l_shipdate < date '1996-01-01' + interval '3 months'
     GROUP BY l_suppkey
)
SELECT s_suppkey, s_name, s_address, s_phone, total
  FROM supplier
  JOIN revenue USING (s_suppkey)
 WHERE total = (SELECT max(total) FROM revenue)
 ORDER BY s_suppkey

-- 16 parts and their suppliers
SELECT p_brand, p_type, p_size, count(DISTINCT ps_suppkey) AS suppliers
  FROM partsupp
  JOIN part ON p_partkey = ps_partkey
 WHERE p_brand <> 'Brand#45' AND p_type NOT LIKE 'MEDIUM POLISHED%' AND p_size IN (49, 14, 23, 45, 19, 3, 36, 9)
   AND ps_suppkey NOT IN (SELECT s_suppkey FROM supplier WHERE s_comment LIKE '%Customer%Complaints%')
 GROUP BY p_brand, p_type, p_size
 ORDER BY suppliers DESC, p_brand, p_type, p_size

-- 17 revenue of small orders
SELECT sum(l_extendedprice) / 7.0 AS yearly
  FROM lineitem
  JOIN part ON p_partkey = l_partkey
 WHERE p_brand = 'Brand#23' AND p_container = 'MED BOX'
   AND l_quantity < (SELECT 0.2 * avg(same.l_quantity) FROM lineitem AS same WHERE same.l_partkey = p_partkey)

-- 18 large volume customer
SELECT c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice, sum(l_quantity) AS quantity
  FROM customer
  JOIN orders ON o_custkey = c_custkey
  JOIN lineitem ON l_orderkey = o_orderkey
 WHERE o_orderkey IN (SELECT l_orderkey FROM lineitem GROUP BY l_orderkey HAVING sum(l_quantity) > 300)
 GROUP BY c_custkey, o_orderkey
 ORDER BY o_totalprice DESC, o_orderdate, o_orderkey
 LIMIT 100

-- 19 discounted revenue
SELECT sum(l_extendedprice * (1 - l_discount)) AS revenue
  FROM lineitem
  JOIN part ON p_partkey = l_partkey
 WHERE l_shipmode IN ('AIR', 'REG AIR') AND l_shipinstruct = 'DELIVER IN PERSON'
   AND (p_brand = 'Brand#12' AND p_container IN ('SM CASE', 'SM BOX', 'SM PACK', 'SM PKG')
            AND l_quantity BETWEEN 1 AND 11 AND p_size BETWEEN 1 AND 5
        OR p_brand = 'Brand#23' AND p_container IN ('MED BAG', 'MED BOX', 'MED PKG', 'MED PACK')
            AND l_quantity BETWEEN 10 AND 20 AND p_size BETWEEN 1 AND 10
        OR p_brand = 'Brand#34' AND p_container IN ('LG CASE', 'LG BOX', 'LG PACK', 'LG PKG')
            AND l_quantity BETWEEN 20 AND 30 AND p_size BETWEEN 1 AND 15)

-- 20 potential part promotion
SELECT s_name, s_address
  FROM supplier
  JOIN nation ON n_nationkey = s_nationkey
 WHERE n_name = 'CANADA'
   AND s_suppkey IN (SELECT ps_suppkey
                       FROM partsupp
                      WHERE ps_partkey IN (SELECT p_partkey FROM part WHERE p_name LIKE 'forest%')
                        AND ps_availqty > (SELECT 0.5 * sum(l_quantity)
                                             FROM lineitem
                                            WHERE l_partkey = ps_partkey AND l_suppkey = ps_suppkey
                                              AND l_shipdate >= date '1994-01-01'
                                              AND l_shipdate < date '1994-01-01' + interval '1 year'))
 ORDER BY s_name

-- 21 suppliers who kept orders waiting
SELECT s_name, count(*) AS waiting
  FROM supplier
  JOIN lineitem AS late ON late.l_suppkey = s_suppkey
  JOIN orders ON o_orderkey = late.l_orderkey
  JOIN nation ON n_nationkey = s_nationkey
 WHERE o_orderstatus = 'F' AND late.l_receiptdate > late.l_commitdate AND n_name = 'SAUDI ARABIA'
   AND EXISTS (SELECT FROM lineitem AS other
                WHERE other.l_orderkey = late.l_orderkey AND other.l_suppkey <> late.l_suppkey)
   AND NOT EXISTS (SELECT FROM lineitem AS other
                    WHERE other.l_orderkey = late.l_orderkey AND other.l_suppkey <> late.l_suppkey
                      AND other.l_receiptdate > other.l_commitdate)
 GROUP BY s_name
 ORDER BY waiting DESC, s_name
 LIMIT 100

-- 22 global sales opportunity
SELECT code, count(*) AS customers, sum(c_acctbal) AS balance
  FROM (SELECT substring(c_phone FROM 1 FOR 2) AS code, c_custkey, c_acctbal FROM customer) AS calling
 WHERE code IN ('13', '31', '23', '29', '30', '18', '17')
   AND c_acctbal > (SELECT avg(c_acctbal)
                      FROM customer
                     WHERE c_acctbal > 0 AND substring(c_phone FROM 1 FOR 2) IN ('13', '31', '23', '29', '30', '18', '17'))
   AND NOT EXISTS (SELECT FROM orders WHERE o_custkey = c_custkey)
 GROUP BY code
 ORDER BY code
