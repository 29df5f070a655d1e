// Weights that an ONNX model keeps in files beside it: each must be a file in the model's own folder, also after
// links are followed, before the runtime is told to open it.
import { realpath, stat } from 'node:fs/promises';
import { dirname, isAbsolute, relative, resolve, sep, win32 } from 'node:path';
import { ServingError } from '#core/errors.ts';

/** Throws INVALID_PARAMETER for a path that leads out of the folder, MODEL_NOT_AVAILABLE for a missing file. */
export async function checkExternalFiles(modelPath: string, locations: readonly string[]): Promise<void> {
  if (locations.length === 0) return;
  const folder = await realpath(dirname(modelPath));
  for (const location of locations) {
    const path = resolve(folder, location);
    if (location === '' || location.includes('\0') || isAbsolute(location) || win32.isAbsolute(location))
      throw outside(modelPath, location);
    if (location.split(/[\\/]/).includes('..') || !isBelow(folder, path)) throw outside(modelPath, location);
    const real = await realpath(path).catch(() => undefined);
    if (real === undefined) throw missing(modelPath, location);
    if (!isBelow(folder, real)) throw outside(modelPath, location);
    if (!(await stat(real)).isFile()) throw missing(modelPath, location);
  }
}

function isBelow(folder: string, path: string): boolean {
  const way = relative(folder, path);
  return way !== '' && way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}

function outside(modelPath: string, location: string): ServingError {
  return new ServingError(
    'INVALID_PARAMETER',
    `The ONNX model "${modelPath}" keeps weights in ${show(location)}, which is not a file in its own folder. ` +
      'Put the file beside the model and name it by its path from there.',
  );
}

function missing(modelPath: string, location: string): ServingError {
  return new ServingError(
    'MODEL_NOT_AVAILABLE',
    `The ONNX model "${modelPath}" keeps weights in ${show(location)}, and there is no such file beside it. ` +
      'Copy it there, or register the folder that holds both.',
  );
}

function show(location: string): string {
  return JSON.stringify(location.slice(0, 200));
}
