// Exact repeats at the door: which requests may be one, how an answer is remembered in parts, and how it is written
// again with the id and the time of the request at hand. Whether it may be given is decided by serving.
import { hash } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import type { RelayHits, Written } from '#serving/relay-hits.ts';
import { type Heard, hearAnswer } from './hear-answer.ts';
import type { Scanned } from './scan.ts';

export const CACHE_HEADER = 'x-duckserve-cache';
/** Headers of an answer that depend on nothing but the body of the request. */
const LASTING_HEADERS = ['x-duckserve-ignored'];
const TEMPERATURE = Buffer.from('"temperature"');
const CACHE = Buffer.from('"cache"');
const CREATED = /"created":(\d+)/;

/**
 * A cheap look: answers are kept where asking again would give the same, or where the caller wants it.
 * `scanned`: undefined for a body that only the routes understand.
 */
export function mayRepeat(
  body: Buffer,
  scanned: Scanned | undefined,
  isEmbedding: boolean,
  cacheHeader: string | undefined,
): boolean {
  if (cacheHeader !== undefined) return cacheHeader !== 'off' && cacheHeader !== 'write';
  if (scanned) return scanned.temperature === 0;
  return isEmbedding || body.includes(TEMPERATURE) || body.includes(CACHE);
}

/** Equal for requests that ask the same in the same bytes. */
export function repeatKey(url: string, body: Buffer, cacheHeader = ''): string {
  return `${url} ${cacheHeader} ${hash('sha256', body, 'base64')}`;
}

/** Remembers the answer that the routes are about to write, if it is one that is kept. */
export function rememberAnswer(hits: RelayHits, outgoing: ServerResponse, id: string, key: string): void {
  hits.expect(id);
  hearAnswer(outgoing, (heard) => hits.keep(id, key, toWritten(heard, id)));
  outgoing.once('close', () => hits.forget(id));
}

/** Bytes as text of one character each, so that head and body are one write. */
function toWritten({ text, headers }: Heard, id: string): Written {
  const bytes = Buffer.from(text).toString('latin1');
  const lasting = LASTING_HEADERS.flatMap((name) =>
    typeof headers[name] === 'string' ? [name, headers[name]] : [],
  );
  const at = bytes.indexOf(id);
  if (at < 0) return { parts: [bytes], headers: lasting };
  const rest = bytes.slice(at + id.length);
  const created = CREATED.exec(rest);
  if (!created) return { parts: [bytes.slice(0, at), rest], headers: lasting };
  const time = created.index + created[0].length - (created[1]?.length ?? 0);
  const after = created.index + created[0].length;
  return { parts: [bytes.slice(0, at), rest.slice(0, time), rest.slice(after)], headers: lasting };
}

export function writeAgain({ parts }: Written, id: string, nowMs: number): string {
  const [first = '', second, third] = parts;
  if (second === undefined) return first;
  if (third === undefined) return first + id + second;
  return first + id + second + Math.floor(nowMs / 1_000) + third;
}
