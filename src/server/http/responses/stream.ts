// The events of a streamed response, numbered, from response.created to response.completed. Text and tool calls are
// items of their own, each announced, filled and finished; all are finished at the end, when nothing can follow.
import type { StreamEvent, ToolCall } from '#core/call.ts';
import type { JsonObject } from '#core/json.ts';
import { COMMENT, type StreamFormat, toNamedFrame } from '../sse.ts';
import {
  type Ending,
  type Frame,
  formatMessage,
  formatResponse,
  formatText,
  formatToolCall,
  messageId,
} from './format.ts';

interface TextItem {
  readonly kind: 'text';
  readonly id: string;
  text: string;
}
interface CallItem {
  readonly kind: 'call';
  readonly id: string;
  readonly index: number;
  call: ToolCall;
}

export function createResponseEvents(frame: Frame): StreamFormat {
  const events = new ResponseEvents(frame);
  return {
    open: (target) => events.open(target.model),
    next: (event) => events.next(event),
    close: () => events.close(),
    fail: (error) => events.fail({ code: error.code, message: error.message }),
    heartbeat: COMMENT,
  };
}

class ResponseEvents {
  readonly #frame: Frame;
  readonly #items: (TextItem | CallItem)[] = [];
  #model = '';
  #sequence = 0;
  #ending: Ending = { finishReason: 'stop', usage: { inputTokens: 0, outputTokens: 0 } };

  constructor(frame: Frame) {
    this.#frame = frame;
  }

  open(model: string): string {
    this.#model = model;
    const response = formatResponse(this.#frame, model, []);
    return this.#event('response.created', { response }) + this.#event('response.in_progress', { response });
  }

  next(event: StreamEvent): string {
    if (event.type === 'delta') return event.text === '' ? '' : this.#addText(event.text);
    if (event.type === 'tool_call') return this.#addToolCall(event);
    this.#ending = event;
    return '';
  }

  close(): string {
    // An answer without anything in it is still a message.
    let frames = this.#items.length === 0 ? this.#addText('') : '';
    for (const [at, item] of this.#items.entries()) frames += this.#finish(item, at);
    const output = this.#items.map((item) => this.#format(item));
    const response = formatResponse(this.#frame, this.#model, output, this.#ending);
    return frames + this.#event(`response.${String(response.status)}`, { response });
  }

  fail(error: JsonObject): string {
    const output = this.#items.map((item) => this.#format(item));
    const response = formatResponse(this.#frame, this.#model, output, undefined, error);
    return this.#event('response.failed', { response });
  }

  #event(type: string, members: JsonObject): string {
    return toNamedFrame(type, { type, sequence_number: this.#sequence++, ...members });
  }

  #addText(delta: string): string {
    let frames = '';
    let at = this.#items.length - 1;
    let item = this.#items[at];
    if (item?.kind !== 'text') {
      at++;
      item = { kind: 'text', id: messageId(this.#frame, at), text: '' };
      this.#items.push(item);
      const message = { id: item.id, type: 'message', status: 'in_progress', role: 'assistant', content: [] };
      frames += this.#event('response.output_item.added', { output_index: at, item: message });
      const place = { item_id: item.id, output_index: at, content_index: 0 };
      frames += this.#event('response.content_part.added', { ...place, part: formatText('') });
    }
    if (delta === '') return frames;
    item.text += delta;
    const place = { item_id: item.id, output_index: at, content_index: 0 };
    return frames + this.#event('response.output_text.delta', { ...place, delta, logprobs: [] });
  }

  #addToolCall(event: Extract<StreamEvent, { type: 'tool_call' }>): string {
    let frames = '';
    let at = this.#items.findIndex((known) => known.kind === 'call' && known.index === event.index);
    if (at < 0) {
      at = this.#items.length;
      const { callId } = this.#frame;
      const id = event.id ?? `call_${callId}_${event.index}`;
      const call = { id, name: event.name ?? '', arguments: '' };
      this.#items.push({ kind: 'call', id: `fc_${callId}_${event.index}`, index: event.index, call });
      const item = formatToolCall(this.#frame, event.index, call, 'in_progress');
      frames += this.#event('response.output_item.added', { output_index: at, item });
    }
    const item = this.#items[at];
    const delta = event.arguments ?? '';
    if (item?.kind !== 'call' || delta === '') return frames;
    item.call = { ...item.call, arguments: item.call.arguments + delta };
    const place = { item_id: item.id, output_index: at };
    return frames + this.#event('response.function_call_arguments.delta', { ...place, delta });
  }

  #finish(item: TextItem | CallItem, at: number): string {
    const place = { item_id: item.id, output_index: at };
    let frames: string;
    if (item.kind === 'call') {
      const { name, arguments: written } = item.call;
      frames = this.#event('response.function_call_arguments.done', { ...place, name, arguments: written });
    } else {
      const inside = { ...place, content_index: 0 };
      frames = this.#event('response.output_text.done', { ...inside, text: item.text, logprobs: [] });
      frames += this.#event('response.content_part.done', { ...inside, part: formatText(item.text) });
    }
    return frames + this.#event('response.output_item.done', { output_index: at, item: this.#format(item) });
  }

  #format(item: TextItem | CallItem): JsonObject {
    if (item.kind === 'call') return formatToolCall(this.#frame, item.index, item.call);
    return formatMessage(this.#frame, item.text, this.#ending.finishReason, item.id);
  }
}
