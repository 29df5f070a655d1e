// Any remote engine opened against one stub provider, and the failures that every one of them has to tell apart.
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { ChatInput, Input, Parameters, StreamEvent, Task } from '#core/call.ts';
import type { ExternalModel, Target } from '#core/endpoint.ts';
import { type ErrorCode, ServingError } from '#core/errors.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { Batch, Engine, EngineContext, RunItem, Runner } from '#engines/engine.ts';
import { type StubAnswer, type StubProvider, startStubProvider } from '../stub/provider.ts';
import { collect, expectCode } from './contract.ts';

export type ModelOf = (stub: StubProvider, task: ExternalModel['task']) => Omit<ExternalModel, 'task'>;

export interface ProviderStub {
  readonly provider: StubProvider;
  target(task: ExternalModel['task'], change?: Partial<ExternalModel>): Target;
  /** Closed by `reset`. */
  open(task: ExternalModel['task'], change?: Partial<ExternalModel>): Promise<Runner>;
  /** Body of the last request. */
  sent(): Readonly<Record<string, unknown>>;
  /** Every request is answered so until `reset`. */
  reply(answer: StubAnswer): void;
  /** Back to good behaviour and an empty ledger. */
  reset(): Promise<void>;
  close(): Promise<void>;
}

/** `secrets`: what each reference resolves to; any other text is a plain secret. */
export function contextOf(secrets: Readonly<Record<string, string>> = {}): EngineContext {
  return {
    log: SILENT_LOG,
    modelCacheDir: '',
    resolveSecret: (reference) => {
      const value = secrets[reference];
      if (value !== undefined || !reference.startsWith('{{')) return value ?? reference;
      throw new ServingError('SECRET_NOT_FOUND', `There is no secret ${reference}.`);
    },
    allowDownload: () => false,
    notify: () => {},
  };
}

export async function startProviderStub(
  engine: Engine,
  modelOf: ModelOf,
  secrets: Readonly<Record<string, string>> = {},
): Promise<ProviderStub> {
  const provider = await startStubProvider();
  const context = contextOf(secrets);
  const opened: Runner[] = [];
  const target: ProviderStub['target'] = (task, change = {}) => ({
    endpoint: 'e',
    servedEntity: 's',
    engine: engine.kind,
    task,
    fingerprint: 'f',
    model: 'stub-model',
    externalModel: { ...modelOf(provider, task), task, ...change },
  });
  return {
    provider,
    target,
    open: async (task, change) => {
      const runner = await engine.open(target(task, change), context);
      opened.push(runner);
      return runner;
    },
    sent: () => provider.requests.at(-1)?.body ?? {},
    reply: (answer) => provider.behave({ answer: () => answer }),
    reset: async () => {
      await Promise.all(opened.splice(0).map((runner) => runner.close()));
      provider.behave({
        answer: () => undefined,
        latencyMs: 0,
        eventGapMs: 0,
        rate429: 0,
        rate500: 0,
        rateCut: 0,
        rateMalformed: 0,
        omitUsage: false,
        needsToken: false,
      });
      provider.tokens.lifeSeconds = 3_600;
      provider.resetLedger();
    },
    close: () => provider.close(),
  };
}

export const user = (content: string): ChatInput => ({ messages: [{ role: 'user', content }] });

export const batchOf = (
  task: Task,
  inputs: readonly Input[],
  parameters: Parameters = {},
  signal: AbortSignal = new AbortController().signal,
): Batch => ({ task, inputs, parameters, signal });

export const chat = (input: ChatInput | string, parameters?: Parameters, signal?: AbortSignal): Batch =>
  batchOf('llm/v1/chat', [typeof input === 'string' ? user(input) : input], parameters, signal);

export async function ask(runner: Runner, batch: Batch): Promise<Extract<RunItem, { ok: true }>> {
  const [item] = (await runner.invoke(batch)).items;
  if (!item?.ok) throw item?.error ?? new Error('no item');
  return item;
}

export function streamOf(runner: Runner, batch: Batch): AsyncIterable<StreamEvent> {
  if (!runner.stream) throw new Error('the engine streams');
  return runner.stream(batch);
}

export const textOf = (events: readonly StreamEvent[]): string =>
  events.map((event) => (event.type === 'delta' ? event.text : '')).join('');

/** Arguments of the first tool call of a stream, put together. */
export const argumentsOf = (events: readonly StreamEvent[]): string =>
  events.map((event) => (event.type === 'tool_call' ? (event.arguments ?? '') : '')).join('');

export interface FailureContract {
  readonly engine: Engine;
  readonly modelOf: ModelOf;
  readonly secrets?: Readonly<Record<string, string>>;
  /** Whatever an error text must never show. */
  readonly hidden: readonly string[];
  /** Body of an error in the provider's own spelling, and its headers. */
  readonly error: (message: string) => { readonly body: unknown; readonly headers?: Record<string, string> };
  /** A stream with status 200 that begins well and then carries an error, and its code. */
  readonly inside: { readonly code: ErrorCode; readonly answer: StubAnswer };
  /** Called after the stub has started (accounts, tokens). */
  readonly prepare?: (provider: StubProvider) => void;
}

/** The failures of a chat provider, told apart and told honestly. */
export function describeFailures(name: string, contract: FailureContract): void {
  describe(`${name}: failures`, () => {
    let stub: ProviderStub;
    beforeAll(async () => {
      stub = await startProviderStub(contract.engine, contract.modelOf, contract.secrets);
      contract.prepare?.(stub.provider);
    });
    afterEach(() => stub.reset());
    afterAll(() => stub.close());

    const both = async (code: ErrorCode, change?: Partial<ExternalModel>): Promise<ServingError> => {
      const runner = await stub.open('llm/v1/chat', change);
      await expectCode(code, collect(streamOf(runner, chat('x'))));
      return expectCode(code, runner.invoke(chat('x')));
    };

    test('each status has its code, with what the provider said and without a secret', async () => {
      const codes = {
        400: 'UPSTREAM_REJECTED',
        401: 'UPSTREAM_AUTH',
        403: 'UPSTREAM_AUTH',
        404: 'UPSTREAM_REJECTED',
        408: 'TIMEOUT',
        413: 'PAYLOAD_TOO_LARGE',
        424: 'UPSTREAM_ERROR',
        429: 'RATE_LIMITED',
        500: 'UPSTREAM_ERROR',
        503: 'UPSTREAM_ERROR',
        529: 'UPSTREAM_ERROR',
      } as const;
      const said = `because of ${contract.hidden.join(' and ')}, see the site`;
      for (const [status, code] of Object.entries(codes)) {
        stub.reply({ status: Number(status), ...contract.error(said) });
        const error = await both(code);
        expect(error.message).toContain(`answered ${status}: `);
        expect(error.message).toContain('because of [redacted]');
        expect(error.message).toContain('see the site');
        for (const secret of contract.hidden) expect(error.message).not.toContain(secret);
        expect(error.details.status).toBe(Number(status));
      }
    });

    test('the wait that a 429 asks for is kept', async () => {
      const { body, headers = {} } = contract.error('slow down');
      stub.reply({ status: 429, body, headers: { ...headers, 'retry-after': '7' } });
      expect((await both('RATE_LIMITED')).retryAfterMs).toBe(7_000);
    });

    test('text that is not JSON or not an answer is an INVALID_RESPONSE', async () => {
      const runner = await stub.open('llm/v1/chat');
      for (const body of ['{"half', '', 'null', '[]', '{}', '<html>a proxy</html>']) {
        stub.reply({ body });
        await expectCode('INVALID_RESPONSE', runner.invoke(chat('x')));
      }
      stub.reply({ headers: { 'content-type': 'text/html' }, body: '<html>a proxy</html>' });
      await expectCode('INVALID_RESPONSE', collect(streamOf(runner, chat('x'))));
    });

    test('a cut before the answer, or in the middle of an event after what had come, is an UPSTREAM_ERROR', async () => {
      const runner = await stub.open('llm/v1/chat');
      stub.provider.behave({ rateCut: 1 });
      await expectCode('UPSTREAM_ERROR', runner.invoke(chat('x')));
      const seen: string[] = [];
      const read = async () => {
        for await (const event of streamOf(runner, chat('a longer question'))) seen.push(event.type);
      };
      await expectCode('UPSTREAM_ERROR', read());
      expect(seen).toContain('delta');
      expect(seen).not.toContain('end');
    });

    test('a broken event is an INVALID_RESPONSE', async () => {
      const runner = await stub.open('llm/v1/chat');
      stub.provider.behave({ rateMalformed: 1 });
      await expectCode('INVALID_RESPONSE', collect(streamOf(runner, chat('x'))));
    });

    test('an error inside a stream that began with 200 is that error, never an end', async () => {
      const runner = await stub.open('llm/v1/chat');
      stub.reply(contract.inside.answer);
      const seen: string[] = [];
      const read = async () => {
        for await (const event of streamOf(runner, chat('x'))) seen.push(event.type);
      };
      await expectCode(contract.inside.code, read());
      expect(seen).toEqual(['delta']);
    });

    test('an answer that does not come in time is a TIMEOUT, and the request is dropped', async () => {
      const runner = await stub.open('llm/v1/chat', { timeoutMs: 40 });
      await runner.invoke(chat('warm up: tokens and connections'));
      stub.provider.resetLedger();
      stub.provider.behave({ latencyMs: 60_000 });
      await expectCode('TIMEOUT', runner.invoke(chat('x')));
      await expectCode('TIMEOUT', collect(streamOf(runner, chat('x'))));
      await expect.poll(() => stub.provider.ledger()).toMatchObject({ inFlight: 0, aborted: 2 });
    });

    test('an abort ends the request at the provider, before the answer and in the middle of a stream', async () => {
      const runner = await stub.open('llm/v1/chat');
      stub.provider.behave({ latencyMs: 60_000 });
      const first = new AbortController();
      const work = runner.invoke(chat('x', {}, first.signal));
      await expect.poll(() => stub.provider.ledger().inFlight).toBe(1);
      first.abort();
      await expectCode('CANCELLED', work);
      stub.provider.behave({ latencyMs: 0, eventGapMs: 20 });
      const second = new AbortController();
      const read = async () => {
        for await (const event of streamOf(runner, chat('x', {}, second.signal))) {
          if (event.type === 'delta') second.abort();
        }
      };
      await expectCode('CANCELLED', read());
      await expect.poll(() => stub.provider.ledger()).toMatchObject({ inFlight: 0, aborted: 2 });
    });

    test('a consumer that stops early ends the request at the provider', async () => {
      stub.provider.behave({ eventGapMs: 20 });
      const runner = await stub.open('llm/v1/chat');
      for await (const event of streamOf(runner, chat('x'))) if (event.type === 'delta') break;
      await expect.poll(() => stub.provider.ledger()).toMatchObject({ inFlight: 0, aborted: 1 });
    });

    test('a stream read to its end leaves its connection to the next request', async () => {
      stub.provider.behave({ eventGapMs: 2 });
      const runner = await stub.open('llm/v1/chat', { maxConcurrency: 1 });
      for (let round = 0; round < 3; round++) await collect(streamOf(runner, chat(`round ${round}`)));
      const tokenConnections = stub.provider.tokens.issued > 0 ? 1 : 0;
      const { connections, aborted } = stub.provider.ledger();
      expect(aborted).toBe(0);
      expect(connections).toBeLessThanOrEqual(1 + tokenConnections);
    });

    test('a question of 3 MB arrives whole', async () => {
      const runner = await stub.open('llm/v1/chat');
      const events: StreamEvent[] = [];
      const long = 'word '.repeat(600_000);
      for await (const event of streamOf(runner, chat(long))) events.push(event);
      expect(events.at(-1)?.type).toBe('end');
      expect(textOf(events)).toContain(long.slice(0, 50));
    });
  });
}
