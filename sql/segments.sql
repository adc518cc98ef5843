-- The eight tables of a database in which the table tier saves values (docs/tables.md). src/pg/segment_row.rs forms and reads the
-- rows by the position of their columns, so no column may move; `SegmentRow` there says what each column means. The tables have no
-- index, and no TOAST table: a large value has several rows. The server decides on a TOAST table at the end of a command, so the
-- columns of variable length must be added and made PLAIN by one command. Autovacuum is off, because the rows are inserted frozen
-- and removed by TRUNCATE. Only the background worker writes to the tables, so nothing is granted. Their rows are never dumped. The
-- number of tables is also SEGMENTS in src/store/table/saver/mod.rs.
DO $$
BEGIN
    FOR number IN 1..8 LOOP
        EXECUTE pg_catalog.format('CREATE UNLOGGED TABLE pgcache.segment_%s (
            format       pg_catalog.int2 NOT NULL,
            kind         pg_catalog.int2 NOT NULL,
            part         pg_catalog.int4 NOT NULL,
            space        pg_catalog.oid NOT NULL,
            role         pg_catalog.oid NOT NULL,
            item         pg_catalog.int8 NOT NULL,
            stamp        pg_catalog.int8 NOT NULL,
            cost         pg_catalog.int8 NOT NULL,
            created      pg_catalog.int4 NOT NULL,
            expires      pg_catalog.int4 NOT NULL,
            stale_ticks  pg_catalog.int4 NOT NULL,
            valid_at     pg_catalog.int4 NOT NULL,
            length       pg_catalog.int4 NOT NULL,
            note         pg_catalog.int4 NOT NULL,
            epoch        pg_catalog.int4 NOT NULL
        ) WITH (autovacuum_enabled = false)', number);
        EXECUTE pg_catalog.format('ALTER TABLE pgcache.segment_%s
            ADD COLUMN key          pg_catalog.bytea NOT NULL,
            ADD COLUMN dependencies pg_catalog.bytea NOT NULL,
            ADD COLUMN value        pg_catalog.bytea NOT NULL,
            ALTER COLUMN key SET STORAGE PLAIN,
            ALTER COLUMN dependencies SET STORAGE PLAIN,
            ALTER COLUMN value SET STORAGE PLAIN', number);
        EXECUTE pg_catalog.format('COMMENT ON TABLE pgcache.segment_%s IS %L', number,
            'Saved values of the cache. Rows out of use stay until the table is emptied.');
    END LOOP;
END
$$;
