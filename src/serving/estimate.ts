// What a call would cost, from look-ups and token counts alone: no engine is asked and no model loaded.
import type { Call } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import type { Estimate } from '#core/estimate.ts';
import type { AnswerStore } from '#core/stores.ts';
import { checkInputs, inputLength } from './inputs.ts';
import { countStored } from './look-up.ts';
import { costOf } from './price.ts';
import type { TargetQueue } from './target-queue.ts';

/** Output tokens per call that are taken as the most, where the call does not say. */
const LIKELY_MAX_TOKENS = 256;

/** `queue` is undefined while the target is not open; tokens are then one per four characters. */
export async function estimateCall(
  call: Call,
  target: Target,
  queue: TargetQueue | undefined,
  answers: AnswerStore,
): Promise<Estimate> {
  checkInputs(call, target.task);
  const { cached, missing } = await countStored(call, target, answers);
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
    seconds: secondsFor(missing.length, queue),
  };
}

function secondsFor(calls: number, queue: TargetQueue | undefined): number | null {
  if (calls === 0) return 0;
  return queue ? queue.speed.secondsFor(calls, queue.depth.limit, queue.limits.maxInputs) : null;
}
