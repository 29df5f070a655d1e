// Frames between duckserve and its workers of Python: put together out of any pieces, and refused when they are none.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { encodeFrame, type Frame, FrameReader } from '#engines/python/frames.ts';

const join = (pieces: readonly Uint8Array[]) => new Uint8Array(Buffer.concat(pieces));

describe('frames of a worker', () => {
  test('come out as they went in, however the bytes are cut, with buffers at multiples of eight', () => {
    const frame = fc.record({
      id: fc.nat(),
      header: fc.dictionary(fc.string(), fc.string()),
      buffers: fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 4 }),
    });
    fc.assert(
      fc.property(
        fc.array(frame, { minLength: 1, maxLength: 4 }),
        fc.infiniteStream(fc.integer({ min: 1, max: 30 })),
        (frames, cuts) => {
          const all = join(
            frames.flatMap(({ id, header, buffers }) =>
              encodeFrame('predict', id, { fields: header }, buffers),
            ),
          );
          const seen: Frame[] = [];
          const reader = new FrameReader((each) => seen.push(each));
          for (let at = 0; at < all.length; ) {
            const { value } = cuts.next();
            reader.push(all.subarray(at, (at += Number(value))));
          }
          expect(seen.map(({ id, header }) => ({ id, fields: header.fields }))).toEqual(
            frames.map(({ id, header }) => ({ id, fields: header })),
          );
          expect(seen.map(({ buffers }) => buffers.map((each) => Array.from(each)))).toEqual(
            frames.map(({ buffers }) => buffers.map((each) => Array.from(each))),
          );
          for (const { buffers } of seen) for (const each of buffers) expect(each.byteOffset % 8).toBe(0);
        },
      ),
      { numRuns: 60 },
    );
  });

  test.each([
    ['other bytes', Buffer.from('HTTP/1.1 200 OK\r\n'), 'no frame'],
    ['another version', Buffer.from(`DSW\u0002${'\0'.repeat(12)}`, 'latin1'), 'version 2'],
    ['a frame without a header', Buffer.from(`DSW\u0001${'\0'.repeat(12)}`, 'latin1'), '0 + 0 bytes'],
    [
      'an endless frame',
      Buffer.from(`DSW\u0001\u0001${'\0'.repeat(7)}\u00ff\0\0\0`, 'latin1').fill(255, 8),
      'bytes',
    ],
  ])('%s: refused', (_name, bytes, says) => {
    const reader = new FrameReader(() => {});
    expect(() => reader.push(bytes)).toThrow(says);
  });

  test('a header that is no JSON, or buffers longer than the frame: refused', () => {
    const good = join(encodeFrame('result', 1, {}, [new Uint8Array(8)]));
    const broken = good.slice();
    broken[16] = 0x78;
    expect(() => new FrameReader(() => {}).push(broken)).toThrow('no JSON');
    const longer = Buffer.from(good).toString('latin1').replace('[8]', '[9]');
    const reader = new FrameReader(() => {});
    expect(() => reader.push(Buffer.from(longer, 'latin1'))).toThrow('longer than the frame');
  });
});
