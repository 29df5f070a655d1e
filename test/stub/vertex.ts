// Vertex AI as the stub speaks it: generateContent and streamGenerateContent of Gemini, predict of the embedding
// models. A request without a token of the stub's own identity provider is refused. Claude there is anthropic.ts's.
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

const PATH =
  /^\/v1\/projects\/[^/]+\/locations\/[^/]+\/(?:publishers\/google\/models|endpoints)\/([^/:]+):(generateContent|streamGenerateContent|predict)$/;
const FIELDS = `contents systemInstruction cachedContent tools toolConfig labels safetySettings generationConfig
  modelArmorConfig`;
const CONFIG_FIELDS = `temperature topP topK candidateCount maxOutputTokens stopSequences presencePenalty
  frequencyPenalty responseMimeType responseSchema seed responseLogprobs logprobs audioTimestamp thinkingConfig
  mediaResolution responseModalities speechConfig`;
const SCHEMA_FIELDS = `type format title description nullable default items minItems maxItems enum properties
  propertyOrdering required minProperties maxProperties minimum maximum minLength maxLength pattern example anyOf`;
const FINISH = { stop: 'STOP', length: 'MAX_TOKENS', tool_calls: 'STOP' } as const;

export const vertexDialect: Dialect = {
  matches: (path) => PATH.test(path),
  isStream: ({ path }) => path.endsWith(':streamGenerateContent'),
  textsOf: (body) =>
    Array.isArray(body.instances)
      ? isObjects(body.instances).map(({ content }) => String(content))
      : [promptOf(body)],
  refuse: (request, { tokens }) => {
    if (!tokens.isGood(request.headers.authorization)) {
      const message = 'Request had invalid authentication credentials. Expected OAuth 2 access token.';
      return { status: 401, type: 'UNAUTHENTICATED', message };
    }
    const fault = request.path.endsWith(':predict')
      ? faultOfPredict(request.body)
      : faultOfGenerate(request.body);
    return fault === undefined ? undefined : { status: 400, type: 'INVALID_ARGUMENT', message: fault };
  },
  answer: (request, { dimensions, omitUsage }) =>
    request.path.endsWith(':predict')
      ? predict(request.body, dimensions, omitUsage)
      : generate(request, omitUsage),
  error: ({ status, type, message }) => ({
    text: JSON.stringify({ error: { code: status, message, status: type } }),
  }),
  malformed: 'data: {"candidates": [{"conte\n\n',
};

function faultOfPredict(body: JsonObject): string | undefined {
  const instances = isObjects(body.instances);
  if (instances.length === 0 || instances.length > 250) return '250 instance(s) are allowed per prediction.';
  return [
    unknownField(body, 'instances parameters', 'PredictRequest'),
    unknownField(body.parameters, 'autoTruncate outputDimensionality', 'parameters'),
    ...instances.map((instance) => unknownField(instance, 'content task_type title', 'instance')),
  ].find((fault) => fault !== undefined);
}

function faultOfGenerate(body: JsonObject): string | undefined {
  const config = objectIn(body.generationConfig);
  const declared = isObjects(body.tools).flatMap((tool) => isObjects(tool.functionDeclarations));
  const contents = isObjects(body.contents);
  return [
    unknownField(body, FIELDS, 'request'),
    unknownField(config, CONFIG_FIELDS, 'generation_config'),
    faultOfSchema(config.responseSchema),
    ...declared.flatMap((each) => [
      unknownField(each, 'name description parameters response', 'function_declarations'),
      faultOfSchema(each.parameters),
    ]),
    declared.length > 0 && config.responseMimeType !== undefined
      ? "Function calling with a response mime type: 'application/json' is unsupported"
      : undefined,
    ...contents.flatMap(({ role, parts }) => [
      role === 'user' || role === 'model' ? undefined : 'Please use a valid role: user, model.',
      isObjects(parts).length === 0 ? 'Each content must have parts.' : undefined,
      ...isObjects(parts).map((part) =>
        unknownField(
          part,
          'text inlineData fileData functionCall functionResponse thoughtSignature thought videoMetadata',
          'parts',
        ),
      ),
    ]),
  ].find((fault) => fault !== undefined);
}

function faultOfSchema(schema: Json | undefined): string | undefined {
  if (schema === undefined) return undefined;
  const given = objectIn(schema);
  if (Array.isArray(given.type)) return 'Proto field is not repeating: type';
  if (Array.isArray(given.enum) && !given.enum.every((value) => typeof value === 'string')) {
    return 'Invalid value at enum: (TYPE_STRING)';
  }
  return [
    unknownField(given, SCHEMA_FIELDS, 'schema'),
    ...Object.values(objectIn(given.properties)).map(faultOfSchema),
    ...(Array.isArray(given.anyOf) ? given.anyOf.map(faultOfSchema) : []),
    faultOfSchema(given.items),
  ].find((fault) => fault !== undefined);
}

function textOf(parts: Json | undefined): string {
  return isObjects(parts)
    .map(({ text }) => (typeof text === 'string' ? text : ''))
    .join('');
}

function promptOf(body: JsonObject): string {
  return textOf(isObjects(body.contents).findLast(({ role }) => role === 'user')?.parts);
}

function generate({ path, body }: DialectRequest, omitUsage: boolean): Said {
  const config = objectIn(body.generationConfig);
  const calling = objectIn(objectIn(body.toolConfig).functionCallingConfig);
  const declared = isObjects(body.tools).flatMap((tool) => isObjects(tool.functionDeclarations));
  const allowed = Array.isArray(calling.allowedFunctionNames) ? calling.allowedFunctionNames : undefined;
  const forced =
    calling.mode === 'ANY'
      ? declared.find(({ name = '' }) => allowed === undefined || allowed.includes(name))
      : undefined;
  const system = textOf(objectIn(body.systemInstruction).parts);
  const said = answerPlain({
    prompt: promptOf(body),
    promptTokens: [...isObjects(body.contents).map(({ parts }) => textOf(parts)), system]
      .filter((text) => text !== '')
      .reduce((sum, text) => sum + stubTokens(text), 0),
    maxTokens: config.maxOutputTokens,
    stop: config.stopSequences,
    forcedTool: forced && { name: String(forced.name), schema: objectIn(forced.parameters) },
    schema: config.responseSchema === undefined ? undefined : objectIn(config.responseSchema),
  });
  const { promptTokens, completionTokens, toolCall } = said;
  const usage = omitUsage
    ? {}
    : {
        usageMetadata: {
          promptTokenCount: promptTokens,
          candidatesTokenCount: completionTokens,
          totalTokenCount: promptTokens + completionTokens,
          trafficType: 'ON_DEMAND',
        },
      };
  const finishReason = FINISH[said.finish];
  const call = toolCall && { functionCall: { name: toolCall.name, args: JSON.parse(toolCall.arguments) } };
  const piece = (parts: readonly object[], rest: object = {}, outer: object = {}) => ({
    candidates: [{ content: { role: 'model', parts }, ...rest }],
    ...outer,
    modelVersion: 'gemini-stub',
    responseId: 'stub',
  });
  if (!path.endsWith(':streamGenerateContent')) {
    const parts = [call ?? { text: said.text }];
    const text = JSON.stringify(piece(parts, { finishReason }, usage));
    return { reply: { text }, promptTokens, completionTokens };
  }
  const words = call ? [call] : wordsOf(said.text).map((text) => ({ text }));
  const pieces = words.map((part, index) =>
    index < words.length - 1 ? piece([part]) : piece([part], { finishReason }, usage),
  );
  if (pieces.length === 0) pieces.push(piece([{ text: '' }], { finishReason }, usage));
  const events = pieces.map((each) => `data: ${JSON.stringify(each)}\r\n\r\n`);
  return { reply: { contentType: 'text/event-stream', events }, promptTokens, completionTokens };
}

function predict(body: JsonObject, size: number, omitUsage: boolean): Said {
  const texts = isObjects(body.instances).map(({ content }) => String(content));
  const wanted = objectIn(body.parameters).outputDimensionality;
  const dimensions = typeof wanted === 'number' ? wanted : size;
  const predictions = texts.map((each) => ({
    embeddings: {
      values: Array.from(stubEmbedding(each, dimensions)),
      ...(omitUsage ? {} : { statistics: { truncated: false, token_count: stubTokens(each) } }),
    },
  }));
  const promptTokens = texts.reduce((sum, each) => sum + stubTokens(each), 0);
  return { reply: { text: JSON.stringify({ predictions }) }, promptTokens, completionTokens: 0 };
}
