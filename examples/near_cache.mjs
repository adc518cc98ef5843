// A near-cache: keeps values of pg_cache in this process, and drops each when it changes. docs/near-caches.md proves the rules. A
// *name* is the kind, space and name of a row of `cache_changes`: a value depends on those of its key, tags, space and database.
// The *cursor*, the number of the last applied change, moves only after all changes of an answer were applied.

import { setTimeout as sleep } from 'node:timers/promises';

const ROWS_MAX = 1000; // of one answer. An answer with fewer rows has all changes
const nameOf = (kind, space = null, name = null) => JSON.stringify([kind, space, name]);
const EVERYTHING = nameOf('database');

export class NearCache {
    _cursor = '-1'; // the last change that was applied. -1 is of no server, so the first answer is a reset
    _proven = -Infinity; // when the last answer was asked for that had all changes
    _values = new Map(); // place: { text, names that it depends on, expires }
    _flights = new Set(); // for each read that is under way: the names that have changed since it began
    _closed = false;
    _wake = () => {};

    /** `pool` is a Pool of node-postgres, to the primary. Behind a pooler in transaction mode, pass `listen: false`. */
    constructor(pool, { listen = true, pollMs = 1000, staleMs = 2000, entriesMax = 10_000 } = {}) {
        Object.assign(this, { _pool: pool, _listen: listen, _pollMs: pollMs, _staleMs: staleMs, _entriesMax: entriesMax });
        this._follower = this._follow();
    }

    /** Returns the value of a key, or null. A value from this process is at most `staleMs` old. */
    async get(key, space = 'default') {
        const place = JSON.stringify([space, key]), now = performance.now(), found = this._values.get(place);
        // Without a recent answer, the value may have changed unnoticed: the server may be out of reach.
        if (found && now < found.expires && now < this._proven + this._staleMs) return JSON.parse(found.text);
        const changed = new Set();
        // Before the read is sent: a change may be applied before the read's older answer arrives.
        this._flights.add(changed);
        try {
            // Not in a transaction block, which could hide later changes from the read.
            const text = 'SELECT value::text, keep, 1000 * extract(epoch FROM ttl)::float8 AS ttl_ms, tags FROM cache_get_near($1, $2)';
            // `keep`: whether the value may be kept at all, for `ttl_ms`. False for values whose changes the journal does not name.
            const { value, keep, ttl_ms, tags } = (await this._pool.query(text, [key, space])).rows[0];
            const names = [EVERYTHING, nameOf('space', space), nameOf('key', space, key)];
            names.push(...(tags ?? []).map(tag => nameOf('tag', null, tag)));
            if (keep && !names.some(name => changed.has(name))) this._keep(place, { text: value, names, expires: now + ttl_ms });
            return JSON.parse(value);
        } finally {
            this._flights.delete(changed);
        }
    }

    async close() {
        this._closed = true;
        this._wake();
        await this._follower;
    }

    _keep(place, entry) {
        if (this._values.size >= this._entriesMax) this._values.delete(this._values.keys().next().value);
        this._values.set(place, entry);
    }

    /** Applies changes until the cache is closed. After a lost connection it goes on with the old cursor. */
    async _follow() {
        for (let delay = 20; !this._closed; delay = Math.min(2 * delay, 500)) {
            let client;
            try {
                client = await this._pool.connect();
                // A notification only wakes. Any role may send one, so its content must not be used.
                client.on('notification', () => this._wake()).on('error', () => this._wake());
                if (this._listen) await client.query('LISTEN pg_cache');
                while (!this._closed) {
                    const wake = new AbortController();
                    this._wake = () => wake.abort(); // before the call: a change during the call needs another one
                    await this._catchUp(client);
                    delay = 20;
                    await sleep(this._pollMs, null, { signal: wake.signal }).catch(() => {});
                }
            } catch { /* the next turn connects again */ }
            client?.release(true); // closes the connection: another user of the pool must not be one that listens
            if (!this._closed) await sleep(delay);
        }
    }

    async _catchUp(client) {
        for (let rows = { length: ROWS_MAX }; rows.length >= ROWS_MAX; ) {
            const asked = performance.now();
            const text = 'SELECT seq, kind, space, name FROM cache_changes($1, $2)';
            rows = (await client.query(text, [this._cursor, ROWS_MAX])).rows;
            // A reset means that the server cannot tell what has changed, so everything counts as changed.
            const nameOfRow = ({ kind, space, name }) => kind === 'reset' ? EVERYTHING : nameOf(kind, space, name);
            const names = new Set(rows.map(nameOfRow));
            for (const changed of this._flights) names.forEach(name => changed.add(name));
            for (const [place, entry] of this._values) {
                if (entry.names.some(name => names.has(name))) this._values.delete(place);
            }
            if (rows.length > 0) this._cursor = rows.at(-1).seq; // after all rows: some share one number
            if (rows.length < ROWS_MAX) this._proven = asked;
        }
    }
}
