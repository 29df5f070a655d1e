// The body of a request: its bytes within a limit, its media type, its text as UTF-8, its JSON. What the JSON has to
// hold is in the file of each task.
import { isUtf8 } from 'node:buffer';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type JsonObject } from '#core/json.ts';
import { showValue } from './errors.ts';
import type { HttpContext } from './request.ts';

const MEBIBYTE = 1024 * 1024;
/** Databricks' limits: custom models take large tables, everything else is text. */
export const CUSTOM_MODEL_BODY_BYTES = 16 * MEBIBYTE;
export const BODY_BYTES = 4 * MEBIBYTE;
/** Deeper than any schema or tensor; what lies deeper only serves to exhaust a stack. */
const MAX_DEPTH = 128;
/** What programs send when nobody told them to say JSON (curl: the second). */
const UNSAID_TYPES: ReadonlySet<string> = new Set(['', 'application/x-www-form-urlencoded', 'text/plain']);
const UTF8_NAMES: ReadonlySet<string> = new Set(['utf-8', 'utf8', 'us-ascii']);

/** Straight from Node's request: the web stream around it has no backpressure on Node 20. Throws PAYLOAD_TOO_LARGE. */
export async function readBytes(c: HttpContext, maxBytes: number): Promise<Buffer> {
  const tooLarge = () =>
    new ServingError(
      'PAYLOAD_TOO_LARGE',
      `The body is over ${maxBytes} bytes (${maxBytes / MEBIBYTE} MiB): send fewer inputs at once.`,
      { details: { limit: maxBytes } },
    );
  const encoding = c.req.header('content-encoding');
  if (encoding !== undefined && encoding !== 'identity') {
    throw new ServingError(
      'BAD_REQUEST',
      `Content-Encoding '${encoding}' is not read here: send the body uncompressed.`,
    );
  }
  if (Number(c.req.header('content-length') ?? 0) > maxBytes) throw tooLarge();
  const incoming = c.env?.incoming;
  if (incoming === undefined) {
    const bytes = Buffer.from(await c.req.arrayBuffer());
    if (bytes.byteLength > maxBytes) throw tooLarge();
    return bytes;
  }
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    const settle = (outcome: () => void) => {
      incoming.off('data', onData).off('end', onEnd).off('error', onGone).off('close', onGone);
      outcome();
    };
    const onData = (chunk: Buffer) => {
      sizeBytes += chunk.length;
      chunks.push(chunk);
      if (sizeBytes > maxBytes) settle(() => reject(tooLarge()));
    };
    const onEnd = () => settle(() => resolve(Buffer.concat(chunks)));
    const onGone = () =>
      settle(() => reject(new ServingError('CANCELLED', 'The client left while it sent the body.')));
    incoming.on('data', onData).on('end', onEnd).on('error', onGone).on('close', onGone);
  });
}

/** Throws BAD_REQUEST for bytes that are no UTF-8: put right silently, another text would reach the model. */
export function toText(bytes: Buffer): string {
  if (!isUtf8(bytes)) {
    throw new ServingError('BAD_REQUEST', 'The body is not UTF-8 text: send it in that encoding.');
  }
  const text = bytes.toString('utf8');
  return text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
}

/** Throws UNSUPPORTED_MEDIA_TYPE for what is neither. `isStrict`: also for parameters besides the charset. */
export function readMediaType(
  c: HttpContext,
  options: { readonly takesCsv?: boolean; readonly isStrict?: boolean } = {},
): 'json' | 'csv' {
  const header = c.req.header('content-type') ?? '';
  const [type = '', ...parameters] = header.split(';').map((part) => part.trim());
  for (const parameter of parameters) {
    const [name = '', value = ''] = parameter.toLowerCase().split('=', 2);
    const isCharset = name.trim() === 'charset';
    if (isCharset && !UTF8_NAMES.has(value.trim().replace(/^"|"$/g, ''))) {
      throw unsupported(`The charset of the body is ${showValue(value)}, and only utf-8 is read here.`);
    }
    if (!isCharset && parameter !== '' && options.isStrict) {
      throw unsupported(
        `The content type has the parameter ${showValue(parameter)}, and only charset is known.`,
      );
    }
  }
  const media = type.toLowerCase();
  if (media === 'text/csv' && options.takesCsv) return 'csv';
  if (media === 'application/json' || /^application\/[\w.-]+\+json$/.test(media) || UNSAID_TYPES.has(media)) {
    return 'json';
  }
  const taken = options.takesCsv ? 'application/json or text/csv' : 'application/json';
  throw unsupported(`The content type is ${showValue(type)}: send ${taken}.`);
}

function unsupported(message: string): ServingError {
  return new ServingError('UNSUPPORTED_MEDIA_TYPE', message);
}

/** Throws BAD_REQUEST for what is no JSON object, or nested too deep. */
export function parseJsonObject(text: string): JsonObject {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (thrown) {
    // Only the place is taken from the parser's message: the rest repeats the body, which may hold a key.
    const place = /position \d+/.exec(String(thrown))?.[0];
    const reason = text === '' ? ': it is empty' : place === undefined ? '' : ` from ${place} on`;
    throw new ServingError('BAD_REQUEST', `The body is not JSON${reason}. Send a JSON object.`, {
      cause: thrown,
    });
  }
  if (!isJsonObject(body)) {
    throw new ServingError('BAD_REQUEST', `The body must be a JSON object, got ${showShallow(body)}.`);
  }
  if (isDeeperThan(body, MAX_DEPTH)) {
    throw new ServingError(
      'BAD_REQUEST',
      `The body has lists or objects inside each other more than ${MAX_DEPTH} deep: flatten it.`,
    );
  }
  return body;
}

/** Showing writes JSON by recursion, so it is kept from what is too deep for that. */
function showShallow(value: unknown): string {
  return isDeeperThan(value, MAX_DEPTH) ? 'a deep list' : showValue(value);
}

/** Without recursion: a body of a million brackets must not end in a full stack. */
function isDeeperThan(value: unknown, most: number): boolean {
  let level: object[] = typeof value === 'object' && value !== null ? [value] : [];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > most) return true;
    const below: object[] = [];
    for (const node of level) {
      const members: readonly unknown[] = Array.isArray(node) ? node : Object.values(node);
      for (const member of members) {
        if (typeof member === 'object' && member !== null) below.push(member);
      }
    }
    level = below;
  }
  return false;
}
