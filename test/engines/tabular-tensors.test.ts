// Features and predictions that are tensors: lists of lists by name or alone, of fixed and of open size.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Json } from '#core/json.ts';
import { inspectTabularModel } from '#engines/onnx/tabular.ts';
import { expectCode } from './contract.ts';
import { node, tensor, writeIdentity, writeModel, writeScores } from './tabular-models.ts';
import { columnOf, invoke, predict, useModels } from './tabular-runner.ts';

const { place, open } = useModels();
const image = (start: number) => [0, 1].map((row) => [0, 1, 2].map((column) => start + row * 3 + column));
const beside = (path: string, name: string, text: string) => writeFile(join(path, '..', name), text);

describe('an image', () => {
  test('is one feature with a shape, given as nested lists, by name, or as a flat list', async () => {
    const path = await writeIdentity(await place(), 'float', ['N', 2, 3]);
    const { signature } = await inspectTabularModel(path);
    expect(signature.inputs).toEqual([
      {
        name: 'x',
        type: 'float',
        required: true,
        shape: [2, 3],
        spec: { dtype: 'float32', shape: [-1, 2, 3] },
      },
    ]);
    expect(signature.outputs).toEqual([{ name: 'y', type: 'float', required: true, shape: [2, 3] }]);
    const runner = await open(path, { signature });
    const rows = [image(1), [image(2)], { x: image(3) }, { X: image(4).flat() }, image(5).flat()];
    expect(await invoke(runner, rows)).toEqual([1, 2, 3, 4, 5].map(image));
    const columns = [0, 1, 2, 3, 4, 5].map((at) => columnOf(null, new Float64Array([at, at + 10])));
    expect(predict(runner, columns, 2)).toEqual({ y: [image(0), image(10)] });
  });

  test('of the wrong size or with a text in it fails alone, naming sizes and that one value', async () => {
    const runner = await open(await writeIdentity(await place(), 'uint8', ['N', 2, 3]));
    const rows: Json[][] = [
      image(1),
      [[1, 2]],
      [image(2), image(2)],
      [
        [1, 2, 3],
        [4, 'five', 6],
      ],
      [
        [1, 2, 3],
        [4, 300, 6],
      ],
      image(7),
    ];
    const [first, small, many, text, large, last] = await invoke(runner, rows);
    expect([first, last]).toEqual([image(1), image(7)]);
    expect(small).toMatchObject({ message: expect.stringMatching(/1x2.* 2x3 is asked for/) });
    expect(many).toMatchObject({ code: 'SCHEMA_MISMATCH' });
    expect(text).toMatchObject({ message: expect.stringContaining('"x" is "five"') });
    expect(large).toMatchObject({ message: expect.stringContaining('"x" is 300') });
  });

  test('with a missing pixel is refused by a model that would calculate with it', async () => {
    const path = await writeModel(await place(), {
      inputs: [tensor('x', 'float', ['N', 2, 2])],
      outputs: [tensor('y', 'float', ['N', 2, 2])],
      nodes: [node('Relu', ['x'], ['y'])],
    });
    const [whole, missing] = await invoke(await open(path), [
      [
        [1, 2],
        [3, 4],
      ],
      [
        [1, null],
        [3, 4],
      ],
    ]);
    expect(whole).toEqual([
      [1, 2],
      [3, 4],
    ]);
    expect(missing).toMatchObject({ code: 'SCHEMA_MISMATCH', message: expect.stringContaining('"x"') });
  });

  test('whatever its sizes, what goes in comes out', async () => {
    const shapes = [
      [1, 2],
      [2, 1, 3],
      [1, 1, 2],
      [3, 2, 2],
    ];
    const runners = await Promise.all(
      shapes.map(async (shape) => open(await writeIdentity(await place(), 'double', ['N', ...shape]))),
    );
    const nest = (shape: readonly number[]): fc.Arbitrary<Json> =>
      shape.reduceRight<fc.Arbitrary<Json>>(
        (inner, size) => fc.array(inner, { minLength: size, maxLength: size }),
        fc.double({ noNaN: true, noDefaultInfinity: true }).map((number) => number + 0),
      );
    const cases = fc
      .integer({ min: 0, max: shapes.length - 1 })
      .chain((at) =>
        fc.tuple(fc.constant(at), fc.array(nest(shapes[at] ?? []), { minLength: 1, maxLength: 5 })),
      );
    await fc.assert(
      fc.asyncProperty(cases, async ([at, rows]) => {
        const runner = runners[at];
        if (runner === undefined) throw new Error('no runner');
        expect(
          await invoke(
            runner,
            rows.map((x) => ({ x })),
          ),
        ).toEqual(rows);
      }),
      { numRuns: 50 },
    );
  });
});

describe('a tensor of open size', () => {
  test('takes rows of different sizes in one request, and one value stays a list', async () => {
    const path = await writeIdentity(await place(), 'int64', ['N', 'length']);
    const { signature } = await inspectTabularModel(path);
    expect(signature.inputs).toMatchObject([{ name: 'x', shape: [-1] }]);
    expect(signature.outputs).toMatchObject([{ name: 'y', shape: [-1] }]);
    const runner = await open(path, { signature });
    expect(await invoke(runner, [[1, 2], { x: [3] }, [4, 5], [[6, 7, 8]]])).toEqual([
      [1, 2],
      [3],
      [4, 5],
      [6, 7, 8],
    ]);
    const columns = [columnOf(null, new Float64Array([1, 2])), columnOf(null, new Float64Array([3, 4]))];
    expect(predict(runner, columns, 2)).toEqual({
      y: [
        [1, 3],
        [2, 4],
      ],
    });
  });

  test("of scikit-learn's [None, None] needs no side-car; a wrong number of features fails by itself", async () => {
    const runner = await open(await writeScores(await place(), 'N', 'K'));
    const [right, wrong] = await invoke(runner, [
      [1, 2, 3],
      [1, 2],
    ]);
    expect(right).toEqual([1, 2, 3]);
    expect(wrong).toMatchObject({ code: 'SCHEMA_MISMATCH' });
  });
});

describe('several tensors', () => {
  const writePair = async () =>
    writeModel(await place(), {
      inputs: [tensor('left', 'float', ['N', 3]), tensor('right', 'float', ['N', 3])],
      outputs: [tensor('sum', 'float', ['N', 3]), tensor('order', 'bool', ['N', 3])],
      nodes: [node('Add', ['left', 'right'], ['sum']), node('Greater', ['left', 'right'], ['order'])],
    });

  test('are given by name in a row, in any order, as a signature.json says', async () => {
    const path = await writePair();
    const inputs = ['right', 'left'].map((name) => ({ name, type: 'float', shape: [3] }));
    await beside(path, 'signature.json', JSON.stringify({ inputs }));
    const answer = await invoke(await open(path), [{ left: [1, 5, 3], right: [2, 2, 2] }]);
    expect(answer).toEqual([{ sum: [3, 7, 5], order: [false, true, true] }]);
  });

  test('without a side-car may be given as lists too', async () => {
    const answer = await invoke(await open(await writePair()), [{ left: [1, 5, 3], right: [2, 2, 2] }]);
    expect(answer).toEqual([{ sum: [3, 7, 5], order: [false, true, true] }]);
  });
});

describe('an MLmodel with tensors', () => {
  const mlmodel = (inputs: object[], outputs: object[] = []) =>
    [
      'flavors:',
      '  onnx: {data: model.onnx}',
      'signature:',
      `  inputs: '${JSON.stringify(inputs)}'`,
      `  outputs: '${JSON.stringify(outputs)}'`,
    ].join('\n');
  const spec = (dtype: string, shape: number[]) => ({ type: 'tensor', 'tensor-spec': { dtype, shape } });

  test('without a name: instances, one list, or any name', async () => {
    const path = await writeScores(await place());
    await beside(path, 'MLmodel', mlmodel([spec('float32', [-1, 3])], [spec('float32', [-1, 3])]));
    const { signature } = await inspectTabularModel(path);
    expect(signature.inputs).toMatchObject([{ isUnnamed: true, shape: [3] }]);
    expect(signature.outputs.map(({ name }) => name)).toEqual(['scores']);
    const runner = await open(path, { signature });
    const rows = [[1, 2, 3], [[1, 2, 3]], { features: [1, 2, 3] }, { a: 1, b: 2, c: 3 }];
    expect(await invoke(runner, rows)).toEqual(rows.map(() => [1, 2, 3]));
    const columns = ['p', 'q', 'r'].map((name, at) => columnOf(name, new Float64Array([at])));
    expect(predict(runner, columns, 1)).toEqual({ scores: [[0, 1, 2]] });
  });

  test('in another shape of the same size is that of the signature', async () => {
    const path = await writeIdentity(await place(), 'float', ['N', 1, 2, 3]);
    await beside(path, 'MLmodel', mlmodel([spec('float32', [-1, 6])]));
    expect(await invoke(await open(path), [[1, 2, 3, 4, 5, 6]])).toEqual([[image(1)]]);
  });

  test('that does not fit the graph is refused with both shapes', async () => {
    const path = await writeScores(await place());
    await beside(path, 'MLmodel', mlmodel([spec('float32', [-1, 4])]));
    const error = await expectCode('INVALID_PARAMETER', inspectTabularModel(path));
    expect(error.message).toContain('has the shape [N, 3]');
    expect(error.message).toContain('[N, 4]');
  });
});
