// What a call would cost, from look-ups and token counts alone: no engine is asked and no model loaded.
import type { Call } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import type { Estimate } from '#core/estimate.ts';
import type { Guard } from '#core/policies.ts';
import type { AnswerStore, PastRate } from '#core/stores.ts';
import { checkInputs, inputLength } from './inputs.ts';
import { countStored } from './look-up.ts';
import { costOf } from './price.ts';
import type { TargetQueue } from './target-queue.ts';

/** Output tokens per call that are taken as the most, where the call does not say. */
const LIKELY_MAX_TOKENS = 256;

/** Requests at once that a provider without a stated limit is expected to bear. */
const LIKELY_PARALLEL = 32;

/** `queue` is undefined while the target is not open; tokens are then one per four characters. */
export async function estimateCall(
  call: Call,
  target: Target,
  queue: TargetQueue | undefined,
  answers: AnswerStore,
  pastRate: (target: Target) => Promise<PastRate | undefined>,
  guard?: Guard,
): Promise<Estimate> {
  checkInputs(call, target.task);
  const { cached, missing } = await countStored(call, target, answers, guard);
  let inputTokens = 0;
  for (const input of missing) {
    inputTokens += queue ? queue.runner.countTokens(input) : (inputLength(input) + 3) >> 2;
  }
  const isGenerating = call.task === 'llm/v1/chat' || call.task === 'llm/v1/completions';
  const outputTokens = isGenerating ? missing.length * (call.parameters.maxTokens ?? LIKELY_MAX_TOKENS) : 0;
  return {
    calls: missing.length,
    cached,
    inputTokens,
    cost: costOf(target, { inputTokens, outputTokens }),
    seconds:
      secondsFor(missing.length, queue) ?? secondsFromPast(missing.length, target, await pastRate(target)),
  };
}

function secondsFor(calls: number, queue: TargetQueue | undefined): number | null {
  if (calls === 0) return 0;
  return queue ? queue.speed.secondsFor(calls, queue.depth.limit, queue.limits.maxInputs) : null;
}

/** A provider answers side by side, so a few single calls of the past do not mean that many take as long each. */
function secondsFromPast(calls: number, target: Target, past: PastRate | undefined): number | null {
  if (!past) return null;
  const parallel = target.externalModel
    ? Math.min(target.externalModel.maxConcurrency ?? LIKELY_PARALLEL, calls)
    : 1;
  const parallelRate = parallel / Math.max(0.001, past.requestMs / 1000);
  return calls / Math.max(past.inputsPerSecond, parallelRate);
}
