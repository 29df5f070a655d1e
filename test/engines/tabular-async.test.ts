// The tabular runner where onnxruntime-node keeps its synchronous session out of reach, as other versions may.
import { fileURLToPath } from 'node:url';
import { expect, test, vi } from 'vitest';
import type { Target } from '#core/endpoint.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { EngineContext } from '#engines/engine.ts';
import { openTabularRunner } from '#engines/onnx/tabular.ts';
import { describeEngine } from './contract.ts';

vi.mock('onnxruntime-node/dist/binding.js', () => ({}));

const CONTEXT: EngineContext = {
  log: SILENT_LOG,
  modelCacheDir: '/nowhere',
  resolveSecret: (reference) => reference,
  allowDownload: () => false,
  notify: () => {},
};
const TARGET: Target = {
  endpoint: 'penguins',
  servedEntity: 'penguins-1',
  model: 'penguins',
  fingerprint: 'f',
  engine: 'onnx',
  task: 'predict',
  modelVersion: {
    model: 'penguins',
    version: '1',
    engine: 'onnx',
    task: 'predict',
    source: fileURLToPath(new URL('../../examples/penguins/penguins.onnx', import.meta.url)),
    sha256: '',
    sizeBytes: 0,
    options: {},
    createdAtMs: 0,
  },
};

describeEngine('tabular onnx, asynchronous', {
  task: 'predict',
  open: () => openTabularRunner(TARGET, CONTEXT),
  inputs: [{ features: [39.1, 18.7, 181, 3750] }, { features: [50, 15.2, 218, 5700] }],
});

test('the runner has no local side and answers the same', async () => {
  const runner = await openTabularRunner(TARGET, CONTEXT);
  expect(runner.local).toBeUndefined();
  const inputs = [
    { features: [50, 15.2, 218, 5700] },
    { features: [39.1, 18.7, null, 3750] },
    { features: [1] },
  ];
  const signal = new AbortController().signal;
  const { items } = await runner.invoke({ task: 'predict', inputs, parameters: {}, signal });
  expect(items).toMatchObject([
    { ok: true, output: { prediction: 'Gentoo' } },
    { ok: true, output: { prediction: 'Adelie' } },
    { ok: false, error: { code: 'SCHEMA_MISMATCH' } },
  ]);
  await runner.close();
});
