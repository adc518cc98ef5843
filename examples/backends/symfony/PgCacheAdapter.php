<?php

use Symfony\Component\Cache\Adapter\AbstractTagAwareAdapter;
use Symfony\Component\Cache\CacheItem;
use Symfony\Component\Cache\Marshaller\DefaultMarshaller;
use Symfony\Component\Cache\Marshaller\MarshallerInterface;

/**
 * A cache pool with tags for Symfony (PSR-6) that keeps its values in pg_cache. See README.md.
 *
 * A *space* is a named cache of pg_cache. A *lease* is the right to compute a missing value: cache_acquire returns the value
 * (status hit or stale), or a lease (compute), or the status wait if another caller has the lease. A set with the lease stores
 * nothing if the key or one of the tags has changed since the lease was acquired. A set that stores ends the lease. Otherwise the
 * caller must release it, also after an error: the others would wait until $hold is over.
 */
class PgCacheAdapter extends AbstractTagAwareAdapter
{
    private const YEAR_SECONDS = 366 * 24 * 60 * 60;
    // Between two calls of cache_acquire: the shortest and the longest pause, in microseconds.
    private const POLL = [5000, 100000];

    // getId() replaces longer keys by a hash.
    protected $maxIdLength = 1024;
    private MarshallerInterface $marshaller;
    /** @var array<string, int> the leases of the keys that this process computes */
    private array $leases = [];

    /**
     * $pdo is the connection of the application: other sessions see changes of the cache when its transaction commits.
     * A call of get() that finds no value, while another session computes it, waits for $wait seconds. Then it computes the value
     * itself, without storing it. Others wait $hold seconds for a session that computes.
     */
    public function __construct(
        private PDO $pdo,
        string $namespace = '',
        int $defaultLifetime = 0,
        private string $space = 'default',
        private float $wait = 5,
        private float $hold = 30,
        ?MarshallerInterface $marshaller = null,
    ) {
        parent::__construct($namespace, $defaultLifetime);
        $this->marshaller = $marshaller ?? new DefaultMarshaller();
        $this->setCallbackWrapper([$this, 'compute']);
    }

    /** Computes the value of an item that get() has not found: in one session, while the others wait for it. */
    public function compute(callable $callback, CacheItem $item, bool &$save, $pool, Closure $setMetadata, $logger)
    {
        $id = $this->getId($item->getKey());
        $deadline = microtime(true) + $this->wait;
        for ($pause = self::POLL[0]; ; $pause = min(2 * $pause, self::POLL[1])) {
            $sql = 'SELECT status, lease FROM cache_acquire_bytes(?, ?, hold => make_interval(secs => ?))';
            [$status, $lease] = $this->query($sql, [$id, $this->space, $this->hold])->fetch(PDO::FETCH_NUM);
            if ($status === 'compute') {
                break;
            }
            if ($status !== 'wait') {
                // There is a value, and get() renews it before it expires. Or another session has just stored it.
                if ($item->isHit()) {
                    return $callback($item, $save);
                }
                $stored = $this->getItem($item->getKey());
                if ($stored->isHit()) {
                    $save = false;

                    return $stored->get();
                }
                if ($this->doHave($id)) {
                    // Without the value that this program cannot read, the next turn gets the lease.
                    $this->doDelete([$id]);
                }
            }
            if (microtime(true) > $deadline) {
                $value = $callback($item, $save);
                $save = false;

                return $value;
            }
            usleep($pause);
        }
        try {
            $this->leases[$id] = $lease;
            $value = $callback($item, $save);
            if ($save) {
                $setMetadata($item);
                $this->save($item->set($value));
                $save = false;
            }

            return $value;
        } finally {
            // If nothing was stored, the others need not wait for the end of the transaction.
            unset($this->leases[$id]);
            try {
                $this->query('SELECT cache_release(?, ?, ?)', [$id, $lease, $this->space]);
            } catch (PDOException) {
                // The transaction has failed. Its rollback releases the lease.
            }
        }
    }

    public function invalidateTags(array $tags): bool
    {
        $this->query('SELECT cache_invalidate_tags(?::text[])', [self::array($tags)]);

        return (bool) $tags;
    }

    protected function doFetch(array $ids): iterable
    {
        $rows = $this->query('SELECT key, value FROM cache_get_many_bytes(?::text[], ?)', [self::array($ids), $this->space]);
        foreach ($rows->fetchAll(PDO::FETCH_NUM) as [$id, $value]) {
            yield $id => $this->marshaller->unmarshall(stream_get_contents($value));
        }
    }

    protected function doHave(string $id): bool
    {
        return $this->query('SELECT cache_exists(?, ?)', [$id, $this->space])->fetchColumn();
    }

    protected function doSave(array $values, int $lifetime, array $addTagData = [], array $removeTagData = []): array
    {
        $failed = $rows = $parameters = [];
        foreach ($this->marshaller->marshall($values, $failed) as $id => $value) {
            $rows[] = '(?::text, ?::bytea, ?::text[], ?::bigint)';
            array_push($parameters, $id, '\x'.bin2hex($value), self::array($values[$id]['tags']), $this->leases[$id] ?? null);
        }
        if (!$rows) {
            return $failed;
        }
        $sql = 'SELECT id, cache_set_bytes(id, value, make_interval(secs => ?), tags, ?, lease => lease)
            FROM (VALUES '.implode(', ', $rows).') AS item(id, value, tags, lease)';
        $lifetime = min($lifetime ?: self::YEAR_SECONDS, self::YEAR_SECONDS);
        foreach ($this->query($sql, [$lifetime, $this->space, ...$parameters])->fetchAll(PDO::FETCH_NUM) as [$id, $stored]) {
            // With a lease, an outdated value is not stored. That is no failure.
            if (!$stored && !isset($this->leases[$id])) {
                $failed[] = $id;
            }
        }

        return $failed;
    }

    protected function doDelete(array $ids): bool
    {
        $this->query('SELECT cache_delete_many(?::text[], ?)', [self::array($ids), $this->space]);

        return true;
    }

    protected function doClear(string $namespace): bool
    {
        if ($namespace === '') {
            $this->query('SELECT cache_flush(?)', [$this->space]);
        } else {
            $this->query('SELECT cache_invalidate_pattern(?, ?)', [addcslashes($namespace, '\\*?').'*', $this->space]);
        }

        return true;
    }

    /** pg_cache knows the tags of its values. */
    protected function doDeleteTagRelations(array $tagData): bool
    {
        return true;
    }

    protected function doInvalidate(array $tagIds): bool
    {
        throw new LogicException('invalidateTags() does not call it.');
    }

    private function query(string $sql, array $parameters): PDOStatement
    {
        $statement = $this->pdo->prepare($sql);
        $statement->execute($parameters);

        return $statement;
    }

    /** Returns a list of strings as a text of PostgreSQL's type text[]. */
    private static function array(array $strings): string
    {
        return '{'.implode(',', array_map(fn ($string) => '"'.addcslashes($string, '"\\').'"', $strings)).'}';
    }
}
