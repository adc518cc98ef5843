-- Every part of the interface must describe itself. Each query lists the parts that do not.
CREATE VIEW parts AS
    SELECT d.classid, d.objid
      FROM pg_depend AS d JOIN pg_extension AS e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
     WHERE e.extname = 'pg_cache' AND d.deptype = 'e';

-- Views without a comment.
SELECT c.oid::regclass AS view
  FROM parts JOIN pg_class AS c ON classid = 'pg_class'::regclass AND objid = c.oid
 WHERE c.relkind = 'v' AND obj_description(c.oid, 'pg_class') IS NULL;

-- Columns of views without a comment.
SELECT c.oid::regclass AS view, a.attname AS "column"
  FROM parts JOIN pg_class AS c ON classid = 'pg_class'::regclass AND objid = c.oid
  JOIN pg_attribute AS a ON a.attrelid = c.oid
 WHERE c.relkind = 'v' AND a.attnum > 0 AND col_description(c.oid, a.attnum) IS NULL;

-- Views that do not sort their rows.
SELECT c.oid::regclass AS view
  FROM parts JOIN pg_class AS c ON classid = 'pg_class'::regclass AND objid = c.oid
 WHERE c.relkind = 'v' AND pg_get_viewdef(c.oid) !~ '\n *ORDER BY [^;]*;$';

-- Functions without a comment.
SELECT p.oid::regprocedure AS function
  FROM parts JOIN pg_proc AS p ON classid = 'pg_proc'::regclass AND objid = p.oid
 WHERE obj_description(p.oid, 'pg_proc') IS NULL;

-- Arguments and result columns without a name. Trigger functions have neither. A single result column needs no name of its own: it
-- has the name of the function.
SELECT p.oid::regprocedure AS function, coalesce(p.proallargtypes, p.proargtypes::oid[])::regtype[] AS arguments, p.proargnames
  FROM parts JOIN pg_proc AS p ON classid = 'pg_proc'::regclass AND objid = p.oid
 WHERE cardinality(coalesce(p.proallargtypes, p.proargtypes::oid[])) <> coalesce(cardinality(p.proargnames), 0)
    OR '' = ANY (p.proargnames);
