// Where this package lies on disk, found from src/ in a checkout and from dist/ when installed.
// For files that travel with the package (sql/, assets/); never for data.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ServingError } from '#core/errors.ts';

let found: string | undefined;

/** Directory that holds duckserve's own package.json. */
export function packageRoot(): string {
  found ??= findRoot(dirname(fileURLToPath(import.meta.url)));
  return found;
}

function findRoot(start: string): string {
  let directory = start;
  for (;;) {
    const file = join(directory, 'package.json');
    if (existsSync(file) && isOurs(file)) return directory;
    const parent = dirname(directory);
    if (parent === directory) break;
    directory = parent;
  }
  throw new ServingError(
    'INTERNAL',
    `The package directory of duckserve was not found above ${start}. Install the package again.`,
  );
}

function isOurs(file: string): boolean {
  const parsed: unknown = JSON.parse(readFileSync(file, 'utf8'));
  return typeof parsed === 'object' && parsed !== null && 'name' in parsed && parsed.name === 'duckserve';
}
