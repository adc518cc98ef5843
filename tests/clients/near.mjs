// Runs examples/near_cache.mjs for near.rs, which sends a command a line and gets an answer a line.
//
//     node near.mjs listen|poll POLL_SECONDS STALE_SECONDS NODE_MODULES
//
// The values are integers. A place is SPACE/KEY. near.py and near.mjs must have the same commands; the head of near.py lists them.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { NearCache } from '../../examples/near_cache.mjs';

const [mode, pollSeconds, staleSeconds, modules] = process.argv.slice(2);
const { Pool } = createRequire(join(modules, 'any.js'))('pg');
const pool = new Pool({ max: 4 }).on('error', () => {});
const cache = new NearCache(pool, { listen: mode === 'listen', pollMs: 1000 * pollSeconds, staleMs: 1000 * staleSeconds });
const floors = new Map(), counts = { reads: 0, stale: 0 };
let sent, readers = [], calm = false;

const get = async place => {
    const [space, key] = place.split('/');
    return String(await cache.get(key, space));
};

const readAtRandom = async places => {
    while (!calm) {
        const place = places[Math.floor(Math.random() * places.length)], floor = floors.get(place) ?? 0;
        try {
            const value = await get(place);
            counts.reads++;
            counts.stale += value !== 'null' && Number(value) < floor;
        } catch {
            await sleep(10);
        }
        // Local hits alone would never let the connections have a turn.
        if (counts.reads % 20 === 0) await sleep(0);
    }
};

const commands = {
    get: ([place]) => get(place).catch(() => 'error'),
    send: ([place]) => {
        sent = get(place);
    },
    receive: () => sent,
    cursor: () => cache._cursor,
    held: () =>
        [...cache._values].map(([place, { text }]) => `${JSON.parse(place).join('/')}=${text}`).join(' '),
    storm: places => {
        readers = [1, 2, 3].map(() => readAtRandom(places));
    },
    floors: changes => changes.map(change => change.split('=')).forEach(([place, number]) => floors.set(place, Number(number))),
    reads: () => counts.reads,
    calm: async () => {
        calm = true;
        await Promise.all(readers);
        return `${counts.reads} ${counts.stale}`;
    },
};

for await (const line of createInterface({ input: process.stdin })) {
    const [command, ...words] = line.split(' ');
    console.log((await commands[command](words)) ?? 'ok');
}
process.exit();
