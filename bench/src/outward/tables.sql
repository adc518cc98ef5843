-- The tables that the writers of commit.rs update, whose pages have room for the new versions of the rows. The trigger of the first
-- table invalidates a tag in pg_cache, that of the second one calls pg_notify. commit.rs sets bench.first_key and bench.keys. It
-- names both tables, and listens on the channel changes. Both triggers must use the same name, account:ID, so that they do the same
-- work.

CREATE TABLE cached (
    id      bigint PRIMARY KEY,
    balance bigint NOT NULL DEFAULT 0,
    filler  text NOT NULL DEFAULT repeat('x', 80)
) WITH (fillfactor = 50);
INSERT INTO cached (id)
SELECT current_setting('bench.first_key')::bigint + i FROM generate_series(0, current_setting('bench.keys')::int - 1) AS i;

CREATE TABLE notified (LIKE cached INCLUDING ALL) WITH (fillfactor = 50);
INSERT INTO notified SELECT * FROM cached;

CREATE FUNCTION invalidate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM cache_invalidate_tag('account:' || NEW.id);
    RETURN NULL;
END $$;

CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('changes', 'account:' || NEW.id);
    RETURN NULL;
END $$;

CREATE TRIGGER invalidate AFTER UPDATE ON cached FOR EACH ROW EXECUTE FUNCTION invalidate();
CREATE TRIGGER tell AFTER UPDATE ON notified FOR EACH ROW EXECUTE FUNCTION tell();
