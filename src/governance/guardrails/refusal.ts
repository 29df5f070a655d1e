// What a caller is told when a guardrail refuses: a sentence of ours, and Databricks' record of it in the details.
// Personal data is in neither; what the caller sent comes back with placeholders, what a model wrote does not.
import type { Input } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';

export type Phase = 'input' | 'output';

export interface Refusal {
  readonly phase: Phase;
  readonly endpoint: string;
  /** Ends the sentence `The input was refused by a guardrail of endpoint 'x': ...`. */
  readonly reason: string;
  /** By names such as `violent_crimes` or `invalid_keywords`; absent: nothing was judged. */
  readonly categories?: readonly string[];
  readonly hasPii?: boolean;
  /** What was asked, with placeholders. */
  readonly anonymized?: Json;
  /** Of a custom guardrail: what it wants the caller to see. */
  readonly response?: Json;
}

export function refuse(refusal: Refusal): ServingError {
  const { phase, endpoint, reason } = refusal;
  return new ServingError(
    'GUARDRAIL_TRIGGERED',
    `The ${phase} was refused by a guardrail of endpoint '${endpoint}': ${reason}`,
    { details: toDetails(refusal) },
  );
}

function toDetails({ phase, categories, hasPii, anonymized, response }: Refusal): JsonObject {
  const record: JsonObject = {
    flagged: categories !== undefined && categories.length > 0,
    categories: categories ? Object.fromEntries(categories.map((name) => [name, true])) : null,
    category_scores: null,
    pii_detection: hasPii ?? false,
    ...(phase === 'input' && { anonymized_input: anonymized ?? null }),
    ...(response !== undefined && { response }),
  };
  return {
    // Nothing was sent to the model; what a withheld output cost stands in the usage rows.
    ...(phase === 'input' && { usage: { prompt_tokens: 0, total_tokens: 0 } }),
    [`${phase}_guardrail`]: [record],
    finishReason: `${phase}_guardrail_triggered`,
  };
}

/** A larger one would make the error larger than the question. */
const LONGEST_ANONYMIZED = 65_536;

/** Messages, prompt, text or features as the caller knows them; null where they are too long to give back. */
export function toAnonymized(masked: Input): Json {
  const value: Json =
    'messages' in masked
      ? masked.messages.map(({ role, content, toolCalls }) => ({
          role,
          content: content as Json,
          ...(toolCalls && {
            tool_calls: toolCalls.map(({ id, name, arguments: text }) => ({ id, name, arguments: text })),
          }),
        }))
      : 'prompt' in masked
        ? [masked.prompt]
        : 'text' in masked
          ? [masked.text]
          : [masked.features];
  return JSON.stringify(value).length > LONGEST_ANONYMIZED ? null : value;
}
