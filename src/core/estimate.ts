// What a call or statement would cost before anything is spent.
export interface Estimate {
  /** Inputs that would be sent to a model. */
  readonly calls: number;
  /** Inputs already in the answer store. */
  readonly cached: number;
  readonly inputTokens: number;
  /** US dollars for the input tokens and the largest number of output tokens; null when a price is not known. */
  readonly cost: number | null;
  /** Rough wall time; null where nothing about the target's speed is known yet. */
  readonly seconds: number | null;
}
