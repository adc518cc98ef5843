// Runs keyv's tests of stores with examples/backends/keyv, under vitest, in a directory that has the modules.
// KEYV_BACKEND is the path of keyv_pg_cache.mjs.

import keyvTestSuite, { keyvIteratorTests } from '@keyv/test-suite';
import Keyv from 'keyv';
import pg from 'pg';
import * as test from 'vitest';

const { KeyvPgCache } = await import(process.env.KEYV_BACKEND);
const pool = new pg.Pool({ max: 4 });
const store = () => new KeyvPgCache(pool);

keyvTestSuite(test, Keyv, store);
keyvIteratorTests(test, Keyv, store);
