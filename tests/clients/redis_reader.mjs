// Reads Redis for redis.rs through node-redis. Each line of input is a JSON array, a command and its arguments, and each answer is
// a line of JSON.
//
//     node redis_reader.mjs URL NODE_MODULES
//
// redis_reader.py and redis_reader.mjs must have the same commands; the head of redis_reader.py lists them.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const [url, modules] = process.argv.slice(2);
const { createClient } = createRequire(join(modules, 'any.js'))('redis');
const client = await createClient({ url }).connect();
const listener = await client.duplicate().connect();
const messages = [];

const commands = {
    async get(key) {
        const text = await client.get(key);
        return text === null ? null : JSON.parse(text);
    },
    pttl: key => client.pTTL(key),
    async keys(pattern) {
        const keys = [];
        for await (const some of client.scanIterator({ MATCH: pattern, TYPE: 'string' })) keys.push(...some);
        return keys.sort();
    },
    async subscribe(channel) {
        await listener.subscribe(channel, message => messages.push(JSON.parse(message)));
        return null;
    },
    async message(seconds) {
        const end = Date.now() + 1000 * seconds;
        while (messages.length === 0 && Date.now() < end) await sleep(5);
        return messages.shift() ?? null;
    },
};

for await (const line of createInterface({ input: process.stdin })) {
    const [command, ...values] = JSON.parse(line);
    console.log(JSON.stringify(await commands[command](...values)));
}
process.exit();
