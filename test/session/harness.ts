// Sessions over a real DuckDB and a scripted model: what the passes ask is counted input by input.
import { DuckDBInstance } from '@duckdb/node-api';
import type { Answer, AnswerItem, Call, Input, Output, Task } from '#core/call.ts';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import type { Signature, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { LocalTarget, Serving } from '#serving/serving.ts';
import type { Session } from '#session/session.ts';
import { Sessions, type SessionsOptions } from '#session/sessions.ts';

export interface ScriptedModel {
  readonly task: Task;
  readonly signature?: Signature;
  readonly local?: LocalTarget['runner'];
  /** May throw a ServingError: the error of this input. */
  answer(input: Input, call: Call): Output | Promise<Output>;
}

export interface Harness {
  readonly session: Session;
  readonly other: Session;
  /** Inputs that reached a model, as text, in order. */
  readonly asked: string[];
  readonly calls: Call[];
  readonly localInputs: number[];
  close(): Promise<void>;
}

export const chatText = (input: Input): string => {
  const message = 'messages' in input ? input.messages.at(-1) : undefined;
  return typeof message?.content === 'string' ? message.content : '';
};

export const say = (content: string): Output => ({ content, finishReason: 'stop' });

/** `defaults` names the endpoints that functions use when they are given none; `options` replaces what sessions are given. */
export async function openHarness(
  models: Readonly<Record<string, ScriptedModel>>,
  defaults: Partial<Record<'chat' | 'embedding' | 'classify', string>> = {},
  options: Partial<SessionsOptions> = {},
): Promise<Harness> {
  const asked: string[] = [];
  const calls: Call[] = [];
  const localInputs: number[] = [];
  const modelOf = (endpoint: string) => {
    const model = models[endpoint];
    if (!model) throw new ServingError('ENDPOINT_NOT_FOUND', `There is no endpoint '${endpoint}'.`);
    return model;
  };
  const locals = new Map<string, LocalTarget>();
  const targetOf = (endpoint: string): Target => ({
    endpoint,
    servedEntity: endpoint,
    engine: 'echo',
    task: modelOf(endpoint).task,
    fingerprint: endpoint,
    model: endpoint,
  });
  const fake = {
    describe: (endpoint: string) => {
      const { signature } = modelOf(endpoint);
      return { target: targetOf(endpoint), ...(signature ? { signature } : {}) };
    },
    local: (endpoint: string) => locals.get(endpoint),
    openLocal: async (endpoint: string) => {
      const runner = modelOf(endpoint).local;
      if (!runner) return undefined;
      const local: LocalTarget = {
        target: targetOf(endpoint),
        runner,
        record: ({ inputs }) => void localInputs.push(inputs),
      };
      locals.set(endpoint, local);
      return local;
    },
    estimate: async (call: Call) => ({
      calls: call.inputs.length,
      cached: 0,
      inputTokens: call.inputs.length,
      cost: 0,
      seconds: null,
    }),
    invoke: async (call: Call): Promise<Answer> => {
      const model = modelOf(call.endpoint);
      calls.push(call);
      const items = await Promise.all(
        call.inputs.map(async (input, index) => {
          asked.push(
            'text' in input
              ? input.text
              : 'features' in input
                ? JSON.stringify(input.features)
                : chatText(input),
          );
          let item: AnswerItem;
          try {
            item = {
              ok: true,
              output: await model.answer(input, call),
              usage: { inputTokens: 1, outputTokens: 1 },
              cached: false,
            };
          } catch (error) {
            item = { ok: false, error: error as ServingError };
          }
          call.onItem?.(index, item);
          return item;
        }),
      );
      return {
        items,
        usage: { inputTokens: 0, outputTokens: 0 },
        cost: 0,
        servedEntity: call.endpoint,
        model: call.endpoint,
      };
    },
  };
  const instance = await DuckDBInstance.create(':memory:');
  const sessions = new Sessions({
    connect: () => instance.connect(),
    serving: fake as unknown as Serving,
    clock: SYSTEM_CLOCK,
    commands: [],
    createBudget: (limits) => ({ limits, reserve: async () => ({ settle() {} }) }),
    defaultEndpoint: (use) => {
      const name = defaults[use];
      if (name === undefined)
        throw new ServingError('MODEL_NOT_AVAILABLE', `There is no default endpoint for ${use}.`);
      return name;
    },
    flushStores: async () => {},
    systemTables: [],
    systemCatalog: null,
    ...options,
  });
  const principal = { id: 'p', name: 'p', kind: 'user', isAdmin: true } as const;
  const session = await sessions.open({ principal, origin: 'sql' });
  const other = await sessions.open({ principal, origin: 'sql' });
  return {
    session,
    other,
    asked,
    calls,
    localInputs,
    close: async () => {
      await sessions.close();
      instance.closeSync();
    },
  };
}

/** Rows of the last statement of a text. */
export async function rowsOf(session: Session, sql: string): Promise<unknown[][]> {
  const results = await session.run(sql);
  return [...(results.at(-1)?.rows() ?? [])].map((row) => [...row]);
}
