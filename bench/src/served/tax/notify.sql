-- A contender in the measurement of the tax on writes: a hand-written trigger that tells other sessions of each inserted or updated
-- row with pg_notify. It needs the tables of tables.sql in the current schema, where sides.rs runs it.

CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('changes', NEW.id::text);
    RETURN NULL;
END $$;

CREATE TRIGGER tell AFTER INSERT OR UPDATE ON account FOR EACH ROW EXECUTE FUNCTION tell();
CREATE TRIGGER tell AFTER INSERT OR UPDATE ON entry FOR EACH ROW EXECUTE FUNCTION tell();
