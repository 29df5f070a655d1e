// Looks into a parsed model file member by member and complains with the path of what is wrong. Knows no library.
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import type { Ubjson } from './ubjson.ts';

type Member = Json | Ubjson | undefined;

/** One place in a document. */
export class Place {
  readonly value: Member;
  readonly #path: string;

  constructor(value: Member, path = '') {
    this.value = value;
    this.#path = path;
  }

  get isPresent(): boolean {
    return this.value !== undefined && this.value !== null;
  }

  /** A member of an object; absent where there is none. */
  at(name: string): Place {
    const { value } = this;
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    const members = isObject && !ArrayBuffer.isView(value) ? (value as Readonly<Record<string, Member>>) : {};
    const path = this.#path === '' ? name : `${this.#path}.${name}`;
    return new Place(Object.hasOwn(members, name) ? members[name] : undefined, path);
  }

  text(): string {
    const { value } = this;
    if (typeof value === 'string') return value;
    throw this.wrong('a text');
  }

  /** XGBoost writes parameters as texts. */
  number(fallback?: number): number {
    if (!this.isPresent && fallback !== undefined) return fallback;
    const { value } = this;
    const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
    if (typeof number === 'number' && Number.isFinite(number)) return number;
    throw this.wrong('a number');
  }

  /** A number that counts something. */
  count(fallback?: number): number {
    const number = this.number(fallback);
    if (Number.isInteger(number) && number >= 0) return number;
    throw this.wrong('a number of things');
  }

  /** Booleans count as 0 and 1: old versions have written `default_left` so. */
  numbers(length?: number): ArrayLike<number> {
    const { value } = this;
    if (ArrayBuffer.isView(value)) return this.#ofLength(value as Float64Array, length);
    if (!Array.isArray(value)) throw this.wrong('a list of numbers');
    const list = value.map((item: Member) => (typeof item === 'boolean' ? Number(item) : item));
    if (list.some((item) => typeof item !== 'number')) throw this.wrong('a list of numbers');
    return this.#ofLength(list as readonly number[], length);
  }

  texts(): readonly string[] {
    return this.list().map((place) => place.text());
  }

  list(): readonly Place[] {
    const { value } = this;
    if (!Array.isArray(value)) throw this.wrong('a list');
    return value.map((item: Member, index) => new Place(item, `${this.#path}[${index}]`));
  }

  wrong(expected: string): ServingError {
    const { value } = this;
    const found = value === undefined ? 'missing' : (JSON.stringify(value) ?? 'nothing').slice(0, 60);
    return new ServingError(
      'INVALID_PARAMETER',
      `The model file cannot be read: \`${this.#path}\` is ${found}, where ${expected} is expected. The file was changed or damaged; save the model again.`,
    );
  }

  #ofLength<T extends ArrayLike<number>>(list: T, length: number | undefined): T {
    if (length === undefined || list.length === length) return list;
    throw new ServingError(
      'INVALID_PARAMETER',
      `The model file cannot be read: \`${this.#path}\` has ${list.length} values, not ${length}. The file was changed or damaged; save the model again.`,
    );
  }
}
