// From what an engine gave for a batch to what became of each question: answered, or failed with an error that
// may be worth another try. Passes answers on; retries are the queue's.
import { ServingError } from '#core/errors.ts';
import type { RunItem } from '#engines/engine.ts';
import type { Batch } from './batch.ts';
import type { Question } from './question.ts';

/** Hears what became of questions. Called synchronously; must not throw. */
export interface QueueSink {
  answered(batch: Batch, question: Question, item: Extract<RunItem, { ok: true }>): void;
  /** The target has given up on them. `batch` is absent when they were not sent. */
  failed(questions: readonly Question[], error: ServingError, batch?: Batch): void;
  /** The batch is over; called once, after its questions were heard of. */
  ended(batch: Batch, error?: ServingError): void;
}

export interface Failure {
  readonly question: Question;
  readonly error: ServingError;
  /** Asking the same again cannot help. */
  readonly isFinal: boolean;
}

/** What the provider billed is billed, usable or not. */
export function siftItems(batch: Batch, items: readonly RunItem[], sink: QueueSink): Failure[] {
  const failures: Failure[] = [];
  for (const [at, question] of batch.questions.entries()) {
    const item = items[at];
    if (!item) continue;
    if (!item.ok) {
      failures.push({ question, error: item.error, isFinal: false });
      continue;
    }
    batch.bill(question, item.usage);
    const checked = batch.terms.check(item.output);
    if (!checked.ok) failures.push({ question, error: checked.error, isFinal: checked.isFinal });
    else if (checked.output === item.output) sink.answered(batch, question, item);
    else sink.answered(batch, question, { ...item, output: checked.output });
  }
  if (batch.history && failures.length < items.length) batch.history.hasAnswer = true;
  return failures;
}

/** An answer for each input, or none can be told from another. */
export function requireCount(items: readonly RunItem[], count: number): void {
  if (items.length === count) return;
  throw new ServingError(
    'INVALID_RESPONSE',
    `The model was sent ${count} inputs and gave ${items.length} answers.`,
  );
}
