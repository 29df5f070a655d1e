#!/usr/bin/env node
// Sets the size of libuv's thread pool before the first import: every running DuckDB call occupies one
// thread of it, the default is four, and inside an ES module it is too late to change it.
process.env.UV_THREADPOOL_SIZE ??= '32';
require('./start.cjs');
