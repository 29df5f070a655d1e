// ai_gen: the answer of a chat model to a prompt. Mirrors Databricks' function; temperature is 0.
import type { ChatOutput } from '#core/call.ts';
import { type AiFunction, cacheModeOf, NULL_VALUE, outputOf, requireText, textOf } from './function.ts';

/** One object for all rows: the sheet makes its text once. */
const PARAMETERS = { temperature: 0 };

export const aiGen: AiFunction = {
  name: '__ai_gen',
  returns: 'VARCHAR',
  subject: 0,
  plan([prompt, endpoint, cache], context) {
    if (prompt == null) return NULL_VALUE;
    const name =
      endpoint == null ? context.defaultEndpoint('chat') : requireText(endpoint, 'endpoint', 'ai_gen');
    return {
      questions: [
        {
          endpoint: name,
          task: 'llm/v1/chat',
          parameters: PARAMETERS,
          cache: cacheModeOf(cache ?? null, context.cache, 'ai_gen'),
          input: { messages: [{ role: 'user', content: textOf(prompt) }] },
        },
      ],
      finish: ([item]) => outputOf<ChatOutput>(item).content,
    };
  },
};
