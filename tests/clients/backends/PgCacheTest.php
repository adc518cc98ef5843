<?php

// Tests what examples/backends/symfony adds to PSR-6: tags, transactions and one computation for many processes.
// SYMFONY_BACKEND is the path of PgCacheAdapter.php.
//
// backends.rs runs it on a new database, to which the variables of libpq lead. A *lease* is the right to compute the value of a
// key, while other callers wait. After cache_watch('product'), a write to the table product invalidates the values with the tag
// product.

require_once 'Symfony/Component/Cache/autoload.php';
require_once getenv('SYMFONY_BACKEND');

class PgCacheTest extends PHPUnit\Framework\TestCase
{
    private PDO $pdo;
    private PDO $other;
    private PgCacheAdapter $pool;
    private float $began;

    protected function setUp(): void
    {
        $this->pdo = new PDO('pgsql:');
        $this->other = new PDO('pgsql:');
        $this->pdo->exec("CREATE TABLE product (cents int); INSERT INTO product VALUES (100); SELECT cache_watch('product')");
        $this->pdo->exec("SELECT cache_create_space('symfony', if_not_exists => true), cache_flush('*')");
        $this->pool = new PgCacheAdapter($this->pdo, 'shop', space: 'symfony', wait: 60);
        $this->began = microtime(true);
    }

    protected function tearDown(): void
    {
        if ($this->pdo->inTransaction()) {
            $this->pdo->rollBack();
        }
        $this->pdo->exec('DROP TABLE product');
        // A lease that is not released costs 30 seconds.
        $this->assertLessThan(20, microtime(true) - $this->began, 'a lease was not released');
    }

    private function cents(): int
    {
        return $this->pdo->query('SELECT cents FROM product')->fetchColumn();
    }

    private function write(PDO $pdo, int $cents): void
    {
        $pdo->exec("UPDATE product SET cents = $cents");
    }

    private function price(?callable $compute = null): int
    {
        return $this->pool->get('price', function ($item) use ($compute) {
            $item->tag(['product', 'a", tag']);

            return $compute ? $compute() : $this->cents();
        }, 0);
    }

    private function has(string $key): bool
    {
        return (new PgCacheAdapter($this->other, 'shop', space: 'symfony'))->hasItem($key);
    }

    public function testTags()
    {
        foreach (['a' => ['x'], 'b' => ['x', 'y'], 'c' => ['y'], 'd' => []] as $key => $tags) {
            $this->pool->saveDeferred($this->pool->getItem($key)->set($key)->tag($tags));
        }
        $this->assertTrue($this->pool->commit());
        $this->pdo->beginTransaction();
        $this->assertTrue($this->pool->invalidateTags(['y']));
        $this->assertTrue($this->has('b'));
        $this->pdo->rollBack();
        $this->assertTrue($this->has('b'));
        $this->assertTrue($this->pool->invalidateTags(['y']));
        $this->assertSame([true, false, false, true], array_map([$this, 'has'], ['a', 'b', 'c', 'd']));
    }

    public function testAWriteToAWatchedTableInvalidates()
    {
        $this->assertSame(100, $this->price());
        $this->other->beginTransaction();
        $this->write($this->other, 0);
        $this->assertTrue($this->pool->hasItem('price'));
        $this->other->rollBack();
        $this->assertTrue($this->pool->hasItem('price'));
        $this->write($this->other, 101);
        $this->assertFalse($this->pool->hasItem('price'));
        $this->assertSame([101, 101], [$this->price(), $this->price(fn () => 0)]);
        $this->pool->invalidateTags(['a", tag']);
        $this->assertSame(7, $this->price(fn () => 7));
        $this->pool->delete('price');
        // An outdated value is returned once, and not stored.
        $outdated = function () {
            $old = $this->cents();
            $this->write($this->other, 102);

            return $old;
        };
        $this->assertSame([101, 102, 102], [$this->price($outdated), $this->price(), $this->price(fn () => 0)]);
    }

    public function testTransactions()
    {
        $this->price();
        $this->pdo->beginTransaction();
        $this->pool->save($this->pool->getItem('answer')->set(42));
        $this->assertSame([true, false], [$this->pool->hasItem('answer'), $this->has('answer')]);
        $this->write($this->pdo, 0);
        $this->assertSame([0, 0], [$this->price(), $this->price()]);
        $this->pdo->rollBack();
        $this->assertFalse($this->has('answer'));
        $this->assertSame(100, $this->price(fn () => 0));
        $this->pdo->beginTransaction();
        $this->pool->save($this->pool->getItem('answer')->set(42));
        $this->pdo->commit();
        $this->assertTrue($this->has('answer'));
    }

    public function testFailures()
    {
        foreach ([1, 2] as $_) {
            try {
                $this->price(fn () => throw new RuntimeException('no'));
                $this->fail();
            } catch (RuntimeException $error) {
                $this->assertSame('no', $error->getMessage());
            }
            $this->pdo->beginTransaction();
            try {
                $this->price(fn () => $this->pdo->query('SELECT 1 / 0'));
                $this->fail();
            } catch (PDOException $error) {
                $this->assertStringContainsString('division by zero', $error->getMessage());
            }
            $this->pdo->rollBack();
        }
        $this->assertSame(100, $this->price());
        $this->pool->delete('price');
        $this->other->query("SELECT * FROM cache_acquire_bytes('shop:price', 'symfony')");
        $impatient = new PgCacheAdapter($this->pdo, 'shop', space: 'symfony', wait: 0.1);
        $this->assertSame(1, $impatient->get('price', fn () => 1));
        $this->assertFalse($this->has('price'));
    }

    /** A value that this program cannot read, perhaps of another version of it, is removed and computed again. */
    public function testAnUnreadableValueIsReplaced()
    {
        foreach ([false, true] as $inTransaction) {
            $this->other->exec("SELECT cache_set_bytes('shop:price', 'unreadable', '1 day', space => 'symfony')");
            $this->assertTrue($this->pool->hasItem('price'));
            if ($inTransaction) {
                // A transaction that has removed the key stores nothing under a lease.
                $this->pdo->beginTransaction();
                $this->assertSame([100, 101], [$this->price(), $this->price(fn () => 101)]);
                $this->pdo->commit();
            }
            $this->assertSame([100, 100], [$this->price(), $this->price(fn () => 0)]);
            $this->assertTrue($this->has('price'));
        }
    }

    /** Ten processes miss at once. One of them computes the value. */
    public function testOneProcessComputes()
    {
        $this->pdo->exec('CREATE TABLE calls (pid int)');
        $code = 'require_once "Symfony/Component/Cache/autoload.php"; require_once getenv("SYMFONY_BACKEND");
            $pdo = new PDO("pgsql:");
            echo (new PgCacheAdapter($pdo, "shop", space: "symfony", wait: 60))->get("stampede", function () use ($pdo) {
                $pdo->exec("INSERT INTO calls VALUES (pg_backend_pid())");
                $pdo->query("SELECT pg_sleep(0.5)");

                return "computed";
            });';
        $pipes = [];
        for ($number = 0; $number < 10; ++$number) {
            $pipes[] = popen(escapeshellarg(PHP_BINARY).' -r '.escapeshellarg($code), 'r');
        }
        foreach ($pipes as $pipe) {
            $this->assertSame('computed', stream_get_contents($pipe));
            pclose($pipe);
        }
        $calls = $this->pdo->query('SELECT count(*) FROM calls')->fetchColumn();
        $this->pdo->exec('DROP TABLE calls');
        $this->assertSame(1, $calls);
    }

    public function testClear()
    {
        $this->price();
        $other = new PgCacheAdapter($this->pdo, 's*p', space: 'symfony');
        $this->assertTrue($other->clear());
        $this->assertTrue($this->has('price'));
        $this->assertTrue($this->pool->clear());
        $this->assertFalse($this->has('price'));
        $this->assertFalse($this->pool->save($this->pool->getItem('large')->set(str_repeat('x', 9000000))));
    }
}
