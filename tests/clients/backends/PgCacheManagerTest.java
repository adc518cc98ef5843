import java.lang.reflect.Proxy;
import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import javax.sql.DataSource;
import org.postgresql.ds.PGSimpleDataSource;
import org.springframework.cache.Cache;
import org.springframework.cache.interceptor.SimpleKey;

/**
 * Tests examples/backends/spring. Prints "done" at the end if all is as expected. The argument is the JDBC URL of a database with
 * the extension; backends.rs starts the server. A lease is the right to compute the value of a key, while other callers wait. After
 * cache_watch('product'), a write to the table product invalidates the values with the tag product.
 */
public class PgCacheManagerTest {
    static final PGSimpleDataSource source = new PGSimpleDataSource();
    static Connection other;

    static void expect(Object actual, Object expected) {
        if (!Objects.equals(actual, expected)) {
            throw new AssertionError(actual + " is not " + expected);
        }
    }

    static Object ask(Connection connection, String query) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            if (!statement.execute(query)) {
                return null;
            }
            ResultSet rows = statement.getResultSet();
            return rows.next() ? rows.getObject(1) : null;
        }
    }

    static Callable<Integer> cents(Connection connection) {
        return () -> (Integer) ask(connection, "SELECT cents FROM product");
    }

    static PgCacheManager manager(DataSource source) {
        return new PgCacheManager(source, "spring", Duration.ofHours(1), Map.of("prices", List.of("product", "a \"tag\"")));
    }

    static Object value(Cache cache, Object key) {
        Cache.ValueWrapper found = cache.get(key);
        return found == null ? "nothing" : found.get();
    }

    /** A data source of one connection that stays open, as Spring's TransactionAwareDataSourceProxy has in a transaction. */
    static DataSource only(Connection connection) {
        var loader = PgCacheManagerTest.class.getClassLoader();
        var open = (Connection) Proxy.newProxyInstance(loader, new Class<?>[] {Connection.class},
                (proxy, method, values) -> method.getName().equals("close") ? null : method.invoke(connection, values));
        return (DataSource) Proxy.newProxyInstance(loader, new Class<?>[] {DataSource.class}, (proxy, method, values) -> open);
    }

    /** Fails if a lease of a key in the cache "prices" was not released. */
    static void free(int key) throws SQLException {
        Object status = ask(other, "SELECT status FROM cache_acquire_bytes('prices::" + key + "', 'spring', hold => NULL)");
        expect("wait".equals(status), false);
    }

    static void oneThreadLoads() throws Exception {
        Cache cache = manager(source).getCache("stampede");
        AtomicInteger calls = new AtomicInteger();
        var threads = Executors.newFixedThreadPool(20);
        List<Future<String>> results = threads.invokeAll(Collections.nCopies(20, () -> cache.get(7, () -> {
            calls.incrementAndGet();
            Thread.sleep(300);
            return "loaded";
        })));
        for (var result : results) {
            expect(result.get(), "loaded");
        }
        threads.shutdown();
        expect(calls.get(), 1);
    }

    static void theContract() throws Exception {
        PgCacheManager manager = manager(source);
        Cache cache = manager.getCache("objects"), like = manager.getCache("obj*");
        expect(value(cache, "k"), "nothing");
        cache.put("k", List.of(1, "two"));
        expect(value(cache, "k"), List.of(1, "two"));
        expect(cache.get("k", List.class), List.of(1, "two"));
        cache.put("null", null);
        expect(value(cache, "null"), null);
        expect(cache.<Object>get("null", () -> 1), null);
        expect(cache.putIfAbsent("k", 3).get(), List.of(1, "two"));
        expect(cache.putIfAbsent("new", 3), null);
        cache.put(new SimpleKey("a", 1), 4);
        expect(value(cache, new SimpleKey("a", 1)), 4);
        cache.put("x".repeat(3000), 5);
        expect(value(cache, "x".repeat(3000)), 5);
        like.put("k", 6);
        like.clear();
        expect(value(like, "k"), "nothing");
        expect(value(cache, "new"), 3);
        cache.evict("new");
        expect(value(cache, "new"), "nothing");
        cache.clear();
        expect(value(cache, "x".repeat(3000)), "nothing");
        // Neither the names of caches nor keys with colons make two keys alike.
        Cache outer = manager.getCache("a"), inner = manager.getCache("a::b");
        outer.put("b::c", 7);
        inner.put("c", 8);
        expect(value(outer, "b::c"), 7);
        outer.clear();
        expect(value(inner, "c"), 8);
        // A value that cannot be read, for instance from another version of the program, is loaded again.
        ask(other, "SELECT cache_set_bytes('objects::unreadable', '\\x01', space => 'spring')");
        expect(value(cache, "unreadable"), "nothing");
        expect(cache.get("unreadable", () -> 9), 9);
        expect(value(cache, "unreadable"), 9);
    }

    static void valuesFollowTheirTable() throws Exception {
        PgCacheManager manager = manager(source);
        Cache prices = manager.getCache("prices");
        expect(prices.get(7, cents(other)), 100);
        ask(other, "BEGIN; UPDATE product SET cents = 0");
        expect(value(prices, 7), 100);
        ask(other, "ROLLBACK");
        expect(value(prices, 7), 100);
        ask(other, "UPDATE product SET cents = 101");
        expect(value(prices, 7), "nothing");
        expect(prices.get(7, cents(other)), 101);
        manager.invalidateTags("a \"tag\"");
        // An outdated value is returned once, and not stored.
        expect(prices.get(7, () -> {
            Integer old = cents(other).call();
            ask(other, "UPDATE product SET cents = 102");
            return old;
        }), 101);
        free(7);
        expect(prices.get(7, cents(other)), 102);
        expect(value(prices, 7), 102);

        try (Connection connection = source.getConnection()) {
            connection.setAutoCommit(false);
            Cache own = manager(only(connection)).getCache("prices");
            own.put(8, "mine");
            ask(connection, "UPDATE product SET cents = 0");
            for (int i = 0; i < 2; i++) {
                expect(own.get(7, cents(connection)), 0);
                free(7);
            }
            expect(value(prices, 8), "nothing");
            connection.rollback();
            expect(value(own, 8), "nothing");
            expect(value(prices, 7), 102);
            own.put(8, "mine");
            connection.commit();
            expect(value(prices, 8), "mine");

            // The error of the loader arrives, and the rollback releases the lease.
            for (int i = 0; i < 2; i++) {
                try {
                    own.get(9, () -> ask(connection, "SELECT 1 / 0"));
                    throw new AssertionError("no error");
                } catch (Cache.ValueRetrievalException error) {
                    expect(error.getCause().getMessage().contains("division by zero"), true);
                }
                connection.rollback();
                free(9);
            }
            expect(own.get(9, () -> 1), 1);
            connection.rollback();
        }
        for (int i = 0; i < 2; i++) {
            try {
                prices.get(10, () -> {
                    throw new IllegalArgumentException("no");
                });
                throw new AssertionError("no error");
            } catch (Cache.ValueRetrievalException error) {
                expect(error.getCause().getMessage(), "no");
            }
            free(10);
        }
        expect(prices.get(10, () -> 1), 1);
    }

    public static void main(String[] arguments) throws Exception {
        source.setURL(arguments[0]);
        other = source.getConnection();
        ask(other, "SELECT cache_create_space('spring', if_not_exists => true)");
        ask(other, "CREATE TABLE product (cents int); INSERT INTO product VALUES (100); SELECT cache_watch('product')");
        try {
            oneThreadLoads();
            theContract();
            valuesFollowTheirTable();
        } finally {
            ask(other, "DROP TABLE product");
        }
        System.out.println("done");
    }
}
