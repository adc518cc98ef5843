-- What is written by hand to tell others of a change.

CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('changes', NEW.id::text);
    RETURN NULL;
END $$;

CREATE TRIGGER tell AFTER INSERT OR UPDATE ON account FOR EACH ROW EXECUTE FUNCTION tell();
CREATE TRIGGER tell AFTER INSERT OR UPDATE ON entry FOR EACH ROW EXECUTE FUNCTION tell();
