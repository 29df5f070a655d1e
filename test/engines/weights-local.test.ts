// Weights without a download: the catalogue, what is present, and what may be imported from a local folder.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MINILM_ID, MINILM_SHA256, STATIC_256_ID, TINYLLAMA_ID } from '#core/embedded-models.ts';
import { WEIGHTS, weightsOf } from '#engines/weights/catalogue.ts';
import { hubOf } from '#engines/weights/hub.ts';
import { importWeights, isPresent, weightsDirectory } from '#engines/weights/weights.ts';
import { expectCode } from './contract.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'duckserve-weights-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

describe('the catalogue', () => {
  test('has sizes, hashes and licences for all weights', () => {
    for (const weights of WEIGHTS) {
      expect(weightsOf(weights.id)).toBe(weights);
      expect(weights.licence).toBe('Apache-2.0');
      for (const { forms } of weights.files) {
        for (const { bytes, sha256: hash } of forms) {
          expect(bytes).toBeGreaterThan(1000);
          expect(hash).toMatch(/^[0-9a-f]{64}$/);
        }
      }
    }
  });

  test('names what it knows when asked for something else', () => {
    expect(() => weightsOf('embedded/unheard-of')).toThrow(/Known are: embedded\/all-minilm-l6-v2/);
  });

  test('names a hub only when the environment does', () => {
    expect(hubOf({})).toBeUndefined();
    expect(hubOf({ HF_ENDPOINT: 'http://a/', DUCKSERVE_HUB: 'http://b' })?.url).toBe('http://b');
  });
});

describe('weights on this machine', () => {
  test('are absent in an empty cache; the carried ones are always there', () => {
    expect(isPresent(MINILM_ID, directory)).toBe(false);
    expect(isPresent(TINYLLAMA_ID, directory)).toBe(false);
    expect(isPresent(STATIC_256_ID, directory)).toBe(true);
    expect(weightsDirectory(MINILM_ID, directory)).toBe(join(directory, 'embedded', 'all-minilm-l6-v2'));
  });

  test('are not imported from where they are not, or are not genuine', async () => {
    await expectCode('NOT_FOUND', importWeights(MINILM_ID, join(directory, 'none'), directory));
    const error = await expectCode('MODEL_NOT_AVAILABLE', importWeights(MINILM_ID, directory, directory));
    expect(error.message).toContain('onnx');
    await writeFile(join(directory, 'model_quantized.onnx'), Buffer.alloc(22_972_370));
    const wrong = await expectCode('MODEL_NOT_AVAILABLE', importWeights(MINILM_ID, directory, directory));
    expect(wrong.message).toContain(`expected is ${MINILM_SHA256}`);
    expect(isPresent(MINILM_ID, directory)).toBe(false);
  });
});
