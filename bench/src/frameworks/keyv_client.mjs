// Runs stores for keyv for the part frameworks-keyv of make bench. client.rs describes and sends the commands.
//
//     node keyv_client.mjs DIRECTORY SOCKET SPACE KEYS BYTES MANY NODE_MODULES
//
// DIRECTORY contains keyv_pg_cache.mjs, SOCKET is that of Redis, and SPACE a space, a named cache, of pg_cache. KEYS is the number
// of keys, BYTES the length of a value, and MANY the number of keys in a call that gets many. NODE_MODULES is the directory of the
// packages.
//
// client.rs calls a contender by its position in `stores`. The first must be pg_cache, and must take part in all operations. An
// operation that reads must throw an error after a miss: a fast miss must not be timed.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';

const [directory, socket, space] = process.argv.slice(2);
const [keyCount, valueBytes, many] = process.argv.slice(5, 8).map(Number), modules = process.argv[8];
const load = createRequire(join(modules, 'any.js'));
const { Pool } = load('pg'), { Keyv } = load('keyv');
const { KeyvPostgres } = load('@keyv/postgres'), { default: KeyvRedis } = load('@keyv/redis');
const { KeyvPgCache } = await import(resolve(directory, 'keyv_pg_cache.mjs'));

const ttl = 86_400_000;
// One connection, which is never closed for being idle.
const pooled = { max: 1, idleTimeoutMillis: 0 };
const { PGUSER, PGDATABASE, PGHOST } = process.env;
const uri = `postgresql://${PGUSER}@/${PGDATABASE}?host=${PGHOST}`;
const stores = {
    pg_cache: new KeyvPgCache(new Pool(pooled), { space }),
    '@keyv/postgres': new KeyvPostgres({ uri, ...pooled }),
    '@keyv/postgres, UNLOGGED': new KeyvPostgres({ uri, ...pooled, table: 'keyv_unlogged', useUnloggedTable: true }),
    '@keyv/redis': new KeyvRedis({ socket: { path: socket } }),
};
const keyvs = Object.values(stores).map(store => new Keyv({ store, ttl, throwOnErrors: true }));

// The order of the keys is the same in each run.
const keys = Array.from({ length: keyCount }, (_, number) => `key:${String(number).padStart(4, '0')}`);
let seed = 1;
for (let place = keyCount - 1; place > 0; place--) {
    seed = (seed * 48_271) % 2_147_483_647;
    const other = seed % (place + 1);
    [keys[place], keys[other]] = [keys[other], keys[place]];
}
const groups = keys.map((_, start) => Array.from({ length: many }, (_, step) => keys[(start + step) % keyCount]));
const value = 'x'.repeat(valueBytes);

// For each operation, its title in the report, and the function that does it once. `turn` is the position of the key.
const operations = {
    get: ['`keyv.get`', async (keyv, turn) => {
        if ((await keyv.get(keys[turn])).length !== valueBytes) throw new Error('get returns another value');
    }],
    set: ['`keyv.set`', async (keyv, turn) => {
        if (await keyv.set(keys[turn], value) !== true) throw new Error('set stores nothing');
    }],
    get_many: [`\`keyv.getMany\`, ${many} keys`, async (keyv, turn) => {
        const values = await keyv.getMany(groups[turn]);
        if (values.length !== many || !values.every(Boolean)) throw new Error('getMany misses a key');
    }],
};

/** Repeats an operation for a while. Returns the number of calls, and the nanoseconds that they took. */
async function run(operation, keyv, milliseconds) {
    const began = performance.now();
    for (let count = 0; ;) {
        await operation(keyv, count % keyCount);
        count++;
        const passed = performance.now() - began;
        if (passed >= milliseconds) return [count, passed * 1e6];
    }
}

for (const keyv of keyvs) {
    await keyv.setMany(keys.map(key => ({ key, value })));
}
await stores.pg_cache._pool.query('ANALYZE keyv, keyv_unlogged');

const version = name => JSON.parse(readFileSync(join(modules, name, 'package.json'))).version;
const packages = ['keyv', 'pg', '@keyv/postgres', '@keyv/redis', '@redis/client'];
const reads = ['get', 'get_many'];
console.log(JSON.stringify({
    versions: `Node.js ${process.versions.node}, ${packages.map(name => `${name} ${version(name)}`).join(', ')}`,
    operations: Object.entries(operations).map(([id, [title]]) => ({ id, title })),
    // A read does not depend on whether a table is UNLOGGED.
    contenders: Object.keys(stores).map(name => ({
        name,
        operations: Object.keys(operations).filter(id => !name.endsWith('UNLOGGED') || !reads.includes(id)),
    })),
    missing: [],
    notes: [
        'keyv has no `incr`.',
        'pg_cache and `@keyv/postgres` have a connection each. node-postgres prepares only statements with a name, and neither ' +
            'store names them, so the server parses each call.',
    ],
}));
for await (const line of createInterface({ input: process.stdin })) {
    const [number, operation, milliseconds] = line.split(' ');
    console.log((await run(operations[operation][1], keyvs[Number(number)], Number(milliseconds))).join(' '));
}
process.exit();
