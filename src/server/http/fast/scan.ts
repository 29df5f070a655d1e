// Looks a body of the OpenAI API through for what decides where it goes, and whether its bytes may go there as they
// are. Undefined is no judgement: the routes then read it whole, and say what is wrong with it, if anything is.
import { isUtf8 } from 'node:buffer';
import type { Task } from '#core/call.ts';
import { isJsonObject } from '#core/json.ts';
import type { Place, RelayBody } from '#serving/relay-body.ts';
import { PROVIDER_FIELDS } from '../parameters.ts';
import { walkMembers } from './members.ts';

export interface Scanned {
  /** What `model` says; undefined where it is not there. */
  readonly model: string | undefined;
  readonly body: RelayBody;
  readonly temperature: number | undefined;
}

/** Fields of ours that need no look at their value, beside those of providers. */
const PLAIN_FIELDS = ['top_p', 'top_k', 'stop', 'seed', 'tools', 'tool_choice'];
const PASSED: ReadonlySet<string> = new Set([...PROVIDER_FIELDS, ...PLAIN_FIELDS]);
/** The field with the input, and the first byte of what it must be. */
const INPUTS: Readonly<Partial<Record<Task, readonly [name: string, first: number]>>> = {
  'llm/v1/chat': ['messages', 91],
  'llm/v1/completions': ['prompt', 34],
};
const LONGEST_VALUE = 256;

/** `task`: what the path says; undefined where the endpoint decides. */
export function scanBody(bytes: Buffer, task: Task): Scanned | undefined {
  const input = INPUTS[task];
  if (!input) return undefined;
  const text = bytes.toString('latin1');
  const scan = new Scan(bytes, text, input[0], input[1]);
  const end = walkMembers(text, (name, from, to, first) => scan.take(name, from, to, first));
  if (end < 0 || scan.inputLength === 0 || !isUtf8(bytes)) return undefined;
  return scan.toScanned(end);
}

class Scan {
  readonly #bytes: Buffer;
  /** The bytes as characters of one byte each. */
  readonly #text: string;
  readonly #inputName: string;
  readonly #inputFirst: number;
  /** Names seen. A name that comes twice means one thing to one reader and another to the next. */
  readonly #names: string[] = [];
  inputLength = 0;
  #model: string | undefined;
  #modelPlace: Place | undefined;
  #isStream = false;
  #streamOptions: Place | undefined;
  #includesUsage = false;
  #maxTokens: number | undefined;
  #limitField: RelayBody['limitField'];
  #temperature: number | undefined;

  constructor(bytes: Buffer, text: string, inputName: string, inputFirst: number) {
    this.#bytes = bytes;
    this.#text = text;
    this.#inputName = inputName;
    this.#inputFirst = inputFirst;
  }

  take(name: string, from: number, to: number, first: number): boolean {
    if (this.#names.includes(name)) return false;
    this.#names.push(name);
    if (name === this.#inputName) {
      this.inputLength = to - from - 2;
      return first === this.#inputFirst && this.inputLength > 0;
    }
    switch (name) {
      case 'model':
        return first === 34 && this.#takeModel(from, to);
      case 'stream':
        return this.#takeStream(this.#value(from, to));
      case 'stream_options':
        return this.#takeStreamOptions(from, to);
      case 'max_tokens':
      case 'max_completion_tokens':
        return this.#takeLimit(name, this.#value(from, to));
      case 'temperature':
        this.#temperature = Number(this.#value(from, to));
        return this.#temperature >= 0 && this.#temperature <= 2;
      case 'n':
        return this.#value(from, to) === '1';
      case 'logprobs':
        return this.#value(from, to) === 'false';
      default:
        return PASSED.has(name);
    }
  }

  toScanned(end: number): Scanned {
    const model = this.#modelPlace;
    const streamOptions = this.#streamOptions;
    const maxTokens = this.#maxTokens;
    const limitField = this.#limitField;
    return {
      model: this.#model,
      temperature: this.#temperature,
      body: {
        bytes: this.#bytes,
        isStream: this.#isStream,
        includesUsage: this.#includesUsage,
        inputLength: this.inputLength,
        end,
        ...(model && { model }),
        ...(streamOptions && { streamOptions }),
        ...(maxTokens !== undefined && { maxTokens }),
        ...(limitField && { limitField }),
      },
    };
  }

  #value(from: number, to: number): string {
    return to - from > LONGEST_VALUE ? '' : this.#text.slice(from, to);
  }

  #takeModel(from: number, to: number): boolean {
    // Not a slice of the text: it is kept longer than the body, and would keep that, too.
    const name = to - from > LONGEST_VALUE ? '' : this.#bytes.toString('latin1', from + 1, to - 1);
    this.#model = name;
    this.#modelPlace = { from, to };
    // Names of endpoints have no other characters; an escape or a control character is read by the routes.
    return /^[\w.-]+$/.test(name);
  }

  #takeStream(text: string): boolean {
    this.#isStream = text === 'true';
    return this.#isStream || text === 'false';
  }

  #takeStreamOptions(from: number, to: number): boolean {
    let options: unknown;
    try {
      options = JSON.parse(this.#value(from, to));
    } catch {
      return false;
    }
    if (!isJsonObject(options)) return false;
    const { include_usage: includesUsage = false, ...others } = options;
    if (typeof includesUsage !== 'boolean' || Object.keys(others).length > 0) return false;
    this.#streamOptions = { from, to };
    this.#includesUsage = includesUsage;
    return true;
  }

  #takeLimit(name: 'max_tokens' | 'max_completion_tokens', text: string): boolean {
    if (this.#limitField) return false;
    this.#limitField = name;
    this.#maxTokens = Number(text);
    return /^[1-9]\d{0,8}$/.test(text);
  }
}
