// The head of a GGUF file, read before llama.cpp sees it: is it whole, and which chat template is in it? Native code
// that maps a file shorter than its own head says ends the process; here it is an error with a reason.
import { type FileHandle, open } from 'node:fs/promises';
import { ServingError } from '#core/errors.ts';

interface GgufHead {
  readonly architecture: string;
  readonly tensors: number;
  /** Jinja, as the makers of the model wrote it. */
  readonly chatTemplate: string | undefined;
}

const CHUNK_BYTES = 1024 * 1024;
/** A head is names and a vocabulary; the largest known are below 40 MB. */
const MAX_HEAD_BYTES = 256 * 1024 * 1024;
const MAX_NAME_BYTES = 64 * 1024;
const MAX_DIMENSIONS = 4;
const STRING = 8;
const ARRAY = 9;
/** Sizes that llama.cpp computes with; it ends the process over some that are absurd. */
const SIZES =
  /\.(context_length|embedding_length|block_count|feed_forward_length|(attention\.)?head_count(_kv)?)$/;
const MUST_BE = /\.(context_length|embedding_length|block_count)$/;
const MAX_SIZE = 2 ** 27;
/** Bytes of the values of fixed size, by type. */
const SCALAR_BYTES: Readonly<Record<number, number>> = {
  ...{ 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 },
};
/** Numbers in a block and bytes of it, by type of tensor. Types that are not here are left to llama.cpp. */
// biome-ignore format: a table
const BLOCKS: Readonly<Record<number, readonly [number, number]>> = {
  0: [1, 4], 1: [1, 2], 2: [32, 18], 3: [32, 20], 6: [32, 22], 7: [32, 24], 8: [32, 34], 9: [32, 36],
  10: [256, 84], 11: [256, 110], 12: [256, 144], 13: [256, 176], 14: [256, 210], 15: [256, 292],
  16: [256, 66], 17: [256, 74], 18: [256, 98], 19: [256, 50], 20: [32, 18], 21: [256, 110], 22: [256, 82],
  23: [256, 136], 24: [1, 1], 25: [1, 2], 26: [1, 4], 27: [1, 8], 28: [1, 8], 29: [256, 56], 30: [1, 2],
  34: [256, 54], 35: [256, 66], 39: [32, 17],
};

/** Throws MODEL_NOT_AVAILABLE that says what is wrong with the file. */
export async function readGgufHead(path: string): Promise<GgufHead> {
  const handle = await open(path, 'r').catch((cause: unknown) => {
    throw broken(path, cause instanceof Error ? cause.message : String(cause));
  });
  try {
    return await readHead(new Bytes(handle, (await handle.stat()).size), path);
  } catch (error) {
    throw error instanceof ServingError
      ? error
      : broken(path, error instanceof Error ? error.message : String(error));
  } finally {
    await handle.close();
  }
}

async function readHead(bytes: Bytes, path: string): Promise<GgufHead> {
  const magic = (await bytes.take(4)).toString('latin1');
  if (magic !== 'GGUF') throw broken(path, `it begins with ${JSON.stringify(magic)} and not with "GGUF"`);
  const version = (await bytes.take(4)).readUInt32LE();
  if (version !== 2 && version !== 3) throw broken(path, `it is of version ${version}; 2 and 3 are read`);
  const tensors = await bytes.count('tensors');
  const entries = await bytes.count('entries');
  if (tensors === 0) throw broken(path, 'it holds no tensors');
  let architecture = '';
  let chatTemplate: string | undefined;
  let alignment = 32;
  for (let index = 0; index < entries; index++) {
    const name = await bytes.text(MAX_NAME_BYTES);
    const type = (await bytes.take(4)).readUInt32LE();
    if (name === 'general.architecture' && type === STRING) architecture = await bytes.text(MAX_NAME_BYTES);
    else if (name === 'tokenizer.chat_template' && type === STRING)
      chatTemplate = await bytes.text(CHUNK_BYTES);
    else if (name === 'general.alignment' && type === 4) alignment = (await bytes.take(4)).readUInt32LE();
    else if (type === 4 && SIZES.test(name)) refuseSize(path, name, (await bytes.take(4)).readUInt32LE());
    else await passValue(bytes, type);
  }
  if (alignment === 0 || alignment % 8 !== 0) throw broken(path, `its alignment is ${alignment}`);
  let end = 0;
  for (let index = 0; index < tensors; index++) end = Math.max(end, await tensorEnd(bytes, path));
  const dataStart = Math.ceil(bytes.position / alignment) * alignment;
  if (dataStart + end > bytes.size) {
    throw broken(
      path,
      `it is cut off: it has ${bytes.size} bytes, and its tensors end at ${dataStart + end}`,
    );
  }
  return { architecture, tensors, chatTemplate };
}

function refuseSize(path: string, name: string, value: number): void {
  if (value <= MAX_SIZE && (value > 0 || !MUST_BE.test(name))) return;
  throw broken(path, `its ${name} is ${value}`);
}

/** Where a tensor ends, from the beginning of the data. */
async function tensorEnd(bytes: Bytes, path: string): Promise<number> {
  const name = await bytes.text(MAX_NAME_BYTES);
  const dimensions = (await bytes.take(4)).readUInt32LE();
  if (dimensions > MAX_DIMENSIONS)
    throw broken(path, `tensor "${name.slice(0, 80)}" has ${dimensions} dimensions`);
  let numbers = 1;
  for (let index = 0; index < dimensions; index++) numbers *= await bytes.count('dimension');
  const type = (await bytes.take(4)).readUInt32LE();
  const offset = await bytes.count('offset');
  const [perBlock, blockBytes] = BLOCKS[type] ?? [1, 0];
  return offset + Math.ceil(numbers / perBlock) * blockBytes;
}

async function passValue(bytes: Bytes, type: number): Promise<void> {
  if (type === STRING) return await bytes.pass(await bytes.count('length'));
  const size = SCALAR_BYTES[type];
  if (size !== undefined) return await bytes.pass(size);
  if (type !== ARRAY) throw new Error(`it holds a value of the unknown type ${type}`);
  const itemType = (await bytes.take(4)).readUInt32LE();
  const items = await bytes.count('items');
  const itemBytes = SCALAR_BYTES[itemType];
  if (itemBytes !== undefined) return await bytes.pass(items * itemBytes);
  if (itemType !== STRING) throw new Error(`it holds a list of the unknown type ${itemType}`);
  await bytes.passTexts(items);
}

/** Reads forward through a file, a chunk at a time. What lies behind the end is an error. */
class Bytes {
  readonly size: number;
  readonly #handle: FileHandle;
  #chunk = Buffer.alloc(0);
  /** Of the chunk in the file. */
  #start = 0;
  #at = 0;

  constructor(handle: FileHandle, size: number) {
    this.#handle = handle;
    this.size = size;
  }

  get position(): number {
    return this.#start + this.#at;
  }

  async take(length: number): Promise<Buffer> {
    if (this.#chunk.length - this.#at < length) await this.#refill(length);
    this.#at += length;
    return this.#chunk.subarray(this.#at - length, this.#at);
  }

  async count(what: string): Promise<number> {
    const value = (await this.take(8)).readBigUInt64LE();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new Error(`it claims ${value} as ${what}`);
    return Number(value);
  }

  async text(maxBytes: number): Promise<string> {
    const length = await this.count('length');
    if (length > maxBytes)
      throw new Error(`it holds a text of ${length} bytes where at most ${maxBytes} make sense`);
    return (await this.take(length)).toString('utf8');
  }

  async pass(length: number): Promise<void> {
    this.#within(length);
    this.#at += length;
  }

  /** A vocabulary has hundreds of thousands: nothing is awaited but the file. */
  async passTexts(items: number): Promise<void> {
    for (let left = items; left > 0; ) {
      for (; left > 0 && this.#chunk.length - this.#at >= 8; left--) {
        const length = Number(this.#chunk.readBigUInt64LE(this.#at));
        this.#at += 8;
        this.#within(length);
        this.#at += length;
      }
      if (left > 0) await this.#refill(8);
    }
  }

  #within(length: number): void {
    const end = this.position + length;
    if (end > this.size)
      throw new Error(`it is cut off: it has ${this.size} bytes, and its head goes on after that`);
    if (end > MAX_HEAD_BYTES) throw new Error(`its head is larger than ${MAX_HEAD_BYTES} bytes`);
  }

  async #refill(length: number): Promise<void> {
    this.#within(length);
    const start = this.position;
    const chunk = Buffer.alloc(Math.min(Math.max(length, CHUNK_BYTES), this.size - start));
    const { bytesRead } = await this.#handle.read(chunk, 0, chunk.length, start);
    if (bytesRead < length) throw new Error(`it is cut off at ${start + bytesRead} bytes`);
    this.#chunk = chunk.subarray(0, bytesRead);
    this.#start = start;
    this.#at = 0;
  }
}

function broken(path: string, reason: string): ServingError {
  return new ServingError(
    'MODEL_NOT_AVAILABLE',
    `"${path}" cannot be loaded as a GGUF model: ${reason}. Fetch the file again and compare its SHA-256.`,
  );
}
