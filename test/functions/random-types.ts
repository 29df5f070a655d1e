// Random SQL types: each with a spelling of Spark's, and values that fit it as a model would answer them.
import fc from 'fast-check';
import type { Json } from '#core/json.ts';
import type { SqlType } from '#functions/sql-type.ts';

const SPARK: Readonly<Record<string, readonly string[]>> = {
  VARCHAR: ['STRING', 'varchar(20)', 'CHAR(3)', 'TEXT'],
  BOOLEAN: ['BOOLEAN', 'bool'],
  TINYINT: ['TINYINT', 'BYTE'],
  SMALLINT: ['SMALLINT', 'short'],
  INTEGER: ['INT', 'integer'],
  BIGINT: ['BIGINT', 'Long'],
  HUGEINT: ['HUGEINT'],
  FLOAT: ['FLOAT', 'real'],
  DOUBLE: ['DOUBLE', 'double precision'],
  DATE: ['DATE'],
  TIMESTAMP: ['TIMESTAMP', 'timestamp_ntz'],
  TIME: ['TIME'],
  JSON: ['JSON', 'VARIANT'],
};

export const scalar: fc.Arbitrary<SqlType> = fc
  .constantFrom(...Object.keys(SPARK))
  .map((name) => ({ kind: 'scalar', name }) as SqlType);
export const decimal: fc.Arbitrary<SqlType> = fc
  .integer({ min: 1, max: 38 })
  .chain((precision) =>
    fc.integer({ min: 0, max: precision }).map((scale): SqlType => ({ kind: 'decimal', precision, scale })),
  );
const fieldName = fc.oneof(
  fc.constantFrom(
    'a',
    'b_2',
    'date',
    'list',
    'select',
    'constructor',
    'toString',
    '__proto__',
    'größe',
    'not',
    'comment',
  ),
  fc.string({
    unit: fc.constantFrom('a', 'B', ' ', '"', '`', ',', '>', ':', "'", 'é', '1'),
    minLength: 1,
    maxLength: 6,
  }),
);
export const sqlType: fc.Arbitrary<SqlType> = fc.letrec<{ type: SqlType }>((tie) => ({
  type: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    fc.oneof(scalar, decimal),
    fc
      .record({ item: tie('type'), length: fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined }) })
      .map(
        ({ item, length }): SqlType => ({ kind: 'list', item, ...(length === undefined ? {} : { length }) }),
      ),
    fc
      .uniqueArray(fc.record({ name: fieldName, type: tie('type') }), {
        selector: (field) => field.name.toLowerCase(),
        minLength: 1,
        maxLength: 4,
      })
      .map((fields): SqlType => ({ kind: 'struct', fields })),
    fc
      .record({ key: fc.oneof(scalar, decimal), value: tie('type') })
      .map(({ key, value }): SqlType => ({ kind: 'map', key, value })),
  ),
})).type;

/** Spark's spelling; `pick` chooses among several of one type. */
export function toSpark(type: SqlType, pick: number): string {
  switch (type.kind) {
    case 'scalar': {
      const names = SPARK[type.name] ?? [];
      return names[pick % names.length] ?? '';
    }
    case 'decimal':
      return pick % 2 === 0
        ? `DECIMAL(${type.precision},${type.scale})`
        : `numeric( ${type.precision} , ${type.scale} )`;
    case 'list':
      return type.length === undefined && pick % 2 === 0
        ? `ARRAY<${toSpark(type.item, pick)}>`
        : `${toSpark(type.item, pick)}[${type.length ?? ''}]`;
    case 'map':
      return `MAP<${toSpark(type.key, pick)}, ${toSpark(type.value, pick)}>`;
    case 'struct': {
      const fields = type.fields.map((field) => {
        const isPlain = /^[A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*$/.test(field.name);
        const name = isPlain && pick % 2 === 0 ? field.name : `\`${field.name.replaceAll('`', '``')}\``;
        return `${name}${pick % 2 === 0 ? ':' : ''} ${toSpark(field.type, pick)}${pick % 3 === 0 ? ' NOT NULL' : ''}`;
      });
      return `struct<${fields.join(', ')}>`;
    }
  }
}

/** A value that fits a type, as a model would answer it. */
export function fitting(type: SqlType): fc.Arbitrary<Json> {
  switch (type.kind) {
    case 'decimal': {
      const whole = type.precision - type.scale;
      const most = 10 ** Math.min(whole, 12) - 1;
      return fc.oneof(fc.integer({ min: -Math.min(most, 1e9), max: Math.min(most, 1e9) }), fc.constant('0'));
    }
    case 'list':
      return type.length === undefined
        ? fc.array(fitting(type.item), { maxLength: 3 })
        : fc.array(fitting(type.item), { minLength: type.length, maxLength: type.length });
    case 'map':
      return fc
        .array(fc.tuple(fitting(type.key), fitting(type.value)), { maxLength: 3 })
        .map((entries) =>
          Object.fromEntries(
            entries.map(([key, value]) => [typeof key === 'string' ? key : JSON.stringify(key), value]),
          ),
        );
    case 'struct':
      return fc
        .tuple(...type.fields.map((field) => fitting(field.type)))
        .map((values) =>
          Object.fromEntries(type.fields.map((field, index) => [field.name, values[index] ?? null])),
        );
    case 'scalar':
      return fittingScalar(type.name);
  }
}

function fittingScalar(name: string): fc.Arbitrary<Json> {
  switch (name) {
    case 'BOOLEAN':
      return fc.constantFrom<Json>(true, false, 'yes', 'No', '1');
    case 'TINYINT':
      return fc.oneof(fc.integer({ min: -128, max: 127 }), fc.constantFrom('-128', '127', '+5'));
    case 'SMALLINT':
      return fc.integer({ min: -32_768, max: 32_767 });
    case 'INTEGER':
      return fc.oneof(fc.integer(), fc.constantFrom('12', '3.0'));
    case 'BIGINT':
      return fc.oneof(fc.maxSafeInteger(), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String));
    case 'HUGEINT':
      return fc.bigInt({ min: -(2n ** 127n), max: 2n ** 127n - 1n }).map(String);
    case 'FLOAT':
      return fc.oneof(fc.float({ noNaN: true, noDefaultInfinity: true }), fc.constantFrom('1.5', ' 2e3 '));
    case 'DOUBLE':
      return fc.double({ noNaN: true, noDefaultInfinity: true });
    case 'DATE':
      return fc.constantFrom('2026-01-31', '2024-02-29', '2026-01-31T10:00:00Z', '0001-01-01', '9999-12-31');
    case 'TIMESTAMP':
      return fc.constantFrom(
        '2026-01-31',
        '2026-01-31 10:00',
        '2026-01-31T10:00Z',
        '2026-01-31T23:59:59.123456+02:00',
        '2026-01-31 1:05 UTC',
      );
    case 'TIME':
      return fc.constantFrom('13:45', '1:05:09', '23:59:59.5', '00:00:00Z');
    case 'JSON':
      return fc.jsonValue() as fc.Arbitrary<Json>;
    default:
      return fc.string({ maxLength: 5 });
  }
}
