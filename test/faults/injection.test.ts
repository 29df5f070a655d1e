// What is written where a name or a text belongs: SQL, headers, paths, keys of prototypes, depth and size, in every
// text of every route. Nothing may happen but an answer: no 500, no changed table, no header, no file, no crash.
import { existsSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import type { Json, JsonObject } from '#core/json.ts';
import { createStubEndpoint, rowsOf, Workplace } from '../app/support.ts';
import type { StubProvider } from '../stub/provider.ts';
import { bodyOf, fillPath, listRoutes, type Places, type Route } from './routes.ts';
import { type Answered, chatBody, type FaultServer, openFaultServer } from './support.ts';
import { instancesOf, replaceAt, textsIn } from './wild-bodies.ts';

const workplace = new Workplace();
/** In every text that is sent here; nothing of it may become a header, a file or a column. */
const MARK = 'zzinjected';
const TEXTS: Readonly<Record<string, string>> = {
  'SQL that ends a text or a name': `'"; DROP TABLE main.precious; CREATE TABLE ${MARK}(a INT); --`,
  'SQL that reads a file': `' UNION SELECT content FROM read_text('/etc/passwd') --${MARK}`,
  'a header': `x\r\nx-${MARK}: 1\r\n\r\nHTTP/1.1 200 OK\r\n`,
  'a path': `../../../../../../tmp/${MARK}`,
  'a prototype': '__proto__',
  'NUL and half a surrogate': `a\u0000b\ud800${MARK}`,
  'a reference to the environment': `{{env/PATH}}${MARK}`,
  'much of it': `${MARK}${'x'.repeat(20_000)}`,
};
let stub: StubProvider;
let server: FaultServer;
let directory: string;
let routes: readonly Route[];
let places: Places;
let root: Record<string, string>;

beforeAll(async () => {
  stub = await workplace.stub();
  directory = workplace.directory();
  server = await openFaultServer(workplace, { dataDir: join(directory, 'data') });
  await createStubEndpoint(server.app, 'llm', stub);
  await createStubEndpoint(server.app, 'victim', stub);
  const { token } = await server.app.identity.createToken({ principal: 'root', isAdmin: true }, LOCAL_OWNER);
  root = { authorization: `Bearer ${token}` };
  const { id, servedEntities } = server.app.registry.getEndpoint('llm');
  places = {
    ...{ name: 'llm', id, entity: servedEntities[0]?.name ?? '' },
    ...{ baseUrl: stub.openaiUrl, principal: 'root' },
  };
  await sql('CREATE TABLE main.precious AS SELECT * FROM range(3)');
  routes = (await listRoutes(server, root)).filter(({ path }) => !/token-management/.test(path));
});
afterAll(() => workplace.clear());

async function sql(statement: string): Promise<readonly (readonly Json[])[]> {
  const session = await server.app.openSession();
  const rows = await rowsOf(session, statement);
  await session.close();
  return rows;
}

/** What changes an endpoint changes one that nothing else is asked of. */
const placesOf = ({ method, path }: Route): Places =>
  method !== 'GET' && path.startsWith('/api/') ? { ...places, name: 'victim' } : places;

function expectNothing(answered: Answered, label: string): void {
  const told = `${answered.status} ${answered.text.slice(0, 300)} for ${label}`;
  expect(answered.status === 501 || answered.status < 500, told).toBe(true);
  expect(
    [...answered.headers.keys()].filter((name) => name.includes(MARK)),
    told,
  ).toEqual([]);
  expect(answered.text, told).not.toMatch(/\/bin\/(ba)?sh|node_modules|\.ts:\d|\bat \w+ \(/);
  if (answered.status >= 400) expect(answered.body, told).toBeTypeOf('object');
}

describe('the ledger', () => {
  it('has the row of a call whose texts are half a letter', async () => {
    const wild = { user: 'a\ud800', usage_context: { 'k\udc00': 'v\ud83d', 'back\\ud800': '\u0000' } };
    const headers = {
      ...root,
      'databricks-ai-gateway-request-tags': JSON.stringify({ 'k\ud800': 'v\udfff' }),
      'x-client-request-id': 'half',
    };
    const good = await server.ask('POST', '/v1/chat/completions', chatBody('llm', 'hello', wild), headers);
    expect(good.status, good.text).toBe(200);
    const none = await server.ask('POST', '/v1/chat/completions', chatBody('no\ud800'), headers);
    expect(none.status).toBe(404);
    const rows = await sql(
      "SELECT status_code, usage_context::VARCHAR FROM duckserve.usage WHERE client_request_id = 'half' ORDER BY status_code",
    );
    expect(rows.map(([status]) => status)).toEqual([200, 404]);
    expect(rows[0]?.[1]).toContain('back\\ud800');
  });
});

/** What was there is there, and what was to come has not come. */
async function expectUnharmed(): Promise<void> {
  expect(await sql('SELECT count(*)::INT FROM main.precious')).toEqual([[3]]);
  const found = `SELECT count(*)::INT FROM duckdb_columns() WHERE table_name LIKE '%${MARK}%'
    OR column_name LIKE '%${MARK}%' OR schema_name LIKE '%${MARK}%'`;
  expect(await sql(found)).toEqual([[0]]);
  expect(existsSync(join('/tmp', MARK))).toBe(false);
  expect(
    readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter((path) => path.includes(MARK)),
  ).toEqual([]);
  expect(({} as Record<string, unknown>)[MARK]).toBeUndefined();
  expect(Object.keys(Object.prototype)).toEqual([]);
  expect(server.app.registry.getEndpoint('llm').name).toBe('llm');
  const chat = await server.ask('POST', '/v1/chat/completions', chatBody('llm'), root);
  expect(chat.status, chat.text).toBe(200);
  await sql('SELECT count(*) FROM duckserve.usage');
  expect(
    server.logged.filter((line) =>
      /rows could not be|table could not be|"(INTERNAL|STORAGE_ERROR)"/.test(line),
    ),
  ).toEqual([]);
}

/** Each text of each body replaced by each attack. Statements are SQL, as is meant. */
function* attacks(route: Route, attack: string): Generator<JsonObject> {
  const given = bodyOf(route, placesOf(route));
  const bases = [...(route.schema ? instancesOf(route.schema) : []), ...(given ? [given] : [])];
  for (const base of bases as readonly JsonObject[]) {
    for (const path of textsIn(base)) {
      if (path.at(-1) !== 'statement') yield replaceAt(base, path, attack) as JsonObject;
    }
  }
}

describe('every text of every route', () => {
  it.each(Object.entries(TEXTS))('takes %s as a text', async (what, attack) => {
    let asked = 0;
    for (const route of routes) {
      // The dialects of a gateway's other base URLs are the same code.
      if (/gateway\/(openai|mlflow|anthropic)/.test(route.path)) continue;
      for (const body of attacks(route, attack)) {
        asked++;
        const answered = await server.ask(route.method, fillPath(route.path, placesOf(route)), body, root);
        expectNothing(
          answered,
          `${route.method} ${route.path} ${what} ${JSON.stringify(body).slice(0, 300)}`,
        );
      }
    }
    expect(asked).toBeGreaterThan(150);
    await expectUnharmed();
  });

  it('takes what stands in a path as a name', async () => {
    const names = [
      ...Object.values(TEXTS).map((text) => encodeURIComponent(text.replace('\ud800', '').slice(0, 4_000))),
      '..%2f..%2f..%2fetc%2fpasswd',
      '%2e%2e/%2e%2e/etc/passwd',
      '%00',
      '%',
      '%ff%fe',
      'constructor',
      'hasOwnProperty',
      'llm%0d%0ax-zzinjected:%201',
      'llm%3F.json',
    ];
    for (const route of routes.filter(({ path }) => path.includes('{'))) {
      for (const name of names) {
        for (const at of [
          { ...placesOf(route), name, id: name },
          { ...placesOf(route), entity: name },
        ]) {
          const path = fillPath(route.path, at);
          if (path === fillPath(route.path, placesOf(route))) continue;
          const answered = await server.ask(route.method, path, bodyOf(route, at), root);
          expectNothing(answered, `${route.method} ${path}`);
        }
      }
    }
    await expectUnharmed();
  });

  it('takes what stands in a header or a query as a text', async () => {
    const headers = [
      ...['x-request-id', 'x-client-request-id', 'x-duckserve-endpoint', 'x-duckserve-cache', 'user-agent'],
      ...['databricks-ai-gateway-request-tags', 'traceparent', 'x-forwarded-for', 'accept', 'cookie'],
      ...['anthropic-version', 'openai-organization', 'idempotency-key', 'content-type'],
    ];
    const values = Object.values(TEXTS)
      .filter((text) => /^[\x20-\x7e]*$/.test(text))
      .map((text) => text.slice(0, 8_000));
    for (const header of headers) {
      for (const value of [...values, `{"${MARK}": "'; DROP TABLE main.precious; --", "__proto__": "x"}`]) {
        for (const path of ['/v1/chat/completions', '/serving-endpoints/llm/invocations', '/invocations']) {
          const answered = await server.ask('POST', path, chatBody('llm'), { ...root, [header]: value });
          expectNothing(answered, `${path} ${header}: ${value.slice(0, 100)}`);
        }
      }
    }
    for (const value of values) {
      for (const route of routes.filter(({ method }) => method === 'GET')) {
        const query = `endpoint=${encodeURIComponent(value)}&filter=${encodeURIComponent(value)}&count=${encodeURIComponent(value)}`;
        const path = `${fillPath(route.path, places)}?${query}`;
        expectNothing(await server.ask('GET', path, undefined, root), path.slice(0, 200));
      }
    }
    await expectUnharmed();
  });
});

describe('a body', () => {
  const posts = () =>
    routes.filter(
      ({ method, path }) => method !== 'GET' && method !== 'DELETE' && !/gateway\/|config:/.test(path),
    );
  const depth = 200_000;
  it.each([
    ['that is empty', ''],
    ['that is a text', '"text"'],
    ['that is null', 'null'],
    ['that is a list', '[1, 2]'],
    ['that is a number larger than any', '1e999'],
    ['that is cut', '{"model": "llm", "messages": [{"ro'],
    ['that is deep', `{"model":"llm","messages":${'['.repeat(depth)}${']'.repeat(depth)}}`],
    ['that is deep in objects', `{"a":${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}}`],
    ['that is deep and cut', `{"model":"llm","messages":${'['.repeat(depth)}`],
    ['with keys twice', '{"model":"llm","model":"other","messages":[]}'],
    ['with keys of prototypes', `{"__proto__":{"${MARK}":1},"constructor":{"prototype":{"${MARK}":1}}}`],
    ['with 20,000 keys', `{${Array.from({ length: 20_000 }, (_, at) => `"k${at}":1`).join(',')}}`],
    ['that is a web page', '<html><body>hello</body></html>'],
  ])('%s is an error of the caller at every route', async (what, body) => {
    for (const route of posts()) {
      const answered = await server.ask(route.method, fillPath(route.path, placesOf(route)), body, root);
      const label = `${route.method} ${route.path} ${what}`;
      expectNothing(answered, label);
      if (/chat\/completions|messages|invocations|statements|token\//.test(route.path)) {
        expect(answered.status, `${label} ${answered.text.slice(0, 100)}`).toBeGreaterThanOrEqual(
          /twice|20,000|prototypes/.test(what) ? 200 : 400,
        );
      }
    }
    await expectUnharmed();
  });

  it('of any JSON is answered', { timeout: 120_000 }, async () => {
    const paths = ['/v1/chat/completions', '/serving-endpoints/llm/invocations', '/v1/messages'];
    await fc.assert(
      fc.asyncProperty(fc.jsonValue({ maxDepth: 4 }), fc.constantFrom(...paths), async (value, path) => {
        const body = JSON.stringify({ ...chatBody('llm'), messages: value });
        expectNothing(await server.ask('POST', path, body, root), `${path} ${body}`);
        const whole = JSON.stringify(value);
        expectNothing(await server.ask('POST', path, whole, root), `${path} ${whole}`);
      }),
      { numRuns: 150 },
    );
    await expectUnharmed();
  });

  it('over the limit is refused while it is sent, and what is chunked too', async () => {
    const large = JSON.stringify(chatBody('llm', 'x'.repeat(5 * 1024 * 1024)));
    for (const path of ['/v1/chat/completions', '/v1/messages', '/api/2.0/serving-endpoints']) {
      const answered = await server.ask('POST', path, large, root);
      expect([413, 400], `${path} ${answered.status}`).toContain(answered.status);
    }
    const before = stub.ledger().requests;
    expect(await sendWithoutEnd()).toMatch(/^HTTP\/1\.1 413 /);
    expect(stub.ledger().requests).toBe(before);
    await expectUnharmed();
  });

  /** Chunks until the server says something; gives what it says. */
  function sendWithoutEnd(): Promise<string> {
    const chunk = `10000\r\n${'x'.repeat(0x10000)}\r\n`;
    return new Promise((resolve, reject) => {
      const socket = connect(server.port, '127.0.0.1');
      let answer = '';
      const fill = () => {
        while (answer === '' && socket.writable && socket.write(chunk)) {}
      };
      socket.write(
        `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: ${root.authorization}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`,
      );
      socket.on('drain', fill).on('error', (error) => (answer === '' ? reject(error) : resolve(answer)));
      socket.setEncoding('latin1').on('data', (text: string) => {
        answer += text;
        socket.destroy();
      });
      socket.on('close', () => resolve(answer));
      fill();
    });
  }
});

describe('without a token, on loopback', () => {
  it('a Host that is not this machine, and a page of another site, are refused at every route', async () => {
    const open = await openFaultServer(workplace);
    const bad: readonly Record<string, string>[] = [
      { host: 'evil.example.org' },
      { host: '127.0.0.1.evil.example.org' },
      { host: 'localhost.evil.example.org:8080' },
      { host: '' },
      { host: 'localhost', origin: 'https://evil.example.org' },
      { host: 'localhost', origin: 'null' },
      { host: 'localhost', 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' },
    ];
    for (const headers of bad) {
      for (const route of routes) {
        const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
        const path = fillPath(route.path, { ...places, name: 'echo-chat' });
        const answer = await exchange(
          open.port,
          `${route.method} ${path} HTTP/1.1\r\n${lines.join('')}Content-Length: 0\r\nConnection: close\r\n\r\n`,
        );
        expect(answer, `${route.method} ${path} ${JSON.stringify(headers)}`).toMatch(/^HTTP\/1\.1 40[03] /);
      }
    }
  });

  function exchange(port: number, bytes: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
      let answer = '';
      socket.setEncoding('latin1').on('data', (text) => {
        answer += text;
      });
      socket.on('close', () => resolve(answer)).on('error', reject);
    });
  }
});
