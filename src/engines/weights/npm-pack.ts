// Fetches one tarball with `npm pack`: the user's own npm settings (mirror, proxy, keys, CA) apply, no dependency is
// installed and no script of the package runs. Not an installer.
import { spawn } from 'node:child_process';
import { mkdir, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

const PROGRESS_INTERVAL_MS = 200;
const ERROR_CHARS = 400;
/** The first lines say what happened, the others what else could be tried. */
const MAX_ERROR_LINES = 3;

/** Path of the tarball, written below `directory`. `onBytes` hears how much of it has arrived so far. */
export async function packFromNpm(
  specifier: string,
  directory: string,
  options: {
    readonly onBytes?: (doneBytes: number) => void;
    readonly signal?: AbortSignal;
    /** npm's settings come from here too. */
    readonly env?: NodeJS.ProcessEnv;
  } = {},
): Promise<string> {
  await mkdir(directory, { recursive: true });
  // npm writes the tarball only when it is complete. With a cache of its own the part that has arrived can be seen,
  // and hundreds of megabytes do not stay behind in the user's npm cache.
  const cache = join(directory, 'npm-cache');
  const args = ['pack', specifier, '--ignore-scripts', '--pack-destination', directory, '--cache', cache];
  args.push('--loglevel=error', '--no-update-notifier', '--fetch-retry-mintimeout=1000');
  const timer = setInterval(() => {
    void bytesBelow(cache).then((bytes) => options.onBytes?.(bytes));
  }, PROGRESS_INTERVAL_MS);
  try {
    await runNpm(args, options.env ?? process.env, options.signal);
  } finally {
    clearInterval(timer);
  }
  const tarball = (await readdir(directory)).find((name) => name.endsWith('.tgz'));
  if (tarball === undefined) throw new Error(`npm pack ${specifier} ended well but wrote no tarball`);
  return join(directory, tarball);
}

function runNpm(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  signal: AbortSignal | undefined,
): Promise<void> {
  const isWindows = process.platform === 'win32';
  // On Windows npm is a .cmd file, which Node starts only through the shell; then quoting is up to the caller.
  const command = isWindows ? 'npm.cmd' : 'npm';
  const given = isWindows ? args.map((arg) => `"${arg}"`) : args;
  return new Promise((resolve, reject) => {
    const child = spawn(command, given, {
      env,
      shell: isWindows,
      windowsHide: true,
      stdio: ['ignore', 'ignore', 'pipe'],
      ...(signal ? { signal } : {}),
    });
    let complaint = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complaint = (complaint + text).slice(-4096);
    });
    child.on('error', (error: NodeJS.ErrnoException) => {
      reject(error.code === 'ENOENT' ? new Error('npm was not found on the PATH', { cause: error }) : error);
    });
    child.on('close', (code) => (code === 0 ? resolve() : reject(new Error(reasonOf(complaint, code)))));
  });
}

/** npm's complaint as one line, without the path of its log, addresses (they may hold a key) and the advice after them. */
function reasonOf(complaint: string, code: number | null): string {
  const lines = complaint
    .split('\n')
    .map((line) => line.replace(/^npm (error|ERR!) ?/, '').trim())
    .filter((line) => line !== '' && !/^npm warn|complete log of this run|_authToken|\/_logs\//i.test(line));
  const reason = lines
    .slice(0, MAX_ERROR_LINES)
    .join(' ')
    .replace(/\b[a-z+]+:\/\/\S+/gi, '(address)')
    .slice(0, ERROR_CHARS);
  return reason === '' ? `npm ended with code ${code}` : `npm: ${reason}`;
}

async function bytesBelow(directory: string): Promise<number> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => []);
  const sizes = entries.map(async (entry) => {
    if (!entry.isFile()) return 0;
    return (await stat(join(entry.parentPath, entry.name)).catch(() => undefined))?.size ?? 0;
  });
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}
