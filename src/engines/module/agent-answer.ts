// What an agent answers, in whichever shape its author knows, as events of a chat: a text, a message, a chat
// completion or its chunks, a response or its events, the messages and chunks of a ChatAgent. One reader for whole
// answers and streams, so that both say the same.
import type { ChatOutput, FinishReason, StreamEvent, TokenUsage, ToolCall } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import type { RunItem } from '../engine.ts';
import { estimateTokens } from '../text-input.ts';

/** No agent writes more; it protects memory. */
const MOST_CHARACTERS = 32 * 1024 * 1024;
const SHAPES =
  'a text, a message ({"content"}), a chat completion ({"choices"}), a response ({"output"}) or messages ({"messages"})';
const FINISHES: readonly FinishReason[] = ['stop', 'length', 'tool_calls', 'content_filter'];

interface OpenCall {
  id: string;
  name: string;
  arguments: string;
}

export class AgentAnswer {
  readonly #agent: string;
  readonly #inputTokens: number;
  readonly #calls = new Map<string, OpenCall>();
  /** Tool calls whose results are in the answer as well: the agent has run them itself. */
  readonly #done = new Set<string>();
  /** Messages of which a part was passed on. */
  readonly #begun = new Set<string>();
  #current = '';
  #text = '';
  #characters = 0;
  #usage: TokenUsage | undefined;
  #finish: FinishReason | undefined;
  #custom: JsonObject | undefined;
  #hasTaken = false;

  /** `agent`: for messages. `inputTokens`: counted where the agent does not say. */
  constructor(agent: string, inputTokens: number) {
    this.#agent = agent;
    this.#inputTokens = inputTokens;
  }

  /** Whatever the agent returned or yielded. Gives what can be passed on at once; throws for what is no answer. */
  take(value: Json | undefined): StreamEvent[] {
    const events: StreamEvent[] = [];
    if (typeof value === 'string') this.#say(value, this.#current, events);
    else if (isJsonObject(value)) this.#takeObject(value, events);
    else throw this.#unreadable(value);
    this.#hasTaken = true;
    return events;
  }

  /** The last events: tool calls that are the caller's to run, and the end. */
  finish(): StreamEvent[] {
    if (!this.#hasTaken) throw this.#unreadable(undefined);
    const calls = this.#openCalls();
    const events: StreamEvent[] = calls.map((call, index) => ({ type: 'tool_call', index, ...call }));
    const finishReason = calls.length > 0 ? 'tool_calls' : this.#endOf();
    const custom = this.#custom && { customOutputs: this.#custom };
    return [...events, { type: 'end', finishReason, usage: this.#usageOf(calls), ...custom }];
  }

  /** The answer that was taken, whole. */
  item(): RunItem {
    const calls = this.#openCalls();
    if (!this.#hasTaken) throw this.#unreadable(undefined);
    const output: ChatOutput = {
      content: this.#text === '' && calls.length > 0 ? null : this.#text,
      ...(calls.length > 0 && { toolCalls: calls }),
      finishReason: calls.length > 0 ? 'tool_calls' : this.#endOf(),
      ...(this.#custom && { customOutputs: this.#custom }),
    };
    return { ok: true, output, usage: this.#usageOf(calls) };
  }

  #openCalls(): readonly ToolCall[] {
    return [...this.#calls.values()].filter(({ id, name }) => name !== '' && !this.#done.has(id));
  }

  #endOf(): FinishReason {
    return this.#finish === undefined || this.#finish === 'tool_calls' ? 'stop' : this.#finish;
  }

  #usageOf(calls: readonly ToolCall[]): TokenUsage {
    if (this.#usage) return this.#usage;
    const written = calls.reduce((sum, call) => sum + call.name.length + call.arguments.length, 0);
    return { inputTokens: this.#inputTokens, outputTokens: estimateTokens(this.#text.length + written) };
  }

  #takeObject(value: JsonObject, events: StreamEvent[]): void {
    this.#noteFacts(value);
    const { type } = value;
    if (typeof type === 'string' && value.role === undefined) this.#takeTyped(type, value, events);
    else if (Array.isArray(value.choices)) this.#takeChoice(value.choices[0], events);
    else if (Array.isArray(value.output)) for (const item of value.output) this.#takeItem(item, events);
    else if (Array.isArray(value.messages))
      for (const each of value.messages) this.#takeMessage(each, events);
    else if (isJsonObject(value.delta)) this.#takeMessage(value.delta, events);
    else if ('content' in value || 'tool_calls' in value) this.#takeMessage(value, events);
    else if (typeof value.output_text === 'string') this.#say(value.output_text, this.#current, events);
    else if (value.custom_outputs === undefined && value.usage === undefined) throw this.#unreadable(value);
  }

  /** An event of a response, or of a stream of ours as `askStream` gives them. */
  #takeTyped(type: string, value: JsonObject, events: StreamEvent[]): void {
    const { delta, item, response } = value;
    if (type === 'delta' && typeof value.text === 'string') this.#say(value.text, this.#current, events);
    else if (type === 'tool_call') this.#addCall(value, String(value.index ?? 0));
    else if (type === 'response.output_text.delta' && typeof delta === 'string')
      this.#say(delta, idOf(value.item_id) ?? this.#current, events);
    else if (type === 'response.output_item.done') this.#takeItem(item, events);
    else if (type === 'response.completed' || type === 'response.incomplete') {
      if (isJsonObject(response)) this.#noteFacts(response);
      // Streams that give no items are still answered.
      if (this.#text === '' && this.#calls.size === 0 && isJsonObject(response))
        for (const each of asList(response.output)) this.#takeItem(each, events);
      if (type === 'response.incomplete') this.#finish = 'length';
    } else if (type === 'response.failed' || type === 'error') {
      const error = isJsonObject(response) ? response.error : (value.error ?? value);
      const message = isJsonObject(error) ? error.message : error;
      const told = typeof message === 'string' ? message : 'it gave an event of failure';
      throw new ServingError('UPSTREAM_REJECTED', `The agent ${this.#agent} failed: ${told.slice(0, 2_000)}`);
    } else if (type === 'message' || type.startsWith('function_call')) this.#takeItem(value, events);
  }

  #takeItem(item: Json | undefined, events: StreamEvent[]): void {
    if (!isJsonObject(item)) throw this.#unreadable(item);
    const callId = idOf(item.call_id) ?? idOf(item.id) ?? `call_${this.#calls.size}`;
    if (item.type === 'function_call_output') this.#done.add(callId);
    else if (item.type === 'function_call') {
      const { name, arguments: given } = item;
      this.#calls.set(callId, { id: callId, name: asText(name), arguments: asArguments(given) });
    } else if (item.type === 'message' || item.type === undefined) {
      const id = idOf(item.id) ?? '';
      // Its deltas came before it.
      if (id === '' || !this.#begun.has(id))
        this.#say(textOf(item.content), id || `${this.#begun.size}`, events);
    }
  }

  #takeMessage(message: Json | undefined, events: StreamEvent[]): void {
    if (!isJsonObject(message)) throw this.#unreadable(message);
    const { role, content, tool_calls: calls, tool_call_id: answered } = message;
    if (role === 'tool') {
      if (typeof answered === 'string') this.#done.add(answered);
      return;
    }
    if (role !== undefined && role !== null && role !== 'assistant') return;
    for (const [at, call] of asList(calls).entries()) {
      if (isJsonObject(call)) this.#addCall(call, `${this.#current}/${String(call.index ?? at)}`);
    }
    const text = textOf(content);
    if (text !== '') this.#say(text, idOf(message.id) ?? this.#current, events);
  }

  #takeChoice(choice: Json | undefined, events: StreamEvent[]): void {
    // The chunk that carries nothing but usage has none.
    if (choice === undefined) return;
    if (!isJsonObject(choice)) throw this.#unreadable(choice);
    this.#noteFacts(choice);
    const message = isJsonObject(choice.delta) ? choice.delta : choice.message;
    if (isJsonObject(message)) this.#takeMessage(message, events);
    else if (typeof choice.text === 'string') this.#say(choice.text, this.#current, events);
  }

  /** Pieces of one call have one key; the first has its name. */
  #addCall(piece: JsonObject, place: string): void {
    const called = isJsonObject(piece.function) ? piece.function : piece;
    const id = idOf(piece.id);
    const isPiece = id === undefined || this.#calls.get(place)?.id === id;
    const known = isPiece ? this.#calls.get(place) : undefined;
    const call = known ?? { id: id ?? `call_${this.#calls.size}`, name: '', arguments: '' };
    if (!known) this.#calls.set(this.#calls.has(place) ? `${place}#${call.id}` : place, call);
    call.name ||= asText(called.name);
    call.arguments += asArguments(called.arguments);
    this.#count(call.arguments.length);
  }

  #say(text: string, message: string, events: StreamEvent[]): void {
    if (text === '') return;
    // What two messages say is told apart by a line.
    const isNext = this.#text !== '' && message !== this.#current;
    this.#current = message;
    this.#begun.add(message);
    const said = isNext ? `\n${text}` : text;
    this.#text += said;
    this.#count(said.length);
    events.push({ type: 'delta', text: said });
  }

  #count(characters: number): void {
    this.#characters += characters;
    if (this.#characters <= MOST_CHARACTERS) return;
    throw new ServingError(
      'UPSTREAM_REJECTED',
      `The agent ${this.#agent} answered with more than ${MOST_CHARACTERS} characters, and was not heard to the end.`,
    );
  }

  #noteFacts({ usage, finish_reason: reason, custom_outputs: custom }: JsonObject): void {
    if (isJsonObject(custom)) this.#custom = { ...this.#custom, ...custom };
    const known = FINISHES.find((each) => each === reason);
    if (known) this.#finish = known;
    if (!isJsonObject(usage)) return;
    const inputTokens = usage.input_tokens ?? usage.prompt_tokens ?? usage.inputTokens;
    const outputTokens = usage.output_tokens ?? usage.completion_tokens ?? usage.outputTokens;
    if (isCount(inputTokens) && isCount(outputTokens)) this.#usage = { inputTokens, outputTokens };
  }

  #unreadable(value: Json | undefined): ServingError {
    const shown = isJsonObject(value)
      ? `an object with ${Object.keys(value).slice(0, 8).join(', ') || 'nothing in it'}`
      : value === undefined || value === null
        ? 'nothing'
        : Array.isArray(value)
          ? 'a list'
          : `the ${typeof value} ${String(value).slice(0, 40)}`;
    return new ServingError(
      'UPSTREAM_REJECTED',
      `The agent ${this.#agent} gave ${shown}; an answer is ${SHAPES}.`,
    );
  }
}

const isCount = (value: Json | undefined): value is number =>
  Number.isSafeInteger(value) && Number(value) >= 0;
const idOf = (value: Json | undefined): string | undefined =>
  typeof value === 'string' && value !== '' ? value : undefined;
const asText = (value: Json | undefined): string => (typeof value === 'string' ? value : '');
const asList = (value: Json | undefined): readonly Json[] => (Array.isArray(value) ? value : []);

/** JSON text; an author may give the arguments as they are. */
function asArguments(value: Json | undefined): string {
  if (value === undefined || value === null) return '';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** Of a content: a text, or parts of which those with a text count. */
function textOf(content: Json | undefined): string {
  if (typeof content === 'string') return content;
  return asList(content)
    .map((part) => (isJsonObject(part) ? asText(part.text) : asText(part)))
    .join('');
}
