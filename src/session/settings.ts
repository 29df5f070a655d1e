// Settings of one session, changed by SET ai_... and RESET ai_...: the cache mode and a budget.
import { type Budget, CACHE_MODES, type CacheMode } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { Statement } from './statement.ts';

const LIMITS = { ai_max_calls: 'maxCalls', ai_max_tokens: 'maxTokens', ai_max_cost: 'maxCost' } as const;
type LimitName = keyof typeof LIMITS;
const NAMES = ['ai_cache', ...Object.keys(LIMITS)];

export class SessionSettings {
  readonly #createBudget: (limits: Budget['limits']) => Budget;
  #cache: CacheMode = 'on';
  #limits: { maxCalls?: number; maxTokens?: number; maxCost?: number } = {};
  #budget: Budget | undefined;

  constructor(createBudget: (limits: Budget['limits']) => Budget) {
    this.#createBudget = createBudget;
  }

  get cache(): CacheMode {
    return this.#cache;
  }

  /** Counts from the SET on, over all statements of the session; a new SET of a limit counts anew. */
  get budget(): Budget | undefined {
    return this.#budget;
  }

  /** SET name = value, SET name TO value, RESET name. */
  apply(statement: Statement): void {
    const words = statement.tokens.filter(
      (token) => !(token.kind === 'word' && ['session', 'global', 'local'].includes(token.value)),
    );
    const name = words[1]?.value ?? '';
    const value = words
      .slice(3)
      .map((token) => token.value)
      .join('');
    const isReset = words[0]?.value === 'reset';
    if (name === 'ai_cache') this.#cache = isReset ? 'on' : cacheMode(value);
    else if (name in LIMITS) this.#setLimit(name as LimitName, isReset ? undefined : value);
    else
      throw new ServingError(
        'INVALID_PARAMETER',
        `There is no setting ${name}. There are: ${NAMES.join(', ')}.`,
      );
  }

  #setLimit(name: LimitName, value: string | undefined): void {
    const { [LIMITS[name]]: _replaced, ...others } = this.#limits;
    if (value === undefined) this.#limits = others;
    else {
      const number = Number(value);
      if (value === '' || !Number.isFinite(number) || number < 0) {
        throw new ServingError(
          'INVALID_PARAMETER',
          `${name} must be a number that is not negative, it is '${value}'.`,
        );
      }
      this.#limits = { ...others, [LIMITS[name]]: number };
    }
    this.#budget = Object.keys(this.#limits).length > 0 ? this.#createBudget(this.#limits) : undefined;
  }
}

function cacheMode(value: string): CacheMode {
  const mode = CACHE_MODES.find((candidate) => candidate === value.toLowerCase());
  if (mode) return mode;
  throw new ServingError(
    'INVALID_PARAMETER',
    `ai_cache must be one of ${CACHE_MODES.join(', ')}, it is '${value}'.`,
  );
}
