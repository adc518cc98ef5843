-- The sample shop of examples/tour.sql: customers, products and orders. `make run` loads it into a new database. The rows are
-- generated from a fixed seed, so the shop is the same on every machine, except that the plan of the last INSERT decides which line
-- of an order gets which quantity. The shop is large enough that its dashboard takes seconds to compute.
--
-- Other files must be kept in step: bench/src/queries/shop.rs and tests/sessions/docs.rs replace the numbers of rows in this
-- script, bench/src/queries/shop.rs names the columns of the view, and bench/src/day/ inserts into the tables.

SELECT setseed(0.42);

CREATE TABLE customers (
    customer_id  integer PRIMARY KEY,
    name         text NOT NULL,
    country      text NOT NULL,
    joined_on    date NOT NULL
);

CREATE TABLE products (
    product_id   integer PRIMARY KEY,
    name         text NOT NULL,
    category     text NOT NULL,
    price        numeric(10,2) NOT NULL
);

CREATE TABLE orders (
    order_id     integer PRIMARY KEY,
    customer_id  integer NOT NULL,
    ordered_at   timestamptz NOT NULL,
    status       text NOT NULL
);

CREATE TABLE order_items (
    order_id     integer NOT NULL,
    line         smallint NOT NULL,
    product_id   integer NOT NULL,
    quantity     smallint NOT NULL,
    unit_price   numeric(10,2) NOT NULL,
    PRIMARY KEY (order_id, line)
);

INSERT INTO customers
SELECT i,
       (ARRAY['Ada','Grace','Edsger','Barbara','Donald','Frances','Alan','Radia','Tony','Margaret'])[1 + i % 10]
         || ' ' || (ARRAY['Almeida','Bauer','Chen','Dubois','Eriksen','Fofana','Garcia','Haddad','Ito'])[1 + i / 10 % 9]
         || ' ' || i,
       (ARRAY['BR','DE','CN','FR','NO','ML','ES','LB','JP','US','IN'])[1 + floor(random() * 11)::int],
       date '2022-01-01' + floor(random() * 1400)::int
  FROM generate_series(1, 50000) AS i;

INSERT INTO products
SELECT i,
       (ARRAY['quiet','bright','sturdy','folding','little','classic'])[1 + i % 6]
         || ' ' || (ARRAY['lamp','chair','kettle','rucksack','notebook','radio','blanket','bicycle'])[1 + i % 8] || ' ' || i,
       (ARRAY['light','furniture','kitchen','travel','paper','sound','textile','outdoor'])[1 + i % 8],
       round((3 + random() * random() * 400)::numeric, 2)
  FROM generate_series(1, 2000) AS i;

INSERT INTO orders
SELECT i,
       1 + floor(random() * random() * 50000)::int,
       timestamptz '2024-01-01 00:00:00+00' + random() * interval '730 days',
       (ARRAY['delivered','delivered','delivered','delivered','shipped','paid','returned'])[1 + floor(random() * 7)::int]
  FROM generate_series(1, 600000) AS i;

-- Each order has two to four lines. The product of three random numbers makes a few products sell far more than the others.
INSERT INTO order_items
SELECT o.order_id, l.line, p.product_id, 1 + floor(random() * 3)::int, p.price
  FROM (SELECT order_id, line, 1 + floor(random() * random() * random() * 2000)::int AS product_id
          FROM orders, LATERAL generate_series(1, 2 + order_id % 3) AS line) AS l
  JOIN products AS p USING (product_id)
  JOIN orders AS o USING (order_id);

ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers;
ALTER TABLE order_items ADD FOREIGN KEY (order_id) REFERENCES orders, ADD FOREIGN KEY (product_id) REFERENCES products;
CREATE INDEX ON orders (customer_id);
CREATE INDEX ON order_items (product_id);

-- The report that the manager of the shop and the manager's colleagues open every morning.
CREATE VIEW dashboard AS
WITH sales AS (
    SELECT date_trunc('month', o.ordered_at AT TIME ZONE 'UTC')::date AS month,
           p.category, c.country, o.customer_id, o.order_id, i.quantity * i.unit_price AS amount
      FROM order_items AS i
      JOIN orders AS o USING (order_id)
      JOIN products AS p USING (product_id)
      JOIN customers AS c USING (customer_id)
     WHERE o.status <> 'returned'
), monthly AS (
    SELECT month, category,
           sum(amount) AS revenue,
           count(DISTINCT order_id) AS orders,
           count(DISTINCT customer_id) AS buyers,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY amount) AS median_line,
           mode() WITHIN GROUP (ORDER BY country) AS top_country
      FROM sales
     GROUP BY month, category
)
SELECT month, category, revenue, orders, buyers,
       round(median_line::numeric, 2) AS median_line, top_country,
       round(100 * (revenue / lag(revenue) OVER (PARTITION BY category ORDER BY month) - 1), 1) AS growth_percent
  FROM monthly;
COMMENT ON VIEW dashboard IS 'Revenue, orders, buyers, median line and growth by month and category.';

ANALYZE;
