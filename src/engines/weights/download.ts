// A file over HTTP that ends up whole or not at all: what has arrived is kept, a broken connection goes on where it
// broke, and the hash decides. What is fetched, and from whom, is the matter of pull.ts.
import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Dispatcher } from 'undici';
import type { Clock } from '#core/clock.ts';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import { Arrivals } from './arrivals.ts';
import { getFile, openClient, type Reply } from './http-get.ts';
import { PartFile, type Validators } from './part-file.ts';

/** Failures in a row in which nothing arrived. */
const MAX_FAILURES = 5;
/** Times in all that what had arrived was of no use. */
const MAX_RESTARTS = 3;
const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 30_000;
/** Left free on the disk. */
const SPARE_BYTES = 64 * 1024 * 1024;
const SHA256 = /^[0-9a-f]{64}$/;

interface DownloadRequest {
  readonly url: URL;
  /** For a person: no query, no token. */
  readonly name: string;
  /** Where the whole file is to lie. */
  readonly to: string;
  readonly bearer?: string | undefined;
  /** The server is a hub, which names hashes in its headers. */
  readonly isHub: boolean;
  /** What the user says the file is. */
  readonly sha256?: string | undefined;
  readonly clock: Clock;
  readonly env: NodeJS.ProcessEnv;
  readonly signal?: AbortSignal | undefined;
  readonly notify?: ((line: string) => void) | undefined;
  /** `totalBytes` 0: not known. */
  readonly onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

interface Downloaded {
  readonly sha256: string;
  readonly bytes: number;
  readonly checkedAgainst: 'given' | 'hub' | null;
  /** Of the hub's repository. */
  readonly commit?: string;
}

/** Something that another try may mend. */
class Interrupted extends Error {
  readonly retryAfterMs: number | undefined;
  constructor(
    reason: string,
    options: { readonly retryAfterMs?: number | undefined; readonly cause?: unknown } = {},
  ) {
    super(reason, { cause: options.cause });
    this.retryAfterMs = options.retryAfterMs;
  }
}

/**
 * Throws MODEL_NOT_AVAILABLE with the reason and whether a part is kept, NOT_FOUND, STORAGE_ERROR for a full disk,
 * RESOURCE_CONFLICT while another process fetches the same, CANCELLED.
 */
export async function download(request: DownloadRequest): Promise<Downloaded> {
  const { clock, signal, to } = request;
  throwIfAborted(signal);
  const client = await openClient(request.env);
  const part = await PartFile.open(to).catch((error: unknown) => {
    throw storageError(error, `${to} cannot be written`);
  });
  let failures = 0;
  let restarts = 0;
  let isSecondRound = false;
  try {
    for (;;) {
      const before = part.bytes;
      try {
        const commit = await attempt(client, request, part);
        const verdict = await verify(request, part, before > 0 && !isSecondRound);
        if (verdict === 'again') {
          isSecondRound = true;
          continue;
        }
        await part.publish();
        return { ...verdict, bytes: part.bytes, ...(commit === undefined ? {} : { commit }) };
      } catch (error) {
        throwIfAborted(signal);
        if (error instanceof ServingError) throw error;
        if (isNoSpace(error))
          throw storageError(error, `The disk of ${to} is full; what has arrived is kept`);
        if (!(error instanceof Interrupted)) throw storageError(error, `${to} cannot be written`);
        failures = part.bytes > before ? 1 : failures + 1;
        if (part.bytes < before) restarts++;
        if (failures >= MAX_FAILURES || restarts >= MAX_RESTARTS) throw gaveUp(request, part, error.message);
        const waitMs = error.retryAfterMs ?? Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (failures - 1));
        request.notify?.(`${request.name}: ${error.message}. Going on at ${megabytes(part.bytes)}.`);
        await clock.sleep(waitMs, signal).catch(() => throwIfAborted(signal));
      }
    }
  } finally {
    await part.close();
    await client.destroy();
  }
}

/** One request and its body. Gives the commit a hub names. */
async function attempt(
  client: Dispatcher,
  request: DownloadRequest,
  part: PartFile,
): Promise<string | undefined> {
  const { etag, lastModified, totalBytes } = part.validators;
  // All was there, and the process ended before it could say so.
  if (part.bytes > 0 && part.bytes === totalBytes) return undefined;
  const validator = etag ?? lastModified;
  const mayResume =
    part.bytes > 0 && (validator !== undefined || expectedHash(request, part.validators) !== undefined);
  if (part.bytes > 0 && !mayResume) await part.reset();
  const headers: Record<string, string> = { 'accept-encoding': 'identity', 'user-agent': 'duckserve' };
  if (mayResume) {
    headers.range = `bytes=${part.bytes}-`;
    if (validator !== undefined) headers['if-range'] = validator;
  }
  const reply = await getFile(client, { ...request, headers }).catch((error: unknown) => {
    throw error instanceof ServingError ? error : new Interrupted(networkReason(error), { cause: error });
  });
  // Listened to from now on: the connection may break while the disk is looked at.
  const arrivals = new Arrivals(reply.body);
  try {
    const said = validatorsOf(reply, request);
    refuseOther(request, said);
    const total = await align(reply, part, said);
    await refuseFullDisk(request.to, total === undefined ? 0 : total - part.bytes);
    await receive(arrivals, request, part, total);
  } finally {
    reply.body.destroy();
  }
  return request.isHub ? reply.firstHeaders['x-repo-commit'] : undefined;
}

/** Brings the part to where the body begins; gives the size of the whole file, where it is known. */
async function align(reply: Reply, part: PartFile, said: Validators): Promise<number | undefined> {
  const { status, headers } = reply;
  const known = part.validators;
  if (headers['content-encoding'] !== undefined && headers['content-encoding'] !== 'identity') {
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `The server sends the file as ${headers['content-encoding']}, which was not asked for.`,
    );
  }
  if (status === 200) {
    const length = Number(headers['content-length']);
    const total =
      said.totalBytes ?? (headers['content-length'] !== undefined && length >= 0 ? length : undefined);
    await part.reset();
    await part.remember({ ...said, ...(total === undefined ? {} : { totalBytes: total }) });
    return total;
  }
  if (status === 206) {
    const [, start, size] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers['content-range'] ?? '') ?? [];
    const total = size === undefined || size === '*' ? said.totalBytes : Number(size);
    const isOther =
      (known.etag !== undefined && said.etag !== undefined && known.etag !== said.etag) ||
      (known.sha256 !== undefined && said.sha256 !== undefined && known.sha256 !== said.sha256) ||
      (known.totalBytes !== undefined && total !== undefined && known.totalBytes !== total);
    if (Number(start) !== part.bytes || isOther) {
      await part.reset();
      throw new Interrupted('the file has changed on the server', { retryAfterMs: 0 });
    }
    return total ?? known.totalBytes;
  }
  if (status === 416) {
    const size = /^bytes \*\/(\d+)$/.exec(headers['content-range'] ?? '')?.[1];
    if (size !== undefined && Number(size) === part.bytes) return part.bytes;
    await part.reset();
    throw new Interrupted('the file has changed on the server', { retryAfterMs: 0 });
  }
  throw new Interrupted(`the server answered with status ${status}`);
}

async function receive(
  arrivals: Arrivals,
  { onProgress, signal }: DownloadRequest,
  part: PartFile,
  total: number | undefined,
): Promise<void> {
  if (part.bytes === total) return;
  onProgress?.(part.bytes, total ?? 0);
  for (let chunk = await arrivals.next(); chunk !== 'end'; chunk = await arrivals.next()) {
    if (chunk instanceof Error) {
      throwIfAborted(signal);
      throw new Interrupted(networkReason(chunk), { cause: chunk });
    }
    if (total !== undefined && part.bytes + chunk.length > total) {
      await part.reset();
      throw new Interrupted(`the server sent more than the ${total} bytes it had announced`);
    }
    await part.append(chunk);
    onProgress?.(part.bytes, total ?? 0);
  }
  if (total !== undefined && part.bytes < total) {
    throw new Interrupted(`the connection ended at ${part.bytes} of ${total} bytes`);
  }
}

/** `again`: bytes of two tries do not make the file; it is fetched anew, once. */
async function verify(
  request: DownloadRequest,
  part: PartFile,
  wasResumed: boolean,
): Promise<Pick<Downloaded, 'sha256' | 'checkedAgainst'> | 'again'> {
  const sha256 = await part.sha256();
  const expected = expectedHash(request, part.validators);
  if (expected === undefined) return { sha256, checkedAgainst: null };
  if (sha256 === expected) return { sha256, checkedAgainst: request.sha256 === undefined ? 'hub' : 'given' };
  if (wasResumed) {
    await part.reset();
    request.notify?.(
      `${request.name}: the parts do not make the file; it is fetched again from the beginning.`,
    );
    return 'again';
  }
  await part.discard();
  throw new ServingError(
    'MODEL_NOT_AVAILABLE',
    `${request.name} has SHA-256 ${sha256}, ${request.sha256 === undefined ? 'the hub names' : 'given was'} ${expected}. It was thrown away.`,
    { details: { sha256, expected } },
  );
}

function expectedHash({ sha256 }: DownloadRequest, { sha256: named }: Validators): string | undefined {
  return sha256 ?? named;
}

function validatorsOf({ status, headers, firstHeaders }: Reply, request: DownloadRequest): Validators {
  if (status >= 400 && status !== 416) throw refusalOf(status, headers, request);
  const etag = headers.etag?.startsWith('"') ? headers.etag : undefined;
  const lastModified = headers['last-modified'];
  const named = (firstHeaders['x-linked-etag'] ?? firstHeaders.etag)?.replace(/^"|"$/g, '').toLowerCase();
  const size = Number(firstHeaders['x-linked-size']);
  return {
    ...(etag === undefined ? {} : { etag }),
    ...(lastModified === undefined ? {} : { lastModified }),
    ...(request.isHub && named !== undefined && SHA256.test(named) ? { sha256: named } : {}),
    ...(request.isHub && Number.isSafeInteger(size) && size > 0 ? { totalBytes: size } : {}),
  };
}

/** What the hub has is not what was asked for: said before gigabytes are fetched. */
function refuseOther({ sha256, name }: DownloadRequest, said: Validators): void {
  if (sha256 === undefined || said.sha256 === undefined || sha256 === said.sha256) return;
  throw new ServingError(
    'MODEL_NOT_AVAILABLE',
    `The hub names SHA-256 ${said.sha256} for ${name}, given was ${sha256}. Nothing was fetched; check the revision.`,
    { details: { sha256: said.sha256, expected: sha256 } },
  );
}

function refusalOf(status: number, headers: Reply['headers'], request: DownloadRequest): Error {
  const { name, isHub, bearer } = request;
  if (status === 404 || status === 410) {
    return new ServingError(
      'NOT_FOUND',
      `There is no ${name} (status ${status}). Check the names and the revision.`,
    );
  }
  if (status === 401 || status === 403) {
    const advice = !isHub
      ? 'Fetch it with a program that can log in, and give the file itself to `models pull`.'
      : bearer === undefined
        ? 'If the repository is private or gated, set HF_TOKEN to a token that may read it.'
        : 'The token in HF_TOKEN may not read it; accept the conditions of the repository or use another token.';
    return new ServingError(
      'MODEL_NOT_AVAILABLE',
      `The server refused ${name} (status ${status}). ${advice}`,
    );
  }
  if (status === 429 || status >= 500 || status === 408) {
    return new Interrupted(`the server answered with status ${status}`, {
      retryAfterMs: retryAfterOf(headers),
    });
  }
  return new ServingError('MODEL_NOT_AVAILABLE', `The server refused ${name} (status ${status}).`);
}

function retryAfterOf(headers: Reply['headers']): number | undefined {
  const seconds = Number(headers['retry-after']);
  return seconds > 0 ? Math.min(seconds * 1000, LONGEST_WAIT_MS) : undefined;
}

async function refuseFullDisk(to: string, neededBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(dirname(to));
  const free = bavail * bsize;
  if (neededBytes + SPARE_BYTES <= free) return;
  throw new ServingError(
    'STORAGE_ERROR',
    `The file needs ${megabytes(neededBytes)} more, and the disk of ${dirname(to)} has ${megabytes(free)} free. ` +
      'Make room, or choose another data directory with --data.',
    { details: { neededBytes, freeBytes: free } },
  );
}

function gaveUp({ name }: DownloadRequest, part: PartFile, reason: string): ServingError {
  const kept =
    part.bytes > 0 ? ` ${megabytes(part.bytes)} are kept: the same command goes on from there.` : '';
  return new ServingError('MODEL_NOT_AVAILABLE', `${name} could not be fetched: ${reason}.${kept}`);
}

function networkReason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = (error as NodeJS.ErrnoException).code;
  const text = error.message || error.cause?.toString() || error.name;
  return `the connection failed (${code !== undefined && !text.includes(code) ? `${code}: ` : ''}${text})`;
}

function isNoSpace(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT');
}

function storageError(error: unknown, what: string): Error {
  if (error instanceof ServingError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new ServingError('STORAGE_ERROR', `${what}: ${reason}`, { cause: error });
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
