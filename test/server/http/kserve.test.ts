// The Open Inference Protocol over a custom model and an embedding endpoint: tensors in, tensors out, clear refusals.
import { beforeEach, describe, expect, it } from 'vitest';
import type { Signature } from '#core/endpoint.ts';
import type { Json } from '#core/json.ts';
import { createHttpApp } from '../../../src/server/http/app.ts';
import { createFakeDeps, type FakeDeps } from './fake-deps.ts';

const SIGNATURE: Signature = {
  inputs: [
    { name: 'length', type: 'double', required: true },
    { name: 'kind', type: 'string', required: true },
  ],
  outputs: [
    { name: 'species', type: 'string', required: true },
    { name: 'score', type: 'float', required: true },
  ],
};

let deps: FakeDeps;
let app: ReturnType<typeof createHttpApp>;
let signature: Signature | undefined;
beforeEach(() => {
  deps = createFakeDeps();
  signature = SIGNATURE;
  app = createHttpApp({
    ...deps,
    serving: {
      ...deps.serving,
      describe: (endpoint, task = 'predict') => ({
        target: { endpoint, servedEntity: 's', engine: 'onnx', task, fingerprint: 'f', model: 'm' },
        ...(signature && { signature }),
      }),
    },
  });
});

const answerWith = (predictions: readonly Json[]) => {
  deps.answer = async () => ({
    items: predictions.map((prediction) => ({
      ok: true,
      output: { prediction },
      usage: { inputTokens: 0, outputTokens: 0 },
      cached: false,
    })),
    usage: { inputTokens: 0, outputTokens: 0 },
    cost: null,
    servedEntity: 'iris-1',
    model: 'm',
  });
};
const get = async (path: string) => {
  const response = await app.request(path);
  return { status: response.status, body: await response.json() };
};
const infer = async (body: unknown, path = '/v2/models/iris/infer', headers: Record<string, string> = {}) => {
  const response = await app.request(path, { method: 'POST', body: JSON.stringify(body), headers });
  return { status: response.status, body: (await response.json()) as Record<string, unknown>, response };
};
const tensor = (name: string, datatype: string, shape: readonly number[], data: readonly unknown[]) => ({
  name,
  datatype,
  shape,
  data,
});

describe('GET /v2', () => {
  it('describes the server and tells that it lives and is ready', async () => {
    expect((await get('/v2')).body).toEqual({
      name: 'duckserve',
      version: '9.9.9',
      extensions: ['binary_tensor_data'],
    });
    expect((await get('/v2/health/live')).body).toEqual({ live: true });
    expect((await get('/v2/health/ready')).body).toEqual({ ready: true });
  });

  it('describes a model by its signature, under its versions, too', async () => {
    const expected = {
      name: 'iris',
      versions: ['1'],
      platform: 'duckserve_onnx',
      inputs: [
        { name: 'length', datatype: 'FP64', shape: [-1] },
        { name: 'kind', datatype: 'BYTES', shape: [-1] },
      ],
      outputs: [
        { name: 'species', datatype: 'BYTES', shape: [-1] },
        { name: 'score', datatype: 'FP32', shape: [-1] },
      ],
    };
    expect((await get('/v2/models/iris')).body).toEqual(expected);
    expect((await get('/v2/models/iris/versions/1')).body).toEqual(expected);
    expect((await get('/v2/models/iris/ready')).body).toEqual({ name: 'iris', ready: true });
    expect((await get('/v2/models/vectors')).body).toMatchObject({
      inputs: [{ datatype: 'BYTES' }],
      outputs: [{ name: 'embedding', datatype: 'FP32', shape: [-1, -1] }],
    });
  });

  it('says in its own shape of error what is not there', async () => {
    expect(await get('/v2/models/none')).toMatchObject({
      status: 404,
      body: { error: expect.stringContaining("'none'") },
    });
    expect(await get('/v2/models/iris/versions/9')).toMatchObject({
      status: 404,
      body: { error: "Endpoint 'iris' has no version '9'. It has: 1." },
    });
  });
});

describe('POST /v2/models/{name}/infer', () => {
  it('turns tensors into rows and answers into tensors of the types of the signature', async () => {
    answerWith([
      { species: 'setosa', score: 0.5 },
      { species: 'virginica', score: 0.25 },
    ]);
    const { body, response } = await infer({
      id: '42',
      inputs: [tensor('length', 'FP32', [2, 1], [[1.5], [2]]), tensor('kind', 'BYTES', [2], ['a', 'b'])],
    });
    expect(body).toEqual({
      model_name: 'iris',
      model_version: '1',
      id: '42',
      outputs: [
        { name: 'species', datatype: 'BYTES', shape: [2], data: ['setosa', 'virginica'] },
        { name: 'score', datatype: 'FP32', shape: [2], data: [0.5, 0.25] },
      ],
    });
    expect(response.headers.get('served-model-name')).toBe('iris-1');
    expect(deps.calls[0]).toMatchObject({
      task: 'predict',
      inputs: [{ features: { length: 1.5, kind: 'a' } }, { features: { length: 2, kind: 'b' } }],
      client: { apiType: 'kserve/v2/infer' },
    });
  });

  it('takes one tensor of another name as rows by position, flat or nested', async () => {
    answerWith(['x', 'y']);
    for (const data of [
      [1, 2, 3, 4],
      [
        [1, 2],
        [3, 4],
      ],
    ]) {
      await infer({ inputs: [tensor('input-0', 'FP64', [2, 2], data)] });
      expect(deps.calls.at(-1)?.inputs).toEqual([{ features: [1, 2] }, { features: [3, 4] }]);
    }
  });

  it('gives lists as a second dimension, and guesses types where no signature tells them', async () => {
    signature = undefined;
    answerWith([
      { probabilities: [0.1, 0.9], label: true },
      { probabilities: [0.5, 0.5], label: false },
    ]);
    const { body } = await infer({ inputs: [tensor('a', 'INT64', [2], [1, 2])] });
    expect(body.outputs).toEqual([
      { name: 'probabilities', datatype: 'FP64', shape: [2, 2], data: [0.1, 0.9, 0.5, 0.5] },
      { name: 'label', datatype: 'BOOL', shape: [2], data: [true, false] },
    ]);
  });

  it('gives only the outputs that are asked for, and names those there are', async () => {
    answerWith([{ species: 'setosa', score: 0.5 }]);
    const inputs = [tensor('kind', 'BYTES', [1], ['a'])];
    expect((await infer({ inputs, outputs: [{ name: 'score' }] })).body.outputs).toMatchObject([
      { name: 'score' },
    ]);
    expect(await infer({ inputs, outputs: [{ name: 'colour' }] })).toMatchObject({
      status: 400,
      body: { error: 'There is no output "colour". There are: species, score.' },
    });
  });

  it('asks the version that is named', async () => {
    answerWith(['x']);
    await infer({ inputs: [tensor('kind', 'BYTES', [1], ['a'])] }, '/v2/models/iris/versions/1/infer');
    expect(deps.calls[0]?.servedEntity).toBe('iris-1');
  });

  it('answers no rows with empty tensors and asks nobody', async () => {
    const { body } = await infer({ inputs: [tensor('kind', 'BYTES', [0], [])] });
    expect(body.outputs).toMatchObject([
      { name: 'species', shape: [0], data: [] },
      { name: 'score', shape: [0], data: [] },
    ]);
    expect(deps.calls).toHaveLength(0);
  });

  it('embeds texts', async () => {
    const { body } = await infer(
      { inputs: [tensor('text', 'BYTES', [2, 1], ['a', 'four'])] },
      '/v2/models/vectors/infer',
    );
    expect(body.outputs).toEqual([
      { name: 'embedding', datatype: 'FP32', shape: [2, 3], data: [1, 0.5, -1.25, 4, 0.5, -1.25] },
    ]);
  });

  it.each([
    [[tensor('a', 'FLOAT', [1], [1])], 'the datatype is "FLOAT"; it is one of BOOL'],
    [[tensor('a', 'FP32', [], [1])], 'the shape is []'],
    [[tensor('a', 'FP32', [2], [1])], 'the shape [2] holds 2 values, and data has 1'],
    [[tensor('a', 'FP32', [4294967296, 0], [])], 'leaves no value in a row'],
    [[tensor('a', 'FP32', [1], ['1'])], 'value 0 is "1", and FP32 takes a number'],
    [[tensor('a', 'BOOL', [1], [1])], 'BOOL takes true or false'],
    [[tensor('a', 'UINT8', [2], [1, 256])], 'value 1 is 256, and UINT8 takes a whole number from 0 to 255'],
    [[tensor('a', 'INT8', [1], [-129])], 'INT8 takes a whole number from -128 to 127'],
    [[tensor('a', 'INT64', [1], [2 ** 53])], 'INT64 takes a whole number'],
    [[tensor('a', 'BYTES', [1], [1])], 'BYTES takes a text'],
    [[tensor('a', 'FP32', [1], [1]), tensor('b', 'FP32', [2], [1, 2])], 'Input "b" has 2 rows and "a" has 1'],
    [
      [{ ...tensor('a', 'FP32', [1], [1]), parameters: { binary_data_size: 4 } }],
      '0 bytes are left behind the JSON',
    ],
    [[{ name: 'a', datatype: 'FP32', shape: [1] }], 'it has no data'],
    [[], "'inputs': "],
  ])('refuses %j with the reason', async (inputs, message) => {
    const { status, body } = await infer({ inputs });
    expect(status).toBe(400);
    expect(body.error).toContain(message);
    expect(deps.calls).toHaveLength(0);
  });

  it('refuses language models with the way out', async () => {
    const body = { inputs: [tensor('a', 'BYTES', [1], ['x'])] };
    expect(await infer(body, '/v2/models/chat/infer')).toMatchObject({
      status: 400,
      body: { error: expect.stringContaining('/v1/chat/completions') },
    });
  });
});

describe('tensors as bytes behind the JSON', () => {
  const LENGTH = 'inference-header-content-length';
  const send = (json: object, bytes: Uint8Array, length?: string) => {
    const head = Buffer.from(JSON.stringify(json));
    return app.request('/v2/models/iris/infer', {
      method: 'POST',
      body: new Uint8Array(Buffer.concat([head, bytes])),
      headers: { [LENGTH]: length ?? String(head.length), 'content-type': 'application/octet-stream' },
    });
  };
  const text = (value: string) => {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(Buffer.byteLength(value));
    return Buffer.concat([length, Buffer.from(value)]);
  };
  const binary = (name: string, datatype: string, shape: readonly number[], size: number) => ({
    name,
    datatype,
    shape,
    parameters: { binary_data_size: size },
  });

  it('are read, and outputs given in the same way where that was asked for', async () => {
    answerWith([
      { species: 'setosa', score: 0.5 },
      { species: 'ä', score: 0.25 },
    ]);
    const kinds = Buffer.concat([text('a'), text('bc')]);
    const json = {
      inputs: [binary('length', 'FP64', [2], 16), binary('kind', 'BYTES', [2], kinds.length)],
      parameters: { binary_data_output: true },
    };
    const response = await send(
      json,
      Buffer.concat([new Uint8Array(new Float64Array([1.5, -2]).buffer), kinds]),
    );
    expect(deps.calls[0]).toMatchObject({
      inputs: [{ features: { length: 1.5, kind: 'a' } }, { features: { length: -2, kind: 'bc' } }],
      parameters: {},
    });
    expect(response.headers.get('content-type')).toBe('application/octet-stream');
    const bytes = Buffer.from(await response.arrayBuffer());
    const headLength = Number(response.headers.get(LENGTH));
    const species = Buffer.concat([text('setosa'), text('ä')]);
    expect(JSON.parse(bytes.subarray(0, headLength).toString())).toMatchObject({
      outputs: [binary('species', 'BYTES', [2], species.length), binary('score', 'FP32', [2], 8)],
    });
    const rest = bytes.subarray(headLength);
    expect(rest.subarray(0, species.length)).toEqual(species);
    expect([rest.readFloatLE(species.length), rest.readFloatLE(species.length + 4)]).toEqual([0.5, 0.25]);
  });

  it('may be asked for one output alone', async () => {
    answerWith([{ species: 'setosa', score: 0.5 }]);
    const outputs = [{ name: 'species' }, { name: 'score', parameters: { binary_data: true } }];
    const inputs = [tensor('kind', 'BYTES', [1], ['a'])];
    const response = await app.request('/v2/models/iris/infer', {
      method: 'POST',
      body: JSON.stringify({ inputs, outputs }),
    });
    const bytes = Buffer.from(await response.arrayBuffer());
    const head = bytes.subarray(0, Number(response.headers.get(LENGTH))).toString();
    expect(JSON.parse(head)).toMatchObject({
      outputs: [{ name: 'species', data: ['setosa'] }, binary('score', 'FP32', [1], 4)],
    });
  });

  it.each([
    ['BOOL', Uint8Array.of(1, 0), [true, false]],
    ['INT8', Uint8Array.of(255, 127), [-1, 127]],
    ['INT16', new Int16Array([-300, 300]), [-300, 300]],
    ['INT32', new Int32Array([-70_000, 7]), [-70_000, 7]],
    ['INT64', new BigInt64Array([-5n, 9_007_199_254_740_991n]), [-5, 9_007_199_254_740_991]],
    ['UINT8', Uint8Array.of(0, 255), [0, 255]],
    ['UINT16', new Uint16Array([1, 65_535]), [1, 65_535]],
    ['UINT32', new Uint32Array([1, 4_294_967_295]), [1, 4_294_967_295]],
    ['UINT64', new BigUint64Array([0n, 12n]), [0, 12]],
    ['FP16', new Uint16Array([0x3c00, 0xc100]), [1, -2.5]],
    ['FP32', new Float32Array([0.5, -1.25]), [0.5, -1.25]],
  ])('%s has its values', async (datatype, values, expected) => {
    answerWith(['x', 'y']);
    const bytes = new Uint8Array(values.buffer);
    await send({ inputs: [binary('length', datatype, [2], bytes.length)] }, bytes);
    expect(deps.calls[0]?.inputs).toEqual(expected.map((length) => ({ features: { length } })));
  });

  it.each([
    [[binary('a', 'FP32', [1], 8)], Buffer.alloc(4), undefined, '4 bytes are left behind the JSON'],
    [[binary('a', 'FP32', [1], 3)], Buffer.alloc(3), undefined, '3 bytes are no whole number of FP32 values'],
    [[binary('a', 'FP32', [1], 4)], Buffer.alloc(5), undefined, '1 bytes behind the JSON belong to no input'],
    [[binary('a', 'FP32', [2], 4)], Buffer.alloc(4), undefined, 'holds 2 values, and data has 1'],
    [[binary('a', 'FP32', [1], -4)], Buffer.alloc(4), undefined, 'binary_data_size is -4'],
    [[binary('a', 'BYTES', [1], 5)], Buffer.from([9, 0, 0, 0, 65]), undefined, 'text 0 runs past the end'],
    [[binary('a', 'BYTES', [1], 5)], Buffer.from([1, 0, 0, 0, 255]), undefined, 'text 0 is not UTF-8'],
    [[binary('a', 'INT64', [1], 8)], Buffer.alloc(8, 127), undefined, 'INT64 takes a whole number'],
    [[binary('a', 'BF16', [1], 2)], Buffer.alloc(2), undefined, 'the datatype is "BF16"'],
    [[binary('a', 'FP32', [1], 4)], Buffer.alloc(4), '99999', 'it is the length of the JSON'],
    [[binary('a', 'FP32', [1], 4)], Buffer.alloc(4), 'x', 'it is the length of the JSON'],
  ])('%j are refused where they do not fit', async (inputs, bytes, length, message) => {
    const response = await send({ inputs }, bytes, length);
    expect(response.status).toBe(400);
    expect(((await response.json()) as { error: string }).error).toContain(message);
    expect(deps.calls).toHaveLength(0);
  });
});
