// The stub's answers in the spelling of OpenAI and Anthropic, whole and as server-sent events.
import { isJsonObject, type JsonObject } from '#core/json.ts';
import { stubEmbedding, stubTokens, type TextAnswer, textsOf, wordsOf } from './answers.ts';

const CREATED = 1_700_000_000;

export function openaiBody(body: JsonObject, said: TextAnswer, omitUsage: boolean): string {
  const isChat = Array.isArray(body.messages);
  const choice = isChat ? { message: openaiMessage(said) } : { text: said.text };
  return JSON.stringify({
    id: isChat ? 'chatcmpl-stub' : 'cmpl-stub',
    object: isChat ? 'chat.completion' : 'text_completion',
    created: CREATED,
    model: body.model,
    choices: [{ index: 0, ...choice, finish_reason: said.finish }],
    ...(omitUsage ? {} : { usage: openaiUsage(said) }),
  });
}

function openaiMessage({ text, toolCall }: TextAnswer): object {
  if (toolCall === undefined) return { role: 'assistant', content: text };
  const { id, name } = toolCall;
  const called = { id, type: 'function', function: { name, arguments: toolCall.arguments } };
  return { role: 'assistant', content: null, tool_calls: [called] };
}

function openaiUsage({ promptTokens, completionTokens }: TextAnswer): object {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  };
}

/** `data:` events up to and with `[DONE]`; usage in a chunk of its own when `stream_options` asks for it. */
export function openaiEvents(body: JsonObject, said: TextAnswer, omitUsage: boolean): readonly string[] {
  const isChat = Array.isArray(body.messages);
  const chunk = (choices: readonly object[], rest: object = {}) =>
    `data: ${JSON.stringify({
      id: 'chatcmpl-stub',
      object: isChat ? 'chat.completion.chunk' : 'text_completion',
      created: CREATED,
      model: body.model,
      choices,
      ...rest,
    })}\n\n`;
  const part = (delta: object, finish: string | null = null) =>
    chunk([{ index: 0, ...(isChat ? { delta } : delta), finish_reason: finish }]);
  const events: string[] = [];
  if (isChat) events.push(part({ role: 'assistant', content: '' }));
  if (said.toolCall) {
    const { id, name, arguments: filled } = said.toolCall;
    const half = Math.ceil(filled.length / 2);
    const first = { index: 0, id, type: 'function', function: { name, arguments: filled.slice(0, half) } };
    events.push(part({ tool_calls: [first] }));
    events.push(part({ tool_calls: [{ index: 0, function: { arguments: filled.slice(half) } }] }));
  }
  for (const word of wordsOf(said.text)) events.push(part(isChat ? { content: word } : { text: word }));
  events.push(part(isChat ? {} : { text: '' }, said.finish));
  const wantsUsage = isJsonObject(body.stream_options) && body.stream_options.include_usage === true;
  if (wantsUsage && !omitUsage) events.push(chunk([], { usage: openaiUsage(said) }));
  events.push('data: [DONE]\n\n');
  return events;
}

export function embeddingsBody(
  body: JsonObject,
  defaultDimensions: number,
  omitUsage: boolean,
): { readonly text: string; readonly promptTokens: number } {
  const dimensions = typeof body.dimensions === 'number' ? body.dimensions : defaultDimensions;
  const isBase64 = body.encoding_format === 'base64';
  let promptTokens = 0;
  const data = textsOf(body).map((text, index) => {
    promptTokens += stubTokens(text);
    const vector = stubEmbedding(text, dimensions);
    const embedding = isBase64 ? Buffer.from(vector.buffer).toString('base64') : Array.from(vector);
    return { object: 'embedding', index, embedding };
  });
  const usage = omitUsage ? {} : { usage: { prompt_tokens: promptTokens, total_tokens: promptTokens } };
  return { text: JSON.stringify({ object: 'list', model: body.model, data, ...usage }), promptTokens };
}

const STOP_REASONS = { stop: 'end_turn', length: 'max_tokens', tool_calls: 'tool_use' } as const;

export function anthropicBody(body: JsonObject, said: TextAnswer, omitUsage: boolean): string {
  const { toolCall } = said;
  const block = toolCall
    ? { type: 'tool_use', id: toolCall.id, name: toolCall.name, input: JSON.parse(toolCall.arguments) }
    : { type: 'text', text: said.text };
  return JSON.stringify({
    id: 'msg_stub',
    type: 'message',
    role: 'assistant',
    model: body.model,
    content: [block],
    stop_reason: STOP_REASONS[said.finish],
    stop_sequence: null,
    ...(omitUsage
      ? {}
      : { usage: { input_tokens: said.promptTokens, output_tokens: said.completionTokens } }),
  });
}

export function anthropicEvents(body: JsonObject, said: TextAnswer): readonly string[] {
  const event = (type: string, rest: object = {}) =>
    `event: ${type}\ndata: ${JSON.stringify({ type, ...rest })}\n\n`;
  const { toolCall } = said;
  const half = Math.ceil((toolCall?.arguments.length ?? 0) / 2);
  const deltas = toolCall
    ? [toolCall.arguments.slice(0, half), toolCall.arguments.slice(half)].map((json) => ({
        type: 'input_json_delta',
        partial_json: json,
      }))
    : wordsOf(said.text).map((text) => ({ type: 'text_delta', text }));
  const block = toolCall
    ? { type: 'tool_use', id: toolCall.id, name: toolCall.name, input: {} }
    : { type: 'text', text: '' };
  return [
    event('message_start', {
      message: {
        id: 'msg_stub',
        type: 'message',
        role: 'assistant',
        model: body.model,
        content: [],
        stop_reason: null,
        usage: { input_tokens: said.promptTokens, output_tokens: 1 },
      },
    }),
    event('content_block_start', { index: 0, content_block: block }),
    event('ping'),
    ...deltas.map((delta) => event('content_block_delta', { index: 0, delta })),
    event('content_block_stop', { index: 0 }),
    event('message_delta', {
      delta: { stop_reason: STOP_REASONS[said.finish], stop_sequence: null },
      usage: { output_tokens: said.completionTokens },
    }),
    event('message_stop'),
  ];
}
