// The sequences of one llama.cpp context, lent to one generation each, and what of a former prompt may stay in
// memory. Answers never depend on what was asked before: only whole blocks of equal prompt tokens are kept.
import type { LlamaContext, LlamaContextSequence, Token } from 'node-llama-cpp';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import { BLOCK_TOKENS } from './runtime.ts';

export interface Lease {
  readonly sequence: LlamaContextSequence;
  /** Readies the sequence for the prompt: erases all but the blocks it begins with. Gives how many tokens stay. */
  prepare(): Promise<number>;
  /** `isClean`: false after a failure or an abort, when it is not known what is in memory. */
  release(isClean: boolean): void;
}

interface Slot {
  readonly sequence: LlamaContextSequence;
  /** Tokens of the last prompt; its blocks were evaluated in whole. */
  prompt: readonly Token[];
}

interface Waiter {
  readonly prompt: readonly Token[];
  take(slot: Slot): void;
}

export class Sequences {
  /** Whoever was given back longest ago is first. */
  readonly #free: Slot[];
  readonly #waiting: Waiter[] = [];

  constructor(context: Pick<LlamaContext, 'sequencesLeft' | 'getSequence'>) {
    this.#free = Array.from({ length: context.sequencesLeft }, () => ({
      sequence: context.getSequence(),
      prompt: [],
    }));
  }

  /** Waits for a free sequence, in the order of asking. Throws CANCELLED. */
  async acquire(prompt: readonly Token[], signal: AbortSignal): Promise<Lease> {
    throwIfAborted(signal);
    const slot = this.#takeBest(prompt) ?? (await this.#wait(prompt, signal));
    return {
      sequence: slot.sequence,
      prepare: () => prepare(slot, prompt),
      release: (isClean) => {
        if (!isClean) slot.prompt = [];
        this.#free.push(slot);
        const next = this.#waiting.shift();
        const best = next && this.#takeBest(next.prompt);
        if (next && best) next.take(best);
      },
    };
  }

  /**
   * The free sequence that holds most of the prompt. Without one: of those that hold least, the one unused for
   * longest, so that beginnings that are still asked for stay.
   */
  #takeBest(prompt: readonly Token[]): Slot | undefined {
    let best: Slot | undefined;
    let bestKept = -1;
    for (const slot of this.#free) {
      const kept = keptTokens(slot, prompt);
      const isEmptier = kept === 0 && bestKept === 0 && slot.prompt.length === 0 && best?.prompt.length !== 0;
      if (kept > bestKept || isEmptier) {
        best = slot;
        bestKept = kept;
      }
    }
    if (best) this.#free.splice(this.#free.indexOf(best), 1);
    return best;
  }

  #wait(prompt: readonly Token[], signal: AbortSignal): Promise<Slot> {
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        prompt,
        take: (slot) => {
          signal.removeEventListener('abort', giveUp);
          resolve(slot);
        },
      };
      const giveUp = () => {
        this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
        reject(new ServingError('CANCELLED', 'The call was cancelled.', { cause: signal.reason }));
      };
      signal.addEventListener('abort', giveUp, { once: true });
      this.#waiting.push(waiter);
    });
  }
}

/**
 * Rows of one query mostly begin with the same instructions, and evaluating a prompt costs as much as
 * generating. A block is kept only if both prompts hold it in whole, before the last token: then it was
 * computed in the same batch, by the same arithmetic, as it would be now.
 */
function keptTokens(slot: Slot, prompt: readonly Token[]): number {
  // Recurrent models cannot forget the end of what they read.
  if (slot.prompt.length === 0 || slot.sequence.needsCheckpoints) return 0;
  const most = Math.min(slot.prompt.length, prompt.length) - 1;
  let common = 0;
  while (common < most && slot.prompt[common] === prompt[common]) common++;
  return common - (common % BLOCK_TOKENS);
}

async function prepare(slot: Slot, prompt: readonly Token[]): Promise<number> {
  const { sequence } = slot;
  const kept = keptTokens(slot, prompt);
  slot.prompt = prompt;
  if (kept === 0) await sequence.clearHistory();
  else await sequence.eraseContextTokenRanges([{ start: kept, end: sequence.nextTokenIndex }]);
  return kept;
}
