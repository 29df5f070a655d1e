// What an agent is given of a call: messages and parameters as the OpenAI API spells them, and who asks. The same for
// agents in JavaScript and in Python.
import type { Parameters } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import type { Batch, Caller } from '../engine.ts';
import { toRequest } from '../openai/request.ts';
import { requireChat } from '../text-input.ts';

export interface AgentRequest {
  /** `{"role", "content", "tool_calls"?, "tool_call_id"?, "name"?}` each. */
  readonly messages: readonly JsonObject[];
  /** `max_tokens`, `temperature`, `tools`, ... as the caller has sent them; what it has not sent is absent. */
  readonly parameters: JsonObject;
  readonly custom_inputs: JsonObject;
  /** `{"conversation_id"?, "user_id"?}`, as its caller says. Nobody has checked it. */
  readonly conversation: JsonObject;
}

/** Who asks, as duckserve knows it. */
export interface AgentPrincipal {
  readonly name: string;
  readonly kind: 'user' | 'service_principal';
  readonly groups: readonly string[];
}

export function toAgentRequest({ inputs, task, parameters }: Batch): AgentRequest {
  const input = requireChat(inputs[0]);
  const { customInputs, conversation, ...shared } = parameters;
  const { custom_inputs: beside, context, ...extra } = shared.extra ?? {};
  const sent: Parameters = { ...shared, extra };
  const { model: _model, messages, ...rest } = toRequest('', task, [input], sent);
  return {
    messages: messages as JsonObject[],
    parameters: rest as JsonObject,
    custom_inputs: customInputs ?? asObject(beside),
    conversation: conversation ?? asObject(context),
  };
}

export function toAgentPrincipal({ principal }: Caller): AgentPrincipal {
  const { name, kind, groups = [] } = principal;
  return { name, kind, groups };
}

/** Serving gives it for every target that is personal. */
export function requireCaller({ caller }: Batch): Caller {
  if (caller) return caller;
  throw new ServingError(
    'INTERNAL',
    'An agent was asked in the name of nobody. This is a defect of duckserve.',
  );
}

const asObject = (value: Json | undefined): JsonObject => (isJsonObject(value) ? value : {});
