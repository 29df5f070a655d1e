// What every scenario is given, and small things several of them do inside their parts.
import { LOCAL_OWNER } from '#core/call.ts';
import type { Json } from '#core/json.ts';
import type { Session } from '#session/session.ts';
import { type App, openApp } from '../src/app.ts';
import type { Report } from './report.ts';
import type { Stub } from './stub.ts';

export interface Context {
  /** 1: full size. */
  readonly scale: number;
  /** An empty directory, removed afterwards. */
  readonly directory: string;
  /** Starts a stub provider that ends with the scenario. */
  startStub(flags: Readonly<Record<string, number>>): Promise<Stub>;
}

export interface Scenario {
  readonly about: string;
  run(context: Context): Promise<Report>;
}

/** A number of rows or requests at this scale, at least `least`. */
export const scaled = (context: Context, count: number, least = 1): number =>
  Math.max(least, Math.round(count * context.scale));

export interface Place {
  readonly dataDir: string;
  readonly dbPath: string;
}
export const placeIn = (directory: string): Place => ({
  dataDir: `${directory}/data`,
  dbPath: `${directory}/user.duckdb`,
});

export const openPlace = (place: Place): Promise<App> =>
  openApp({ ...place, env: process.env, notify: (line) => process.stderr.write(`${line}\n`) });

/** An endpoint named `stub` for the stub provider. */
export async function createStubEndpoint(app: App, baseUrl: string, maxConcurrency: number): Promise<void> {
  const task = 'llm/v1/chat' as const;
  const externalModel = { name: 'stub-model', provider: 'openai', task, baseUrl, maxConcurrency };
  await app.registry.createEndpoint({ name: 'stub', task, servedEntities: [{ externalModel }] }, LOCAL_OWNER);
}

/** The one statement of `sql`, and how long it took. */
export async function timed(session: Session, sql: string, options: Parameters<Session['run']>[1] = {}) {
  const startedAt = performance.now();
  const [result] = await session.run(sql, options);
  const seconds = (performance.now() - startedAt) / 1_000;
  if (!result) throw new Error(`No result for: ${sql}`);
  return { result, seconds };
}

export async function rowsOf(session: Session, sql: string): Promise<readonly (readonly Json[])[]> {
  const { result } = await timed(session, sql);
  return [...result.rows()];
}

/** The first cell of the first row as a number. */
export async function numberOf(session: Session, sql: string): Promise<number> {
  return Number((await rowsOf(session, sql))[0]?.[0]);
}

export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((left, right) => left - right);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}
