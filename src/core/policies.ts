// What governance tells serving about an endpoint, as shapes: who may ask, what meters its calls, what guards its
// inputs and outputs. Defined here because governance and serving do not know each other's insides.
import type { AnswerItem, Budget, Call, Input, Origin, Output, Principal, StreamEvent } from './call.ts';
import type { Endpoint } from './endpoint.ts';
import type { ServingError } from './errors.ts';

export type Action = 'view' | 'query' | 'manage';

/** Throws PERMISSION_DENIED. From memory. */
export type Authorize = (principal: Principal, endpoint: Endpoint, action: Action) => void;

export interface Meters {
  /**
   * The rate limits and money budgets that this call falls under, as one budget; undefined where there are none.
   * The same object for the same principal, endpoint and kind of origin until a limit changes, so that equal
   * questions of one caller can travel together. Calls of `http` are refused at once (RATE_LIMIT_EXCEEDED with
   * `retryAfterMs`); rows of statements wait for the next minute as long as their call lives.
   */
  meterOf(call: Pick<Call, 'principal' | 'origin'>, endpoint: Endpoint): Budget | undefined;
}

export interface Guards {
  /** Undefined where nothing is guarded. The same object until the endpoint changes. */
  guardOf(endpoint: Endpoint): Guard | undefined;
}

export interface Guard {
  /** Identity of the rules on outputs; part of the key of every stored answer, so that rules are never bypassed. */
  readonly fingerprint: string;
  /** One for each input in order: the input to send (as it was, or masked), or why it is refused. */
  inputs?(call: Call): Promise<readonly (Input | ServingError)[]>;
  /** The output to give (as it was, or masked), or why it is withheld. Only asked for chat and completions. */
  output?(call: Call, output: Output): Promise<Output | ServingError>;
  /**
   * Events as they may be seen: text is held back as long as it could still become part of something masked or
   * blocked, and never longer than needed. Throws GUARDRAIL_TRIGGERED where the output is withheld.
   */
  stream?(call: Call, events: AsyncIterable<StreamEvent>): AsyncIterable<StreamEvent>;
}

/** Asks an endpoint as a principal; how guardrails reach the model that judges. Bound to serving by the app. */
export type AskEndpoint = (question: {
  readonly endpoint: string;
  readonly input: Input;
  readonly principal: Principal;
  /** That of the call which is guarded: its patience is the judge's. */
  readonly origin: Origin;
  readonly signal?: AbortSignal;
}) => Promise<AnswerItem>;
