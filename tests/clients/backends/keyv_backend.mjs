// Tests what examples/backends/keyv adds to keyv's own tests. Prints "done" at the end if all is as expected.
//
//     node keyv_backend.mjs DIRECTORY NODE_MODULES      DIRECTORY contains keyv_pg_cache.mjs
//
// `backends.rs` runs it on a new database, to which the variables of libpq lead. A *lease* is the right to compute the value of a
// key, while other callers wait. After `cache_watch('product')`, a write to the table `product` invalidates the values with the tag
// `product`. Each member of `parts` runs, in order.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const [directory, modules] = process.argv.slice(2);
const load = createRequire(join(modules, 'any.js'));
const { Client, Pool } = load('pg'), { Keyv } = load('keyv');
const { KeyvPgCache } = await import(resolve(directory, 'keyv_pg_cache.mjs'));

const pool = new Pool({ max: 3 });
const store = new KeyvPgCache(pool, { space: 'keyv' });
const keyv = new Keyv({ store, namespace: 'shop', throwOnErrors: true });
// Longer than a lease lasts: a lease that is not released costs 30 seconds.
const getOrSet = (key, compute, options) => store.getOrSet(keyv, key, compute, { waitMs: 60_000, ...options });
const promptMs = 20_000;
const session = async () => {
    const client = new Client();
    await client.connect();
    return client;
};
const other = await session();
const ask = async (text, ...values) => (await other.query({ text, values, rowMode: 'array' })).rows[0]?.[0];
const cents = async () => (await pool.query('SELECT cents FROM product')).rows[0].cents;
const write = (client, number) => client.query('UPDATE product SET cents = $1', [number]);

const parts = {
    // 50 callers share three connections with the function. One of them calls it.
    async one_caller_computes() {
        let calls = 0;
        const compute = async () => {
            calls++;
            await sleep(300);
            return cents();
        };
        const got = await Promise.all(Array.from({ length: 50 }, () => getOrSet('stampede', compute)));
        assert.deepEqual(got, Array(50).fill(100));
        assert.equal(calls, 1);
        assert.equal(await keyv.get('stampede'), 100);
    },

    async a_caller_waits_only_so_long() {
        const lease = await ask("SELECT lease FROM cache_acquire_text('shop:held', 'keyv')");
        assert.equal(await getOrSet('held', () => 1, { waitMs: 100 }), 1);
        assert.equal(await keyv.get('held'), undefined);
        await ask("SELECT cache_release('shop:held', $1, 'keyv')", lease);
        assert.equal(await getOrSet('held', () => 2), 2);
        assert.equal(await keyv.get('held'), 2);
    },

    async the_value_of_a_failed_call_is_not_stored() {
        const began = performance.now();
        for (const _ of [1, 2]) await assert.rejects(getOrSet('fails', () => Promise.reject(new Error('no'))), /no/);
        assert.equal(await getOrSet('fails', () => undefined), undefined);
        assert.equal(await getOrSet('fails', () => 1), undefined);
        assert.ok(performance.now() - began < promptMs);
    },

    async tags() {
        await store.with({ tags: ['x'] }, () => keyv.set('a', 1));
        await store.with({ tags: ['x', 'y'] }, () => keyv.setMany([{ key: 'b', value: 2, ttl: 60_000 }, { key: 'c', value: 3 }]));
        assert.equal(await getOrSet('d', () => 4, { tags: ['y'] }), 4);
        await keyv.set('e', 5);
        assert.deepEqual(await keyv.get(['a', 'b', 'c', 'd', 'e', 'a']), [1, 2, 3, 4, 5, 1]);
        await store.invalidateTags('y');
        assert.deepEqual(await keyv.get(['a', 'b', 'c', 'd', 'e']), [1, undefined, undefined, undefined, 5]);
    },

    // Changes with the client of a transaction are visible at its commit.
    async transactions() {
        const client = await session(), change = () => store.with({ client }, () => keyv.set('answer', 'new'));
        await keyv.set('answer', 'old');
        for (const [end, after] of [['ROLLBACK', 'old'], ['COMMIT', 'new']]) {
            await client.query('BEGIN');
            await change();
            assert.equal(await store.with({ client }, () => keyv.get('answer')), 'new');
            assert.equal(await keyv.get('answer'), 'old');
            await client.query(end);
            assert.equal(await keyv.get('answer'), after);
        }
        // In a failed transaction, calls of keyv fail, too.
        await client.query('BEGIN');
        const fail = () => getOrSet('in transaction', () => client.query('SELECT 1 / 0'));
        await assert.rejects(store.with({ client }, fail), /zero/);
        await assert.rejects(store.with({ client }, () => keyv.get('answer')), /aborted/);
        await client.query('ROLLBACK');
        assert.equal(await getOrSet('in transaction', () => 1), 1);
        await client.end();
    },

    async a_write_to_a_watched_table_invalidates() {
        const price = () => getOrSet('price', cents, { tags: ['product'] }), client = await session();
        const began = performance.now();
        assert.deepEqual([await price(), await keyv.get('price')], [100, 100]);
        await client.query('BEGIN');
        await write(client, 0);
        assert.equal(await keyv.get('price'), 100);
        assert.equal(await store.with({ client }, () => keyv.get('price')), undefined);
        await client.query('ROLLBACK');
        assert.equal(await keyv.get('price'), 100);
        await write(client, 101);
        assert.equal(await keyv.get('price'), undefined);
        assert.deepEqual([await price(), await keyv.get('price')], [101, 101]);
        // An outdated value is returned once, and not stored.
        await write(client, 102);
        const computeAndChange = async () => {
            const old = await cents();
            await write(client, 103);
            return old;
        };
        assert.equal(await getOrSet('price', computeAndChange, { tags: ['product'] }), 102);
        assert.equal(await keyv.get('price'), undefined);
        assert.deepEqual([await price(), await keyv.get('price')], [103, 103]);
        // The own transaction has changed the table, so its value is not stored.
        await client.query('BEGIN');
        await write(client, 0);
        for (const _ of [1, 2]) {
            const own = async () => (await client.query('SELECT cents FROM product')).rows[0].cents;
            assert.equal(await store.with({ client }, () => getOrSet('price', own, { tags: ['product'] })), 0);
        }
        await client.query('ROLLBACK');
        assert.equal(await price(), 103);
        assert.ok(performance.now() - began < promptMs);
        await client.end();
    },

    async keys_and_times() {
        await keyv.set('k'.repeat(2000), 'long');
        assert.deepEqual(await keyv.get(['k'.repeat(2000), 'k'.repeat(2001)]), ['long', undefined]);
        await keyv.set('with\0NUL', 1);
        assert.equal(await keyv.get('with\0NUL'), 1);
        assert.equal(await keyv.set('large', 'x'.repeat(9_000_000)), false);
        assert.equal(await ask("SELECT cache_ttl('shop:answer', 'keyv') > '29 days'"), true);
        await keyv.set('timed', 1, 60_000);
        assert.equal(await ask("SELECT cache_ttl('shop:timed', 'keyv') BETWEEN '50 s' AND '60 s'"), true);
        await new Keyv({ store: new KeyvPgCache(pool, { space: 'keyv' }), namespace: 's*p' }).clear();
        assert.equal(await keyv.get('timed'), 1);
        let count = 0;
        await keyv.setMany(Array.from({ length: 1200 }, (_, number) => ({ key: `many ${number}`, value: number })));
        for await (const [key, value] of keyv.iterator()) count += key === `many ${value}`;
        assert.equal(count, 1200);
        await keyv.clear();
        assert.deepEqual(await keyv.get(['timed', 'k'.repeat(2000)]), [undefined, undefined]);
    },
};

await other.query("SELECT cache_create_space('keyv', max_ttl => '30 days', if_not_exists => true)");
await other.query("CREATE TABLE product (cents int); INSERT INTO product VALUES (100); SELECT cache_watch('product')");
try {
    for (const [name, part] of Object.entries(parts)) {
        await part().catch(error => {
            throw new Error(name, { cause: error });
        });
    }
} finally {
    await other.query('DROP TABLE product');
}
console.log('done');
process.exit();
