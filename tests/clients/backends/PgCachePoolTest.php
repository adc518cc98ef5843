<?php

// Runs the integration tests of PSR-6 pools with examples/backends/symfony. SYMFONY_BACKEND is the path of PgCacheAdapter.php.

use Cache\IntegrationTests\CachePoolTest;

require_once 'Symfony/Component/Cache/autoload.php';
require_once 'Cache/IntegrationTests/autoload.php';
require_once getenv('SYMFONY_BACKEND');

class PgCachePoolTest extends CachePoolTest
{
    public function createCachePool()
    {
        static $pdo;
        $pdo ??= new PDO('pgsql:');

        return new PgCacheAdapter($pdo);
    }
}
