// From what an engine gave for a batch to what became of each question: answered, or failed with an error that
// may be worth another try. Passes answers on; retries are the queue's.
import type { Output, TokenUsage } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { RunItem } from '#engines/engine.ts';
import type { Batch } from './batch.ts';
import type { Question } from './question.ts';

export type GoodItem = Extract<RunItem, { ok: true }>;

/** Hears what became of questions. Called synchronously; must not throw. */
export interface QueueSink {
  answered(batch: Batch, question: Question, item: GoodItem): void;
  /**
   * The target has given up on them. `batch` is absent when they were not sent. `isFinal`: another target would
   * not help either.
   */
  failed(questions: readonly Question[], error: ServingError, batch?: Batch, isFinal?: boolean): void;
  /** The batch is over; called once, after its questions were heard of. */
  ended(batch: Batch, error?: ServingError): void;
}

export interface Failure {
  readonly question: Question;
  readonly error: ServingError;
  /** Asking again cannot help, neither here nor elsewhere. */
  readonly isFinal: boolean;
}

export type Outcome = Failure | { readonly question: Question; readonly item: GoodItem };

/** What the provider billed is billed, usable or not. */
export function siftItems(batch: Batch, items: readonly RunItem[]): Outcome[] {
  const outcomes: Outcome[] = [];
  for (const [at, question] of batch.questions.entries()) {
    const item = items[at];
    if (item) outcomes.push(siftItem(batch, question, item));
  }
  return outcomes;
}

function siftItem(batch: Batch, question: Question, item: RunItem): Outcome {
  // An agent may have acted before it failed: it is not made to act again, nor another in its place.
  if (!item.ok) return { question, error: item.error, isFinal: question.target.isPersonal === true };
  batch.bill(question, item.usage);
  if (question.target.externalModel && isEmptyAnswer(item.output, item.usage)) {
    return { question, error: emptyAnswer(question.target.model), isFinal: false };
  }
  const checked = batch.terms.check(item.output);
  if (!checked.ok) return { question, error: checked.error, isFinal: checked.isFinal };
  return { question, item: checked.output === item.output ? item : { ...item, output: checked.output } };
}

/** Tells the sink of the answers and gives the failures. */
export function deliver(batch: Batch, outcomes: readonly Outcome[], sink: QueueSink): Failure[] {
  const failures: Failure[] = [];
  for (const outcome of outcomes) {
    if ('item' in outcome) sink.answered(batch, outcome.question, outcome.item);
    else failures.push(outcome);
  }
  if (batch.history && failures.length < outcomes.length) batch.history.hasAnswer = true;
  return failures;
}

/** An answer for each input, or none can be told from another. */
export function requireCount(items: readonly RunItem[], count: number): readonly RunItem[] {
  if (items.length === count) return items;
  throw new ServingError(
    'INVALID_RESPONSE',
    `The model was sent ${count} inputs and gave ${items.length} answers.`,
  );
}

/** Providers say 200 with nothing in it when they fail quietly: no text, no tool call, not one token written. */
export function isEmptyAnswer(output: Output, { outputTokens }: TokenUsage): boolean {
  if (outputTokens > 0 || !('finishReason' in output) || output.finishReason !== 'stop') return false;
  if ('toolCalls' in output && output.toolCalls?.length) return false;
  return !('text' in output ? output.text : output.content);
}

export function emptyAnswer(model: string): ServingError {
  return new ServingError('INVALID_RESPONSE', `'${model}' answered with nothing: no text and no tool call.`);
}
