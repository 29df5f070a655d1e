#!/usr/bin/env node
// Sets the size of libuv's thread pool before the first import: every running DuckDB call occupies one
// thread of it, the default is four, and inside an ES module it is too late to change it.
process.env.UV_THREADPOOL_SIZE ??= '32';
// V8 would put objects straight into the old generation once enough of their kind have lived long (requests that
// waited, at the start); those then keep everything they point to alive, and each request costs half as much again.
require('node:v8').setFlagsFromString('--no-allocation-site-pretenuring');
require('./start.cjs');
