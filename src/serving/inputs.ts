// Inputs as serving sees them: do they fit the task, how long are they, and their canonical text for the key of
// an answer. Nothing here looks inside a model.
import type {
  Call,
  ChatInput,
  ChatMessage,
  FeatureInput,
  Input,
  Output,
  Parameters,
  Task,
} from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { canonicalJson, isJsonObject } from '#core/json.ts';

/** Characters of one input. No model reads more; it protects memory, not a context window. */
const MAX_INPUT_LENGTH = 32 * 1024 * 1024;
/** What a chat format adds around each message, at most. */
const TOKENS_PER_MESSAGE = 16;

const FITS: Readonly<Record<Task, (input: Input) => boolean>> = {
  'llm/v1/chat': (input) => 'messages' in input && input.messages.length > 0,
  'llm/v1/completions': (input) => 'prompt' in input,
  'llm/v1/embeddings': (input) => 'text' in input,
  predict: (input) => 'features' in input,
};

/** Throws when the call as a whole cannot be carried out. */
export function checkInputs({ endpoint, task, inputs }: Call, targetTask: Task): void {
  if (task !== targetTask) {
    throw new ServingError(
      'WRONG_TASK',
      `Endpoint '${endpoint}' serves ${targetTask}, not ${task}. Ask an endpoint of that task, or ask this one for ${targetTask}.`,
    );
  }
  if (inputs.length === 0) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The call to '${endpoint}' has no inputs. Send at least one.`,
    );
  }
  const fits = FITS[task];
  const misfit = inputs.findIndex((input) => !fits(input));
  if (misfit >= 0) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `Input ${misfit} of the call to '${endpoint}' is not an input of ${task}. ${EXPECTED[task]}`,
    );
  }
}

const EXPECTED: Readonly<Record<Task, string>> = {
  'llm/v1/chat': 'Send a list of at least one message.',
  'llm/v1/completions': 'Send a prompt.',
  'llm/v1/embeddings': 'Send a text.',
  predict: 'Send features by name or by position.',
};

/** The failure of one input among others that are fine. */
export function sizeError(input: Input): ServingError | undefined {
  const length = inputLength(input);
  if (length <= MAX_INPUT_LENGTH) return undefined;
  return new ServingError(
    'PAYLOAD_TOO_LARGE',
    `An input has ${length} characters; the limit is ${MAX_INPUT_LENGTH}. Send it in parts.`,
  );
}

/** Characters of the texts of an input. */
export function inputLength(input: Input): number {
  return measure(input, (text) => text.length);
}

/** Characters of the text of an output, those of tool calls included. */
export function outputLength(output: Output): number {
  if (!('finishReason' in output)) return 0;
  if ('text' in output) return output.text.length;
  let length = output.content?.length ?? 0;
  for (const toolCall of output.toolCalls ?? []) length += toolCall.name.length + toolCall.arguments.length;
  return length;
}

/** Upper bound of the tokens of an input: no tokenizer makes more tokens than bytes. */
export function maxInputTokens(input: Input): number {
  const messages = 'messages' in input ? input.messages.length : 1;
  return measure(input, (text) => Buffer.byteLength(text)) + messages * TOKENS_PER_MESSAGE;
}

/** Bytes that travel with every input: tools and the schema of the answer are read by the model, too. */
export function maxSharedTokens({ tools, responseFormat, extra }: Parameters): number {
  if (!tools && !extra && (!responseFormat || responseFormat.type === 'text')) return 0;
  return Buffer.byteLength(canonicalJson({ tools, responseFormat, extra }));
}

function measure(input: Input, lengthOf: (text: string) => number): number {
  if ('prompt' in input) return lengthOf(input.prompt);
  if ('text' in input) return lengthOf(input.text);
  if ('features' in input) return 0;
  let length = 0;
  for (const { content, toolCalls, name } of input.messages) {
    if (typeof content === 'string') length += lengthOf(content);
    else for (const part of content ?? []) length += lengthOf(part.type === 'text' ? part.text : part.url);
    for (const toolCall of toolCalls ?? []) length += lengthOf(toolCall.name) + lengthOf(toolCall.arguments);
    if (name !== undefined) length += lengthOf(name);
  }
  return length;
}

/** Equal to `canonicalJson(input)`, several times faster for the usual shapes: it runs once per row. */
export function canonicalInput(input: Input): string {
  if ('text' in input) return `{"text":${JSON.stringify(input.text)}}`;
  if ('prompt' in input) return `{"prompt":${JSON.stringify(input.prompt)}}`;
  if ('features' in input) return canonicalFeatures(input);
  return canonicalChat(input);
}

function canonicalChat({ messages }: ChatInput): string {
  if (messages.length === 1 && messages[0]) return `{"messages":[${canonicalMessage(messages[0])}]}`;
  return `{"messages":[${messages.map(canonicalMessage).join(',')}]}`;
}

function canonicalMessage(message: ChatMessage): string {
  const { content, role, name, toolCalls, toolCallId } = message;
  const isPlain =
    typeof content === 'string' && name === undefined && toolCalls === undefined && toolCallId === undefined;
  return isPlain ? `{"content":${JSON.stringify(content)},"role":"${role}"}` : canonicalJson(message);
}

/** JSON has no NaN and no infinities: it writes all as null, and rows that differ would share one answer. */
function canonicalFeatures(input: FeatureInput): string {
  const text = canonicalJson(input);
  if (!text.includes('null')) return text;
  return canonicalJson(nameNonFinite(input));
}

function nameNonFinite(value: unknown): unknown {
  if (typeof value === 'number') return Number.isFinite(value) ? value : { nonFinite: String(value) };
  if (Array.isArray(value)) return value.map(nameNonFinite);
  if (!isJsonObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, nameNonFinite(member)]));
}
