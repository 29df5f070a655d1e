// Structured output where a provider has none: a tool whose input is the answer, and reading it back.
// Not here: where tools stand in a request (each engine knows its own spelling).
import type { ResponseFormat, StreamEvent } from '#core/call.ts';
import { isJsonObject, type JsonObject } from '#core/json.ts';

/** `isWrapped`: the schema is not of an object, so it sits under `value`. */
export interface AnswerTool {
  readonly name: string;
  readonly isWrapped: boolean;
  readonly schema: JsonObject;
}
export const ANSWER_TOOL_DESCRIPTION = 'Gives the answer.';

export function createAnswerTool(format: Extract<ResponseFormat, { type: 'json_schema' }>): AnswerTool {
  return {
    name: format.name.replace(/[^\w-]/g, '_').slice(0, 64) || 'answer',
    isWrapped: format.schema.type !== 'object',
    schema: toInputSchema(format.schema),
  };
}

/** References point from the root of a schema, so definitions stay there when the rest moves under `value`. */
function toInputSchema(schema: JsonObject): JsonObject {
  if (schema.type === 'object') return schema;
  const { $defs, definitions, ...value } = schema;
  return {
    type: 'object',
    properties: { value },
    required: ['value'],
    ...($defs === undefined ? {} : { $defs }),
    ...(definitions === undefined ? {} : { definitions }),
  };
}

/** JSON text of the answer in the input of the tool; undefined when it is not there. */
export function unwrapAnswer({ isWrapped }: AnswerTool, input: unknown): string | undefined {
  const given = isWrapped && isJsonObject(input) ? input.value : input;
  return given === undefined ? undefined : JSON.stringify(given);
}

/** Blocks of a streamed answer as they grow: the answer tool's input becomes text, other tools become tool calls. */
export class GrowingBlocks {
  readonly #answerTool: AnswerTool | undefined;
  readonly #positionOf = new Map<unknown, number>();
  #answerKey: unknown;
  #isAnswered = false;
  /** Input of a wrapped answer, which can be unwrapped only when it is whole. */
  #wrapped = '';
  /** Words beside a structured answer would spoil its JSON; they are the answer only if nothing else comes. */
  #held = '';
  /** Characters so far, for an estimate of tokens. */
  written = 0;

  constructor(answerTool: AnswerTool | undefined) {
    this.#answerTool = answerTool;
  }

  get toolCallCount(): number {
    return this.#positionOf.size;
  }

  *addText(text: string): Generator<StreamEvent> {
    if (text === '') return;
    this.written += text.length;
    if (this.#answerTool === undefined) yield { type: 'delta', text };
    else this.#held += text;
  }

  /** `key` is what the provider calls the block by when it grows. */
  *openTool(key: unknown, id: string | undefined, name: string): Generator<StreamEvent> {
    if (name === this.#answerTool?.name) {
      this.#answerKey = key;
      this.#isAnswered = true;
      return;
    }
    const index = this.#positionOf.size;
    this.#positionOf.set(key, index);
    yield { type: 'tool_call', index, id: id ?? `call_${index}`, name };
  }

  *addInput(key: unknown, json: string): Generator<StreamEvent> {
    if (json === '') return;
    this.written += json.length;
    const index = this.#positionOf.get(key);
    if (index !== undefined) yield { type: 'tool_call', index, arguments: json };
    else if (!this.#isAnswered || key !== this.#answerKey) return;
    else if (this.#answerTool?.isWrapped) this.#wrapped += json;
    else yield { type: 'delta', text: json };
  }

  /** What is left to say when all blocks are there; undefined when a wrapped answer is not there. */
  rest(): string | undefined {
    if (!this.#isAnswered) return this.toolCallCount === 0 ? this.#held : '';
    if (!this.#answerTool?.isWrapped) return '';
    try {
      return unwrapAnswer(this.#answerTool, JSON.parse(this.#wrapped));
    } catch {
      return undefined;
    }
  }
}
