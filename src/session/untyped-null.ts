// Teaches the binding to read NULLs that have no type, as in {'a': NULL}. It has no vector for them and would refuse
// the whole struct or list around them. Imported for its effect by columns.ts; nothing else is changed.
import { DuckDBTypeId, DuckDBVector, SQLNULL } from '@duckdb/node-api';

class UntypedNullVector extends DuckDBVector<null> {
  readonly type = SQLNULL;
  readonly itemCount: number;

  constructor(itemCount: number) {
    super();
    this.itemCount = itemCount;
  }

  getItem(): null {
    return null;
  }

  setItem(): void {}

  flush(): void {}

  slice(_offset: number, length: number): UntypedNullVector {
    return new UntypedNullVector(length);
  }
}

/** Structs and lists make the vectors of their members through this function, and there is no other place to step in. */
const createVector = DuckDBVector.create;
DuckDBVector.create = (vector, itemCount, knownType) =>
  knownType?.typeId === DuckDBTypeId.SQLNULL
    ? new UntypedNullVector(itemCount)
    : createVector(vector, itemCount, knownType);
