// `duckserve models pull ID`: fetches embedded weights into the model cache, with a bar for a person.
import type { Io } from '#cli/program.ts';
import { StatusLine } from '#cli/status-line.ts';
import { resolveSettings } from '#config/settings.ts';
import { fetchWeights, importWeights, isPresent, weightsDirectory } from '#engines/weights/weights.ts';

/** `from`: a local file or folder instead of a download. Throws MODEL_NOT_AVAILABLE with the ways out. Does nothing but say so when the weights are there. */
export async function pullWeights(modelId: string, dataDir: string, io: Io, from?: string): Promise<void> {
  const { modelCacheDir } = resolveSettings({ flags: { data: dataDir }, env: process.env });
  if (isPresent(modelId, modelCacheDir)) {
    io.stderr.write(`${modelId} is already in ${weightsDirectory(modelId, modelCacheDir)}\n`);
    return;
  }
  if (from !== undefined) {
    const imported = await importWeights(modelId, from, modelCacheDir);
    io.stderr.write(`${modelId} was copied from ${from} to ${imported}; its hashes are right.\n`);
    return;
  }
  const status = new StatusLine(io);
  const directory = await fetchWeights(modelId, modelCacheDir, {
    notify: (line) => status.say(line),
    onProgress: (done, total) => status.download(modelId, done, total),
  }).finally(() => status.clear());
  status.say(`${modelId} is ready in ${directory}`);
}
