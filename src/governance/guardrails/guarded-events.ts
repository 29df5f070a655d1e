// A stream of a chat or completion as it may be seen. Text is held back only while it could still become part of
// something; calls of tools are held until they are complete. What must be judged as a whole is in held-events.ts.
import type { StreamEvent, ToolCall } from '#core/call.ts';
import { GrowingText, type Shown } from './growing-text.ts';
import { findPii } from './pii/pii.ts';
import { type Counts, countFindings, type Screen } from './screen.ts';

type ToolCallEvent = Extract<StreamEvent, { readonly type: 'tool_call' }>;
type EndEvent = Extract<StreamEvent, { readonly type: 'end' }>;

interface GuardedEventsOptions {
  readonly events: AsyncIterable<StreamEvent>;
  readonly screen: Screen;
  /** Heard once, when the stream is over or refused. */
  readonly onFound: (counts: Counts) => void;
}

export class GuardedEvents implements AsyncIterableIterator<StreamEvent> {
  readonly #source: AsyncIterator<StreamEvent>;
  readonly #screen: Screen;
  readonly #onFound: (counts: Counts) => void;
  readonly #text: GrowingText;
  readonly #toolCalls = new ToolCalls();
  readonly #counts: Record<string, number> = {};
  readonly #ready: StreamEvent[] = [];
  /** All text so far, where it is only noted what was in it. */
  #noted = '';
  #isOver = false;

  constructor({ events, screen, onFound }: GuardedEventsOptions) {
    this.#source = events[Symbol.asyncIterator]();
    this.#screen = screen;
    this.#onFound = onFound;
    const findsPii = screen.pii === 'BLOCK' || screen.pii === 'MASK';
    this.#text = new GrowingText({ findsPii, keywords: screen.keywords });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<StreamEvent, undefined>> {
    for (;;) {
      const event = this.#ready.shift();
      if (event) return { done: false, value: event };
      if (this.#isOver) return { done: true, value: undefined };
      const { done, value } = await this.#source.next();
      // Without its `end` the stream is broken: whoever reads it finds that out, and what is held stays unseen.
      if (done) this.#isOver = true;
      else await this.#take(value);
    }
  }

  async return(): Promise<IteratorResult<StreamEvent, undefined>> {
    this.#isOver = true;
    this.#ready.length = 0;
    await this.#source.return?.();
    return { done: true, value: undefined };
  }

  async #take(event: StreamEvent): Promise<void> {
    try {
      if (event.type === 'delta') this.#takeText(event.text);
      else if (event.type === 'tool_call') this.#toolCalls.add(event);
      else this.#finish(event);
    } catch (refusal) {
      this.#ready.length = 0;
      this.#onFound(this.#counts);
      await this.return();
      throw refusal;
    }
  }

  #takeText(text: string): void {
    if (this.#screen.pii === 'NONE') this.#noted += text;
    this.#show(this.#text.push(text));
  }

  #show({ text, findings, keyword }: Shown): void {
    countFindings(findings, this.#counts);
    if (keyword !== undefined || (this.#screen.pii === 'BLOCK' && findings.length > 0))
      throw this.#screen.refusal(this.#counts, keyword);
    if (text !== '') this.#ready.push({ type: 'delta', text });
  }

  #finish(end: EndEvent): void {
    this.#show(this.#text.end());
    if (this.#noted !== '') countFindings(findPii(this.#noted), this.#counts);
    this.#showToolCalls();
    this.#ready.push(end);
    this.#isOver = true;
    this.#onFound(this.#counts);
  }

  #showToolCalls(): void {
    const events = this.#toolCalls.complete();
    if (events.length === 0) return;
    const toolCalls = events.map(({ call }) => call);
    const { value, error, found } = this.#screen.output({
      content: null,
      toolCalls,
      finishReason: 'tool_calls',
    });
    for (const [entity, count] of Object.entries(found))
      this.#counts[entity] = (this.#counts[entity] ?? 0) + count;
    if (error) throw error;
    const shown = 'content' in value ? (value.toolCalls ?? []) : [];
    for (const [position, { index }] of events.entries()) {
      const call = shown[position];
      if (call) this.#ready.push({ type: 'tool_call', index, ...call });
    }
  }
}

/** The pieces of tool calls put together. */
export class ToolCalls {
  readonly #calls = new Map<number, { id: string; name: string; arguments: string }>();

  add({ index, id, name, arguments: text }: ToolCallEvent): void {
    let call = this.#calls.get(index);
    if (!call) this.#calls.set(index, (call = { id: '', name: '', arguments: '' }));
    if (id !== undefined) call.id = id;
    if (name !== undefined) call.name = name;
    if (text !== undefined) call.arguments += text;
  }

  /** In order of their index. */
  complete(): readonly { readonly index: number; readonly call: ToolCall }[] {
    const byIndex = [...this.#calls].sort(([left], [right]) => left - right);
    return byIndex.map(([index, call]) => ({ index, call }));
  }
}
