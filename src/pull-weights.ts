// `duckserve models pull ID`: fetches embedded weights into the model cache, with a bar for a person.
import { resolveSettings } from '#config/settings.ts';
import { fetchWeights, importWeights, isPresent, weightsDirectory } from '#engines/weights/weights.ts';

export interface PullIo {
  readonly stderr: NodeJS.WritableStream;
  readonly isStderrTty: boolean;
}

/** `from`: a local file or folder instead of a download. Throws MODEL_NOT_AVAILABLE with the ways out. Does nothing but say so when the weights are there. */
export async function pullWeights(
  modelId: string,
  dataDir: string,
  { stderr, isStderrTty }: PullIo,
  from?: string,
): Promise<void> {
  const { modelCacheDir } = resolveSettings({ flags: { data: dataDir }, env: process.env });
  if (isPresent(modelId, modelCacheDir)) {
    stderr.write(`${modelId} is already in ${weightsDirectory(modelId, modelCacheDir)}\n`);
    return;
  }
  if (from !== undefined) {
    const imported = await importWeights(modelId, from, modelCacheDir);
    stderr.write(`${modelId} was copied from ${from} to ${imported}; its hashes are right.\n`);
    return;
  }
  const directory = await fetchWeights(modelId, modelCacheDir, {
    notify: (line) => void stderr.write(`${line}\n`),
    onProgress: (done, total) => {
      if (isStderrTty) stderr.write(`\r${bar(done, total)}`);
    },
  });
  if (isStderrTty) stderr.write('\r\u001b[K');
  stderr.write(`${modelId} is ready in ${directory}\n`);
}

const WIDTH = 30;

function bar(doneBytes: number, totalBytes: number): string {
  const share = totalBytes > 0 ? Math.min(1, doneBytes / totalBytes) : 0;
  const filled = Math.round(share * WIDTH);
  return `${'█'.repeat(filled)}${'░'.repeat(WIDTH - filled)} ${(doneBytes / 1e6).toFixed(0)} / ${(totalBytes / 1e6).toFixed(0)} MB`;
}
