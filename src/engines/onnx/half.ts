// float16 as numbers and back: the runtime hands such tensors over as 16 bits a value. Rounds to nearest, ties to even.

const asFloat = new Float32Array(1);
const asBits = new Uint32Array(asFloat.buffer);
let table: Float32Array | undefined;

export function fromHalf(bits: Uint16Array): Float32Array {
  table ??= Float32Array.from({ length: 65_536 }, (_, half) => decode(half));
  const numbers = new Float32Array(bits.length);
  for (let index = 0; index < bits.length; index++) numbers[index] = table[bits[index] as number] as number;
  return numbers;
}

export function toHalf(numbers: Float32Array): Uint16Array {
  const bits = new Uint16Array(numbers.length);
  for (let index = 0; index < numbers.length; index++) bits[index] = encode(numbers[index] as number);
  return bits;
}

function decode(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1_024) * 2 ** (exponent - 15));
}

function encode(number: number): number {
  asFloat[0] = number;
  const bits = asBits[0] as number;
  const sign = (bits >>> 16) & 0x8000;
  const size = bits & 0x7fffffff;
  if (size > 0x7f800000) return sign | 0x7e00;
  // 65,520 and more round to infinity.
  if (size >= 0x477ff000) return sign | 0x7c00;
  if (size >= 0x38800000) {
    const rounded = size + 0xfff + ((size >>> 13) & 1);
    return sign | ((rounded - 0x38000000) >>> 13);
  }
  // Below 2^-14 a half counts in steps of 2^-24.
  const steps = Math.abs(number) * 2 ** 24;
  const whole = Math.floor(steps);
  const rest = steps - whole;
  return sign | (rest > 0.5 || (rest === 0.5 && whole % 2 === 1) ? whole + 1 : whole);
}
