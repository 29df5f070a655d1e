// GGUF models small enough to be made in a test: real files that llama.cpp loads, with weights by dice. They answer
// nonsense, always the same, in milliseconds.
import { writeFile } from 'node:fs/promises';

export interface TinyModel {
  /** `f32`, or `f16` as most of the larger files are made from. */
  readonly numbers?: 'f32' | 'f16';
  readonly seed?: number;
  readonly contextLength?: number;
  readonly chatTemplate?: string;
  readonly layers?: number;
  readonly width?: number;
}

/** As the chat templates of models are that call tools. */
export const TOOL_TEMPLATE = `{%- if tools %}
{{- '<|im_start|>system\\n' }}
{{- "# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\nYou are provided with function signatures within <tools></tools> XML tags:\\n<tools>" }}
{%- for tool in tools %}
{{- "\\n" }}
{{- tool | tojson }}
{%- endfor %}
{{- "\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call><|im_end|>\\n" }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == "tool" %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- elif message.role == "assistant" and message.tool_calls %}
{{- '<|im_start|>assistant' }}
{%- for tool_call in message.tool_calls %}
{{- '\\n<tool_call>\\n{"name": "' + tool_call.function.name + '", "arguments": ' }}
{{- tool_call.function.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
`;

const PLAIN_TEMPLATE =
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

const HEADS = 4;

/** Bytes of a llama of a few layers over single bytes and some words. */
export function tinyGguf(model: TinyModel = {}): Buffer {
  const { numbers = 'f32', seed = 1, contextLength = 2048, layers = 2, width = 64 } = model;
  const forward = 2 * width;
  const words = ['<unk>', '<s>', '</s>', '<|im_start|>', '<|im_end|>'];
  const bytes = Array.from(
    { length: 256 },
    (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
  );
  const letters = [...'abcdefghijklmnopqrstuvwxyz', '▁', '▁the', '▁is', 'in', 'er'];
  const tokens = [...words, ...bytes, ...letters];
  const types = tokens.map((_, id) =>
    id === 0 ? 2 : id < words.length ? 3 : id < words.length + 256 ? 6 : 1,
  );
  const dice = mulberry(seed);
  const weights = (rows: number, columns: number): [number[], Buffer, number] => {
    const values = Float32Array.from({ length: rows * columns }, () => (dice() - 0.5) * 0.5);
    return [
      [columns, rows],
      numbers === 'f32' ? Buffer.from(values.buffer) : toHalves(values),
      numbers === 'f32' ? 0 : 1,
    ];
  };
  const ones = (): [number[], Buffer, number] => [
    [width],
    Buffer.from(new Float32Array(width).fill(1).buffer),
    0,
  ];
  const tensors: [string, [number[], Buffer, number]][] = [
    ['token_embd.weight', weights(tokens.length, width)],
  ];
  for (let layer = 0; layer < layers; layer++) {
    const add = (name: string, tensor: [number[], Buffer, number]) =>
      tensors.push([`blk.${layer}.${name}.weight`, tensor]);
    add('attn_norm', ones());
    for (const name of ['attn_q', 'attn_k', 'attn_v', 'attn_output']) add(name, weights(width, width));
    add('ffn_norm', ones());
    add('ffn_gate', weights(forward, width));
    add('ffn_up', weights(forward, width));
    add('ffn_down', weights(width, forward));
  }
  tensors.push(['output_norm.weight', ones()], ['output.weight', weights(tokens.length, width)]);

  const entries: Buffer[] = [
    entry('general.architecture', 8, text('llama')),
    entry('llama.context_length', 4, u32(contextLength)),
    entry('llama.embedding_length', 4, u32(width)),
    entry('llama.block_count', 4, u32(layers)),
    entry('llama.feed_forward_length', 4, u32(forward)),
    entry('llama.attention.head_count', 4, u32(HEADS)),
    entry('llama.attention.layer_norm_rms_epsilon', 6, f32(1e-5)),
    entry('tokenizer.ggml.model', 8, text('llama')),
    entry('tokenizer.ggml.tokens', 9, list(8, tokens.map(text))),
    entry(
      'tokenizer.ggml.scores',
      9,
      list(
        6,
        tokens.map((_, id) => f32(-id)),
      ),
    ),
    entry('tokenizer.ggml.token_type', 9, list(5, types.map(u32))),
    entry('tokenizer.ggml.bos_token_id', 4, u32(1)),
    entry('tokenizer.ggml.eos_token_id', 4, u32(4)),
    entry('tokenizer.chat_template', 8, text(model.chatTemplate ?? PLAIN_TEMPLATE)),
  ];
  const infos: Buffer[] = [];
  const data: Buffer[] = [];
  let offset = 0;
  for (const [name, [dimensions, content, type]] of tensors) {
    infos.push(
      Buffer.concat([text(name), u32(dimensions.length), ...dimensions.map(u64), u32(type), u64(offset)]),
    );
    const padded = Buffer.concat([content, Buffer.alloc((32 - (content.length % 32)) % 32)]);
    data.push(padded);
    offset += padded.length;
  }
  const head = Buffer.concat([
    ...[Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(entries.length)],
    ...entries,
    ...infos,
  ]);
  return Buffer.concat([head, Buffer.alloc((32 - (head.length % 32)) % 32), ...data]);
}

export async function writeTinyModel(path: string, model?: TinyModel): Promise<string> {
  await writeFile(path, tinyGguf(model));
  return path;
}

function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value);
  return buffer;
}

function u64(value: number): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(BigInt(value));
  return buffer;
}

function f32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeFloatLE(value);
  return buffer;
}

const text = (value: string): Buffer => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);
const list = (type: number, items: readonly Buffer[]): Buffer =>
  Buffer.concat([u32(type), u64(items.length), ...items]);
const entry = (name: string, type: number, value: Buffer): Buffer =>
  Buffer.concat([text(name), u32(type), value]);

function toHalves(values: Float32Array): Buffer {
  const bits = new Uint32Array(values.buffer);
  const halves = Uint16Array.from(bits, (one) => {
    const exponent = ((one >>> 23) & 0xff) - 112;
    if (exponent <= 0) return (one >>> 16) & 0x8000;
    return ((one >>> 16) & 0x8000) | (exponent << 10) | ((one >>> 13) & 0x3ff);
  });
  return Buffer.from(halves.buffer);
}

/** Equal dice for equal seeds. */
function mulberry(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
