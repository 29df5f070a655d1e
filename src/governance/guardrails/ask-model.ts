// Asking an endpoint on behalf of a guardrail: in whose name, and what its failure means. What cannot be judged is
// refused. Not here: what is asked and how the answer is read (judge.ts, custom-guardrail.ts).
import { type Call, type ChatInput, LOCAL_OWNER, type Origin, type Principal } from '#core/call.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { type ErrorCode, ServingError, toServingError } from '#core/errors.ts';
import type { AskEndpoint } from '#core/policies.ts';

/** A principal by name, with its groups; undefined where nobody has it. */
export type PrincipalNamed = (name: string) => Principal | undefined;

/** Principals that we made for a question of a guardrail; nobody else can have one. */
const asking = new WeakSet<Principal>();

/** The call is itself a question of a guardrail: it must not cause another one. */
export function isGuardrailCall({ principal }: Pick<Call, 'principal'>): boolean {
  return asking.has(principal);
}

interface ModelQuestion {
  /** `judge` or `custom guardrail`, for messages. */
  readonly what: string;
  readonly endpoint: Endpoint;
  /** The endpoint that is asked. */
  readonly asked: string;
  readonly input: ChatInput;
  readonly origin: Origin;
  readonly signal?: AbortSignal | undefined;
}

/** The text of the answer; throws what the caller is told when there is none. */
export async function askModel(
  ask: AskEndpoint,
  principalNamed: PrincipalNamed,
  { what, endpoint, asked, input, origin, signal }: ModelQuestion,
): Promise<string> {
  const failed = (thrown: unknown): ServingError => {
    const cause = toServingError(thrown);
    if (cause.code === 'CANCELLED') return cause;
    return new ServingError(
      codeOf(cause),
      `The ${what} '${asked}' of endpoint '${endpoint.name}' could not be asked, so nothing is let through: ${cause.message}`,
      { cause, retryAfterMs: cause.retryAfterMs },
    );
  };
  const principal = principalOf(endpoint.creator, principalNamed);
  const question = { endpoint: asked, input, principal, origin, ...(signal && { signal }) };
  const item = await ask(question).catch((thrown) => {
    throw failed(thrown);
  });
  if (!item.ok) throw failed(item.error);
  if ('content' in item.output && item.output.content !== null) return item.output.content;
  throw unreadable(what, asked, endpoint.name, 'it gave no text');
}

export function unreadable(what: string, asked: string, endpoint: string, problem: string): ServingError {
  return new ServingError(
    'INVALID_RESPONSE',
    `The ${what} '${asked}' of endpoint '${endpoint}' gave an answer that cannot be read, so nothing is let through: ${problem}.`,
  );
}

/** That of the judge is nothing the caller has done: only what time may heal is passed on as it is. */
function codeOf({ code, row }: ServingError): ErrorCode {
  return row.httpStatus >= 500 || row.httpStatus === 429 ? code : 'MODEL_NOT_AVAILABLE';
}

/** Always a new object, so that it marks this question and no other call of the same principal. */
function principalOf(creator: string, principalNamed: PrincipalNamed): Principal {
  const known = principalNamed(creator) ?? (creator === LOCAL_OWNER.name ? LOCAL_OWNER : undefined);
  const principal: Principal = {
    ...(known ?? { id: creator, name: creator, kind: 'user', isAdmin: false }),
  };
  asking.add(principal);
  return principal;
}
