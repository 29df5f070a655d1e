// The query plane of a Databricks workspace as the stub speaks it: OpenAI's shape under /serving-endpoints, with
// fewer fields, usage on every chunk, and a list as content where the name of the endpoint has "reasoning" in it.
import { isJsonObject, type JsonObject } from '#core/json.ts';
import { answerOpenai, textsOf, wordsOf } from './answers.ts';
import { type Dialect, type Said, unknownField } from './dialect.ts';
import { embeddingsBody, openaiBody } from './wire.ts';

export const DATABRICKS_TOKEN = 'dapi0123456789abcdef0123456789abcdef';

const PATH = /^\/serving-endpoints\/([^/]+)\/invocations$/;
const CHAT_FIELDS = `messages max_tokens temperature top_p top_k stop n stream tools tool_choice response_format
  logprobs top_logprobs reasoning_effort thinking usage_context`;
const OTHER_FIELDS = `prompt max_tokens temperature stop n stream suffix echo top_p top_k error_behavior
  use_raw_prompt input instruction dimensions usage_context`;

export const databricksDialect: Dialect = {
  matches: (path) => PATH.test(path),
  isStream: ({ body }) => body.stream === true,
  textsOf,
  refuse: ({ headers, body }) => {
    if (headers.authorization !== `Bearer ${DATABRICKS_TOKEN}`) {
      return { status: 403, type: 'PERMISSION_DENIED', message: 'Invalid access token.' };
    }
    const known = Array.isArray(body.messages) ? CHAT_FIELDS : OTHER_FIELDS;
    const message = unknownField(body, known, 'request');
    return message === undefined ? undefined : { status: 400, type: 'BAD_REQUEST', message };
  },
  answer: ({ path, body }, { dimensions, omitUsage }) => {
    if (body.input !== undefined) {
      const { text, promptTokens } = embeddingsBody(body, dimensions, omitUsage);
      return { reply: { text }, promptTokens, completionTokens: 0 };
    }
    return answerText(body, path.includes('reasoning'), omitUsage);
  },
  error: ({ type, message }) => ({ text: JSON.stringify({ error_code: type, message }) }),
  malformed: 'data: {"choices":[{"de\n\n',
};

function answerText(body: JsonObject, isReasoning: boolean, omitUsage: boolean): Said {
  const said = answerOpenai(body);
  const { promptTokens, completionTokens, toolCall } = said;
  const isChat = Array.isArray(body.messages);
  const reasoning = { type: 'reasoning', summary: [{ type: 'summary_text', text: 'Thinking.' }] };
  if (body.stream !== true) {
    const whole: unknown = JSON.parse(openaiBody(body, said, omitUsage));
    const choices = isJsonObject(whole) && Array.isArray(whole.choices) ? whole.choices : [];
    const content = [reasoning, { type: 'text', text: said.text }];
    const text = JSON.stringify(
      isReasoning && isChat && !toolCall
        ? { ...Object(whole), choices: [{ ...Object(choices[0]), message: { role: 'assistant', content } }] }
        : whole,
    );
    return { reply: { text }, promptTokens, completionTokens };
  }
  let written = 0;
  const chunk = (delta: object, finish: string | null = null) => {
    written = finish === null ? Math.min(written + 1, completionTokens) : completionTokens;
    const usage = {
      prompt_tokens: promptTokens,
      completion_tokens: written,
      total_tokens: promptTokens + written,
    };
    const choice = { index: 0, ...(isChat ? { delta } : delta), finish_reason: finish };
    return `data: ${JSON.stringify({
      object: isChat ? 'chat.completion.chunk' : 'text_completion',
      choices: [choice],
      ...(omitUsage ? {} : { usage }),
    })}\n\n`;
  };
  const word = (text: string) => {
    if (!isChat) return chunk({ text });
    return chunk({ content: isReasoning ? [{ type: 'text', text }] : text });
  };
  const events = [
    ...(isReasoning && isChat ? [chunk({ role: 'assistant', content: [reasoning] })] : []),
    ...(toolCall
      ? [
          chunk({
            tool_calls: [
              {
                index: 0,
                id: toolCall.id,
                type: 'function',
                function: { name: toolCall.name, arguments: toolCall.arguments },
              },
            ],
          }),
        ]
      : wordsOf(said.text).map(word)),
    chunk(isChat ? {} : { text: '' }, said.finish),
    'data: [DONE]\n\n',
  ];
  return { reply: { contentType: 'text/event-stream', events }, promptTokens, completionTokens };
}
