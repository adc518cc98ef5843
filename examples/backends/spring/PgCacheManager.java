import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.time.Duration;
import java.util.Collection;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import javax.sql.DataSource;
import org.springframework.cache.Cache;
import org.springframework.cache.CacheManager;
import org.springframework.cache.support.AbstractValueAdaptingCache;

/**
 * A cache manager of Spring that keeps its values in pg_cache. See README.md.
 *
 * <p>A <em>space</em> is a named cache of pg_cache. A <em>lease</em> is the right to compute a missing value: {@code cache_acquire}
 * returns the value (status {@code hit} or {@code stale}), or a lease ({@code compute}), or the status {@code wait} if another
 * caller has the lease. A set with the lease stores nothing if the key or one of the tags has changed since the lease was acquired.
 * A set that stores ends the lease. Otherwise the caller must release it, also after an error: the others would wait until HOLD is
 * over.
 */
public class PgCacheManager implements CacheManager {
    private static final int KEY_BYTES_MAX = 1024;
    private static final long SHORTEST_POLL_MS = 5, LONGEST_POLL_MS = 100; // between two calls of cache_acquire
    // WAIT: how long a call waits for another one that loads the value. HOLD: how long a lease lasts. YEAR: the longest ttl.
    private static final Duration WAIT = Duration.ofSeconds(5), HOLD = Duration.ofSeconds(30), YEAR = Duration.ofDays(366);

    private final DataSource dataSource;
    private final String space;
    private final Duration ttl;
    private final Map<String, List<String>> tags;
    private final Map<String, Cache> caches = new ConcurrentHashMap<>();

    /**
     * {@code dataSource} has connections with autocommit, or is a TransactionAwareDataSourceProxy: then other sessions see changes
     * when the transaction commits.
     * {@code tags} has the tags of each cache, by its name. A {@code ttl} of null is a year.
     */
    public PgCacheManager(DataSource dataSource, String space, Duration ttl, Map<String, List<String>> tags) {
        this.dataSource = dataSource;
        this.space = space;
        this.ttl = ttl == null ? YEAR : ttl;
        this.tags = tags;
    }

    @Override
    public Cache getCache(String name) {
        return caches.computeIfAbsent(name, PgCache::new);
    }

    @Override
    public Collection<String> getCacheNames() {
        return caches.keySet();
    }

    /** Invalidates all values with one of the tags. */
    public void invalidateTags(String... tags) {
        ask("SELECT cache_invalidate_tags(?)", (Object) tags);
    }

    private class PgCache extends AbstractValueAdaptingCache {
        private final String name;
        private final String prefix;
        private final String[] ownTags;

        PgCache(String name) {
            super(true);
            this.name = name;
            // Without colons in the name, no cache has the keys of another one.
            prefix = name.replace("%", "%25").replace(":", "%3A") + "::";
            ownTags = tags.getOrDefault(name, List.of()).toArray(String[]::new);
        }

        @Override
        public String getName() {
            return name;
        }

        @Override
        public Object getNativeCache() {
            return dataSource;
        }

        @Override
        protected Object lookup(Object key) {
            return loaded(ask("SELECT cache_get_bytes(?, ?)", text(key), space)[0]);
        }

        /** One session loads a missing value, and the others wait for it. {@code @Cacheable(sync = true)} calls this method. */
        @Override
        @SuppressWarnings("unchecked")
        public <T> T get(Object key, Callable<T> loader) {
            String text = text(key);
            long deadline = System.nanoTime() + WAIT.toNanos();
            for (long pause = SHORTEST_POLL_MS;; pause = Math.min(2 * pause, LONGEST_POLL_MS)) {
                // cache_acquire could wait itself, but would keep a connection of the pool, which the loader may need.
                Object[] row = ask("SELECT value, status, lease FROM cache_acquire_bytes(?, ?, hold => make_interval(secs => ?))",
                        text, space, seconds(HOLD));
                switch ((String) row[1]) {
                    case "hit", "stale" -> {
                        Object value = loaded(row[0]);
                        if (value != null) {
                            return (T) fromStoreValue(value);
                        }
                        // Without the value that this program cannot read, the next turn gets the lease.
                        evict(key);
                    }
                    case "compute" -> {
                        return loadAndStore(key, text, (Long) row[2], loader);
                    }
                    default -> {
                        if (System.nanoTime() > deadline) {
                            return load(key, loader);
                        }
                    }
                }
                try {
                    Thread.sleep(pause);
                } catch (InterruptedException interrupt) {
                    Thread.currentThread().interrupt();
                    return load(key, loader);
                }
            }
        }

        private <T> T loadAndStore(Object key, String text, long lease, Callable<T> loader) {
            boolean stored = false;
            try {
                T value = load(key, loader);
                // If a table or a tag has changed since the lease, this stores nothing.
                stored = set(text, value, "always", lease);
                return value;
            } finally {
                if (!stored) {
                    try {
                        ask("SELECT cache_release(?, ?, ?)", text, lease, space);
                    } catch (IllegalStateException error) {
                        // The transaction has failed. Its rollback releases the lease.
                    }
                }
            }
        }

        private <T> T load(Object key, Callable<T> loader) {
            try {
                return loader.call();
            } catch (Exception error) {
                throw new ValueRetrievalException(key, loader, error);
            }
        }

        @Override
        public void put(Object key, Object value) {
            set(text(key), value, "always", null);
        }

        @Override
        public ValueWrapper putIfAbsent(Object key, Object value) {
            return set(text(key), value, "absent", null) ? null : get(key);
        }

        @Override
        public void evict(Object key) {
            ask("SELECT cache_delete(?, ?)", text(key), space);
        }

        @Override
        public void clear() {
            ask("SELECT cache_invalidate_pattern(?, ?)", prefix.replaceAll("[\\\\*?]", "\\\\$0") + "*", space);
        }

        /** Returns whether the value was stored. {@code mode} is "always" or "absent". {@code lease} may be null: no lease. */
        private boolean set(String text, Object value, String mode, Long lease) {
            return (Boolean) ask("SELECT cache_set_bytes(?, ?, make_interval(secs => ?), ?, ?, ?, lease => ?::bigint)",
                    text, stored(toStoreValue(value)), seconds(ttl), ownTags, space, mode, lease)[0];
        }

        private String text(Object key) {
            String text = prefix + key;
            byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
            if (bytes.length <= KEY_BYTES_MAX && text.indexOf('\0') < 0) {
                return text;
            }
            try {
                return prefix + "sha256:" + HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes));
            } catch (NoSuchAlgorithmException error) {
                throw new IllegalStateException(error);
            }
        }
    }

    private static double seconds(Duration duration) {
        return duration.toMillis() / 1000.0;
    }

    private static byte[] stored(Object value) {
        try (var bytes = new ByteArrayOutputStream(); var objects = new ObjectOutputStream(bytes)) {
            objects.writeObject(value);
            objects.flush();
            return bytes.toByteArray();
        } catch (IOException error) {
            throw new IllegalArgumentException("the value cannot be serialized", error);
        }
    }

    /** Returns the value of stored bytes, or null if there are none, or if this program cannot read them. */
    private static Object loaded(Object value) {
        if (value == null) {
            return null;
        }
        try (var objects = new ObjectInputStream(new ByteArrayInputStream((byte[]) value))) {
            return objects.readObject();
        } catch (IOException | ClassNotFoundException error) {
            return null; // a value of another version of the program is a miss
        }
    }

    /** Runs a query and returns its only row. */
    private Object[] ask(String query, Object... parameters) {
        try (Connection connection = dataSource.getConnection(); PreparedStatement statement = connection.prepareStatement(query)) {
            for (int place = 0; place < parameters.length; place++) {
                Object value = parameters[place];
                statement.setObject(place + 1, value instanceof String[] list ? connection.createArrayOf("text", list) : value);
            }
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                Object[] row = new Object[rows.getMetaData().getColumnCount()];
                for (int place = 0; place < row.length; place++) {
                    row[place] = rows.getObject(place + 1);
                }
                return row;
            }
        } catch (SQLException error) {
            throw new IllegalStateException(error);
        }
    }
}
