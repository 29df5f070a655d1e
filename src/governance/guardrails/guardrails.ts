// The guardrails of endpoints (`ai_gateway.guardrails`): each endpoint's rules made ready once, when it is first
// asked. Not here: what the rules do (side.ts) and when they are applied (serving).
import type { Call, Output, StreamEvent } from '#core/call.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import { canonicalJson } from '#core/json.ts';
import type { Guard, Guards } from '#core/policies.ts';
import { type GuardrailsOptions, Side } from './side.ts';

export type { GuardrailsOptions } from './side.ts';

/** Part of the key of every stored answer: raised when the recognisers find more or less than before. */
const RULES_VERSION = 1;

export function createGuards(options: GuardrailsOptions): Guards {
  const known = new WeakMap<Endpoint, { readonly guard: Guard | undefined }>();
  return {
    guardOf: (endpoint) => {
      let entry = known.get(endpoint);
      if (!entry) known.set(endpoint, (entry = { guard: createGuard(endpoint, options) }));
      return entry.guard;
    },
  };
}

function createGuard(endpoint: Endpoint, options: GuardrailsOptions): Guard | undefined {
  const { input, output } = endpoint.aiGateway?.guardrails ?? {};
  const inputSide = new Side(input ?? {}, 'input', endpoint, options);
  // Topics are a rule on questions.
  const { validTopics: _topics, ...outputRules } = output ?? {};
  const outputSide = new Side(outputRules, 'output', endpoint, options);
  if (inputSide.isEmpty && outputSide.isEmpty) return undefined;
  const fingerprint = outputSide.isEmpty
    ? ''
    : sha256Hex(canonicalJson({ version: RULES_VERSION, rules: outputRules }));
  return {
    fingerprint,
    ...(!inputSide.isEmpty && { inputs: (call: Call) => inputSide.inputs(call) }),
    ...(!outputSide.isEmpty && {
      output: (call: Call, value: Output) => outputSide.output(call, value),
      stream: (call: Call, events: AsyncIterable<StreamEvent>) => outputSide.stream(call, events),
    }),
  };
}
