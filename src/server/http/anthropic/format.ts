// Answers in the shape of Anthropic's Messages API, whole and as the events of a stream.
import type { Answer, ChatOutput, FinishReason, StreamEvent, TokenUsage, ToolCall } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { toAnthropicError } from '../errors.ts';
import { type StreamFormat, toNamedFrame } from '../sse.ts';

const STOP_REASONS: Readonly<Record<FinishReason, string>> = {
  stop: 'end_turn',
  length: 'max_tokens',
  tool_calls: 'tool_use',
  content_filter: 'refusal',
};

export function formatMessage(callId: string, answer: Answer, output: ChatOutput): JsonObject {
  const toolCalls = output.toolCalls ?? [];
  const text = output.content ?? '';
  const texts: JsonObject[] = text === '' && toolCalls.length > 0 ? [] : [{ type: 'text', text }];
  return {
    ...envelope(callId, answer.model),
    content: [...texts, ...toolCalls.map(formatToolUse)],
    stop_reason: STOP_REASONS[output.finishReason],
    usage: formatUsage(answer.usage),
  };
}

function envelope(callId: string, model: string): { readonly [key: string]: Json } {
  return {
    id: `msg_${callId}`,
    type: 'message',
    role: 'assistant',
    model,
    content: [],
    stop_reason: null,
    // Which of the marks it was is not known: engines say only that one was met.
    stop_sequence: null,
  };
}

function formatUsage({ inputTokens, outputTokens }: TokenUsage): JsonObject {
  return {
    input_tokens: inputTokens,
    output_tokens: outputTokens,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: 0,
  };
}

/** Here the arguments are an object, where a model wrote a text. */
function formatToolUse({ id, name, arguments: written }: ToolCall): JsonObject {
  let input: unknown = {};
  try {
    if (written.trim() !== '') input = JSON.parse(written);
  } catch {
    input = undefined;
  }
  if (isJsonObject(input)) return { type: 'tool_use', id, name, input };
  throw new ServingError(
    'INVALID_RESPONSE',
    `The model called the tool '${name}' with arguments that are no JSON object. Ask again.`,
  );
}

export function createMessageEvents(callId: string): StreamFormat {
  const events = new MessageEvents(callId);
  return {
    open: (target) => events.open(target.model),
    next: (event) => events.next(event),
    close: () => events.close(),
    fail: (error) => toNamedFrame('error', toAnthropicError(error)),
    heartbeat: event('ping'),
  };
}

function event(type: string, members: JsonObject = {}): string {
  return toNamedFrame(type, { type, ...members });
}

/** One block is open at a time: the next one closes it. */
class MessageEvents {
  readonly #callId: string;
  /** Block of each tool call, by its index. */
  readonly #callBlocks = new Map<number, number>();
  #blockCount = 0;
  #open: 'none' | 'text' | number = 'none';
  #ending = { finishReason: 'stop' as FinishReason, usage: { inputTokens: 0, outputTokens: 0 } };

  constructor(callId: string) {
    this.#callId = callId;
  }

  /** Tokens are known at the end; message_delta has them then. */
  open(model: string): string {
    const message = {
      ...envelope(this.#callId, model),
      usage: formatUsage({ inputTokens: 0, outputTokens: 0 }),
    };
    return event('message_start', { message }) + event('ping');
  }

  next(step: StreamEvent): string {
    if (step.type === 'delta') return step.text === '' ? '' : this.#addText(step.text);
    if (step.type === 'tool_call') return this.#addToolCall(step);
    this.#ending = step;
    return '';
  }

  close(): string {
    const { finishReason, usage } = this.#ending;
    const empty = this.#blockCount === 0 ? this.#start('text', { type: 'text', text: '' }) : '';
    const delta = { stop_reason: STOP_REASONS[finishReason], stop_sequence: null };
    return (
      empty +
      this.#stop() +
      event('message_delta', { delta, usage: formatUsage(usage) }) +
      event('message_stop')
    );
  }

  #addText(text: string): string {
    const start = this.#open === 'text' ? '' : this.#start('text', { type: 'text', text: '' });
    return start + this.#delta(this.#blockCount - 1, { type: 'text_delta', text });
  }

  #addToolCall(step: Extract<StreamEvent, { type: 'tool_call' }>): string {
    let block = this.#callBlocks.get(step.index);
    let start = '';
    if (block === undefined) {
      block = this.#blockCount;
      const id = step.id ?? `toolu_${this.#callId}_${step.index}`;
      start = this.#start(step.index, { type: 'tool_use', id, name: step.name ?? '', input: {} });
      this.#callBlocks.set(step.index, block);
    }
    const written = step.arguments ?? '';
    return written === ''
      ? start
      : start + this.#delta(block, { type: 'input_json_delta', partial_json: written });
  }

  #start(kind: 'text' | number, block: JsonObject): string {
    const stop = this.#stop();
    this.#open = kind;
    return stop + event('content_block_start', { index: this.#blockCount++, content_block: block });
  }

  #delta(index: number, delta: JsonObject): string {
    return event('content_block_delta', { index, delta });
  }

  #stop(): string {
    if (this.#open === 'none') return '';
    this.#open = 'none';
    return event('content_block_stop', { index: this.#blockCount - 1 });
  }
}
