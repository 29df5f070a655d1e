// The passes of one statement: run it, ask what it raised, run it again, until a pass raises nothing.
// ARCHITECTURE section 4 is the contract. How a pass is undone (transactions) is the `execute` it is given.
import { availableParallelism } from 'node:os';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import { type AskOptions, askAll } from './ask.ts';
import type { StatementRun } from './statement-run.ts';

export interface PassOptions<T> extends AskOptions {
  readonly run: StatementRun;
  /** Runs the statement once. `isSettled` tells afterwards whether its effect may stay; it must undo it otherwise. */
  readonly execute: (pass: number) => Promise<T>;
  readonly mayStopEarly: boolean;
  /** Says of the result of a pass with open rows that it is the result all the same (early-stop.ts). */
  readonly isEnough?: ((result: T) => boolean) | undefined;
}

/** Questions of the first pass of a statement that could stop early; doubled with every pass. */
const FIRST_QUESTIONS = 256;
/** The same where any rows will do and a pass that finds enough of them is the last. */
const FIRST_QUESTIONS_OF_ANY = 32;
/** Questions of one pass at most, so that their inputs fit in memory. */
const MAX_QUESTIONS = 250_000;
/** Passes in a row that used no earlier answer and still asked: the prompts change with every pass. */
const MAX_FRUITLESS_PASSES = 2;
/** Chunks that are looked at after a pass is full where the rows already found may be enough; the others are NULL. */
const PATIENT_CHUNKS = 16 * availableParallelism();

/** The result of the first pass without a question. Throws the error of that pass, or what ended the asking. */
export async function runPasses<T>(options: PassOptions<T>): Promise<{ result: T; passes: number }> {
  const { run, signal, meter, isEnough } = options;
  let maxQuestions = isEnough
    ? FIRST_QUESTIONS_OF_ANY
    : options.mayStopEarly
      ? FIRST_QUESTIONS
      : MAX_QUESTIONS;
  run.patience = isEnough ? PATIENT_CHUNKS : 0;
  let fruitless = 0;
  for (let pass = 1; ; pass++) {
    throwIfAborted(signal);
    run.beginPass(maxQuestions);
    let result: T | undefined;
    let error: unknown;
    try {
      result = await options.execute(pass);
    } catch (thrown) {
      error = thrown;
    }
    throwIfAborted(signal);
    if (error !== undefined && run.refused) throw run.refused;
    if (run.sheet.isSettled) {
      if (error !== undefined) throw run.failure ?? error;
      return { result: result as T, passes: pass };
    }
    if (error === undefined && isEnough?.(result as T)) return { result: result as T, passes: pass };
    // An error of a pass that left rows without answers is not final: NULL placeholders may have caused it.
    const hasLoaded = await run.load();
    const { fresh } = run.sheet;
    if (fresh.length === 0 && !hasLoaded)
      throw error ?? new ServingError('INTERNAL', 'A pass left rows open without raising a question.');
    fruitless = run.sheet.answeredRows === 0 && pass > 1 && fresh.length > 0 ? fruitless + 1 : 0;
    if (fruitless >= MAX_FRUITLESS_PASSES) throw notSettling(run.sheet.questionCount);
    meter.beginPass(pass, fresh.length);
    await askAll(fresh, options);
    if (fresh.length > 0) maxQuestions = Math.min(maxQuestions * 2, MAX_QUESTIONS);
  }
}

function notSettling(questions: number): ServingError {
  return new ServingError(
    'STATEMENT_NOT_SETTLING',
    `The requests of this statement are different every time it runs (${questions} so far), so its answers are never found again. ` +
      'Something in them changes, such as random(), now() or uuid(). Compute it into a table first, then query that table.',
  );
}
