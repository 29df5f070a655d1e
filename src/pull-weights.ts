// `duckserve models pull SOURCE`: brings embedded weights or a model file of another place into the model cache, with a
// bar for a person. Registering what has come is up to the command.
import { rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Io } from '#cli/program.ts';
import { StatusLine } from '#cli/status-line.ts';
import { resolveSettings } from '#config/settings.ts';
import { weightsOf } from '#engines/weights/catalogue.ts';
import { pullFile } from '#engines/weights/pull.ts';
import { nameOfSource, parsePullSource } from '#engines/weights/pull-source.ts';
import { fetchWeights, importWeights, isPresent, weightsDirectory } from '#engines/weights/weights.ts';

interface PullRequest {
  /** Embedded weights only: a local file or folder instead of a download; the same hashes are required. */
  readonly from?: string;
  /** SHA-256 the file must have; not for embedded weights, whose hashes are known. */
  readonly sha256?: string;
  /** The caller registers the file, which copies it. */
  readonly isRegistered?: boolean;
}

interface PulledModel {
  /** What can be registered: a file, or a folder of embedded weights with several. */
  readonly path: string;
  /** Removes what was fetched only to be registered. Files of the user and embedded weights stay. */
  drop(): Promise<void>;
}

/** Throws as `pullFile` and `fetchWeights` do: MODEL_NOT_AVAILABLE with the ways out, NOT_FOUND, INVALID_PARAMETER, ... */
export async function pullWeights(
  sourceText: string,
  dataDir: string,
  io: Io,
  request: PullRequest = {},
): Promise<PulledModel> {
  const { modelCacheDir } = resolveSettings({ flags: { data: dataDir }, env: process.env });
  // With --from the source can only be the id of embedded weights, whatever it looks like.
  const source =
    request.from === undefined
      ? parsePullSource(sourceText)
      : ({ kind: 'embedded', id: sourceText } as const);
  if (source.kind === 'embedded') {
    await pullEmbedded(source.id, modelCacheDir, io, request.from);
    return { path: embeddedPath(source.id, modelCacheDir), drop: async () => {} };
  }
  const name = nameOfSource(source);
  const status = new StatusLine(io);
  const startedAtMs = Date.now();
  const pulled = await pullFile(source, {
    cacheDir: modelCacheDir,
    sha256: request.sha256?.toLowerCase(),
    isInPlace: request.isRegistered,
    notify: (line) => status.say(line),
    onProgress: (done, total) => status.download(basename(name), done, total, Date.now() - startedAtMs),
  }).finally(() => status.clear());
  status.say(`${name} ${pulled.wasThere ? 'is in' : 'was put into'} ${pulled.path}`);
  const by = { given: ', as given', hub: ', as the hub names it', none: ', which nobody vouches for' };
  const commit = pulled.commit === undefined ? '' : `, commit ${pulled.commit}`;
  status.say(
    `SHA-256 ${pulled.sha256}${by[pulled.checkedAgainst ?? 'none']}; ${pulled.bytes} bytes${commit}`,
  );
  const isOurs = source.kind !== 'file';
  return {
    path: pulled.path,
    drop: async () => (isOurs ? await rm(pulled.path, { force: true }) : undefined),
  };
}

function embeddedPath(id: string, cacheDir: string): string {
  const directory = weightsDirectory(id, cacheDir);
  const [only, ...others] = weightsOf(id).files;
  return others.length > 0 ? directory : join(directory, only.name);
}

async function pullEmbedded(id: string, cacheDir: string, io: Io, from: string | undefined): Promise<void> {
  if (isPresent(id, cacheDir)) {
    io.stderr.write(`${id} is already in ${weightsDirectory(id, cacheDir)}\n`);
    return;
  }
  if (from !== undefined) {
    const imported = await importWeights(id, from, cacheDir);
    io.stderr.write(`${id} was copied from ${from} to ${imported}; its hashes are right.\n`);
    return;
  }
  const status = new StatusLine(io);
  const startedAtMs = Date.now();
  const directory = await fetchWeights(id, cacheDir, {
    notify: (line) => status.say(line),
    onProgress: (done, total) => status.download(id, done, total, Date.now() - startedAtMs),
  }).finally(() => status.clear());
  status.say(`${id} is ready in ${directory}`);
}
