// What callers give an agent beside the conversation, in chats as in responses: Databricks' `custom_inputs` and
// `context`. Endpoints that are no agents leave them unread.
import { z } from 'zod';
import type { Parameters } from '#core/call.ts';

const object = z.record(z.string(), z.json());

export const agentFields = {
  custom_inputs: object.nullish(),
  /** `{"conversation_id", "user_id"}`. */
  context: object.nullish(),
  /** `{"return_trace": true}`; there are no traces to return. */
  databricks_options: object.nullish(),
};

export function toAgentParameters({
  custom_inputs: customInputs,
  context: conversation,
}: z.output<z.ZodObject<typeof agentFields>>): Pick<Parameters, 'customInputs' | 'conversation'> {
  return { ...(customInputs && { customInputs }), ...(conversation && { conversation }) };
}
