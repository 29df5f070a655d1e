// What the tests of the queue share: texts, failures, and calls on a clock that is moved by hand.
import { type ErrorCode, ServingError } from '#core/errors.ts';
import { type Bench, type ManualClock, type ScriptedEngine, targetOf } from './support.ts';

export const EMBEDDING = targetOf('e', { task: 'llm/v1/embeddings' });
export const numbered = (count: number, prefix = 't') =>
  Array.from({ length: count }, (_, at) => `${prefix}${at}`);
export const fail = (code: ErrorCode, retryAfterMs?: number): never => {
  throw new ServingError(code, `${code}.`, { retryAfterMs });
};
export const sizes = (engine: ScriptedEngine) => engine.batches.map(({ inputs }) => inputs.length);

/** Runs a call on a clock that is moved until the call is over. */
export async function invokeOn(
  clock: ManualClock,
  { serving }: Bench,
  call: Parameters<Bench['serving']['invoke']>[0],
) {
  let isOver = false;
  const pending = serving.invoke(call).finally(() => {
    isOver = true;
  });
  pending.catch(() => {});
  for (let step = 0; step < 500 && !isOver; step++) await clock.advance(100);
  return pending;
}
