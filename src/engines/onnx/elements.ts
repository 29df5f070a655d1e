// Values as elements of tensors, and the arrays that hold them.
import type { ElementType, TensorData } from './session.ts';

export type Scalar = string | number | boolean | bigint;

export function isFloat(type: ElementType): boolean {
  return type === 'float16' || type === 'float32' || type === 'float64';
}

const toFloat = (value: Scalar) =>
  typeof value === 'number' ? value : typeof value === 'bigint' ? Number(value) : undefined;
const toInteger = (least: number, most: number) => (value: Scalar) => {
  const number = toFloat(value);
  return number !== undefined && Number.isInteger(number) && number >= least && number <= most
    ? number
    : undefined;
};
const toBigInteger = (least: bigint, most: bigint) => (value: Scalar) => {
  const isWhole = typeof value === 'bigint' || (typeof value === 'number' && Number.isInteger(value));
  const number = isWhole ? BigInt(value) : undefined;
  return number !== undefined && number >= least && number <= most ? number : undefined;
};

/** A value as the element of a tensor; undefined when it is none. Booleans are not numbers, as in MLflow. */
export const CONVERT: Readonly<Record<ElementType, (value: Scalar) => string | number | bigint | undefined>> =
  {
    float16: toFloat,
    float32: toFloat,
    float64: toFloat,
    int8: toInteger(-128, 127),
    int16: toInteger(-32_768, 32_767),
    int32: toInteger(-2_147_483_648, 2_147_483_647),
    uint8: toInteger(0, 255),
    uint16: toInteger(0, 65_535),
    uint32: toInteger(0, 4_294_967_295),
    int64: toBigInteger(-(2n ** 63n), 2n ** 63n - 1n),
    uint64: toBigInteger(0n, 2n ** 64n - 1n),
    bool: (value) => (typeof value === 'boolean' ? Number(value) : toInteger(0, 1)(value)),
    string: (value) => (typeof value === 'string' ? value : undefined),
  };

export function createBuffer(type: ElementType, size: number): TensorData {
  switch (type) {
    case 'float16':
    case 'float32':
      return new Float32Array(size);
    case 'float64':
      return new Float64Array(size);
    case 'int8':
      return new Int8Array(size);
    case 'int16':
      return new Int16Array(size);
    case 'int32':
      return new Int32Array(size);
    case 'int64':
      return new BigInt64Array(size);
    case 'uint8':
    case 'bool':
      return new Uint8Array(size);
    case 'uint16':
      return new Uint16Array(size);
    case 'uint32':
      return new Uint32Array(size);
    case 'uint64':
      return new BigUint64Array(size);
    case 'string':
      return new Array<string>(size).fill('');
  }
}
