// One row of an inference table: what a call asked and what it was answered, as the JSON that an OpenAI or MLflow
// client would have sent and received. Written only where the endpoint wants it; streams are put together.
import type {
  AnswerItem,
  ChatMessage,
  CompletionOutput,
  Input,
  Output,
  Parameters,
  Task,
  ToolCall,
} from '#core/call.ts';
import type { Endpoint } from '#core/endpoint.ts';
import type { ServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';
import type { PayloadRow } from '#core/stores.ts';
import type { CallRun } from './call-run.ts';
import { inputLength, outputLength } from './inputs.ts';

/** Databricks' limit for each of the two texts. */
const MAX_BYTES = 1024 * 1024;
const DEFAULT_CATALOG = 'duckserve';
const DEFAULT_SCHEMA = 'inference';
const WITHHELD = '[withheld by a guardrail]';

/** The table of an endpoint, or undefined where it wants none. */
export function payloadTableOf({ name, aiGateway }: Endpoint): PayloadRow['table'] | undefined {
  const config = aiGateway?.inferenceTable;
  if (!config?.enabled) return undefined;
  // `||`: an empty name says no more than none.
  return {
    catalog: config.catalogName || DEFAULT_CATALOG,
    schema: config.schemaName || DEFAULT_SCHEMA,
    name: `${safeName(config.tableNamePrefix || name)}_payload`,
  };
}

function safeName(name: string): string {
  return name.replace(/[^A-Za-z0-9_]/g, '_');
}

export function payloadOf(run: CallRun, table: PayloadRow['table'], nowMs: number): PayloadRow {
  const { call, startedAtMs } = run;
  const error = errorOf(run);
  const request = sized(requestLength(run), () => requestOf(run));
  const response = sized(responseLength(run), () => responseOf(run, error, nowMs));
  return {
    table,
    requestId: call.id,
    clientRequestId: call.clientRequestId ?? null,
    requestTimeMs: startedAtMs,
    statusCode: error?.row.httpStatus ?? 200,
    samplingFraction: 1,
    durationMs: Math.max(0, nowMs - startedAtMs),
    request,
    response,
    servedEntityId: run.knownTarget?.servedEntityId ?? null,
    requester: call.principal.name,
    loggingErrorCodes: [
      ...(request === null ? ['MAX_REQUEST_SIZE_EXCEEDED'] : []),
      ...(response === null ? ['MAX_RESPONSE_SIZE_EXCEEDED'] : []),
    ],
  };
}

/** A call has failed when it failed as a whole or no input has an answer. */
function errorOf({ error, items }: CallRun): ServingError | undefined {
  if (error || items.some((item) => item?.ok)) return error;
  for (const item of items) if (item?.ok === false) return item.error;
  return undefined;
}

/** `atLeast`: characters that will be in it anyway, so that what is far too long is not written at all. */
function sized(atLeast: number, write: () => Json): string | null {
  if (atLeast > MAX_BYTES) return null;
  const text = JSON.stringify(write());
  return Buffer.byteLength(text) > MAX_BYTES ? null : text;
}

function requestLength({ call, refusedSlots }: CallRun): number {
  let length = 0;
  for (const [slot, input] of call.inputs.entries()) {
    if (!refusedSlots.has(slot)) length += inputLength(input);
    if (length > MAX_BYTES) break;
  }
  return length;
}

function responseLength({ items, partial }: CallRun): number {
  let length = partial ? outputLength(partial) : 0;
  for (const item of items) {
    if (item?.ok && 'embedding' in item.output) length += 2 * item.output.embedding.length;
    else if (item?.ok) length += outputLength(item.output);
    if (length > MAX_BYTES) break;
  }
  return length;
}

/** Inputs as the guard has let them through; those it refused are nobody's to read. */
function requestOf({ call, refusedSlots, isStreaming }: CallRun): Json {
  const { task, parameters, inputs } = call;
  const shared = { ...toWireParameters(parameters), ...(isStreaming && { stream: true }) };
  const texts = inputs.map((input, slot) => (refusedSlots.has(slot) ? WITHHELD : toWireInput(input)));
  if (task === 'predict') return { dataframe_records: texts, ...shared };
  const only = texts.length === 1 ? texts[0] : undefined;
  if (task === 'llm/v1/embeddings') return { input: only ?? texts, ...shared };
  if (task === 'llm/v1/completions') return { prompt: only ?? texts, ...shared };
  const bodies = texts.map((messages) => ({ messages, ...shared }));
  return bodies.length === 1 ? (bodies[0] ?? null) : bodies;
}

function toWireInput(input: Input): Json {
  if ('prompt' in input) return input.prompt;
  if ('text' in input) return input.text;
  if ('features' in input) return input.features;
  return input.messages.map(toWireMessage);
}

function toWireMessage({ role, content, name, toolCalls, toolCallId }: ChatMessage): JsonObject {
  const parts =
    content === null || typeof content === 'string'
      ? content
      : content.map((part) =>
          part.type === 'text'
            ? { type: 'text', text: part.text }
            : { type: 'image_url', image_url: { url: part.url } },
        );
  return {
    role,
    content: parts,
    ...(name !== undefined && { name }),
    ...(toolCalls && { tool_calls: toolCalls.map(toWireToolCall) }),
    ...(toolCallId !== undefined && { tool_call_id: toolCallId }),
  };
}

function toWireToolCall({ id, name, arguments: text }: ToolCall): JsonObject {
  return { id, type: 'function', function: { name, arguments: text } };
}

function toWireParameters(parameters: Parameters): JsonObject {
  const { maxTokens, temperature, topP, topK, stop, seed, responseFormat, tools, toolChoice } = parameters;
  return {
    ...parameters.extra,
    ...(maxTokens !== undefined && { max_tokens: maxTokens }),
    ...(temperature !== undefined && { temperature }),
    ...(topP !== undefined && { top_p: topP }),
    ...(topK !== undefined && { top_k: topK }),
    ...(stop && { stop }),
    ...(seed !== undefined && { seed }),
    ...(parameters.dimensions !== undefined && { dimensions: parameters.dimensions }),
    ...(responseFormat && { response_format: toWireFormat(responseFormat) }),
    ...(tools && {
      tools: tools.map((tool) => ({ type: 'function', function: { ...tool } })),
    }),
    ...(toolChoice !== undefined && {
      tool_choice:
        typeof toolChoice === 'string' ? toolChoice : { type: 'function', function: { ...toolChoice } },
    }),
  };
}

function toWireFormat(format: NonNullable<Parameters['responseFormat']>): JsonObject {
  if (format.type !== 'json_schema') return { type: format.type };
  const { type, ...schema } = format;
  return { type, json_schema: schema };
}

function responseOf(run: CallRun, error: ServingError | undefined, nowMs: number): Json {
  const { call, items, partial } = run;
  if (error && !partial) return errorBody(error);
  const model = run.knownTarget?.model ?? '';
  const head = { id: call.id, created: Math.floor(nowMs / 1000), model };
  // A stream that broke off: what was given, without a reason to end.
  if (error && partial) return { ...chatOrText(call.task, head, [choiceOf(partial, 0, null)]) };
  if (call.task === 'predict') return { predictions: items.map((item) => predictionOf(item)) };
  if (call.task === 'llm/v1/embeddings') {
    return { object: 'list', model, data: items.map(toVector), usage: usageOf(items, true) };
  }
  const choices = items.map((item, index) =>
    item?.ok ? choiceOf(item.output, index) : { index, ...(item && errorBody(item.error)) },
  );
  if (call.task === 'llm/v1/completions' || choices.length === 1) {
    return { ...chatOrText(call.task, head, choices), usage: usageOf(items, false) };
  }
  return items.map((item, index) =>
    item?.ok
      ? { ...chatOrText(call.task, head, [choiceOf(item.output, 0)]), usage: usageOf([item], false) }
      : (choices[index] ?? null),
  );
}

function chatOrText(task: Task, head: JsonObject, choices: readonly JsonObject[]): JsonObject {
  return { ...head, object: task === 'llm/v1/chat' ? 'chat.completion' : 'text_completion', choices };
}

function choiceOf(output: Output, index: number, reason?: null): JsonObject {
  if ('text' in output) return textChoice(output, index, reason);
  if (!('finishReason' in output)) return { index };
  const { content, toolCalls, finishReason } = output;
  const message = {
    role: 'assistant',
    content,
    ...(toolCalls && { tool_calls: toolCalls.map(toWireToolCall) }),
  };
  return { index, message, finish_reason: reason === null ? null : finishReason };
}

function textChoice({ text, finishReason }: CompletionOutput, index: number, reason?: null): JsonObject {
  return { index, text, finish_reason: reason === null ? null : finishReason };
}

function predictionOf(item: AnswerItem | undefined): Json {
  if (item?.ok && 'prediction' in item.output) return item.output.prediction;
  return item && !item.ok ? errorBody(item.error) : null;
}

function toVector(item: AnswerItem | undefined, index: number): JsonObject {
  if (item?.ok && 'embedding' in item.output) {
    return { object: 'embedding', index, embedding: [...item.output.embedding] };
  }
  return { index, ...(item && !item.ok && errorBody(item.error)) };
}

function usageOf(items: readonly (AnswerItem | undefined)[], isInputOnly: boolean): JsonObject {
  let prompt = 0;
  let completion = 0;
  for (const item of items) {
    if (!item?.ok) continue;
    prompt += item.usage.inputTokens;
    completion += item.usage.outputTokens;
  }
  const total = { prompt_tokens: prompt, total_tokens: prompt + completion };
  return isInputOnly ? total : { ...total, completion_tokens: completion };
}

function errorBody({ row, message }: ServingError): JsonObject {
  return { error_code: row.databricksCode, message };
}
