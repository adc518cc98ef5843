// A store for keyv 5 that keeps its values in pg_cache, with node-postgres. See README.md.
//
// A *space* is a named cache of pg_cache. A *lease* is the right to compute a missing value: `cache_acquire` returns the value
// (status `hit` or `stale`), or a lease (`compute`), or the status `wait` if another caller has the lease. A set with the lease
// stores nothing if the key or one of the tags has changed since the lease was acquired. A set that stores ends the lease.
// Otherwise the caller must release it, also after an error: the others would wait until `holdMs` is over.

import { AsyncLocalStorage } from 'node:async_hooks';
import { createHash } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

const KEY_BYTES_MAX = 1024, PAGE_KEYS = 500, YEAR_MS = 366 * 24 * 60 * 60 * 1000;
const POLL_MS = [5, 100]; // between two calls of cache_acquire: the shortest and the longest pause

// The first parameter of each query is the space. `_values` returns the column `value` of the rows.
const queries = {
    get: 'SELECT key, value FROM cache_get_many_text($2, $1)',
    set: `SELECT cache_set_text(key, value, ttl * interval '1 ms', $5::text[], $1, lease => $6) AS value
          FROM unnest($2::text[], $3::text[], $4::float8[]) AS entry(key, value, ttl)`,
    has: 'SELECT cache_exists(key, $1) AS value FROM unnest($2::text[]) AS key',
    delete: 'SELECT cache_delete_many($2, $1) > 0 AS value',
    keys: 'SELECT cache_keys($2, $1, $3, $4) AS value',
    flush: 'SELECT cache_flush($1) AS value',
    pattern: 'SELECT cache_invalidate_pattern($2, $1) AS value',
    tags: 'SELECT cache_invalidate_tags($2) AS value FROM (SELECT $1::text) AS space',
    acquire: "SELECT value, status, lease FROM cache_acquire_text($2, $1, hold => $3 * interval '1 ms')",
    release: 'SELECT cache_release($2, $3, $1) AS value',
};

export class KeyvPgCache extends EventEmitter {
    opts = { dialect: 'postgres', url: '' }; // keyv calls `iterator` of the dialects that it knows
    _context = new AsyncLocalStorage(); // `tags`, `client` and `lease` of the function that `with` runs

    /** `pool` is a Pool of node-postgres. */
    constructor(pool, { space = 'default' } = {}) {
        super();
        Object.assign(this, { _pool: pool, _space: space });
    }

    /**
     * Runs a function. The calls of keyv in it store values with `tags`, and use `client`, a client of node-postgres: other
     * sessions see their changes when its transaction commits.
     */
    with({ tags, client, lease }, run) {
        const outer = this._context.getStore() ?? {};
        return this._context.run({ tags: tags ?? outer.tags, client: client ?? outer.client, lease }, run);
    }

    /**
     * Returns the value of a key. If there is none, one caller computes it. The others wait for `waitMs` at most, and then
     * compute it, too, without storing it. Others wait `holdMs` at most for this caller.
     */
    async getOrSet(keyv, key, compute, { ttl, tags, waitMs = 5000, holdMs = 30_000 } = {}) {
        const name = this._name(keyv.useKeyPrefix && keyv.namespace ? `${keyv.namespace}:${key}` : key);
        const deadline = performance.now() + waitMs;
        for (let pause = POLL_MS[0]; ; pause = Math.min(2 * pause, POLL_MS[1])) {
            // cache_acquire could wait itself, but would keep a connection of the pool, which `compute` may need.
            const { value, status, lease } = (await this._rows('acquire', name, holdMs))[0];
            if (status === 'hit' || status === 'stale') return (await keyv.deserializeData(value)).value;
            if (status === 'compute') return this._compute(keyv, key, name, compute, { ttl, tags, lease });
            if (performance.now() > deadline) return compute();
            await sleep(pause);
        }
    }

    async _compute(keyv, key, name, compute, { ttl, tags, lease }) {
        let stored = false;
        try {
            const result = await compute();
            stored = await this.with({ tags, lease }, () => keyv.set(key, result, ttl));
            return result;
        } finally {
            // A failed transaction cannot release the lease. Its rollback does.
            if (!stored) await this._rows('release', name, lease).catch(() => {});
        }
    }

    /** Invalidates all values with one of the tags. */
    async invalidateTags(...tags) {
        await this._rows('tags', tags);
    }

    async get(key) {
        return (await this.getMany([key]))[0];
    }

    async getMany(keys) {
        const names = this._names(keys), found = new Map((await this._rows('get', names)).map(({ key, value }) => [key, value]));
        return names.map(name => found.get(name));
    }

    async set(key, value, ttl) {
        return (await this.setMany([{ key, value, ttl }]))[0];
    }

    async setMany(entries) {
        const { tags = [], lease } = this._context.getStore() ?? {};
        const ttls = entries.map(({ ttl }) => Math.min(ttl ?? YEAR_MS, YEAR_MS));
        const values = entries.map(({ value }) => value);
        return this._values('set', this._names(entries.map(({ key }) => key)), values, ttls, tags, lease);
    }

    async has(key) {
        return (await this.hasMany([key]))[0];
    }

    hasMany(keys) {
        return this._values('has', this._names(keys));
    }

    delete(key) {
        return this.deleteMany([key]);
    }

    async deleteMany(keys) {
        return (await this._values('delete', this._names(keys)))[0];
    }

    async clear() {
        await (this.namespace ? this._rows('pattern', pattern(this.namespace)) : this._rows('flush'));
    }

    async *iterator(namespace) {
        for (let keys, last = null; !keys || keys.length === PAGE_KEYS; last = keys.at(-1)) {
            keys = await this._values('keys', namespace ? pattern(namespace) : '*', PAGE_KEYS, last);
            const values = await this.getMany(keys);
            yield* keys.map((key, place) => [key, values[place]]).filter(([, value]) => value !== undefined);
        }
    }

    _names(keys) {
        return keys.map(key => this._name(key));
    }

    _name(key) {
        if (Buffer.byteLength(key) <= KEY_BYTES_MAX && !key.includes('\0')) return key;
        // With its namespace, so that clear() finds it.
        return `${this.namespace ? `${this.namespace}:` : ''}sha256:${createHash('sha256').update(key).digest('hex')}`;
    }

    async _values(query, ...values) {
        return (await this._rows(query, ...values)).map(({ value }) => value);
    }

    async _rows(query, ...values) {
        const client = this._context.getStore()?.client ?? this._pool;
        return (await client.query(queries[query], [this._space, ...values])).rows;
    }
}

const pattern = namespace => `${namespace.replace(/[\\*?]/g, '\\$&')}:*`;
