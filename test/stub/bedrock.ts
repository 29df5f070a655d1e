// Amazon Bedrock's runtime as the stub speaks it: Converse, ConverseStream and InvokeModel for embeddings. A request
// whose signature is not right is refused.
import type { Json, JsonObject } from '#core/json.ts';
import { answerPlain, stubEmbedding, stubTokens, wordsOf } from './answers.ts';
import {
  type Dialect,
  type DialectRequest,
  isObjects,
  objectIn,
  type Said,
  unknownField,
} from './dialect.ts';
import { encodeEvent, encodeMessage } from './event-stream.ts';
import { findFault } from './sigv4.ts';

/** Keys that the stub knows. */
export const AWS = {
  accessKeyId: 'AKIASTUBSTUBSTUBSTUB',
  secretAccessKey: 'stub/secret+access/key0123456789abcdefghi',
  region: 'us-east-1',
  service: 'bedrock',
};
export const BEDROCK_API_KEY = 'bedrock-api-key-0123456789';

const PATH = /^\/model\/([^/]+)\/(converse|converse-stream|invoke)$/;
const CONVERSE_FIELDS = `messages system inferenceConfig toolConfig guardrailConfig additionalModelRequestFields
  additionalModelResponseFieldPaths promptVariables requestMetadata performanceConfig serviceTier outputConfig`;
const STOP = { stop: 'end_turn', length: 'max_tokens', tool_calls: 'tool_use' } as const;

export const bedrockDialect: Dialect = {
  matches: (path) => PATH.test(path),
  isStream: ({ path }) => path.endsWith('/converse-stream'),
  textsOf: (body) => {
    if (typeof body.inputText === 'string') return [body.inputText];
    return Array.isArray(body.texts) ? body.texts.map(String) : [promptOf(body)];
  },
  refuse: (request) => {
    const isByKey = request.headers.authorization === `Bearer ${BEDROCK_API_KEY}`;
    const fault = isByKey ? undefined : findFault({ ...request, method: 'POST' }, AWS);
    if (fault !== undefined) return { status: 403, type: 'InvalidSignatureException', message: fault };
    const wrong = faultOf(request);
    return wrong === undefined ? undefined : { status: 400, type: 'ValidationException', message: wrong };
  },
  answer: (request, { dimensions, omitUsage }) =>
    request.path.endsWith('/invoke') ? embed(request, dimensions, omitUsage) : converse(request, omitUsage),
  error: ({ type, message }) => ({
    text: JSON.stringify({ message }),
    headers: { 'x-amzn-errortype': `${type}:http://internal.amazon.com/coral/com.amazon.bedrock/` },
  }),
  malformed: damaged(),
};

/** Right in length, wrong in its checksum. */
function damaged(): Buffer {
  const message = encodeEvent('contentBlockDelta', { contentBlockIndex: 0, delta: { text: 'x' } });
  message.writeUInt8(message.readUInt8(message.length - 8) ^ 0xff, message.length - 8);
  return message;
}

function modelOf(path: string): string {
  return decodeURIComponent(PATH.exec(path)?.[1] ?? '');
}

function faultOf({ path, body }: DialectRequest): string | undefined {
  const model = modelOf(path);
  if (path.endsWith('/invoke')) {
    if (model.includes('cohere')) {
      const texts = Array.isArray(body.texts) ? body.texts : [];
      if (texts.length === 0 || texts.length > 96) return 'expected minimum item count: 1, maximum: 96';
      return unknownField(body, 'texts input_type truncate embedding_types output_dimension', 'body');
    }
    const known = model.includes('v1') ? 'inputText' : 'inputText dimensions normalize embeddingTypes';
    return unknownField(body, known, 'body');
  }
  const config = objectIn(body.toolConfig);
  const faults = [
    unknownField(body, CONVERSE_FIELDS, 'ConverseRequest'),
    unknownField(body.inferenceConfig, 'maxTokens temperature topP stopSequences', 'inferenceConfig'),
    unknownField(body.toolConfig, 'tools toolChoice', 'toolConfig'),
    ...isObjects(body.system).map((block) => unknownField(block, 'text guardContent cachePoint', 'system')),
    ...isObjects(config.tools).map((tool) =>
      unknownField(tool.toolSpec, 'name description inputSchema', 'toolSpec'),
    ),
    ...faultsOfMessages(isObjects(body.messages), body.toolConfig !== undefined),
  ];
  return faults.find((fault) => fault !== undefined);
}

function faultsOfMessages(messages: readonly JsonObject[], hasTools: boolean): (string | undefined)[] {
  return messages.flatMap(({ role, content }, index) => {
    const blocks = isObjects(content);
    const isUsed = blocks.some((block) => block.toolUse !== undefined || block.toolResult !== undefined);
    return [
      index === 0 && role !== 'user' ? 'A conversation must start with a user message.' : undefined,
      role === messages[index - 1]?.role ? 'Roles must alternate.' : undefined,
      blocks.length === 0 ? 'The content field is empty.' : undefined,
      isUsed && !hasTools ? 'The toolConfig field must be defined when using toolUse.' : undefined,
      ...blocks.map((block) =>
        unknownField(block, 'text image toolUse toolResult reasoningContent cachePoint document', 'content'),
      ),
    ];
  });
}

function textOf(content: Json | undefined): string {
  return isObjects(content)
    .map(({ text }) => (typeof text === 'string' ? text : ''))
    .join('');
}

function promptOf(body: JsonObject): string {
  return textOf(isObjects(body.messages).findLast(({ role }) => role === 'user')?.content);
}

function converse({ path, body }: DialectRequest, omitUsage: boolean): Said {
  const config = objectIn(body.inferenceConfig);
  const tools = objectIn(body.toolConfig);
  const choice = objectIn(tools.toolChoice);
  const specs = isObjects(tools.tools).map((tool) => objectIn(tool.toolSpec));
  const named = objectIn(choice.tool).name;
  const forced =
    choice.any !== undefined ? specs[0] : specs.find(({ name }) => named !== undefined && name === named);
  const said = answerPlain({
    prompt: promptOf(body),
    promptTokens: [...isObjects(body.messages), { content: body.system ?? [] }]
      .map(({ content }) => textOf(content))
      .reduce((sum, text) => sum + (text === '' ? 0 : stubTokens(text)), 0),
    maxTokens: config.maxTokens,
    stop: config.stopSequences,
    forcedTool: forced && {
      name: String(forced.name),
      schema: objectIn(objectIn(forced.inputSchema).json),
    },
  });
  const { promptTokens, completionTokens, toolCall } = said;
  const usage = {
    inputTokens: promptTokens,
    outputTokens: completionTokens,
    totalTokens: promptTokens + completionTokens,
  };
  const stopReason = STOP[said.finish];
  const use = toolCall && { toolUseId: toolCall.id, name: toolCall.name };
  if (!path.endsWith('/converse-stream')) {
    const block = toolCall
      ? { toolUse: { ...use, input: JSON.parse(toolCall.arguments) } }
      : { text: said.text };
    const text = JSON.stringify({
      output: { message: { role: 'assistant', content: [block] } },
      stopReason,
      ...(omitUsage ? {} : { usage }),
      metrics: { latencyMs: 1 },
    });
    return { reply: { text }, promptTokens, completionTokens };
  }
  const half = Math.ceil((toolCall?.arguments.length ?? 0) / 2);
  const deltas = toolCall
    ? [toolCall.arguments.slice(0, half), toolCall.arguments.slice(half)].map((input) => ({
        toolUse: { input },
      }))
    : wordsOf(said.text).map((text) => ({ text }));
  const events = [
    encodeEvent('messageStart', { role: 'assistant', p: 'abc' }),
    ...(use ? [encodeEvent('contentBlockStart', { contentBlockIndex: 0, start: { toolUse: use } })] : []),
    ...deltas.map((delta) => encodeEvent('contentBlockDelta', { contentBlockIndex: 0, delta, p: 'abcdef' })),
    encodeEvent('contentBlockStop', { contentBlockIndex: 0 }),
    encodeEvent('messageStop', { stopReason }),
    ...(omitUsage ? [] : [encodeEvent('metadata', { usage, metrics: { latencyMs: 1 } })]),
  ];
  const reply = { contentType: 'application/vnd.amazon.eventstream', events };
  return { reply, promptTokens, completionTokens };
}

function embed({ path, body }: DialectRequest, size: number, omitUsage: boolean): Said {
  if (!modelOf(path).includes('cohere')) {
    const input = String(body.inputText);
    const dimensions = typeof body.dimensions === 'number' ? body.dimensions : size;
    const promptTokens = stubTokens(input);
    const text = JSON.stringify({
      embedding: Array.from(stubEmbedding(input, dimensions)),
      ...(omitUsage ? {} : { inputTextTokenCount: promptTokens }),
    });
    return { reply: { text }, promptTokens, completionTokens: 0 };
  }
  const texts = (Array.isArray(body.texts) ? body.texts : []).map(String);
  const promptTokens = texts.reduce((sum, each) => sum + stubTokens(each), 0);
  const text = JSON.stringify({
    id: 'stub',
    response_type: 'embeddings_floats',
    embeddings: texts.map((each) => Array.from(stubEmbedding(each, size))),
    texts,
  });
  const headers: Record<string, string> = omitUsage
    ? {}
    : { 'x-amzn-bedrock-input-token-count': String(promptTokens) };
  return { reply: { text, headers }, promptTokens, completionTokens: 0 };
}

export const errorMessage = (code: string, message: string): Buffer =>
  encodeMessage({ ':message-type': 'error', ':error-code': code, ':error-message': message }, '');
