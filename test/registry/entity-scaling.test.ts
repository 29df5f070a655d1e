import { describe, expect, it } from 'vitest';
import type { ModelVersion } from '#core/endpoint.ts';
import type { JsonObject } from '#core/json.ts';
import { scalingOf } from '#registry/entity-scaling.ts';

const python: Pick<ModelVersion, 'engine' | 'options'> = { engine: 'python', options: {} };
const agent = { ...python, options: { agent: 'responses' } };
const of = (settings: JsonObject, version = python, cores = 128) =>
  scalingOf({ name: 'e', settings }, version, cores);

describe('sizes of Databricks', () => {
  it('are replicas that take as many requests at once', () => {
    expect(of({ workload_size: 'Small' })).toEqual({ minReplicas: 4, maxReplicas: 4 });
    expect(of({ workload_size: 'Medium' })).toEqual({ minReplicas: 8, maxReplicas: 16 });
    expect(of({ workload_size: 'Large' })).toEqual({ minReplicas: 16, maxReplicas: 64 });
    expect(of({ workload_size: 'Large' }, agent)).toEqual({ minReplicas: 2, maxReplicas: 8 });
    expect(of({ min_provisioned_concurrency: 4, max_provisioned_concurrency: 10 })).toEqual({
      ...{ minReplicas: 4, maxReplicas: 10 },
    });
    const safe = { ...python, options: { maxConcurrency: 4 } };
    expect(of({ workload_size: 'Medium' }, safe)).toEqual({ minReplicas: 2, maxReplicas: 4 });
  });

  it('come to no more replicas than there are cores, and to none at least where zero is allowed', () => {
    expect(of({ workload_size: 'Large' }, python, 2)).toEqual({ minReplicas: 2, maxReplicas: 2 });
    expect(of({ workload_size: 'Medium', scale_to_zero_enabled: true })).toEqual({
      ...{ minReplicas: 0, maxReplicas: 16 },
    });
    expect(of({ min_provisioned_concurrency: 0, max_provisioned_concurrency: 4 })).toMatchObject({
      minReplicas: 0,
    });
  });

  it('mean nothing for models in this process, but for going to zero', () => {
    const onnx: typeof python = { engine: 'onnx', options: {} };
    expect(of({ workload_size: 'Large' }, onnx)).toBeUndefined();
    expect(of({ workload_size: 'Large', scale_to_zero_enabled: true }, onnx)).toEqual({ minReplicas: 0 });
    expect(of({ scale_to_zero_enabled: false }, onnx)).toBeUndefined();
  });

  it('give way to what is said in our words', () => {
    const settings = { workload_size: 'Medium', scale_to_zero_enabled: true };
    const scaling = { minReplicas: 1, maxReplicas: 3, targetConcurrency: 1 };
    expect(scalingOf({ name: 'e', settings, scaling }, agent, 128)).toEqual(scaling);
    const more = { settings: { workload_size: 'Small' }, scaling: { minReplicas: 9 } };
    expect(scalingOf({ name: 'e', ...more }, python, 128)).toEqual({ minReplicas: 9, maxReplicas: 9 });
    expect(
      scalingOf({ name: 'e', settings: { workload_size: 'Large' }, scaling: { maxReplicas: 2 } }, python),
    ).toEqual({ minReplicas: 2, maxReplicas: 2 });
  });
});
