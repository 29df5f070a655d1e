// Reads a gzipped tar as it streams by and hands the bytes of wanted members to a sink. For npm tarballs: regular
// files with ustar, pax or GNU long names; links, devices and sparse files are passed over, nothing is extracted.
import { createReadStream } from 'node:fs';
import { createGunzip } from 'node:zlib';

const BLOCK_BYTES = 512;
/** Of a header that only holds a name and times. */
const LONGEST_NAME = 1024 * 1024;

/** What becomes of a member: undefined passes it over. Bytes are only valid until the returned promise resolves. */
export type Sink = (bytes: Uint8Array) => Promise<void>;

/** Calls `open` for each regular file in order. Rejects on a damaged archive or when the signal fires. */
export async function readTarball(
  path: string,
  open: (memberPath: string) => Sink | undefined,
  signal?: AbortSignal,
  /** Hears of what is passed over: links, devices, sparse files; not of directories. May throw. */
  onOther?: (memberPath: string, type: string) => void,
): Promise<void> {
  const source = createReadStream(path, signal ? { signal } : {});
  const gunzip = createGunzip({ chunkSize: 256 * 1024 });
  source.on('error', (error) => gunzip.destroy(error));
  source.pipe(gunzip);
  const blocks = new BlockReader(gunzip[Symbol.asyncIterator]() as AsyncIterator<Buffer>);
  try {
    let longName: string | undefined;
    for (;;) {
      const header = await blocks.take(BLOCK_BYTES);
      if (header === undefined || header.every((byte) => byte === 0)) return;
      const size = sizeField(header);
      const type = String.fromCharCode(header[156] ?? 0);
      if (type === 'x' || type === 'L') {
        if (size > LONGEST_NAME)
          throw new Error(`the archive is damaged: a member has a name of ${size} bytes`);
        const text = Buffer.from((await blocks.take(size)) ?? []).toString('utf8');
        longName = type === 'L' ? text.replace(/\0.*$/s, '') : (paxPath(text) ?? longName);
        await blocks.pass(padding(size));
        continue;
      }
      const isFile = type === '0' || type === '\0';
      const sink = isFile ? open(longName ?? nameField(header)) : undefined;
      if (!isFile && !'5g'.includes(type)) onOther?.(longName ?? nameField(header), type);
      longName = type === 'g' ? longName : undefined;
      await blocks.pass(size, sink);
      await blocks.pass(padding(size));
    }
  } finally {
    source.destroy();
    gunzip.destroy();
  }
}

const padding = (size: number): number => (BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES;

function text(header: Uint8Array, from: number, to: number): string {
  const end = header.subarray(from, to).indexOf(0);
  return Buffer.from(header.subarray(from, end < 0 ? to : from + end)).toString('utf8');
}

function nameField(header: Uint8Array): string {
  const prefix = text(header, 257, 262) === 'ustar' ? text(header, 345, 500) : '';
  const name = text(header, 0, 100);
  return prefix === '' ? name : `${prefix}/${name}`;
}

function sizeField(header: Uint8Array): number {
  const size = Number.parseInt(text(header, 124, 136).trim() || '0', 8);
  if (!Number.isSafeInteger(size) || size < 0)
    throw new Error('the archive is damaged: a member has no size');
  return size;
}

/** `path` of a pax header, whose records read `LENGTH KEY=VALUE\n`. */
function paxPath(records: string): string | undefined {
  return /(?:^|\n)\d+ path=([^\n]*)\n/.exec(records)?.[1];
}

/** Chunks of any size as runs of exactly the wanted length. */
class BlockReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(chunks: AsyncIterator<Buffer>) {
    this.#chunks = chunks;
  }

  /** `size` bytes as one array; undefined at a clean end of the archive. */
  async take(size: number): Promise<Uint8Array | undefined> {
    const parts: Uint8Array[] = [];
    for (let missing = size; missing > 0; ) {
      const part = await this.#next(missing);
      if (part === undefined) {
        if (parts.length === 0) return undefined;
        throw new Error('the archive ends in the middle of a member');
      }
      parts.push(part);
      missing -= part.length;
    }
    return parts.length === 1 ? parts[0] : Buffer.concat(parts);
  }

  async pass(size: number, sink?: Sink): Promise<void> {
    for (let missing = size; missing > 0; ) {
      const part = await this.#next(missing);
      if (part === undefined) throw new Error('the archive ends in the middle of a member');
      await sink?.(part);
      missing -= part.length;
    }
  }

  async #next(atMost: number): Promise<Uint8Array | undefined> {
    while (this.#rest.length === 0) {
      const step = await this.#chunks.next();
      if (step.done) return undefined;
      this.#rest = step.value;
    }
    const part = this.#rest.subarray(0, atMost);
    this.#rest = this.#rest.subarray(part.length);
    return part;
  }
}
