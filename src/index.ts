// The library: duckserve inside another Node program.
import { availableParallelism } from 'node:os';
import {
  type Answer,
  type CallOptions,
  createCall,
  type Input,
  type StreamEvent,
  type Task,
} from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import type { Registry } from '#registry/registry.ts';
import type { StatementResult } from '#session/result.ts';
import type { StatementOptions } from '#session/session.ts';
import { type App, type AppOptions, openApp } from './app.ts';

export type * from '#core/call.ts';
export type { Endpoint, ModelVersion, RegisteredModel, ServedEntity, Signature } from '#core/endpoint.ts';
export { ERRORS, type ErrorCode, ServingError } from '#core/errors.ts';
export type { Estimate } from '#core/estimate.ts';
export type { StatementEstimate } from '#session/estimate.ts';
export type { StatementResult } from '#session/result.ts';
export type { Session } from '#session/session.ts';
export type { AppOptions as DuckserveOptions } from './app.ts';

export interface Duckserve {
  readonly registry: Registry;
  /** One request to one endpoint with 1..n inputs. Whole-call failures throw ServingError, others are items. */
  invoke(endpoint: string, task: Task, inputs: readonly Input[], options?: CallOptions): Promise<Answer>;
  /** A streamed chat or completion. */
  stream(
    endpoint: string,
    task: Task,
    input: Input,
    options?: CallOptions,
  ): Promise<{ target: Target; events: AsyncIterable<StreamEvent> }>;
  /** Runs SQL with AI functions; one result a statement. All calls share one session. */
  sql(text: string, options?: StatementOptions): Promise<readonly StatementResult[]>;
  /** A session of one's own. Over a connection of the program there is one at a time, that of `sql` included. */
  openSession: App['openSession'];
  createBudget: App['createBudget'];
  close(): Promise<void>;
}

/** DuckDB occupies a thread of libuv's pool for every running call, so four are soon too few. */
const ENOUGH_THREADS = 8;

/**
 * Opens duckserve on a data directory. With `connection`, SQL runs over a DuckDBConnection that the program already
 * has: the functions are registered on its instance, the macros on that connection.
 */
export async function openDuckserve(options: AppOptions = {}): Promise<Duckserve> {
  warnOfSmallPool(options.notify ?? ((line) => process.emitWarning(line)));
  const app = await openApp(options);
  let shared: ReturnType<App['openSession']> | undefined;
  return {
    registry: app.registry,
    invoke: (endpoint, task, inputs, callOptions) =>
      app.serving.invoke(createCall(endpoint, task, inputs, callOptions)),
    stream: (endpoint, task, input, callOptions) =>
      app.serving.stream(createCall(endpoint, task, [input], callOptions)),
    sql: async (text, statementOptions) => {
      shared ??= app.openSession().catch((error: unknown) => {
        // The next statement may have more luck.
        shared = undefined;
        throw error;
      });
      return (await shared).run(text, statementOptions);
    },
    openSession: app.openSession,
    createBudget: app.createBudget,
    close: () => app.close(),
  };
}

function warnOfSmallPool(notify: (line: string) => void): void {
  const threads = Number(process.env.UV_THREADPOOL_SIZE ?? 4);
  if (threads >= ENOUGH_THREADS || availableParallelism() === 1) return;
  notify(
    `duckserve: libuv has ${threads} threads, and every running DuckDB call takes one. ` +
      'Start Node with UV_THREADPOOL_SIZE=32 so that statements do not wait for each other.',
  );
}
