// Tensors that JavaScript has no array for, and outputs that the runtime cannot hand over: each is read all the same.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { fromHalf, toHalf } from '#engines/onnx/half.ts';
import { inspectTabularModel } from '#engines/onnx/tabular.ts';
import { expectCode } from './contract.ts';
import { maps, node, tensor, writeClassifier, writeIdentity, writeModel } from './tabular-models.ts';
import { columnOf, invoke, predict, useModels } from './tabular-runner.ts';

const { place, open } = useModels();

describe('maps of probabilities', () => {
  test('are objects by label, in rows and in columns', async () => {
    const path = await writeClassifier(await place(), { isZipMap: true });
    const { signature } = await inspectTabularModel(path);
    expect(signature.outputs).toEqual([
      { name: 'label', type: 'long', required: true },
      {
        name: 'output_probability',
        type: 'json',
        required: true,
        spec: { type: 'map', values: { type: 'float' } },
      },
    ]);
    const runner = await open(path, { signature });
    const expected = { '0': expect.closeTo(0.982, 3), '1': expect.closeTo(0.018, 3) };
    expect(await invoke(runner, [[3, 1]])).toEqual([{ label: 0, output_probability: expected }]);
    const columns = [columnOf(null, new Float64Array([3, 1])), columnOf(null, new Float64Array([1, 3]))];
    const { label, output_probability: probabilities } = predict(runner, columns, 2);
    expect(label).toEqual([0, 1]);
    expect(probabilities?.[0]).toEqual(expected);
  });

  test('with labels of text, made of a tensor that is an output too, and handed on by Identity', async () => {
    const labels = { classlabels_strings: ['ham', '__proto__'] };
    const path = await writeModel(await place(), {
      inputs: [tensor('x', 'float', ['N', 2])],
      outputs: [tensor('raw', 'float', ['N', 2]), maps('named', 'string'), maps('again', 'string')],
      nodes: [
        node('Identity', ['x'], ['raw']),
        node('ZipMap', ['raw'], ['named'], labels, 'ai.onnx.ml'),
        node('Identity', ['named'], ['again']),
      ],
    });
    const [prediction] = await invoke(await open(path), [[0.25, 0.75]]);
    const map = '{"ham":0.25,"__proto__":0.75}';
    expect(JSON.stringify(prediction)).toBe(`{"raw":[0.25,0.75],"named":${map},"again":${map}}`);
  });

  test('with fewer labels than numbers fail the row instead of guessing', async () => {
    const path = await writeModel(await place(), {
      inputs: [tensor('x', 'float', ['N', 2])],
      outputs: [maps('named')],
      nodes: [node('ZipMap', ['x'], ['named'], { classlabels_int64s: [7] }, 'ai.onnx.ml')],
    });
    const [answer] = await invoke(await open(path), [[1, 2]]);
    expect(answer).toMatchObject({
      code: 'INVALID_RESPONSE',
      message: expect.stringContaining('2 values a row for its 1 labels'),
    });
  });
});

describe('element types', () => {
  test.each([
    ['int8', -128, 127, 128],
    ['int16', -32_768, 32_767, 32_768],
    ['int32', -2_147_483_648, 2_147_483_647, 2_147_483_648],
    ['uint8', 0, 255, -1],
    ['uint16', 0, 65_535, 65_536],
    ['uint32', 0, 4_294_967_295, -1],
    ['int64', -9_007_199_254_740_991, 9_007_199_254_740_991, 0.5],
    ['uint64', 0, 9_007_199_254_740_991, -1],
  ] as const)('%s takes its least and its most value and no other', async (type, least, most, wrong) => {
    const runner = await open(await writeIdentity(await place(), type, ['N']));
    const [first, second, third] = await invoke(runner, [[least], [most], [wrong]]);
    expect([first, second]).toEqual([least, most]);
    expect(third).toMatchObject({
      code: 'SCHEMA_MISMATCH',
      message: expect.stringContaining(`"x" is ${wrong}`),
    });
    expect(predict(runner, [columnOf('x', new Float64Array([least, most]))], 2)).toEqual({
      y: [least, most],
    });
  });

  test('int64 takes digits beyond 2^53 as text, and refuses them as a number', async () => {
    const runner = await open(await writeIdentity(await place(), 'int64', ['N']));
    const [text, number] = await invoke(runner, [['9007199254740992'], [9_007_199_254_740_992]]);
    expect(text).toBe(9_007_199_254_740_992);
    expect(number).toMatchObject({
      code: 'SCHEMA_MISMATCH',
      message: expect.stringContaining('text of digits'),
    });
  });

  test('float16 comes and goes as numbers, rounded to its steps', async () => {
    const runner = await open(await writeIdentity(await place(), 'float16', ['N', 4]));
    expect(await invoke(runner, [[1, -0.5, 2_049, 1e-7]])).toEqual([[1, -0.5, 2_048, 2 * 2 ** -24]]);
  });

  test('bfloat16 is cast at the border, with the same names', async () => {
    const path = await writeModel(await place(), {
      inputs: [tensor('x', 'bfloat16', ['N', 2]), tensor('z', 'float', ['N'])],
      outputs: [tensor('y', 'bfloat16', ['N', 2]), tensor('w', 'float', ['N'])],
      nodes: [node('Identity', ['x'], ['y']), node('Identity', ['z'], ['w'])],
    });
    const { signature } = await inspectTabularModel(path);
    expect(signature.inputs.map(({ name }) => name)).toEqual(['x_0', 'x_1', 'z']);
    const runner = await open(path);
    expect(await invoke(runner, [{ x: [1.5, 2.71], z: 2.71 }])).toEqual([
      { y: [1.5, 2.703125], w: expect.closeTo(2.71, 5) },
    ]);
  });

  test('lists of texts and of truth values come out as such', async () => {
    const texts = await open(await writeIdentity(await place(), 'string', ['N', 2]));
    expect(await invoke(texts, [['a', 'ü'], { x: ['', 'b'] }])).toEqual([
      ['a', 'ü'],
      ['', 'b'],
    ]);
    const truths = await open(await writeIdentity(await place(), 'bool', ['N', 2]));
    expect(await invoke(truths, [[true, false]])).toEqual([[true, false]]);
  });

  test('complex numbers are refused when the model is looked at', async () => {
    const path = await place();
    const info = tensor('x', 'float', ['N']);
    const complex = { ...info, type: { tensorType: { ...info.type?.tensorType, elemType: 14 } } };
    await writeModel(path, {
      inputs: [complex],
      outputs: [{ ...complex, name: 'y' }],
      nodes: [node('Identity', ['x'], ['y'])],
    });
    await expectCode('MODEL_NOT_AVAILABLE', inspectTabularModel(path));
  });
});

describe('numbers of 16 bits', () => {
  test('each of them survives the way to a number and back', () => {
    const all = Uint16Array.from({ length: 65_536 }, (_, bits) => bits);
    const back = toHalf(fromHalf(all));
    const isNaN16 = (bits: number) => (bits & 0x7fff) > 0x7c00;
    const changed = [...all].filter((bits) => !isNaN16(bits) && back[bits] !== bits);
    expect(changed).toEqual([]);
    expect([...all].filter(isNaN16).every((bits) => isNaN16(back[bits] ?? 0))).toBe(true);
  });

  test('every number becomes the nearest of them', () => {
    const finite = fromHalf(Uint16Array.from({ length: 0x7c00 }, (_, bits) => bits));
    fc.assert(
      fc.property(fc.float({ min: 0, max: Math.fround(65_519), noNaN: true }), (number) => {
        const [half = 0] = toHalf(new Float32Array([number]));
        const away = (bits: number) => Math.abs((finite[bits] ?? Number.POSITIVE_INFINITY) - number);
        expect(away(half)).toBeLessThanOrEqual(
          Math.min(half > 0 ? away(half - 1) : Infinity, away(half + 1)),
        );
      }),
    );
    expect([...toHalf(new Float32Array([65_519, 65_520, -1e9]))]).toEqual([0x7bff, 0x7c00, 0xfc00]);
  });
});
