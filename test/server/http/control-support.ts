// The whole control plane without the rest: a real registry on a real database, real secrets, real identity, and the
// door's app; loading of models is what the test says.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Principal } from '#core/call.ts';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import type { ModelInspection, Target } from '#core/endpoint.ts';
import { SILENT_LOG } from '#core/log.ts';
import { Identity } from '#governance/identity/identity.ts';
import { openRegistry, type Registry } from '#registry/registry.ts';
import { type Database, openDatabase } from '#storage/database.ts';
import { DuckDbRegistryStore } from '#storage/registry-store.ts';
import { openSecretStore, type SecretStore } from '#storage/secret-store.ts';
import { createPrepare } from '../../../src/app-prepare.ts';
import { createHttpApp } from '../../../src/server/http/app.ts';
import { createFakeDeps, type FakeDeps } from './fake-deps.ts';

export interface Control {
  readonly directory: string;
  readonly database: Database;
  readonly registry: Registry;
  readonly secrets: SecretStore;
  readonly identity: Identity;
  readonly deps: FakeDeps;
  /** Everything that was logged and answered, for searches after secrets. */
  readonly said: string[];
  /** Replace to make models slow or broken. */
  load: (targets: readonly Target[]) => Promise<() => void>;
  ask(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Asked>;
  close(): Promise<void>;
}
export interface Asked {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into JSON of many shapes
  readonly body: any;
}

export const BASE = '/api/2.0/serving-endpoints';

const inspectModel = async (path: string): Promise<ModelInspection> => ({
  engine: 'onnx',
  task: path.includes('embed') ? 'llm/v1/embeddings' : 'predict',
  options: {},
  ...(path.includes('plain')
    ? {}
    : {
        signature: {
          inputs: [
            { name: 'length', type: 'double', required: true },
            { name: 'count', type: 'long', required: false },
          ],
          outputs: [{ name: 'label', type: 'string', required: true }],
        },
      }),
});

export async function openControl(options: { readonly tokens?: readonly string[] } = {}): Promise<Control> {
  const directory = mkdtempSync(join(tmpdir(), 'duckserve-control-'));
  const database = await openDatabase({
    systemPath: join(directory, 'system.duckdb'),
    userPath: ':memory:',
    log: SILENT_LOG,
  });
  const store = new DuckDbRegistryStore(database.system);
  const env = { SET: 'value-of-the-environment', DUCKSERVE_TOKENS: options.tokens?.join(',') };
  const secrets = await openSecretStore({ store, dataDir: directory, env, clock: SYSTEM_CLOCK });
  const registry = await openRegistry({
    ...{ store, secrets, inspectModel, clock: SYSTEM_CLOCK, log: SILENT_LOG },
    artifactsDir: join(directory, 'artifacts'),
    prepareTargets: createPrepare({
      resolveSecret: (reference) => secrets.resolve(reference),
      load: (targets) => control.load(targets),
    }),
  });
  const identity = new Identity({ store, clock: SYSTEM_CLOCK, env });
  const said: string[] = [];
  const fake = createFakeDeps();
  const log = (fields: object, message: string) => void said.push(`${message} ${JSON.stringify(fields)}`);
  const deps: FakeDeps = {
    ...fake,
    registry,
    identity,
    log: { ...SILENT_LOG, info: log, warn: log, error: log },
  };
  const app = createHttpApp(deps);
  const control: Control = {
    ...{ directory, database, registry, secrets, identity, deps, said },
    load: async () => () => {},
    async ask(method, path, body, headers = {}) {
      const response = await app.request(path, {
        method,
        headers: { host: 'localhost', ...headers },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await response.text();
      said.push(text);
      const isJson = response.headers.get('content-type')?.includes('json') === true;
      return { status: response.status, body: isJson ? JSON.parse(text) : text };
    },
    async close() {
      await database.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
  return control;
}

/** Registers a model without an endpoint of its own. */
export async function registerModel(control: Control, name: string, file = 'model.onnx'): Promise<void> {
  const path = join(control.directory, file);
  writeFileSync(path, `${name} ${Math.random()}`);
  await control.registry.registerModel(name, path, { createsEndpoint: false });
}

export function external(model: object = {}): object {
  return { name: 'gpt-4o-mini', provider: 'openai', task: 'llm/v1/chat', ...model };
}

export function endpointOf(name: string, ...models: readonly object[]): Record<string, unknown> {
  return { name, config: { served_entities: models.map((model) => ({ external_model: model })) } };
}

export async function tokenOf(
  control: Control,
  principal: string,
  by: Principal,
): Promise<Record<string, string>> {
  const { token } = await control.identity.createToken({ principal }, by);
  return { authorization: `Bearer ${token}` };
}
