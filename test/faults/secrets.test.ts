// Keys, tokens and prompts are looked for in every place they could have got to: each answer, each line of the log,
// each file of the data directory, each table.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import { rowsOf, Workplace } from '../app/support.ts';
import type { StubProvider } from '../stub/provider.ts';
import { bodyOf, fillPath, listRoutes, type Places } from './routes.ts';
import { type Answered, chatBody, type FaultServer, openFaultServer } from './support.ts';

const workplace = new Workplace();
// Not in the form of anybody's keys, so that nothing but knowing it takes it out.
const GIVEN_KEY = 'velvet.tortoise.umbrella.lantern';
const NEW_KEY = 'copper.walnut.orchid.harpoon';
const ENV_KEY = 'marble.thistle.ginger.compass';
const PROMPT = 'the prompt about quinces and periwinkles';
const KEYS = [GIVEN_KEY, NEW_KEY, ENV_KEY];

const answers: string[] = [];
let stub: StubProvider;
let server: FaultServer;
let directory: string;
let token: string;
let headers: Record<string, string>;

const ask = async (method: string, path: string, body?: unknown): Promise<Answered> => {
  const answered = await server.ask(method, path, body, headers);
  answers.push(`${method} ${path} ${JSON.stringify([...answered.headers])} ${answered.text}`);
  return answered;
};
const entity = (config: object) => ({
  external_model: {
    name: 'stub',
    provider: 'openai',
    task: 'llm/v1/chat',
    openai_config: { openai_api_base: stub.openaiUrl, ...config },
  },
});

beforeAll(async () => {
  stub = await workplace.stub({ apiKey: GIVEN_KEY });
  directory = workplace.directory();
  server = await openFaultServer(workplace, { dataDir: join(directory, 'data'), env: { MY_KEY: ENV_KEY } });
  ({ token } = await server.app.identity.createToken({ principal: 'root', isAdmin: true }, LOCAL_OWNER));
  headers = { authorization: `Bearer ${token}` };
  const create = async (name: string, config: object) => {
    const body = { name, config: { served_entities: [entity(config)] } };
    const created = await ask('POST', '/api/2.0/serving-endpoints', body);
    expect(created.status, created.text).toBe(200);
  };
  await create('given', { openai_api_key_plaintext: GIVEN_KEY });
  await create('env', { openai_api_key: '{{env/MY_KEY}}' });
  for (const stream of [false, true]) {
    const good = await ask('POST', '/v1/chat/completions', chatBody('given', PROMPT, { stream }));
    expect(good.status, good.text).toBe(200);
    // The provider refuses this key, and quotes it in full.
    const bad = await ask('POST', '/v1/chat/completions', chatBody('env', PROMPT, { stream }));
    expect(bad.status, bad.text).toBe(502);
  }
  stub.behave({ apiKey: 'another' });
  expect((await ask('POST', '/v1/chat/completions', chatBody('given', `${PROMPT} again`))).status).toBe(502);
  const changed = { served_entities: [entity({ openai_api_key_plaintext: NEW_KEY })] };
  expect((await ask('PUT', '/api/2.0/serving-endpoints/given/config', changed)).status).toBe(200);
  await ask('POST', '/v1/chat/completions', chatBody('given', `${PROMPT} anew`));
  // A key in the wrong place, a key that does not fit, a body that is broken behind a key.
  await ask('POST', '/api/2.0/serving-endpoints', {
    name: 'wrong',
    config: { served_entities: [entity({ openai_api_key: GIVEN_KEY })] },
  });
  await ask('POST', '/api/2.0/serving-endpoints', {
    name: 'wrong',
    config: { served_entities: [entity({ openai_api_key_plaintext: [GIVEN_KEY], unknown: NEW_KEY })] },
  });
  await ask('POST', '/api/2.0/serving-endpoints', `{"openai_api_key_plaintext": "${GIVEN_KEY}", `);
  await ask('GET', `/api/2.0/serving-endpoints?api_key=${GIVEN_KEY}`);
  const { id, servedEntities } = server.app.registry.getEndpoint('given');
  const places: Places = {
    ...{ name: 'given', id, entity: servedEntities[0]?.name ?? '', baseUrl: stub.openaiUrl },
    principal: 'root',
  };
  for (const route of await listRoutes(server, headers)) {
    if (/token\/create|DELETE/.test(`${route.method} ${route.path}`)) continue;
    await ask(route.method, fillPath(route.path, places), bodyOf(route, places));
  }
});
afterAll(() => workplace.clear());

function expectNone(secrets: readonly string[], places: Iterable<readonly [string, string | Buffer]>): void {
  let looked = 0;
  for (const [place, content] of places) {
    looked++;
    for (const secret of secrets) {
      const forms = [
        secret,
        Buffer.from(secret).toString('base64').replace(/=+$/, ''),
        encodeURIComponent(secret),
      ];
      expect(
        forms.some((form) => content.includes(form)),
        `${secret} in ${place.slice(0, 300)}`,
      ).toBe(false);
    }
  }
  expect(looked).toBeGreaterThan(0);
}

describe('a key of a provider, and a token', () => {
  it('reached the provider, so that there was something to find', () => {
    const seen = stub.requests.map((request) => request.headers.authorization);
    for (const key of KEYS) expect(seen).toContain(`Bearer ${key}`);
  });

  it('are in no answer of any route', () => {
    expect(answers.length).toBeGreaterThan(80);
    expectNone(
      [...KEYS, token],
      // What the caller wrote into the path is theirs.
      answers.map((text) => [text, text.replace(/\?api_key=\S+/, '')] as const),
    );
  });

  it('are in no line of the log, and neither are prompts', () => {
    expectNone(
      [...KEYS, token, 'quinces'],
      server.logged.map((line) => [line, line] as const),
    );
  });

  it('are in no table that SQL can read', async () => {
    const session = await server.app.openSession();
    const tables = await rowsOf(
      session,
      'SELECT table_catalog, table_schema, table_name FROM information_schema.tables',
    );
    expect(tables.length).toBeGreaterThan(5);
    const read: [string, string][] = [];
    for (const names of tables) {
      const name = names.map((part) => `"${String(part).replaceAll('"', '""')}"`).join('.');
      const rows = await rowsOf(session, `SELECT t::VARCHAR FROM ${name} t`).catch((error: Error) => error);
      read.push([name, JSON.stringify(rows)]);
    }
    await session.close();
    expectNone([...KEYS, token], read);
  });

  it('are in no file of the data directory, while it is open and after', async () => {
    const files = () =>
      readdirSync(join(directory, 'data'), { recursive: true, encoding: 'utf8' })
        .map((name) => join(directory, 'data', name))
        .filter((path) => statSync(path).isFile())
        .map((path) => [path, readFileSync(path)] as const);
    expectNone([...KEYS, token], files());
    await server.app.close();
    expectNone([...KEYS, token], files());
    // Other users of the machine cannot look into it, whatever stands in it.
    expect(statSync(join(directory, 'data')).mode & 0o077).toBe(0);
  });
});
