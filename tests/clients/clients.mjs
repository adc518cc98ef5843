// Uses the cache through node-postgres: the JavaScript value of each type, and the errors that new users meet.
//
//     node clients.mjs prepared|unprepared NODE_MODULES
//
// "unprepared" is for a pooler that loses statements prepared on the server. Prints "done" at the end if all is as
// expected.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [prepared, modules] = process.argv.slice(2);
const { Client } = createRequire(join(modules, 'any.js'))('pg');
const megabyte = 1024 * 1024;

const session = async () => {
    const client = new Client();
    await client.connect();
    return client;
};
const client = await session();

/** Returns all rows of a query, as arrays. */
const rows = async (text, ...values) => (await client.query({ text, values, rowMode: 'array' })).rows;
/** Returns the only value of the only row of a query. */
const ask = async (text, ...values) => (await rows(text, ...values))[0][0];
/** Fails unless the query raises an error with this code, and with this text in message, detail or hint. */
const refused = (code, message, text, ...values) =>
    assert.rejects(ask(text, ...values), error => {
        assert.equal(error.code, code, `${text}: ${error}`);
        assert.ok([error.message, error.detail, error.hint].join('\n').includes(message), `${error} does not say ${message}`);
        return true;
    });

const parts = {
    async values() {
        const values = [{ name: 'Zoë', nested: [1, 2.5, null, true, { '': 'empty key' }], '🔑': 'emoji' }, {}, 0, -1.5, true];
        for (const value of values) {
            assert.equal(await ask("SELECT cache_set('j', $1)", value), true);
            assert.deepEqual(await ask("SELECT cache_get('j')"), value);
        }
        // A JavaScript string or array must be converted to JSON explicitly.
        for (const value of ['text', '', [], ['a', 'b'], 'line\nbreak \\ " \'']) {
            assert.equal(await ask("SELECT cache_set('j', $1)", JSON.stringify(value)), true);
            assert.deepEqual(await ask("SELECT cache_get('j')"), value);
        }
        for (const value of ['', 'text', 'Ünïcödé 日本語 🦀 e\u0301', 'x'.repeat(5 * megabyte)]) {
            assert.equal(await ask("SELECT cache_set_text('t', $1)", value), true);
            assert.equal(await ask("SELECT cache_get_text('t')"), value);
        }
        const bytes = Buffer.alloc(5 * megabyte, Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)));
        for (const value of [Buffer.alloc(0), bytes.subarray(0, 256), bytes]) {
            assert.equal(await ask("SELECT cache_set_bytes('b', $1)", value), true);
            assert.ok(value.equals(await ask("SELECT cache_get_bytes('b')")));
        }
        const large = { large: Array(2500).fill('é'.repeat(1000)) };
        assert.equal(await ask("SELECT cache_set('large', $1)", large), true);
        assert.deepEqual(await ask("SELECT cache_get('large')"), large);
    },

    // null is a miss, and the null of JSON looks the same. cache_exists and a cast to text tell them apart.
    async misses_and_nulls() {
        assert.equal(await ask("SELECT cache_get('none')"), null);
        assert.equal(await ask("SELECT cache_set('null', $1)", JSON.stringify(null)), true);
        assert.equal(await ask("SELECT cache_get('null')"), null);
        assert.equal(await ask("SELECT cache_exists('null')"), true);
        assert.equal(await ask("SELECT cache_exists('none')"), false);
        assert.equal(await ask("SELECT cache_get('null')::text"), 'null');
        assert.deepEqual(await rows("SELECT * FROM cache_get_many($1)", ['none', 'null']), [['null', null]]);
        await refused('22004', 'value must not be null', "SELECT cache_set('k', $1)", null);
        await refused('22004', 'value must not be null', "SELECT cache_set('k', $1)", undefined);
        await refused('22004', 'key must not be null', 'SELECT cache_get($1)', null);
    },

    async keys() {
        const names = ['ключ', '鍵', '🔑', 'e\u0301', 'é', 'with space', 'quote\'"', 'back\\slash', '$1 {},', 'k'.repeat(1024), 'ü'.repeat(512)];
        for (const [place, name] of names.entries()) {
            assert.equal(await ask('SELECT cache_set($1, $2)', name, place), true);
        }
        assert.deepEqual(await rows('SELECT * FROM cache_get_many($1)', [...names, 'none']), [...names.entries()].map(([place, name]) => [name, place]));
        assert.deepEqual(await rows('SELECT * FROM cache_get_many($1)', []), []);
        assert.equal(await ask('SELECT cache_set_many($1)', Object.fromEntries(names.map(name => [name, [name]]))), String(names.length));
        assert.deepEqual(await ask('SELECT cache_get($1)', '🔑'), ['🔑']);
        assert.equal(await ask('SELECT cache_delete_many($1)', names), String(names.length));
        for (const name of ['ü'.repeat(512) + 'k', '']) {
            assert.equal(await ask('SELECT cache_set($1, $2)', name, 1), false);
            assert.equal(await ask('SELECT cache_get($1)', name), null);
        }
        await refused('22021', 'invalid byte sequence', 'SELECT cache_get($1)', 'a\0b');
        await refused('22P05', 'unsupported Unicode escape', "SELECT cache_set('k', $1)", { a: 'a\0b' });
    },

    async lifetimes() {
        assert.equal(await ask("SELECT cache_set('life', $1, $2)", 1, '10 minutes'), true);
        const left = await ask("SELECT cache_ttl('life')");
        assert.ok(left.minutes === 9 || left.minutes === 10, JSON.stringify(left));
        // An interval object of the driver can be passed back.
        assert.equal(await ask("SELECT cache_touch('life', $1)", left), true);
        assert.equal(await ask("SELECT cache_ttl('none')"), null);
        // The driver sends no types, and PostgreSQL reads a number as an interval in seconds.
        assert.equal(await ask("SELECT cache_set('life', $1, $2)", 1, 60), true);
        assert.equal(await ask("SELECT cache_ttl('life') <= '60 s'"), true);
        await refused('42883', 'function cache_set(unknown, unknown, integer) does not exist', "SELECT cache_set('life', '1', 60)");
        assert.equal(await ask("SELECT cache_set('life', $1, $2)", 1, 0), false);
        assert.equal(await ask("SELECT cache_exists('life')"), false);
        await refused('22023', 'ttl must not be longer than a year', "SELECT cache_set('life', $1, $2)", 1, '367 days');
    },

    async tags() {
        assert.equal(await ask("SELECT cache_set('tagged', $1, tags => $2)", 1, ['a', 'b 🏷', 'c,{}"']), true);
        await ask('SELECT cache_invalidate_tags($1)', ['b 🏷']);
        assert.equal(await ask("SELECT cache_get('tagged')"), null);
    },

    // The exact errors, and the calls that avoid them.
    async values_that_are_not_jsonb() {
        await refused('22P02', 'Token "hello" is invalid.', "SELECT cache_set('k', 'hello')");
        await refused('22P02', 'invalid input syntax for type json', "SELECT cache_set('k', $1)", 'hello');
        await refused('22P02', 'invalid input syntax for type json', "SELECT cache_set('k', $1)", ['a', 'b']);
        // The worst case raises no error: the driver writes an empty array as {}, which is an empty object in JSON.
        assert.equal(await ask("SELECT cache_set('k', $1)", []), true);
        assert.deepEqual(await ask("SELECT cache_get('k')"), {});
        for (const value of ['hello', ['a', 'b'], []]) {
            assert.equal(await ask("SELECT cache_set('k', $1)", JSON.stringify(value)), true);
            assert.deepEqual(await ask("SELECT cache_get('k')"), value);
        }
        await refused('42804', 'Use cache_get to read it.', "SELECT cache_get_text('k')");
    },

    // A named query is prepared once per session.
    async prepared() {
        const named = async (name, text, ...values) =>
            (await client.query({ name: prepared === 'prepared' ? name : undefined, text, values, rowMode: 'array' })).rows[0][0];
        for (let number = 0; number < 20; number++) {
            const key = `prepared ${number % 3}`;
            assert.equal(await named('set', 'SELECT cache_set($1, $2, $3)', key, number, '1 hour'), true);
            assert.equal(await named('get', 'SELECT cache_get($1)', key), number);
            assert.equal(await named('many', 'SELECT count(*) FROM cache_get_many($1)', [key, 'none']), '1');
            // The driver returns a bigint as a string.
            assert.equal(await named('incr', "SELECT cache_incr('prepared')"), String(number + 1));
        }
    },

    async transactions() {
        const other = await session();
        const elsewhere = async () => (await other.query("SELECT cache_get('k') AS v")).rows[0].v;
        await ask("SELECT cache_set('k', '\"old\"')");
        await client.query('BEGIN');
        await ask("SELECT cache_set('k', '\"new\"')");
        await client.query('SAVEPOINT s');
        await ask("SELECT cache_set('k', '\"never\"')");
        await refused('22023', 'must not be empty', "SELECT cache_invalidate_tag('')");
        await client.query('ROLLBACK TO s');
        assert.equal(await ask("SELECT cache_get('k')"), 'new');
        assert.equal(await elsewhere(), 'old');
        await client.query('COMMIT');
        assert.equal(await elsewhere(), 'new');
        await other.end();
    },

    // The queries are sent without waiting for answers.
    async many_at_once() {
        const numbers = Array.from({ length: 100 }, (_, number) => number);
        await Promise.all(numbers.map(number => ask('SELECT cache_set($1, $2)', `all ${number}`, number)));
        assert.deepEqual(await Promise.all(numbers.map(number => ask('SELECT cache_get($1)', `all ${number}`))), numbers);
    },
};

for (const [name, part] of Object.entries(parts)) {
    console.log(name);
    await part();
}
await client.end();
console.log('done');
