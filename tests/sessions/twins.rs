//! Tests against twins: the owner of the schema that the extension is installed into, or of a schema in a session's
//! search path, creates operators, functions, types and tables with the names that the extension uses. No twin may ever
//! run: it would run with the rights of the calling role, for example a superuser.

use crate::qualified::{Token, script, statements, tokens};
use pg_cache_testbed::{Cluster, Conf, Database};
use postgres::Client;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;

/// The message that a twin writes to the server's log, which stays even if the transaction is rolled back.
const RAN: &str = "a twin ran: ";

/// Operators that syntax implies: `BETWEEN`, `IN`, `IS DISTINCT FROM` and others.
const OF_GRAMMAR: [&str; 6] = ["=", "<>", "<", "<=", ">", ">="];

/// Runs statements that must succeed.
fn run(session: &mut Client, statements: &str) {
    session.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

/// Returns the names that a query finds.
fn names(session: &mut Client, query: &str) -> BTreeSet<String> {
    let rows = session.query(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// Returns the names as an SQL array.
fn array(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let quoted: Vec<_> =
        names.into_iter().map(|name| format!("'{}'", name.as_ref().replace('\'', "''"))).collect();
    format!("ARRAY[{}]::pg_catalog.text[]", quoted.join(","))
}

/// The names that the extension's SQL and the statements in its code use, in any schema.
struct Used {
    /// All words.
    words: BTreeSet<String>,
    /// The words before an opening parenthesis.
    calls: BTreeSet<String>,
    /// The operators.
    operators: BTreeSet<String>,
}

/// Collects the names in some texts of SQL.
fn used(texts: &[String]) -> Used {
    let operators = OF_GRAMMAR.map(str::to_owned).into();
    let mut used = Used { words: BTreeSet::new(), calls: BTreeSet::new(), operators };
    for tokens in texts.iter().map(|text| tokens(text)) {
        for (at, token) in tokens.iter().enumerate() {
            match token {
                Token::Word(word) => {
                    let name = word.rsplit('.').next().unwrap_or_default().trim_matches('"').to_owned();
                    if tokens.get(at + 1) == Some(&Token::Mark('(')) {
                        used.calls.insert(name.clone());
                    }
                    used.words.insert(name);
                }
                // `*` in a `SELECT` is not an operator.
                Token::Operator(operator) if operator != "*" => {
                    used.operators.insert(operator.clone());
                }
                _ => {}
            }
        }
    }
    used
}

/// Creates the twins in a schema, in a session of the role that owns it. A twin has other argument types than its model, which
/// fit a call better, or the same types, which matter if the schema precedes `pg_catalog`. `types` are the types of arguments.
fn make_twins(session: &mut Client, schema: &str, used: &Used, types: &BTreeSet<String>) {
    let of_server = "SELECT DISTINCT proname::text FROM pg_catalog.pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace";
    let functions = format!("{of_server} AND prokind IN ('f', 'w')");
    let of_two = format!("{of_server} AND prokind IN ('f', 'w') AND pronargs > 1");
    let aggregates = format!("{of_server} AND prokind = 'a'");
    let relations =
        "SELECT relname::text FROM pg_catalog.pg_class WHERE relnamespace = 'pg_catalog'::regnamespace
                     AND relkind IN ('r', 'v')";
    let mut of = |query: &str, used: &BTreeSet<String>| array(names(session, query).intersection(used));
    let [functions, of_two, aggregates] =
        [functions, of_two, aggregates].map(|query| of(&query, &used.calls));
    let relations = of(relations, &used.words);
    let (types, operators) = (array(types), array(&used.operators));
    run(
        session,
        &format!(
            "SET search_path = pg_catalog;
             DO $do$
             DECLARE
                 types text[] := {types};
                 one text; two text; name text; body text;
             BEGIN
                 EXECUTE $$CREATE FUNCTION {schema}.ran(text) RETURNS boolean LANGUAGE plpgsql
                     AS 'BEGIN RAISE LOG ''{RAN}%'', $1; RETURN true; END'$$;
                 FOREACH one IN ARRAY types LOOP
                     FOREACH two IN ARRAY types LOOP
                         body := format($$AS 'SELECT {schema}.ran(''{schema}: of %s and %s'')'$$, one, two);
                         EXECUTE format('CREATE FUNCTION {schema}.twin(%s, %s) RETURNS boolean LANGUAGE sql %s', one, two, body);
                         FOREACH name IN ARRAY {operators} LOOP
                             EXECUTE format('CREATE OPERATOR {schema}.%s (FUNCTION = {schema}.twin, LEFTARG = %s, RIGHTARG = %s)',
                                 name, one, two);
                         END LOOP;
                         FOREACH name IN ARRAY {of_two} LOOP
                             EXECUTE format('CREATE FUNCTION {schema}.%I(%s, %s) RETURNS boolean LANGUAGE sql %s', name, one, two, body);
                         END LOOP;
                     END LOOP;
                     body := format($$AS 'SELECT {schema}.ran(''{schema}: of %s'')'$$, one);
                     FOREACH name IN ARRAY {functions} LOOP
                         EXECUTE format('CREATE FUNCTION {schema}.%I(%s) RETURNS boolean LANGUAGE sql %s', name, one, body);
                     END LOOP;
                     EXECUTE format('CREATE FUNCTION {schema}.step(boolean, %s) RETURNS boolean LANGUAGE sql %s', one, body);
                     FOREACH name IN ARRAY {aggregates} LOOP
                         EXECUTE format('CREATE AGGREGATE {schema}.%I(%s) (SFUNC = {schema}.step, STYPE = boolean)', name, one);
                     END LOOP;
                 END LOOP;
                 FOREACH name IN ARRAY {functions} LOOP
                     EXECUTE format($$CREATE FUNCTION {schema}.%I() RETURNS boolean LANGUAGE sql
                         AS 'SELECT {schema}.ran(''{schema}: %s'')'$$, name, name);
                 END LOOP;
                 FOREACH name IN ARRAY {relations} LOOP
                     EXECUTE format('CREATE VIEW {schema}.%I AS SELECT r.* FROM pg_catalog.%1$I AS r WHERE {schema}.ran(%1$L)', name);
                 END LOOP;
                 FOREACH name IN ARRAY ARRAY['spaces', 'grants', 'watches', 'warmers'] LOOP
                     EXECUTE format('CREATE VIEW {schema}.%I AS SELECT {schema}.ran(%1$L)', name);
                 END LOOP;
                 FOREACH name IN ARRAY types LOOP
                     IF name NOT LIKE '%[]' THEN
                         EXECUTE format('CREATE DOMAIN {schema}.%I AS %s CHECK ({schema}.ran(%L))',
                             split_part(name, '.', 2), name, name);
                     END IF;
                 END LOOP;
                 CREATE COLLATION {schema}.\"C\" FROM pg_catalog.\"POSIX\";
             END $do$;
             RESET search_path"
        ),
    );
}

/// A query for the objects of the extension that depend on a twin. The server stores what the parser resolved in views
/// and constraints.
const RESOLVED_TO_TWINS: &str = "
    SELECT pg_describe_object(d.classid, d.objid, d.objsubid) || ' uses '
        || pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
    FROM pg_depend AS d
    WHERE (d.refclassid, d.refobjid) IN (
            SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE proowner = 'twins'::regrole
            UNION ALL SELECT 'pg_operator'::regclass, oid FROM pg_operator WHERE oprowner = 'twins'::regrole
            UNION ALL SELECT 'pg_type'::regclass, oid FROM pg_type WHERE typowner = 'twins'::regrole
            UNION ALL SELECT 'pg_collation'::regclass, oid FROM pg_collation WHERE collowner = 'twins'::regrole
            UNION ALL SELECT 'pg_class'::regclass, oid FROM pg_class WHERE relowner = 'twins'::regrole)
        AND (d.classid, d.objid) IN (
            SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE proowner <> 'twins'::regrole
            UNION ALL SELECT 'pg_class'::regclass, oid FROM pg_class WHERE relowner <> 'twins'::regrole
            UNION ALL SELECT 'pg_rewrite'::regclass, r.oid FROM pg_rewrite AS r JOIN pg_class AS c ON c.oid = ev_class
                WHERE relowner <> 'twins'::regrole
            UNION ALL SELECT 'pg_constraint'::regclass, r.oid FROM pg_constraint AS r JOIN pg_class AS c ON c.oid = conrelid
                WHERE relowner <> 'twins'::regrole
            UNION ALL SELECT 'pg_attrdef'::regclass, r.oid FROM pg_attrdef AS r JOIN pg_class AS c ON c.oid = adrelid
                WHERE relowner <> 'twins'::regrole
            UNION ALL SELECT 'pg_trigger'::regclass, r.oid FROM pg_trigger AS r JOIN pg_class AS c ON c.oid = tgrelid
                WHERE relowner <> 'twins'::regrole)
    ORDER BY 1";

/// Calls of every function, ordered so that each finds the objects that it needs. A new function of the extension needs a call
/// here.
const CALLS: &[&str] = &[
    "cache_create_space('s', '1 h', '2 h', 'cost', 0.5, 'hot', 'shared', 100000, '1kB', NULL, '0', 1e3, 0, false, 'off', true)",
    "cache_alter_space('s', default_ttl => '1 min', jitter => 0.1, quota => 200000)",
    "cache_alter_space('default', max_value => 100000)",
    "cache_grant('s', 'twins', 'admin')",
    "cache_grant('default', '-', 'write')",
    "cache_revoke('s', 'twins', 'read')",
    "cache_query(NULL::public.orders, 'SELECT * FROM public.orders')",
    "cache_query_json('SELECT 1 AS one')",
    "cache_query_json_status('SELECT 1 AS one')",
    "cache_key('SELECT 1')",
    "cache_explain('SELECT 1')",
    "cache_create_view('public.cached', 'SELECT 1 AS one', '1 h', '{t}')",
    "cache_view_rows(NULL, NULL::public.cached_uncached, NULL, NULL, NULL, 'default')",
    "cache_call('public.counted(pg_catalog.int4)', '[7]')",
    "cache_wrap('public.counted(pg_catalog.int4)', '1 h', '{t}')",
    "cache_status() FROM public.cache_wrapped(NULL, NULL, 'default', 'public.counted(pg_catalog.int4)'::pg_catalog.regprocedure, 7)
        AS r (n pg_catalog.int8)",
    "counted_cached(8)",
    "cache_status() FROM public.cached",
    "cache_warmer_add('w', 'SELECT $1::pg_catalog.int4', '[7]', '1 h', '1 h', '{t}', 's')",
    "cache_warmer_add('v', 'SELECT 1')",
    "cache_warm('w')",
    "cache_observed_reset()",
    "cache_warm()",
    "cache_warmer_drop('w')",
    "cache_warmer_drop('v')",
    "cache_watch('public.orders', '{t,u}')",
    "cache_watch('public.orders', '{v}')",
    "cache_set('k', '{\"a\": 1}', '1 h', '{t}', 's')",
    "cache_set('stale', '1', stale_ok => '1 h')",
    "cache_set_text('text', 'v', tags => '{t}', mode => 'absent')",
    "cache_set_bytes('bytes', '\\x00')",
    "cache_set_many('{\"a\": 1, \"b\": {\"c\": []}}', '1 h', '{t}')",
    "cache_get('k', 's')",
    "cache_get_text('text')",
    "cache_get_bytes('bytes')",
    "cache_set_many_text('{text,number}', '{v,7}', '1 h', '{t}')",
    "cache_set_many_bytes('{bytes}', '{\\x00}', space => 's')",
    "cache_get_many('{a,b,missing}')",
    "cache_get_many_text('{text,missing}')",
    "cache_get_many_bytes('{bytes,missing}')",
    "cache_exists('k')",
    "cache_ttl('k', 's')",
    "cache_touch('k', '1 min', 's')",
    "cache_touch_many('{k,text}', '1 min', 's')",
    "cache_incr('count', 2, '1 h')",
    "cache_incr('number', mode => 'present')",
    "cache_get('count')",
    "cache_get_text('count')",
    "cache_keys('*', 'default', 10)",
    "cache_seq()",
    "cache_metrics_text()",
    "cache_top(3)",
    "cache_advise(3)",
    "cache_changes(0, 10)",
    "cache_get_near('a', 'default')",
    "cache_acquire('lease', wait => '0', hold => '1 min')",
    "cache_acquire_text('text', hold => NULL)",
    "cache_acquire_bytes('bytes', hold => NULL)",
    "cache_release('lease', 1)",
    "cache_fetch('f', 'SELECT pg_catalog.count(*) FROM public.orders', tags => '{t}', depends => '{public.orders}')",
    "cache_fetch('args', 'SELECT $1::pg_catalog.int4', '[7]')",
    "cache_invalidate_tag('t')",
    "cache_invalidate_tags('{t,u}')",
    "cache_invalidate_pattern('k*', 'default')",
    "cache_invalidate_relation('public.orders')",
    "cache_on_event('e', ARRAY['k:{n}', 'tag:t'], 's')",
    "cache_on_event('e', ARRAY['k:{n}', 'k'], 's')",
    "cache_emit('e', '{\"n\": 1}')",
    "cache_off_event('e')",
    "cache_delete('a')",
    "cache_delete_many('{a,b}')",
    "cache_unwatch('public.orders')",
    "cache_watch('public.orders', '{t}')",
    "cache_status()",
    "cache_check()",
    "cache_health()",
    "cache_flush('s')",
    "cache_flush('*')",
    "cache_create_space('gone')",
    "cache_drop_space('gone')",
    "cache_stats_reset()",
];

/// Returns the lines that twins have written to the server's log so far.
fn ran(cluster: &Cluster) -> Vec<String> {
    cluster
        .log()
        .lines()
        .filter(|line| line.contains("LOG:") && line.contains(RAN))
        .map(str::to_owned)
        .collect()
}

/// Creates the twins in two schemas, and checks that they can run. Then installs and restores the extension, and calls all of its
/// functions and reads its views with several search paths. A twin that runs then leaves a line in the log, and one that a view
/// or a constraint uses is found in the catalogs.
#[test]
fn no_twin_of_an_object_that_the_extension_uses_ever_runs() {
    // The used names, and the types of all columns and arguments of the extension.
    let model = Database::create();
    let mut texts = statements();
    texts.push(script(&model));
    let used = used(&texts);
    for name in ["octet_length", "array_agg", "convert_from", "unnest", "pg_class", "pg_roles"] {
        assert!(used.words.contains(name), "{name} is used");
    }
    let types = names(
        &mut model.connect(),
        "WITH extension AS (SELECT oid FROM pg_extension WHERE extname = 'pg_cache'),
             of AS (SELECT classid, objid FROM pg_depend JOIN extension ON refobjid = extension.oid AND deptype = 'e')
         SELECT DISTINCT 'pg_catalog.' || CASE WHEN typcategory = 'A' THEN typelem::regtype || '[]' ELSE typname END
         FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b' AND oid IN (
             SELECT atttypid FROM pg_attribute JOIN of ON attrelid = objid AND classid = 'pg_class'::regclass WHERE attnum > 0
             UNION ALL SELECT unnest(proargtypes::oid[] || proallargtypes) FROM pg_proc AS p JOIN of ON p.oid = objid
                 AND classid = 'pg_proc'::regclass
             UNION ALL SELECT unnest('{int4,oid,tid}'::regtype[]))",
    );
    assert!(types.len() > 12, "{types:?}");
    let functions = names(
        &mut model.connect(),
        "SELECT DISTINCT proname::text FROM pg_proc AS p JOIN pg_depend AS d ON d.objid = p.oid AND d.deptype = 'e'
         WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_cache') AND pronamespace = 'public'::regnamespace",
    );
    let uncalled: Vec<_> = functions
        .iter()
        .filter(|name| {
            let is_call = |call: &&str| {
                call.starts_with(&format!("{name}(")) || call.contains(&format!(" public.{name}("))
            };
            !CALLS.iter().any(is_call)
        })
        .collect();
    assert!(uncalled.is_empty(), "not called here: {uncalled:?}");

    let cluster = Cluster::start(&Conf::preloaded());
    let mut session = cluster.connect("postgres");
    run(&mut session, "CREATE ROLE twins");
    run(&mut session, "CREATE DATABASE one OWNER twins");
    let mut twins = cluster.connect("one");
    run(
        &mut twins,
        "SET SESSION AUTHORIZATION twins; CREATE SCHEMA ahead; CREATE TABLE public.orders (id int)",
    );
    for schema in ["public", "ahead"] {
        make_twins(&mut twins, schema, &used, &types);
    }
    // Only a superuser may create a cast between types of the server.
    assert!(twins.batch_execute("CREATE CAST (text AS oid) WITH INOUT AS IMPLICIT").is_err());
    drop(twins);
    run(&mut session, "CREATE DATABASE two TEMPLATE one OWNER twins");

    // Counter-check: the twins run if a statement resolves to them.
    let mut user = cluster.connect("one");
    run(&mut user, "SELECT 1::float4 >= 1, octet_length(1), count(*) FROM public.orders");
    run(
        &mut user,
        "SET search_path = ahead, pg_catalog; SELECT octet_length('a'::pg_catalog.text), '1'::oid, 'a'::pg_catalog.text <> 'b'; TABLE pg_class",
    );
    let armed = ran(&cluster);
    for twin in [
        "public: of pg_catalog.float4 and pg_catalog.int4",
        "public: of pg_catalog.int4",
        "ahead: of pg_catalog.text",
        "pg_catalog.oid",
        "pg_class",
    ] {
        assert!(armed.iter().any(|line| line.contains(&format!("{RAN}{twin}"))), "{twin}: {armed:#?}");
    }

    let paths = ["ahead, pg_catalog, public", "ahead, public", "public, ahead", "pg_catalog"];
    run(&mut user, "SET search_path = ahead, pg_catalog, public; CREATE EXTENSION pg_cache SCHEMA public");
    for database in ["one", "two"] {
        let mut superuser = cluster.connect(database);
        run(&mut superuser, "SET search_path = pg_catalog");
        if database == "two" {
            // Restores a dump of the first database. The dump also creates objects beside the extension, which exist
            // already.
            let dump = cluster
                .client("pg_dump")
                .args(["--extension=pg_cache", "one"])
                .output()
                .expect("pg_dump runs");
            assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
            let mut psql = cluster.client("psql");
            psql.args(["-X", "-q", database])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let mut restore = psql.spawn().expect("psql runs");
            restore.stdin.take().expect("a pipe").write_all(&dump.stdout).expect("psql reads");
            assert!(restore.wait().expect("psql ends").success());
            run(&mut superuser, "SELECT public.cache_drop_space('s')");
            assert_eq!(
                names(&mut superuser, "SELECT name FROM pgcache.warmers"),
                BTreeSet::from(["dumped".to_owned()])
            );
        }
        assert_eq!(names(&mut superuser, RESOLVED_TO_TWINS), BTreeSet::new(), "{database}");
        let views = names(
            &mut superuser,
            "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_depend AS d ON d.objid = c.oid AND d.deptype = 'e'
             WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_cache')",
        );
        assert!(views.len() > 6, "{views:?}");
        for path in paths {
            // These rows refer to objects that do not exist, so the clean-up has something to remove.
            run(
                &mut superuser,
                "INSERT INTO pgcache.watches VALUES (1, '{gone}'); INSERT INTO pgcache.grants VALUES (0, 1, 'read');
                 INSERT INTO pgcache.warmers VALUES (1, 1, 'gone', 'SELECT 1', NULL, NULL, NULL, NULL, 'default')",
            );
            run(
                &mut superuser,
                "DROP VIEW IF EXISTS public.cached_uncached CASCADE; DROP FUNCTION IF EXISTS public.counted CASCADE;
                 CREATE FUNCTION public.counted(pg_catalog.int4) RETURNS pg_catalog.int8 STABLE LANGUAGE sql
                     AS 'SELECT pg_catalog.count(*) FROM public.orders'",
            );
            run(&mut superuser, &format!("SET search_path = {path}"));
            for call in CALLS {
                run(&mut superuser, &format!("SELECT public.{call}"));
            }
            run(&mut superuser, "SELECT pgcache.noop('k'), pgcache.require_library()");
            for view in &views {
                run(&mut superuser, &format!("TABLE {view}"));
            }
            // A role with write access changes the tables with the rights of their owner.
            run(&mut superuser, "SET ROLE twins");
            for call in [
                "cache_grant('s', '-', 'read')",
                "cache_watch('public.orders', '{w}')",
                "cache_alter_space('s', jitter => 0.2)",
                "cache_drop_space('s')",
            ] {
                run(&mut superuser, &format!("SELECT public.{call}"));
            }
            run(
                &mut superuser,
                "RESET ROLE; BEGIN; INSERT INTO public.orders VALUES (1); PREPARE TRANSACTION 'twins'",
            );
            run(&mut superuser, "COMMIT PREPARED 'twins'");
        }
        // These objects give the dump some content.
        run(
            &mut superuser,
            "SELECT public.cache_create_space('s', jitter => 0.5), public.cache_grant('s', 'twins', 'admin');
             SELECT public.cache_warmer_drop('dumped');
             SELECT public.cache_warmer_add('dumped', 'SELECT $1::pg_catalog.int4', '[7]', tags => '{t}')",
        );
        assert!(
            superuser.batch_execute("ALTER EXTENSION pg_cache SET SCHEMA ahead").is_err(),
            "it is not relocatable"
        );
    }
    run(
        &mut user,
        "DROP VIEW public.cached_uncached CASCADE; DROP FUNCTION public.counted CASCADE;
         DROP EXTENSION pg_cache; SET search_path = ahead, public; CREATE EXTENSION pg_cache SCHEMA ahead",
    );
    run(&mut user, "SET search_path = pg_catalog");
    assert_eq!(names(&mut user, RESOLVED_TO_TWINS), BTreeSet::new());
    assert_eq!(ran(&cluster)[armed.len()..], Vec::<String>::new(), "twins that ran");
}
