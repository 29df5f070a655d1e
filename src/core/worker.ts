// Starts a worker thread from a source or a built file. In a checkout the file is TypeScript, and the thread has
// to register tsx itself: under Node 20 a loader named by `--import` does not hook into worker threads.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { Worker, type WorkerOptions } from 'node:worker_threads';

/** `url` as from `new URL('./x.ts', import.meta.url)`; in a build the ending becomes `.js`. */
export function startWorker(url: URL, options: WorkerOptions = {}): Worker {
  if (!import.meta.url.endsWith('.ts')) return new Worker(new URL(url.href.replace(/\.ts$/, '.js')), options);
  const commonJs = createRequire(import.meta.url).resolve('tsx/esm/api');
  // `require` finds the CommonJS form, which cannot register hooks for modules; the other one lies beside it.
  const tsx = pathToFileURL(commonJs.replace(/\.cjs$/, '.mjs')).href;
  const source = `import(${JSON.stringify(tsx)}).then(({ register }) => {
    register();
    return import(${JSON.stringify(url.href)});
  });`;
  return new Worker(source, { ...options, eval: true, execArgv: [] });
}
