// Cohere's API, version 2, as the stub speaks it: /v2/chat and /v2/embed.
import type { JsonObject } from '#core/json.ts';
import {
  answerPlain,
  lastUserText,
  stubEmbedding,
  stubTokens,
  tokensOfMessages,
  wordsOf,
} from './answers.ts';
import { type Dialect, type DialectRequest, isObjects, objectIn, unknownField } from './dialect.ts';

const CHAT_FIELDS = `stream model messages tools strict_tools documents citation_options response_format safety_mode
  max_tokens stop_sequences temperature seed frequency_penalty presence_penalty k p logprobs tool_choice thinking
  priority`;
const EMBED_FIELDS = `texts images model input_type inputs max_tokens output_dimension embedding_types truncate priority`;
const MESSAGE_FIELDS = 'role content tool_calls tool_plan citations tool_call_id';
const INPUT_TYPES = ['search_document', 'search_query', 'classification', 'clustering', 'image'];
const FINISH = { stop: 'COMPLETE', length: 'MAX_TOKENS', tool_calls: 'TOOL_CALL' } as const;

export const cohereDialect: Dialect = {
  matches: (path) => path === '/v2/chat' || path === '/v2/embed',
  isStream: ({ body }) => body.stream === true,
  textsOf: (body) => (Array.isArray(body.texts) ? body.texts.map(String) : [promptOf(body)]),
  refuse: ({ path, headers, body }) => {
    if (!/^Bearer .+/.test(headers.authorization ?? '')) {
      return { status: 401, type: '', message: 'no api key supplied' };
    }
    const fault = path === '/v2/embed' ? faultOfEmbed(body) : faultOfChat(body);
    return fault === undefined ? undefined : { status: 400, type: '', message: `invalid request: ${fault}` };
  },
  answer: (request, options) => {
    const { path, body } = request;
    if (path === '/v2/embed') {
      const texts = (Array.isArray(body.texts) ? body.texts : []).map(String);
      const size = typeof body.output_dimension === 'number' ? body.output_dimension : options.dimensions;
      const promptTokens = texts.reduce((sum, text) => sum + stubTokens(text), 0);
      const text = JSON.stringify({
        id: 'embed-stub',
        embeddings: { float: texts.map((each) => Array.from(stubEmbedding(each, size))) },
        texts,
        meta: {
          api_version: { version: '2' },
          ...(options.omitUsage ? {} : { billed_units: { input_tokens: promptTokens } }),
        },
        response_type: 'embeddings_by_type',
      });
      return { reply: { text }, promptTokens, completionTokens: 0 };
    }
    return answerChat(request, options.omitUsage);
  },
  error: ({ message }) => ({ text: JSON.stringify({ id: 'stub', message }) }),
  malformed: 'event: content-delta\ndata: {"type":"content-del\n\n',
};

function promptOf(body: JsonObject): string {
  return lastUserText(Array.isArray(body.messages) ? body.messages : []);
}

function faultOfEmbed(body: JsonObject): string | undefined {
  const unknown = unknownField(body, EMBED_FIELDS, 'embed');
  if (unknown !== undefined) return unknown;
  if (!INPUT_TYPES.includes(String(body.input_type))) return 'valid input_type must be provided';
  if (!Array.isArray(body.texts) || body.texts.length > 96) return 'at most 96 texts';
  return Array.isArray(body.embedding_types) ? undefined : 'embedding_types must be provided';
}

function faultOfChat(body: JsonObject): string | undefined {
  const unknown = unknownField(body, CHAT_FIELDS, 'chat');
  if (unknown !== undefined) return unknown;
  if (typeof body.p === 'number' && (body.p < 0.01 || body.p > 0.99)) return 'p must be within [0.01, 0.99]';
  if (body.response_format !== undefined && isObjects(body.tools).length > 0) {
    return 'response_format is not supported with tools';
  }
  for (const message of isObjects(body.messages)) {
    const wrong = unknownField(message, MESSAGE_FIELDS, 'messages');
    if (wrong !== undefined) return wrong;
  }
  if (isObjects(body.messages).every(({ role }) => role === 'system')) return 'no user message';
  const choice = body.tool_choice ?? 'NONE';
  return choice === 'REQUIRED' || choice === 'NONE' ? undefined : 'tool_choice must be REQUIRED or NONE';
}

function answerChat({ body }: DialectRequest, omitUsage: boolean) {
  const messages = Array.isArray(body.messages) ? body.messages : [];
  const [tool] = isObjects(body.tools);
  const called = objectIn(tool?.function);
  const format = objectIn(body.response_format);
  const said = answerPlain({
    prompt: lastUserText(messages),
    promptTokens: tokensOfMessages(messages),
    maxTokens: body.max_tokens,
    stop: body.stop_sequences,
    forcedTool:
      body.tool_choice === 'REQUIRED'
        ? { name: String(called.name), schema: objectIn(called.parameters) }
        : undefined,
    schema: format.json_schema === undefined ? undefined : objectIn(format.json_schema),
  });
  const { promptTokens, completionTokens, toolCall } = said;
  const usage = omitUsage
    ? {}
    : {
        usage: {
          billed_units: { input_tokens: promptTokens, output_tokens: completionTokens },
          // Templates and special tokens are counted here and not billed.
          tokens: { input_tokens: promptTokens + 60, output_tokens: completionTokens },
        },
      };
  const finish = FINISH[said.finish];
  const call = toolCall && {
    id: toolCall.id,
    type: 'function',
    function: { name: toolCall.name, arguments: toolCall.arguments },
  };
  if (body.stream !== true) {
    const message = call
      ? { role: 'assistant', tool_calls: [call] }
      : { role: 'assistant', content: [{ type: 'text', text: said.text }] };
    const text = JSON.stringify({ id: 'chat-stub', finish_reason: finish, message, ...usage });
    return { reply: { text }, promptTokens, completionTokens };
  }
  const event = (type: string, rest: object) =>
    `event: ${type}\ndata: ${JSON.stringify({ type, ...rest })}\n\n`;
  const part = (message: object) => ({ index: 0, delta: { message } });
  const start = { role: 'assistant', content: [], tool_plan: '', tool_calls: [], citations: [] };
  const half = Math.ceil((toolCall?.arguments.length ?? 0) / 2);
  const middle = call
    ? [
        event(
          'tool-call-start',
          part({ tool_calls: { ...call, function: { name: call.function.name, arguments: '' } } }),
        ),
        ...[call.function.arguments.slice(0, half), call.function.arguments.slice(half)].map((piece) =>
          event('tool-call-delta', part({ tool_calls: { function: { arguments: piece } } })),
        ),
        event('tool-call-end', { index: 0 }),
      ]
    : [
        event('content-start', part({ content: { type: 'text', text: '' } })),
        ...wordsOf(said.text).map((text) => event('content-delta', part({ content: { text } }))),
        event('content-end', { index: 0 }),
      ];
  const events = [
    event('message-start', { id: 'chat-stub', delta: { message: start } }),
    ...middle,
    event('message-end', { delta: { finish_reason: finish, ...usage } }),
  ];
  return { reply: { contentType: 'text/event-stream', events }, promptTokens, completionTokens };
}
