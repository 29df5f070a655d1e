// Predictions that are tensors, as outputs of the Open Inference Protocol.
import { describe, expect, test } from 'vitest';
import { formatColumn, formatTensor } from '#server/http/kserve/tensors.ts';

describe('an output', () => {
  const column = { name: 'y', type: 'float' as const };

  test('of lists of lists has all its dimensions, and its values in order', () => {
    const rows = [
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
      [
        [7, 8, 9],
        [10, 11, 12],
      ],
    ];
    const data = Array.from({ length: 12 }, (_, at) => at + 1);
    expect(formatTensor(column, rows)).toEqual({ name: 'y', datatype: 'FP32', shape: [2, 2, 3], data });
  });

  test('whose rows differ in size is texts of JSON, one a row', () => {
    const expected = { name: 'y', datatype: 'BYTES', shape: [2], data: ['[1,2]', '[3]'] };
    expect(formatTensor(column, [[1, 2], [3]])).toEqual(expected);
  });

  test('of maps is texts of JSON too', () => {
    const rows = [{ ham: 0.25, spam: 0.75 }];
    const expected = { name: 'p', datatype: 'BYTES', shape: [1], data: ['{"ham":0.25,"spam":0.75}'] };
    expect(formatTensor({ name: 'p', type: 'json' }, rows)).toEqual(expected);
  });
});

test('the metadata of a column has the sizes of its tensor', () => {
  const common = { type: 'float' as const, required: true };
  const shapeOf = (rest: object) => formatColumn({ name: 'x', ...common, ...rest }).shape;
  expect(shapeOf({})).toEqual([-1]);
  expect(shapeOf({ width: 3 })).toEqual([-1, 3]);
  expect(shapeOf({ shape: [28, 28] })).toEqual([-1, 28, 28]);
  expect(shapeOf({ shape: [-1] })).toEqual([-1, -1]);
});
