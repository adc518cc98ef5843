-- The tables that the transactions write, once in each schema. Transactions update the balance of an account, whose page has room
-- for the new version of the row, and insert entries. sides.rs sets bench.first_key and bench.keys.

CREATE TABLE account (
    id      bigint PRIMARY KEY,
    balance bigint NOT NULL DEFAULT 0,
    filler  text NOT NULL DEFAULT repeat('x', 80)
) WITH (fillfactor = 50);
INSERT INTO account (id)
SELECT current_setting('bench.first_key')::bigint + i FROM generate_series(0, current_setting('bench.keys')::int - 1) AS i;

CREATE TABLE entry (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account bigint NOT NULL,
    delta   bigint NOT NULL,
    filler  text NOT NULL DEFAULT repeat('x', 80)
);
