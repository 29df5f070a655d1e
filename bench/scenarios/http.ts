// The gateway over HTTP, governed in full, against the least that a proxy in Node can be and against another
// gateway: on one core, with a slow provider, with streams, with large prompts, on the whole machine.
import { cpSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type Entrant, type Field, inTurns, median, type Rounds, total } from '../http/measure.ts';
import {
  type Governed,
  installPortkey,
  prepareGoverned,
  type Subject,
  startBare,
  startDuckserve,
  startPortkey,
} from '../http/subjects.ts';
import {
  compileTools,
  type Loaded,
  type LoadOptions,
  runLoad,
  type Stub,
  startStub,
  type Tools,
  writeRequests,
} from '../http/tools.ts';
import { type Figure, type Promised, promise, skipped } from '../report.ts';
import { type Context, type Scenario, scaled } from '../scenario.ts';

const PATH = '/v1/chat/completions';
const EVENTS = 63;
/** The first event, those with text, the last ones: usage, which nobody asked for, and [DONE]. */
const EVENTS_SENT = EVENTS + 2;
const STREAMS = 128;

const messages = (content: string) => [
  { role: 'system', content: 'You are a helpful assistant that answers briefly.' },
  { role: 'user', content },
];
const QUESTION = 'What is a duck and where does it live? Please answer in two sentences.';

interface Bench {
  readonly context: Context;
  readonly tools: Tools;
  readonly rounds: number;
  readonly seconds: number;
  readonly portkey: string | undefined;
  /** Cores of subjects, and of the stub and the generator; undefined: all. */
  readonly subjectCore: number | undefined;
  readonly ownCore: number | undefined;
  readonly figures: Figure[];
  readonly promises: Promised[];
  readonly notes: string[];
  readonly undo: (() => Promise<unknown>)[];
}

export const scenario: Scenario = {
  about: 'chat completions passed on to a provider, governed, against bare node:http + undici and Portkey',
  async run(context) {
    const tools = compileTools(context.directory);
    if (typeof tools === 'string') return skipped(`the load generator cannot be made: ${tools}`);
    const installed = installPortkey();
    const bench: Bench = {
      context,
      tools,
      rounds: scaled(context, 5, 1),
      seconds: Math.max(0.5, 3 * Math.min(1, context.scale)),
      portkey: 'folder' in installed ? installed.folder : undefined,
      subjectCore: availableParallelism() > 1 ? 0 : undefined,
      ownCore: availableParallelism() > 1 ? 1 : undefined,
      figures: [],
      promises: [],
      notes: [],
      undo: [],
    };
    if ('reason' in installed) bench.notes.push(`Portkey is left out: ${installed.reason}`);
    // All of it takes a quarter of an hour: DUCKSERVE_BENCH_PARTS=oneCore,wholeMachine runs a part.
    const wanted = process.env.DUCKSERVE_BENCH_PARTS?.split(',');
    const parts = [oneCore, waiting, streams, largePrompts, configuration, wholeMachine, memory];
    for (const part of parts.filter(({ name }) => wanted?.includes(name) ?? true)) {
      try {
        await part(bench);
      } finally {
        for (const undo of bench.undo.splice(0).reverse()) await undo();
      }
    }
    const { figures, promises, notes } = bench;
    notes.push(`medians of ${bench.rounds} rounds taken in turns, ${bench.seconds} s each after warming up`);
    return { figures, promises, notes, peakRssMb: {} };
  },
};

/** Instant provider, 64 callers and 1. */
async function oneCore(bench: Bench): Promise<void> {
  const { stub, governed, subjects } = await startAll(bench, {});
  const plain = requestsOf(bench, 'plain', governed, { messages: messages(QUESTION) });
  const kept = requestsOf(bench, 'kept', governed, { messages: messages(QUESTION), temperature: 0 });
  for (const connections of [64, 1]) {
    const run = (subject: Subject, requests: string) => () =>
      load(bench, { port: subject.port, requests, connections, pids: subject.pids, own: [stub.pid] });
    const entrants: Entrant[] = [...subjects].map(([name, subject]) => ({ name, run: run(subject, plain) }));
    const duckserve = subjects.get('duckserve');
    if (duckserve) entrants.push({ name: 'cache hit', run: run(duckserve, kept) });
    const direct: Subject = { port: stub.port, pids: [stub.pid], stop: async () => {} };
    entrants.push({ name: 'direct', run: run(direct, plain) });
    const rounds = await inTurns(bench.rounds, entrants);
    const label = `one core, ${connections} caller${connections === 1 ? '' : 's'}`;
    for (const { name } of entrants) {
      compare(bench, rounds, name, 'perSecond', '/s', `${label}: requests`);
      if (name !== 'direct')
        compare(bench, rounds, name, 'cpuMicrosPerRequest', 'us', `${label}: CPU a request`);
      compare(bench, rounds, name, 'p50Ms', 'ms', `${label}: p50`);
      compare(bench, rounds, name, 'p99Ms', 'ms', `${label}: p99`);
      compare(bench, rounds, name, 'residentMb', 'MB', `${label}: memory`);
    }
    keep(bench, rounds, label);
  }
}

/** A provider that takes 50 ms, asked at a fixed rate. */
async function waiting(bench: Bench): Promise<void> {
  const { stub, governed, subjects } = await startAll(bench, { 'latency-ms': 50 });
  const requests = requestsOf(bench, 'waiting', governed, { messages: messages(QUESTION) });
  for (const rate of [1_000, 4_000]) {
    const entrants = [...subjects]
      .filter(([name]) => name !== 'portkey')
      .map(([name, { port, pids }]) => ({
        name,
        run: () => load(bench, { port, requests, connections: 1_024, rate, pids, own: [stub.pid] }),
      }));
    const rounds = await inTurns(bench.rounds, entrants);
    const label = `50 ms provider, ${rate.toLocaleString('en-US')}/s`;
    for (const { name } of entrants) {
      compare(bench, rounds, name, 'p50Ms', 'ms', `${label}: p50`);
      compare(bench, rounds, name, 'p99Ms', 'ms', `${label}: p99`);
      compare(bench, rounds, name, 'cpuMicrosPerRequest', 'us', `${label}: CPU a request`);
    }
    keep(bench, rounds, label);
  }
}

async function streams(bench: Bench): Promise<void> {
  const { stub, governed, subjects } = await startAll(bench, { 'gap-ms': 20, events: EVENTS });
  const plain = requestsOf(bench, 'streams', governed, { messages: messages(QUESTION), stream: true });
  const asking = requestsOf(bench, 'streams-usage', governed, {
    messages: messages(QUESTION),
    stream: true,
    stream_options: { include_usage: true },
  });
  const entrants: Entrant[] = [...subjects].map(([name, { port, pids }]) => ({
    name,
    run: () =>
      load(bench, {
        ...{ port, pids, connections: STREAMS, own: [stub.pid], requests: plain },
        // Others pass the usage on that nobody asked for.
        events: name === 'duckserve' ? EVENTS_SENT : EVENTS_SENT + 1,
        seconds: 2 + bench.seconds,
      }),
  }));
  const duckserve = subjects.get('duckserve');
  if (duckserve) {
    const { port, pids } = duckserve;
    const options = { port, pids, connections: STREAMS, own: [stub.pid], requests: asking };
    entrants.push({
      name: 'duckserve, usage asked for',
      run: () => load(bench, { ...options, events: EVENTS_SENT + 1, seconds: 2 + bench.seconds }),
    });
  }
  const rounds = await inTurns(Math.min(3, bench.rounds), entrants);
  const label = `${STREAMS} streams of ${EVENTS_SENT} events`;
  for (const { name } of entrants) {
    compare(bench, rounds, name, 'firstByteP50Ms', 'ms', `${label}: first byte p50`);
    compare(bench, rounds, name, 'cpuMicrosPerRequest', 'us', `${label}: CPU a stream`);
  }
  const missing = entrants
    .filter(({ name }) => name.startsWith('duckserve'))
    .reduce(
      (sum, { name }) => sum + total(rounds, 'missingEvents', name) + total(rounds, 'wrongStreams', name),
      0,
    );
  bench.promises.push(
    promise('no event of a stream is missing', missing === 0, `${missing} missing or wrong`),
  );
  keep(bench, rounds, label);
}

async function largePrompts(bench: Bench): Promise<void> {
  const { stub, governed, subjects } = await startAll(bench, {});
  const content = 'Ducks dive, they say "quack",\nand they fly. '.repeat(2_200);
  const requests = requestsOf(bench, 'large', governed, { messages: messages(content) });
  const entrants = [...subjects].map(([name, { port, pids }]) => ({
    name,
    run: () => load(bench, { port, requests, connections: 16, pids, own: [stub.pid] }),
  }));
  const rounds = await inTurns(bench.rounds, entrants);
  for (const { name } of entrants) {
    compare(bench, rounds, name, 'perSecond', '/s', '100 KB prompts: requests');
    compare(bench, rounds, name, 'cpuMicrosPerRequest', 'us', '100 KB prompts: CPU a request');
  }
  keep(bench, rounds, '100 KB prompts');
}

/** The same load on a server with one token and endpoint, and on one with very many. */
async function configuration(bench: Bench): Promise<void> {
  const stub = await openStub(bench, {});
  const counts = { tokens: scaled(bench.context, 10_000, 100), endpoints: scaled(bench.context, 1_000, 10) };
  const entrants: Entrant[] = [];
  for (const [name, many] of [
    ['one of each', { tokens: 1, endpoints: 1 }],
    [`${counts.tokens} tokens, ${counts.endpoints} endpoints`, counts],
  ] as const) {
    const governed = await prepareGoverned(
      join(bench.context.directory, `data-${many.tokens}`),
      stub.port,
      many,
    );
    const { port, pids } = await open(bench, startDuckserve(governed, { core: bench.subjectCore }));
    const requests = requestsOf(bench, `many-${many.tokens}`, governed, { messages: messages(QUESTION) });
    entrants.push({
      name,
      run: () => load(bench, { port, requests, connections: 64, pids, own: [stub.pid], warmUp: 2 }),
    });
  }
  const rounds = await inTurns(bench.rounds, entrants);
  const [few, many] = entrants.map(({ name }) => name);
  for (const [field, unit, name] of [
    ['perSecond', '/s', 'requests'],
    ['cpuMicrosPerRequest', 'us', 'CPU a request'],
    ['residentMb', 'MB', 'memory'],
  ] as const) {
    bench.figures.push({
      name: `${many}: ${name}`,
      value: median(rounds, many ?? '', field),
      unit,
      against: { name: few ?? '', value: median(rounds, few ?? '', field) },
    });
  }
  keep(bench, rounds, 'many tokens and endpoints');
}

/** Nothing is kept on a core: the subject, the stub and the generator share the machine. */
async function wholeMachine(bench: Bench): Promise<void> {
  const free = { ...bench, ownCore: undefined };
  const stub = await openStub(free, {});
  const governed = await prepareGoverned(join(bench.context.directory, 'data-whole'), stub.port, {
    tokens: 16,
    endpoints: 1,
  });
  const requests = requestsOf(bench, 'whole', governed, { messages: messages(QUESTION) });
  // A data directory has one owner.
  const copyOf = (name: string): Governed => {
    const dataDir = join(bench.context.directory, `data-whole-${name}`);
    cpSync(governed.dataDir, dataDir, { recursive: true });
    return { ...governed, dataDir };
  };
  const subjects = new Map<string, Subject>([
    ['bare', await open(bench, startBare(stub.port, undefined))],
    ['duckserve, one process', await open(bench, startDuckserve(copyOf('one')))],
    ['duckserve, 2 workers', await open(bench, startDuckserve(copyOf('two'), { workers: 2 }))],
  ]);
  const entrants = [...subjects].map(([name, { port, pids }]) => ({
    name,
    run: () => load(free, { port, requests, connections: 128, pids, own: [stub.pid], warmUp: 2 }),
  }));
  const rounds = await inTurns(bench.rounds, entrants);
  for (const { name } of entrants) {
    compare(bench, rounds, name, 'perSecond', '/s', 'whole machine, 128 callers: requests');
    compare(bench, rounds, name, 'p99Ms', 'ms', 'whole machine, 128 callers: p99');
    compare(bench, rounds, name, 'cpuMicrosPerRequest', 'us', 'whole machine, 128 callers: CPU a request');
    compare(bench, rounds, name, 'residentMb', 'MB', 'whole machine, 128 callers: memory');
  }
  keep(bench, rounds, 'whole machine');
}

/** Memory under a steady load, at the beginning and at the end. */
async function memory(bench: Bench): Promise<void> {
  const stub = await openStub(bench, {});
  const governed = await prepareGoverned(join(bench.context.directory, 'data-memory'), stub.port, {
    tokens: 16,
    endpoints: 1,
  });
  const { port, pids } = await open(bench, startDuckserve(governed, { core: bench.subjectCore }));
  const requests = requestsOf(bench, 'memory', governed, { messages: messages(QUESTION) });
  const seconds = Math.max(2, 60 * bench.context.scale);
  const steady = (time: number) =>
    load(bench, {
      port,
      requests,
      connections: 64,
      rate: 2_000,
      pids,
      own: [stub.pid],
      warmUp: 1,
      seconds: time,
    });
  const first = await steady(seconds);
  const second = await steady(seconds);
  bench.figures.push({
    name: `memory after ${Math.round(2 * seconds)} s of 2,000/s`,
    value: second.residentMb,
    unit: 'MB',
    against: { name: 'after half of it', value: first.residentMb },
  });
  bench.figures.push({
    name: 'growth of memory at 2,000/s',
    value: ((second.residentMb - first.residentMb) / seconds) * 60,
    unit: 'MB/min',
  });
}

interface Started {
  readonly stub: Stub;
  readonly governed: Governed;
  readonly subjects: ReadonlyMap<string, Subject>;
}

async function startAll(bench: Bench, flags: Parameters<typeof startStub>[1]): Promise<Started> {
  const stub = await openStub(bench, flags);
  const name = `data-${Object.values(flags ?? {}).join('-') || 'instant'}-${bench.figures.length}`;
  const governed = await prepareGoverned(join(bench.context.directory, name), stub.port, {
    tokens: 16,
    endpoints: 1,
  });
  const core = bench.subjectCore;
  const subjects = new Map<string, Subject>();
  subjects.set('bare', await open(bench, startBare(stub.port, core)));
  subjects.set('duckserve', await open(bench, startDuckserve(governed, { core })));
  if (bench.portkey !== undefined) {
    const portkey = await open(bench, startPortkey(bench.portkey, core));
    subjects.set('portkey', portkey);
    portkeyUpstream = stub.port;
  }
  return { stub, governed, subjects };
}

let portkeyUpstream = 0;

async function openStub(bench: Bench, flags: Parameters<typeof startStub>[1]): Promise<Stub> {
  const stub = await startStub(bench.tools, flags, bench.ownCore);
  bench.undo.push(() => stub.stop());
  return stub;
}

async function open(bench: Bench, starting: Promise<Subject>): Promise<Subject> {
  const subject = await starting;
  bench.undo.push(() => subject.stop());
  return subject;
}

type LoadWish = Omit<LoadOptions, 'warmUp' | 'seconds' | 'core'> &
  Partial<Pick<LoadOptions, 'warmUp' | 'seconds'>>;

function load(bench: Bench, wish: LoadWish): Promise<Loaded> {
  return runLoad(bench.tools, { warmUp: 1, seconds: bench.seconds, core: bench.ownCore, ...wish });
}

/** Each token and each endpoint in turn. Portkey is told by headers where to go; the others do not mind them. */
function requestsOf(bench: Bench, name: string, governed: Governed, body: object): string {
  const { tokens, endpoints } = governed;
  const count = Math.max(tokens.length, endpoints.length);
  const more =
    bench.portkey === undefined
      ? {}
      : { 'x-portkey-provider': 'openai', 'x-portkey-custom-host': `http://127.0.0.1:${portkeyUpstream}/v1` };
  return writeRequests(
    join(bench.context.directory, `${name}-${bench.figures.length}.requests`),
    Array.from({ length: count }, (_, index) => ({
      path: PATH,
      token: tokens[index % tokens.length] ?? '',
      headers: more,
      body: { model: endpoints[index % endpoints.length], ...body },
    })),
  );
}

function compare(bench: Bench, rounds: Rounds, name: string, field: Field, unit: string, what: string): void {
  const bare = median(rounds, 'bare', field);
  bench.figures.push({
    name: `${what}, ${name}`,
    value: median(rounds, name, field),
    unit,
    ...(name === 'bare' || Number.isNaN(bare) ? {} : { against: { name: 'bare', value: bare } }),
  });
}

/** What must hold of duckserve in every run, and what others did to the machine meanwhile. */
function keep(bench: Bench, rounds: Rounds, label: string): void {
  let bad = 0;
  let others = 0;
  for (const [name, runs] of rounds.of) {
    for (const loaded of runs) {
      others = Math.max(others, loaded.othersCores);
      if (name === 'bare' || name === 'portkey' || name === 'direct') continue;
      bad += loaded.failures + loaded.refused;
    }
  }
  bench.promises.push(promise(`${label}: every request is answered 200`, bad === 0, `${bad} were not`));
  if (others > 0.25)
    bench.notes.push(`${label}: others used up to ${others.toFixed(2)} cores; compare ratios only`);
}
