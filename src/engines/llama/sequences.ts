// The sequences of one llama.cpp context, lent to one generation each, and what of a former prompt may stay in
// memory. Answers never depend on what was asked before: only whole blocks of equal prompt tokens are kept.
import type { LlamaContext, LlamaContextSequence, Token } from 'node-llama-cpp';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import { BLOCK_TOKENS } from './runtime.ts';

export interface Lease {
  readonly sequence: LlamaContextSequence;
  /** Readies the sequence for a prompt: erases all but the blocks it begins with. */
  prepare(prompt: readonly Token[]): Promise<void>;
  /** `isClean`: false after a failure or an abort, when it is not known what is in memory. */
  release(isClean: boolean): void;
}

interface Slot {
  readonly sequence: LlamaContextSequence;
  /** Tokens of the last prompt; its blocks were evaluated in whole. */
  prompt: readonly Token[];
}

export class Sequences {
  readonly #free: Slot[];
  readonly #waiting: ((slot: Slot) => void)[] = [];

  constructor(context: LlamaContext) {
    this.#free = Array.from({ length: context.sequencesLeft }, () => ({
      sequence: context.getSequence(),
      prompt: [],
    }));
  }

  /** Waits for a free sequence, in the order of asking. Throws CANCELLED. */
  async acquire(signal: AbortSignal): Promise<Lease> {
    throwIfAborted(signal);
    const slot = this.#free.pop() ?? (await this.#wait(signal));
    return {
      sequence: slot.sequence,
      prepare: (prompt) => prepare(slot, prompt),
      release: (isClean) => {
        if (!isClean) slot.prompt = [];
        const next = this.#waiting.shift();
        if (next) next(slot);
        else this.#free.push(slot);
      },
    };
  }

  #wait(signal: AbortSignal): Promise<Slot> {
    return new Promise((resolve, reject) => {
      const take = (slot: Slot) => {
        signal.removeEventListener('abort', giveUp);
        resolve(slot);
      };
      const giveUp = () => {
        this.#waiting.splice(this.#waiting.indexOf(take), 1);
        reject(new ServingError('CANCELLED', 'The call was cancelled.', { cause: signal.reason }));
      };
      signal.addEventListener('abort', giveUp, { once: true });
      this.#waiting.push(take);
    });
  }
}

/**
 * Rows of one query mostly begin with the same instructions, and evaluating a prompt costs as much as
 * generating. A block is kept only if both prompts hold it in whole, before the last token: then it was
 * computed in the same batch, by the same arithmetic, as it would be now.
 */
async function prepare(slot: Slot, prompt: readonly Token[]): Promise<void> {
  const { sequence } = slot;
  const most = Math.min(slot.prompt.length, prompt.length) - 1;
  let common = 0;
  while (common < most && slot.prompt[common] === prompt[common]) common++;
  const kept = common - (common % BLOCK_TOKENS);
  slot.prompt = prompt;
  // Recurrent models cannot forget the end of what they read.
  if (kept === 0 || sequence.needsCheckpoints) await sequence.clearHistory();
  else await sequence.eraseContextTokenRanges([{ start: kept, end: sequence.nextTokenIndex }]);
}
