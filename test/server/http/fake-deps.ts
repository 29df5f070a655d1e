// A small double of what stands behind the HTTP door: it echoes, and keeps what it was asked.
import type { Answer, Call, ChatInput, Output, StreamEvent } from '#core/call.ts';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import type { Endpoint, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { UsageRow } from '#core/stores.ts';
import { Identity } from '#governance/identity/identity.ts';
import type { StatementResult } from '#session/result.ts';
import type { HttpDeps, SqlSession } from '../../../src/server/http/deps.ts';
import { NO_CONTROL } from './control-fake.ts';

export function createEndpoint(
  name: string,
  task: Endpoint['task'],
  options: Partial<Endpoint> = {},
): Endpoint {
  return {
    id: `id-of-${name}`,
    name,
    task,
    servedEntities: [{ name: `${name}-1`, entityName: name, entityVersion: '1' }],
    routes: [{ servedEntityName: `${name}-1`, trafficPercentage: 100 }],
    configVersion: 1,
    description: '',
    tags: [],
    creator: 'local',
    createdAtMs: 1_700_000_000_000,
    updatedAtMs: 1_700_000_000_000,
    isEmbedded: false,
    ...options,
  };
}

export interface FakeDeps extends HttpDeps {
  readonly calls: Call[];
  readonly created: unknown[];
  readonly statements: { sql: string; options: Parameters<SqlSession['run']>[1] }[];
  readonly logged: string[];
  openSessions: number;
  /** Replace to make serving fail or wait. */
  answer: (call: Call) => Promise<Answer>;
  events: (call: Call) => AsyncIterable<StreamEvent>;
  runStatement: (sql: string) => Promise<readonly StatementResult[]>;
  emitUsage(row: Partial<UsageRow>): void;
}

export function createFakeDeps(options: { readonly authTokens?: readonly string[] } = {}): FakeDeps {
  const endpoints = new Map(
    [
      createEndpoint('chat', 'llm/v1/chat'),
      createEndpoint('text', 'llm/v1/completions'),
      createEndpoint('vectors', 'llm/v1/embeddings', { isEmbedded: true }),
      createEndpoint('iris', 'predict'),
    ].map((endpoint) => [endpoint.name, endpoint]),
  );
  const listeners: ((row: UsageRow) => void)[] = [];
  const find = (name: string): Endpoint => {
    const endpoint = endpoints.get(name);
    if (endpoint) return endpoint;
    throw new ServingError(
      'ENDPOINT_NOT_FOUND',
      `There is no endpoint '${name}'. Known are: chat, text, vectors, iris.`,
    );
  };
  const log = (_fields: object, message: string) => {
    deps.logged.push(`${message} ${JSON.stringify(_fields)}`);
  };
  const deps: FakeDeps = {
    identity: new Identity({
      store: { transact: async () => {} },
      clock: SYSTEM_CLOCK,
      env: { DUCKSERVE_TOKENS: options.authTokens?.join(',') },
    }),
    version: '9.9.9',
    log: { ...SILENT_LOG, info: log, warn: log, error: log },
    calls: [],
    created: [],
    statements: [],
    logged: [],
    openSessions: 0,
    answer: async (call) => echo(call),
    events: (call) => streamEcho(call),
    runStatement: async () => [tableOf([[1, 'a']])],
    serving: {
      async invoke(call) {
        deps.calls.push(call);
        find(call.endpoint);
        return deps.answer(call);
      },
      async stream(call) {
        deps.calls.push(call);
        find(call.endpoint);
        return { target: toTarget(call), events: deps.events(call) };
      },
      onUsage: (listener) => void listeners.push(listener),
      queueDepths: () => [{ target: 'chat', waiting: 3, inFlight: 2, limit: 8 }],
    },
    registry: {
      ...NO_CONTROL,
      listEndpoints: () => [...endpoints.values()],
      getEndpoint: find,
      async createEndpoint(spec) {
        deps.created.push(spec);
        const { name } = spec as { name: string };
        endpoints.set(name, createEndpoint(name, 'llm/v1/chat'));
        return find(name);
      },
      async deleteEndpoint(name) {
        find(name);
        endpoints.delete(name);
      },
    },
    async openSession() {
      deps.openSessions++;
      return {
        run(sql, runOptions) {
          deps.statements.push({ sql, options: runOptions });
          return deps.runStatement(sql);
        },
        async close() {
          deps.openSessions--;
        },
      };
    },
    createBudget: (limits) => ({ limits, reserve: async () => ({ settle() {} }) }),
    emitUsage: (row) => {
      for (const listener of listeners) listener({ ...USAGE, ...row });
    },
  };
  return deps;
}

/** What the tests look at in JSON answers; which of it is there depends on the route. */
interface WireAnswer {
  readonly message: string;
  readonly error: { readonly message: string };
  readonly error_code: string;
  readonly choices: readonly { readonly text: string; readonly message: { readonly content: string } }[];
  readonly data: readonly { readonly embedding: readonly number[] }[];
  readonly endpoints: readonly { readonly name: string }[];
  readonly task: string;
  readonly status: object;
  readonly manifest: { readonly truncated: boolean };
  readonly result: { readonly data_array: readonly unknown[] };
  readonly paths: Readonly<Record<string, Readonly<Record<string, { readonly requestBody: WireBody }>>>>;
}
interface WireBody {
  readonly content: Readonly<Record<string, { readonly schema: { readonly required: readonly string[] } }>>;
}

export async function readJson(response: Response): Promise<WireAnswer> {
  return (await response.json()) as WireAnswer;
}

export function tableOf(rows: readonly (readonly (string | number | null)[])[]): StatementResult {
  return {
    kind: 'rows',
    columns: [
      { name: 'id', type: 'INTEGER' },
      { name: 'price', type: 'DECIMAL(10,2)' },
    ],
    rowCount: rows.length,
    changedRows: null,
    rows: () => rows.values(),
    calls: { asked: 2, cached: 1, passes: 2 },
  };
}

function echo(call: Call): Answer {
  const items = call.inputs.map((input) => ({
    ok: true as const,
    output: echoOne(input),
    usage: { inputTokens: 2, outputTokens: 3 },
    cached: false,
  }));
  const usage = { inputTokens: 2 * items.length, outputTokens: 3 * items.length };
  return { items, usage, cost: null, servedEntity: `${call.endpoint}-1`, model: `echo/${call.endpoint}` };
}

function echoOne(input: Call['inputs'][number]): Output {
  if ('messages' in input) return { content: lastText(input), finishReason: 'stop' };
  if ('prompt' in input) return { text: input.prompt, finishReason: 'stop' };
  if ('text' in input) return { embedding: Float32Array.of(input.text.length, 0.5, -1.25) };
  return { prediction: Object.values(input.features) };
}

function lastText(input: ChatInput): string {
  const content = input.messages.at(-1)?.content ?? '';
  return typeof content === 'string' ? content : JSON.stringify(content);
}

async function* streamEcho(call: Call): AsyncGenerator<StreamEvent> {
  const input = call.inputs[0] as ChatInput | { prompt: string };
  for (const word of ('prompt' in input ? input.prompt : lastText(input)).split(/(?<= )/)) {
    yield { type: 'delta', text: word };
  }
  yield { type: 'end', finishReason: 'stop', usage: { inputTokens: 2, outputTokens: 3 } };
}

function toTarget(call: Call): Target {
  return {
    endpoint: call.endpoint,
    servedEntity: `${call.endpoint}-1`,
    engine: 'echo',
    task: call.task,
    fingerprint: 'f',
    model: `echo/${call.endpoint}`,
  };
}

const USAGE: UsageRow = {
  requestId: 'r',
  callId: 'c',
  clientRequestId: null,
  requestTimeMs: 0,
  requester: 'local',
  origin: 'http',
  endpoint: 'chat',
  servedEntity: 'chat-1',
  model: 'echo/chat',
  engine: 'echo',
  task: 'llm/v1/chat',
  statusCode: 200,
  errorCode: null,
  errorMessage: null,
  inputCount: 1,
  cachedCount: 0,
  attempts: 1,
  inputTokens: 2,
  outputTokens: 3,
  cost: null,
  durationMs: 12,
  isStreaming: false,
  usageContext: null,
};

/** A stream that fails before its first event. */
export function failingStream(error: Error): AsyncIterable<StreamEvent> {
  return { [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(error) }) };
}
