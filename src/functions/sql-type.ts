// SQL types as they are written in `returnType` and `responseFormat`: Spark's DDL (STRUCT<a: STRING>) and
// DuckDB's own (STRUCT(a VARCHAR), VARCHAR[]). From one parsed type come DuckDB's spelling, a JSON Schema for
// the model, and the check of what the model answered. Source: Databricks ai_query, Spark SQL data types.
import { ServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';
import { isJsonObject } from '#core/json.ts';
import { conformDecimal, conformScalar, isInteger, SCALARS, type ScalarName } from './sql-scalar.ts';

export type SqlType =
  | { readonly kind: 'scalar'; readonly name: ScalarName }
  | { readonly kind: 'decimal'; readonly precision: number; readonly scale: number }
  | { readonly kind: 'list'; readonly item: SqlType; readonly length?: number }
  | { readonly kind: 'struct'; readonly fields: readonly { readonly name: string; readonly type: SqlType }[] }
  | { readonly kind: 'map'; readonly key: SqlType; readonly value: SqlType };

/** Largest of DuckDB. */
const MAX_PRECISION = 38;
const MAX_ARRAY_LENGTH = 100_000;

const NAME_START = /^[A-Za-z_\u0080-\uffff"`]/;

/** Parses a type, or a bare list of columns (`a STRING, b INT`) as a struct. Throws UNSUPPORTED_RETURN_TYPE. */
export function parseSqlType(text: string): SqlType {
  const parser = new TypeParser(text);
  return parser.parseAll();
}

class TypeParser {
  readonly #text: string;
  readonly #parts: readonly string[];
  #at = 0;

  constructor(text: string) {
    this.#text = text;
    this.#parts =
      text.match(
        /"(?:[^"]|"")*"|`(?:[^`]|``)*`|[A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*|[0-9]+|\S/g,
      ) ?? [];
  }

  parseAll(): SqlType {
    const first = this.#parts[0];
    const isType =
      first === undefined || SCALARS.has(first.toLowerCase()) ? !this.#isName(1) : this.#isConstructor(first);
    const looksLikeColumns = this.#parts[1] === ':' || !isType;
    const isLonely = this.#parts.length === 1;
    const type =
      looksLikeColumns && !isLonely ? { kind: 'struct' as const, fields: this.#fields() } : this.#type();
    if (this.#at < this.#parts.length) this.#fail(`unexpected "${this.#parts[this.#at]}"`);
    return type;
  }

  #isConstructor(part: string): boolean {
    return /^(struct|array|map|decimal|numeric|list|row)$/i.test(part);
  }

  #isName(index: number): boolean {
    return (
      NAME_START.test(this.#parts[index] ?? '') &&
      !/^(precision|with|without|not)$/i.test(this.#parts[index] ?? '')
    );
  }

  #type(): SqlType {
    const word = this.#next().toLowerCase();
    let type: SqlType;
    if (word === 'struct' || word === 'row') {
      const close = this.#open();
      type = { kind: 'struct', fields: this.#fields() };
      this.#expect(close);
    } else if (word === 'array' || word === 'list') {
      const close = this.#open();
      type = { kind: 'list', item: this.#type() };
      this.#expect(close);
    } else if (word === 'map') {
      const close = this.#open();
      const key = this.#type();
      if (key.kind !== 'scalar' && key.kind !== 'decimal')
        this.#fail('the key of a map must be a scalar type, as JSON has only texts for keys');
      this.#expect(',');
      type = { kind: 'map', key, value: this.#type() };
      this.#expect(close);
    } else if (word === 'decimal' || word === 'numeric') {
      type = this.#decimal();
    } else {
      const name = SCALARS.get(word) ?? this.#fail(`"${word}" is not a type`);
      if (word === 'double' && this.#peek().toLowerCase() === 'precision') this.#at++;
      if ((word === 'varchar' || word === 'char') && this.#peek() === '(') {
        this.#at++;
        this.#number('a length', 1, Number.MAX_SAFE_INTEGER);
        this.#expect(')');
      }
      type = { kind: 'scalar', name };
    }
    while (this.#peek() === '[') {
      this.#at++;
      const length =
        this.#peek() === ']' ? undefined : this.#number('the length of a list', 1, MAX_ARRAY_LENGTH);
      this.#expect(']');
      type = { kind: 'list', item: type, ...(length === undefined ? {} : { length }) };
    }
    return type;
  }

  #decimal(): SqlType {
    if (this.#peek() !== '(') return { kind: 'decimal', precision: 10, scale: 0 };
    this.#at++;
    const precision = this.#number('the precision of a DECIMAL', 1, MAX_PRECISION);
    let scale = 0;
    if (this.#peek() === ',') {
      this.#at++;
      scale = this.#number('the scale of a DECIMAL', 0, precision);
    }
    this.#expect(')');
    return { kind: 'decimal', precision, scale };
  }

  #number(what: string, low: number, high: number): number {
    const part = this.#next();
    const number = /^[0-9]+$/.test(part) ? Number(part) : Number.NaN;
    return number >= low && number <= high
      ? number
      : this.#fail(`${what} must be a number from ${low} to ${high}, it is "${part}"`);
  }

  #fields(): { name: string; type: SqlType }[] {
    const fields: { name: string; type: SqlType }[] = [];
    for (;;) {
      const raw = this.#next();
      if (!NAME_START.test(raw)) this.#fail(`"${raw}" is not a field name`);
      const name = unquoted(raw);
      if (name === '' || /^["`]$/.test(raw)) this.#fail(`${raw} is not a field name`);
      if (fields.some((field) => field.name.toLowerCase() === name.toLowerCase()))
        this.#fail(`the field "${name}" is there twice`);
      if (this.#peek() === ':') this.#at++;
      fields.push({ name, type: this.#type() });
      if (/^not$/i.test(this.#peek()) && /^null$/i.test(this.#parts[this.#at + 1] ?? '')) this.#at += 2;
      if (/^comment$/i.test(this.#peek())) this.#fail('COMMENT is not supported in a type');
      if (this.#peek() !== ',') break;
      this.#at++;
    }
    return fields;
  }

  #open(): string {
    const open = this.#next();
    if (open === '<') return '>';
    if (open === '(') return ')';
    return this.#fail(`"<" expected, "${open}" found`);
  }

  #peek(): string {
    return this.#parts[this.#at] ?? '';
  }

  #next(): string {
    const part = this.#parts[this.#at++];
    return part ?? this.#fail('the text ends too early');
  }

  #expect(part: string): void {
    const found = this.#next();
    if (found !== part) this.#fail(`"${part}" expected, "${found}" found`);
  }

  #fail(reason: string): never {
    throw new ServingError(
      'UNSUPPORTED_RETURN_TYPE',
      `The type '${this.#text}' cannot be read: ${reason}. Write it like 'STRUCT<name: STRING, age: INT>', 'ARRAY<STRING>' or 'DOUBLE'.`,
    );
  }
}

/** The name behind quotes; Spark's are backticks, DuckDB's are double quotes, doubled inside. */
function unquoted(raw: string): string {
  if (raw.startsWith('"')) return raw.slice(1, -1).replaceAll('""', '"');
  return raw.startsWith('`') ? raw.slice(1, -1).replaceAll('``', '`') : raw;
}

/** DuckDB's spelling, for a CAST. */
export function toDuckDbType(type: SqlType): string {
  switch (type.kind) {
    case 'scalar':
      return type.name;
    case 'decimal':
      return `DECIMAL(${type.precision}, ${type.scale})`;
    case 'list':
      return `${toDuckDbType(type.item)}[${type.length ?? ''}]`;
    case 'map':
      return `MAP(${toDuckDbType(type.key)}, ${toDuckDbType(type.value)})`;
    case 'struct':
      return `STRUCT(${type.fields.map((field) => `"${field.name.replaceAll('"', '""')}" ${toDuckDbType(field.type)}`).join(', ')})`;
  }
}

/** JSON Schema that makes a model answer in this type. Strict: all members required, none added. */
export function toJsonSchema(type: SqlType): JsonObject {
  switch (type.kind) {
    case 'scalar':
      if (type.name === 'BOOLEAN') return { type: 'boolean' };
      if (isInteger(type.name)) return { type: 'integer' };
      if (type.name === 'FLOAT' || type.name === 'DOUBLE') return { type: 'number' };
      return type.name === 'JSON' ? {} : { type: 'string' };
    case 'decimal':
      return { type: 'number' };
    case 'list':
      return { type: 'array', items: toJsonSchema(type.item) };
    case 'map':
      return { type: 'object', additionalProperties: toJsonSchema(type.value) };
    case 'struct':
      return {
        type: 'object',
        properties: Object.fromEntries(type.fields.map((field) => [field.name, toJsonSchema(field.type)])),
        required: type.fields.map((field) => field.name),
        additionalProperties: false,
      };
  }
}

/** The value in the shape of the type, so that DuckDB's cast cannot fail. Throws INVALID_RESPONSE saying where it does not fit. */
export function conform(value: Json, type: SqlType, path = 'answer'): Json {
  const refuse = (expected: string): never => {
    throw new ServingError(
      'INVALID_RESPONSE',
      `The ${path} is ${shorten(JSON.stringify(value))}, which is not ${expected}.`,
    );
  };
  if (value === null) return null;
  switch (type.kind) {
    case 'list': {
      if (!Array.isArray(value)) return refuse('a list');
      if (type.length !== undefined && value.length !== type.length)
        return refuse(`a list of ${type.length}`);
      return value.map((item, index) => conform(item as Json, type.item, `${path}[${index}]`));
    }
    case 'struct': {
      if (!isJsonObject(value)) return refuse('an object');
      return Object.fromEntries(
        type.fields.map((field) => [
          field.name,
          conform(memberOf(value, field.name), field.type, `${path}.${field.name}`),
        ]),
      );
    }
    case 'map': {
      if (!isJsonObject(value)) return refuse('an object');
      return Object.fromEntries(
        Object.entries(value).map(([key, member]) => [
          textOfKey(conform(key, type.key, `key in ${path}`)),
          conform(member, type.value, `${path}.${key}`),
        ]),
      );
    }
    case 'decimal':
      return conformDecimal(value, type.precision, type.scale, () =>
        refuse(`a number (${toDuckDbType(type)})`),
      );
    case 'scalar':
      return conformScalar(value, type.name, refuse);
  }
}

/** Models change the case of names; SQL does not care for it. */
function memberOf(value: JsonObject, name: string): Json {
  if (Object.hasOwn(value, name)) return value[name] ?? null;
  const key = Object.keys(value).find((candidate) => candidate.toLowerCase() === name.toLowerCase());
  return key === undefined ? null : (value[key] ?? null);
}

function textOfKey(key: Json): string {
  return typeof key === 'string' ? key : JSON.stringify(key);
}

function shorten(text: string): string {
  return text.length > 120 ? `${text.slice(0, 117)}...` : text;
}
