// Configurations that replace each other: a model of the state machine, and calls that go on through it.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import { type ErrorCode, ServingError } from '#core/errors.ts';
import { SILENT_LOG } from '#core/log.ts';
import { openRegistry, type Registry } from '#registry/registry.ts';
import type { RegistryChange, RegistryStore } from '#storage/registry-store.ts';

/** A store that keeps nothing; that changes reach the disk is tested elsewhere. */
class NoStore implements RegistryStore {
  readonly written: (readonly RegistryChange[])[] = [];
  loadAll = async () => [];
  put = async () => {};
  delete = async () => {};
  transact = async (changes: readonly RegistryChange[]) => void this.written.push(changes);
}

interface Loading {
  readonly model: string;
  readonly signal: AbortSignal;
  succeed(): void;
  fail(): void;
}

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'duckserve-deployments-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

async function openWorld() {
  const loadings: Loading[] = [];
  let held = 0;
  const registry = await openRegistry({
    store: new NoStore(),
    artifactsDir: join(directory, 'artifacts'),
    clock: SYSTEM_CLOCK,
    log: SILENT_LOG,
    inspectModel: async () => ({ engine: 'onnx', task: 'predict', options: {} }),
    prepareTargets: (targets, signal) =>
      new Promise((resolve, reject) => {
        let isOver = false;
        loadings.push({
          model: targets[0]?.model ?? '',
          signal,
          succeed: () => {
            if (!isOver) held++;
            isOver = true;
            resolve(() => void held--);
          },
          fail: () => {
            isOver = true;
            reject(new Error('cannot be loaded'));
          },
        });
      }),
  });
  const path = join(directory, 'm.onnx');
  writeFileSync(path, 'model');
  for (let version = 1; version <= 3; version++) {
    await registry.registerModel('m', path, { createsEndpoint: false });
  }
  return { registry, loadings, held: () => held };
}

const entity = (version: number) => ({
  name: `v${version}`,
  entityName: 'm',
  entityVersion: String(version),
});

/** What must be true of the endpoint; undefined where there is none. */
interface Model {
  active: number;
  configVersion: number;
  isReady: boolean;
  isStopped: boolean;
  update: 'NOT_UPDATING' | 'IN_PROGRESS' | 'UPDATE_FAILED' | 'UPDATE_CANCELED';
  /** Undefined while the active configuration itself is made ready. */
  pending: number | undefined;
}

const steps = fc.array(
  fc.oneof(
    fc.record({ type: fc.constant('create' as const), version: fc.integer({ min: 1, max: 3 }) }),
    fc.record({ type: fc.constant('update' as const), version: fc.integer({ min: 1, max: 3 }) }),
    fc.record({
      type: fc.constantFrom('succeed', 'fail', 'delete', 'stop', 'start', 'tag', 'stale' as const),
      version: fc.constant(0),
    }),
  ),
  { maxLength: 25 },
);

describe('the states of an endpoint', () => {
  it('are those of the model, whatever is done in whatever order', async () => {
    await fc.assert(
      fc.asyncProperty(steps, async (todo) => {
        const world = await openWorld();
        let model: Model | undefined;
        let current: Loading | undefined;
        const stale: Loading[] = [];
        const forget = () => {
          if (current) stale.push(current);
          current = undefined;
        };
        for (const { type, version } of todo) {
          const { code, expected, next } = predict(model, type, version);
          const before = world.loadings.length;
          if (type === 'succeed' || type === 'fail') current?.[type]();
          else if (type === 'stale') for (const old of stale) old.succeed();
          else expect(await codeOf(act(world.registry, type, version))).toBe(code);
          model = next;
          await settleTurns(world.registry);
          if (expected === 'begins') {
            forget();
            current = world.loadings[before];
          } else if (expected === 'ends') {
            if (type === 'succeed' || type === 'fail') current = undefined;
            else forget();
          }
          expect(world.loadings.length - before).toBe(expected === 'begins' ? 1 : 0);
          check(world.registry, model);
          for (const old of stale) expect(old.signal.aborted).toBe(true);
        }
        // Nothing that was loaded for a configuration is held for longer than until it serves.
        await settleTurns(world.registry);
        expect(world.held()).toBe(0);
      }),
      { numRuns: 60 },
    );
  });
});

interface Prediction {
  readonly code: ErrorCode | undefined;
  /** What becomes of loading: a new attempt begins, the one there is ends, or nothing changes. */
  readonly expected: 'begins' | 'ends' | 'nothing';
  readonly next: Model | undefined;
}

function predict(model: Model | undefined, type: string, version: number): Prediction {
  const same = (code?: ErrorCode): Prediction => ({ code, expected: 'nothing', next: model });
  const isBusy = model?.update === 'IN_PROGRESS';
  if (type === 'stale') return same();
  if (type === 'create') {
    if (model !== undefined) return same('ALREADY_EXISTS');
    const next: Model = {
      ...{ active: version, configVersion: 1, isReady: false, isStopped: false },
      ...{ update: 'IN_PROGRESS', pending: undefined },
    };
    return { code: undefined, expected: 'begins', next };
  }
  if (type === 'succeed' || type === 'fail') {
    if (!isBusy) return same();
    return { code: undefined, expected: 'ends', next: settled(model, type) };
  }
  if (model === undefined) return same('ENDPOINT_NOT_FOUND');
  if (type === 'tag') return same();
  if (type === 'delete') return { code: undefined, expected: isBusy ? 'ends' : 'nothing', next: undefined };
  if (type === 'stop') {
    const cancelled: Partial<Model> = isBusy ? { update: 'UPDATE_CANCELED' } : {};
    const next = { ...model, ...cancelled, isStopped: true, ...(isBusy ? { pending: undefined } : {}) };
    return { code: undefined, expected: isBusy ? 'ends' : 'nothing', next };
  }
  if (isBusy) return same('RESOURCE_CONFLICT');
  if (type === 'update') {
    // A stopped endpoint loads nothing: the configuration is taken at once.
    if (model.isStopped) {
      const configVersion = model.configVersion + 1;
      const next: Model = {
        ...model,
        active: version,
        configVersion,
        update: 'NOT_UPDATING',
        pending: undefined,
        isReady: true,
      };
      return { code: undefined, expected: 'nothing', next };
    }
    return {
      code: undefined,
      expected: 'begins',
      next: { ...model, update: 'IN_PROGRESS', pending: version },
    };
  }
  if (model.isReady && !model.isStopped) return same();
  const next: Model = {
    ...model,
    isReady: false,
    isStopped: false,
    update: 'IN_PROGRESS',
    pending: undefined,
  };
  return { code: undefined, expected: 'begins', next };
}

function settled(model: Model, type: 'succeed' | 'fail'): Model {
  if (type === 'fail') return { ...model, update: 'UPDATE_FAILED' };
  const ready = { ...model, isReady: true, update: 'NOT_UPDATING' as const, pending: undefined };
  if (model.pending === undefined) return ready;
  return { ...ready, active: model.pending, configVersion: model.configVersion + 1 };
}

async function act(registry: Registry, type: string, version: number): Promise<unknown> {
  if (type === 'create') {
    return await registry.createEndpoint({ name: 'e', servedEntities: [entity(version)] }, LOCAL_OWNER, {
      isLoaded: true,
    });
  }
  if (type === 'update')
    return await registry.updateEndpointConfig('e', { servedEntities: [entity(version)] });
  if (type === 'delete') return await registry.deleteEndpoint('e');
  if (type === 'stop') return await registry.stopEndpoint('e');
  if (type === 'start') return await registry.startEndpoint('e');
  return await registry.setTags('e', { add: [{ key: 'k', value: 'v' }] });
}

async function codeOf(attempt: Promise<unknown>): Promise<ErrorCode | undefined> {
  try {
    await attempt;
    return undefined;
  } catch (error) {
    if (error instanceof ServingError) return error.code;
    throw error;
  }
}

/** What was let go has happened: a change waits for all before it. */
async function settleTurns(registry: Registry): Promise<void> {
  await new Promise(setImmediate);
  await registry.setSetting('default_chat_endpoint', '');
  await new Promise(setImmediate);
}

function check(registry: Registry, model: Model | undefined): void {
  if (model === undefined) {
    expect(() => registry.getEndpoint('e')).toThrow(ServingError);
    return;
  }
  const endpoint = registry.getEndpoint('e');
  const state = registry.stateOf(endpoint);
  expect({
    active: endpoint.servedEntities[0]?.entityVersion,
    configVersion: endpoint.configVersion,
    isReady: state.isReady,
    isStopped: endpoint.isStopped === true,
    update: state.update,
    pending: state.pending?.servedEntities[0]?.entityVersion,
  }).toEqual({
    active: String(model.active),
    configVersion: model.configVersion,
    isReady: model.isReady && !model.isStopped,
    isStopped: model.isStopped,
    update: model.update,
    pending: model.pending === undefined ? undefined : String(model.pending),
  });
  // Whoever asks gets the active configuration, always.
  const { target } = registry.resolve('e');
  expect([target.modelVersion?.version, target.configVersion]).toEqual([
    String(model.active),
    model.configVersion,
  ]);
}
