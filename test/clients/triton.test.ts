// What Triton's HTTP client got from the server; the calls are in triton_calls.py.
import { describe, expect, it } from 'vitest';
import { runScript } from './stage.ts';

describe('tritonclient[http] (Python)', () => {
  const said = runScript('triton_calls.py');

  it('is_server_live: and is_server_ready', (test) => {
    expect(said(test)).toEqual([true, true]);
  });

  it('get_server_metadata: the name', (test) => {
    expect(said(test)).toBe('duckserve');
  });

  it('is_model_ready: true for a model, false for none', (test) => {
    expect(said(test)).toEqual([true, false]);
  });

  it('get_model_metadata: the inputs of the signature', (test) => {
    const inputs = ['bill_length_mm', 'bill_depth_mm', 'flipper_length_mm', 'body_mass_g'];
    expect(said(test)).toEqual(['penguins', inputs]);
  });

  it('infer: two rows as one tensor in bytes', (test) => {
    expect(said(test)).toEqual(['Adelie', 'Adelie']);
  });

  it('infer(columns): a tensor for each column', (test) => {
    expect(said(test)).toEqual(['Adelie']);
  });

  it('infer(binary_data=False): two rows as one tensor in JSON', (test) => {
    expect(said(test)).toEqual(['Adelie', 'Adelie']);
  });

  it('infer(embeddings): vectors of an embedded model and of the provider', (test) => {
    expect(said(test)).toEqual([
      ['float32', [2, 256], true],
      ['float32', [2, 64], true],
    ]);
  });

  it('InferenceServerException: 401 for a wrong token, 404 for no model', (test) => {
    expect(said(test)).toEqual(['401', '404']);
  });
});
