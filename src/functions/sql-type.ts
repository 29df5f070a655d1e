// SQL types as they are written in `returnType` and `responseFormat`: Spark's DDL (STRUCT<a: STRING>) and
// DuckDB's own (STRUCT(a VARCHAR), VARCHAR[]). From one parsed type come DuckDB's spelling, a JSON Schema for
// the model, and the check of what the model answered. Source: Databricks ai_query, Spark SQL data types.
import { ServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';
import { isJsonObject } from '#core/json.ts';

export type SqlType =
  | { readonly kind: 'scalar'; readonly name: ScalarName }
  | { readonly kind: 'decimal'; readonly precision: number; readonly scale: number }
  | { readonly kind: 'list'; readonly item: SqlType; readonly length?: number }
  | { readonly kind: 'struct'; readonly fields: readonly { readonly name: string; readonly type: SqlType }[] }
  | { readonly kind: 'map'; readonly key: SqlType; readonly value: SqlType };

type ScalarName =
  | 'VARCHAR'
  | 'BOOLEAN'
  | 'TINYINT'
  | 'SMALLINT'
  | 'INTEGER'
  | 'BIGINT'
  | 'HUGEINT'
  | 'FLOAT'
  | 'DOUBLE'
  | 'DATE'
  | 'TIMESTAMP'
  | 'TIME'
  | 'JSON';

const SCALARS: Readonly<Record<string, ScalarName>> = {
  string: 'VARCHAR', varchar: 'VARCHAR', text: 'VARCHAR', char: 'VARCHAR',
  boolean: 'BOOLEAN', bool: 'BOOLEAN',
  tinyint: 'TINYINT', byte: 'TINYINT', smallint: 'SMALLINT', short: 'SMALLINT',
  int: 'INTEGER', integer: 'INTEGER', bigint: 'BIGINT', long: 'BIGINT', hugeint: 'HUGEINT',
  float: 'FLOAT', real: 'FLOAT', double: 'DOUBLE',
  date: 'DATE', timestamp: 'TIMESTAMP', timestamp_ntz: 'TIMESTAMP', time: 'TIME',
  json: 'JSON', variant: 'JSON',
};
const INTEGERS = new Set<ScalarName>(['TINYINT', 'SMALLINT', 'INTEGER', 'BIGINT', 'HUGEINT']);

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
    this.#parts = text.match(/"(?:[^"]|"")*"|`[^`]*`|[A-Za-z_][A-Za-z0-9_]*|[0-9]+|\S/g) ?? [];
  }

  parseAll(): SqlType {
    const first = this.#parts[0];
    const looksLikeColumns =
      first !== undefined && (SCALARS[first.toLowerCase()] === undefined || this.#isName(1)) && !this.#isConstructor(first);
    const type = looksLikeColumns ? { kind: 'struct' as const, fields: this.#fields(undefined) } : this.#type();
    if (this.#at < this.#parts.length) this.#fail(`unexpected "${this.#parts[this.#at]}"`);
    return type;
  }

  #isConstructor(part: string): boolean {
    return /^(struct|array|map|decimal|numeric|list|row)$/i.test(part);
  }

  #isName(index: number): boolean {
    return /^[A-Za-z_"`]/.test(this.#parts[index] ?? '') && !/^(precision|with|without)$/i.test(this.#parts[index] ?? '');
  }

  #type(): SqlType {
    const word = this.#next().toLowerCase();
    let type: SqlType;
    if (word === 'struct' || word === 'row') {
      const close = this.#open();
      type = { kind: 'struct', fields: this.#fields(close) };
      this.#expect(close);
    } else if (word === 'array' || word === 'list') {
      const close = this.#open();
      type = { kind: 'list', item: this.#type() };
      this.#expect(close);
    } else if (word === 'map') {
      const close = this.#open();
      const key = this.#type();
      this.#expect(',');
      type = { kind: 'map', key, value: this.#type() };
      this.#expect(close);
    } else if (word === 'decimal' || word === 'numeric') {
      type = this.#decimal();
    } else {
      const name = SCALARS[word];
      if (!name) this.#fail(`"${word}" is not a type`);
      if (word === 'double' && this.#peek().toLowerCase() === 'precision') this.#at++;
      if ((word === 'varchar' || word === 'char') && this.#peek() === '(') this.#at += 3;
      type = { kind: 'scalar', name: name as ScalarName };
    }
    while (this.#peek() === '[') {
      this.#at++;
      const length = /^[0-9]+$/.test(this.#peek()) ? Number(this.#next()) : undefined;
      this.#expect(']');
      type = { kind: 'list', item: type, ...(length === undefined ? {} : { length }) };
    }
    return type;
  }

  #decimal(): SqlType {
    if (this.#peek() !== '(') return { kind: 'decimal', precision: 10, scale: 0 };
    this.#at++;
    const precision = Number(this.#next());
    let scale = 0;
    if (this.#peek() === ',') {
      this.#at++;
      scale = Number(this.#next());
    }
    this.#expect(')');
    return { kind: 'decimal', precision, scale };
  }

  #fields(close: string | undefined): { name: string; type: SqlType }[] {
    const fields: { name: string; type: SqlType }[] = [];
    for (;;) {
      const raw = this.#next();
      const name = /^["`]/.test(raw) ? raw.slice(1, -1).replaceAll('""', '"') : raw;
      if (!/^["`A-Za-z_]/.test(raw)) this.#fail(`"${raw}" is not a field name`);
      if (this.#peek() === ':') this.#at++;
      fields.push({ name, type: this.#type() });
      if (/^not$/i.test(this.#peek()) && /^null$/i.test(this.#parts[this.#at + 1] ?? '')) this.#at += 2;
      if (/^comment$/i.test(this.#peek())) this.#fail('COMMENT is not supported in a type');
      if (this.#peek() !== ',') break;
      this.#at++;
    }
    if (close === undefined && this.#at < this.#parts.length) this.#fail(`unexpected "${this.#peek()}"`);
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
      if (INTEGERS.has(type.name)) return { type: 'integer' };
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
      if (type.length !== undefined && value.length !== type.length) return refuse(`a list of ${type.length}`);
      return value.map((item, index) => conform(item as Json, type.item, `${path}[${index}]`));
    }
    case 'struct': {
      if (!isJsonObject(value)) return refuse('an object');
      return Object.fromEntries(
        type.fields.map((field) => [field.name, conform(memberOf(value, field.name), field.type, `${path}.${field.name}`)]),
      );
    }
    case 'map': {
      if (!isJsonObject(value)) return refuse('an object');
      return Object.fromEntries(
        Object.entries(value).map(([key, member]) => [key, conform(member, type.value, `${path}.${key}`)]),
      );
    }
    case 'decimal': {
      const number = typeof value === 'string' ? Number(value.trim()) : value;
      return typeof number === 'number' && Number.isFinite(number) ? number : refuse(`a number (${toDuckDbType(type)})`);
    }
    case 'scalar':
      return conformScalar(value, type.name, refuse);
  }
}

function conformScalar(value: Json, name: ScalarName, refuse: (expected: string) => never): Json {
  if (name === 'JSON') return value;
  if (name === 'VARCHAR') return typeof value === 'string' ? value : JSON.stringify(value);
  if (typeof value === 'object') return refuse(name);
  const text = String(value).trim();
  if (name === 'BOOLEAN') {
    if (/^(true|yes|1)$/i.test(text)) return true;
    return /^(false|no|0)$/i.test(text) ? false : refuse('true or false');
  }
  if (INTEGERS.has(name)) {
    if (/^[+-]?[0-9]+(\.0+)?$/.test(text)) return Number(text);
    return refuse(`a whole number (${name})`);
  }
  if (name === 'FLOAT' || name === 'DOUBLE') {
    return text !== '' && Number.isFinite(Number(text)) ? Number(text) : refuse(`a number (${name})`);
  }
  if (name === 'TIME') return /^\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?$/.test(text) ? text : refuse('a time like 13:45:00');
  return /^\d{4}-\d{2}-\d{2}/.test(text) && !Number.isNaN(Date.parse(text)) ? text : refuse(`a ${name} like 2026-01-31`);
}

/** Models change the case of names; SQL does not care for it. */
function memberOf(value: JsonObject, name: string): Json {
  const exact = value[name];
  if (exact !== undefined) return exact;
  const key = Object.keys(value).find((candidate) => candidate.toLowerCase() === name.toLowerCase());
  return key === undefined ? null : (value[key] ?? null);
}

function shorten(text: string): string {
  return text.length > 120 ? `${text.slice(0, 117)}...` : text;
}
