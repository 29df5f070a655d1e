// The stub provider as its own process, for benchmarks: `node --import tsx test/stub/main.ts --latency-ms 50`.
// Prints `listening on URL`; the ledger is at GET /ledger, POST /ledger/reset clears it.
import { parseArgs } from 'node:util';
import { startStubProvider } from './provider.ts';

const number = { type: 'string' } as const;
const { values } = parseArgs({
  options: {
    port: number,
    'latency-ms': number,
    'event-gap-ms': number,
    'max-parallel': number,
    rate429: number,
    rate500: number,
    'rate-cut': number,
    'rate-malformed': number,
    'rate-slow': number,
    'slow-ms': number,
    seed: number,
    'retry-after-ms': number,
    dimensions: number,
    'api-key': { type: 'string' },
  },
});

function read(name: Exclude<keyof typeof values, 'api-key'>, option: string): Record<string, number> {
  const given = values[name];
  if (given === undefined) return {};
  const value = Number(given);
  if (!Number.isFinite(value) || value < 0)
    throw new Error(`--${name} must be a number of 0 or more, not "${given}"`);
  return { [option]: value };
}

const stub = await startStubProvider({
  ...read('port', 'port'),
  ...read('latency-ms', 'latencyMs'),
  ...read('event-gap-ms', 'eventGapMs'),
  ...read('max-parallel', 'maxParallel'),
  ...read('rate429', 'rate429'),
  ...read('rate500', 'rate500'),
  ...read('rate-cut', 'rateCut'),
  ...read('rate-malformed', 'rateMalformed'),
  ...read('rate-slow', 'rateSlow'),
  ...read('slow-ms', 'slowMs'),
  ...read('seed', 'seed'),
  ...read('retry-after-ms', 'retryAfterMs'),
  ...read('dimensions', 'dimensions'),
  ...(values['api-key'] === undefined ? {} : { apiKey: values['api-key'] }),
});
console.log(`listening on ${stub.url}`);
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    void stub.close().then(() => process.exit(0));
  });
}
