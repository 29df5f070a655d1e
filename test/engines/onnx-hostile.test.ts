// ONNX files that are damaged or mean harm: each is refused with a typed error before it can do any.
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ServingError } from '#core/errors.ts';
import { readGraph } from '#engines/onnx/graph.ts';
import { fieldsOf } from '#engines/onnx/protobuf.ts';
import { inspectTabularModel } from '#engines/onnx/tabular.ts';
import { expectCode } from './contract.ts';
import {
  external,
  node,
  tensor,
  writeClassifier,
  writeIdentity,
  writeModel,
  writeScores,
} from './tabular-models.ts';
import { useModels } from './tabular-runner.ts';

const { place } = useModels();
const PENGUINS = fileURLToPath(new URL('../../examples/penguins/penguins.onnx', import.meta.url));

describe('a file that is not a whole model', () => {
  test('cut off before its graph ends is MODEL_NOT_AVAILABLE, and says so', async () => {
    const whole = await readFile(await writeClassifier(await place(), { isZipMap: true }));
    const path = await place();
    const graph = [...fieldsOf(whole)].find(({ number }) => number === 7)?.raw ?? whole;
    const end = graph.byteOffset - whole.byteOffset + graph.length;
    for (let length = 0; length < end; length += 3) {
      await writeFile(path, whole.subarray(0, length));
      const error = await expectCode('MODEL_NOT_AVAILABLE', inspectTabularModel(path));
      expect(error.message).toContain(path);
    }
  });

  test('cut off or changed in any byte never throws anything but a typed error when it is read', async () => {
    const whole = await readFile(PENGUINS);
    const change = fc.record({
      at: fc.nat(whole.length - 1),
      byte: fc.nat(255),
      length: fc.integer({ min: 0, max: whole.length }),
    });
    fc.assert(
      fc.property(change, ({ at, byte, length }) => {
        const bytes = Buffer.from(whole.subarray(0, length));
        if (at < length) bytes[at] = byte;
        try {
          readGraph(bytes, 'm');
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(ServingError);
          expect((thrown as ServingError).code).toBe('MODEL_NOT_AVAILABLE');
        }
      }),
      { numRuns: 300 },
    );
  });

  test('any bytes are either fields that lie one behind the other, or refused', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        try {
          const total = [...fieldsOf(bytes)].reduce((sum, { raw }) => sum + raw.length, 0);
          expect(total).toBe(bytes.length);
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(RangeError);
        }
      }),
      { numRuns: 1_000 },
    );
  });

  test('the pointer of Git LFS is named with the way to get the file', async () => {
    const path = await place();
    await writeFile(path, 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n');
    const error = await expectCode('MODEL_NOT_AVAILABLE', inspectTabularModel(path));
    expect(error.message).toContain('git lfs pull');
  });

  test('graphs nested without end are refused before they exhaust the stack', () => {
    let graph = Buffer.alloc(0);
    const wrap = (field: number, inner: Buffer) => {
      const length: number[] = [];
      for (let rest = inner.length; ; rest >>>= 7) {
        length.push(rest > 127 ? (rest & 127) | 128 : rest);
        if (rest <= 127) break;
      }
      return Buffer.concat([Buffer.from([field * 8 + 2, ...length]), inner]);
    };
    for (let depth = 0; depth < 2_000; depth++) graph = wrap(1, wrap(5, wrap(6, graph)));
    expect(() => readGraph(wrap(7, graph), 'm')).toThrow('nested more than 64 deep');
  });
});

describe('weights in other files', () => {
  const write = async (location: string) =>
    writeModel(await place(), {
      inputs: [tensor('x', 'float', ['N', 1])],
      outputs: [tensor('y', 'float', ['N', 1])],
      nodes: [node('MatMul', ['x', 'w'], ['y'])],
      weights: [external('w', [1, 1], location)],
    });

  test.each([
    '/etc/passwd',
    '../w.bin',
    'a/../../w.bin',
    '..\\w.bin',
    'C:\\w.bin',
    '\\\\server\\share\\w.bin',
    '',
    '.',
    'w\0.bin',
  ])('%j leads out of the folder and is refused', async (location) => {
    const error = await expectCode('INVALID_PARAMETER', inspectTabularModel(await write(location)));
    expect(error.message).toContain(JSON.stringify(location));
    expect(error.message).toContain('not a file in its own folder');
  });

  test('a link that leads out of the folder is refused, one within is followed', async () => {
    const outside = await place();
    await writeFile(outside, Buffer.from(new Float32Array([3]).buffer));
    const path = await write('w.bin');
    await symlink(outside, join(dirname(path), 'w.bin'));
    await expectCode('INVALID_PARAMETER', inspectTabularModel(path));
    const honest = await write('w.bin');
    await mkdir(join(dirname(honest), 'data'));
    await writeFile(join(dirname(honest), 'data', 'w'), Buffer.from(new Float32Array([3]).buffer));
    await symlink(join('data', 'w'), join(dirname(honest), 'w.bin'));
    expect((await inspectTabularModel(honest)).signature.outputs).toMatchObject([{ name: 'y' }]);
  });

  test.each(['w.bin', '*/_ORT_MEM_ADDR_/*', 'folder'])(
    '%j that is no file is said to be missing',
    async (location) => {
      const path = await write(location);
      await mkdir(join(dirname(path), 'folder'));
      const error = await expectCode('MODEL_NOT_AVAILABLE', inspectTabularModel(path));
      expect(error.message).toContain('no such file beside it');
    },
  );

  test('a file that is too short is refused by name of the model', async () => {
    const path = await write('w.bin');
    await writeFile(join(dirname(path), 'w.bin'), 'x');
    const error = await expectCode('MODEL_NOT_AVAILABLE', inspectTabularModel(path));
    expect(error.message).toContain(path);
  });

  test('are found wherever a tensor can stand: attributes, subgraphs and functions', async () => {
    const constant = node('Constant', [], ['w']);
    constant.attribute = [{ name: 'value', type: 4, t: external('', [1, 1], '../constant') }];
    const inner = { name: 'inner', node: [constant], initializer: [external('i', [1], '../inner')] };
    const branch = node('If', ['c'], ['y']);
    branch.attribute = [{ name: 'then_branch', type: 5, g: inner }];
    const path = await writeModel(await place(), {
      inputs: [tensor('c', 'bool', [1])],
      outputs: [tensor('y', 'float', [1])],
      nodes: [branch],
    });
    const { externalFiles, operators } = readGraph(await readFile(path), path);
    expect([...externalFiles].sort()).toEqual(['../constant', '../inner']);
    expect([...operators].sort()).toEqual(['Constant', 'If']);
    await expectCode('INVALID_PARAMETER', inspectTabularModel(path));
  });
});

describe('sizes that no memory holds', () => {
  test.each([
    ['a batch', [4_000_000_000, 1]],
    ['an image', ['N', 100_000, 100_000]],
    ['a matrix', ['N', 2_000_000_000]],
  ])('of %s are refused before anything is allocated', async (_, shape) => {
    const path = await writeIdentity(await place(), 'string', shape);
    const error = await expectCode('INVALID_PARAMETER', inspectTabularModel(path));
    expect(error.message).toContain('67108864 are the most');
  });
});

test('an operator that does not exist is refused in the words of the runtime', async () => {
  const path = await writeModel(await place(), {
    inputs: [tensor('x', 'float', ['N', 1])],
    outputs: [tensor('y', 'float', ['N', 1])],
    nodes: [node('FormatDisk', ['x'], ['y'])],
  });
  expect((await expectCode('MODEL_NOT_AVAILABLE', inspectTabularModel(path))).message).toContain(
    'FormatDisk',
  );
});

test('a whole model is read as it is', async () => {
  const path = await writeScores(await place());
  const graph = readGraph(await readFile(path), path);
  expect(graph).toMatchObject({
    inputs: [{ name: 'features', elementType: 1 }],
    outputs: [{ name: 'scores', elementType: 1 }],
    externalFiles: [],
  });
});
