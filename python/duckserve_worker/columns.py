"""Columns of a frame as arrays and lists, and predictions as columns. The form is described in src/engines/python/columns.ts."""

import base64
import datetime
import json
import math
from array import array
from itertools import accumulate

try:
    import numpy
except ImportError:  # a model without packages
    numpy = None

# Integers beyond this lose digits as a double, which is what JSON and SQL see.
_EXACT = 2**53
_CODES = {"f64": "d", "f32": "f", "i64": "q", "i32": "i", "bool": "B", "datetime": "q"}
_DTYPES = {"f64": "<f8", "f32": "<f4", "i64": "<i8", "i32": "<i4", "bool": "?", "datetime": "<i8"}
_EPOCH = datetime.datetime(1970, 1, 1)


class Column:
    """`values`: a numpy array where there is numpy and the cells are numbers, else a list with None where missing.

    `nulls`: a bytes-like object with 1 where a value is missing, or None.
    """

    __slots__ = ("name", "type", "values", "nulls", "shape")

    def __init__(self, name, type, values, nulls, shape):
        self.name = name
        self.type = type
        self.values = values
        self.nulls = nulls
        self.shape = shape

    def cells(self):
        """One Python value a row."""
        values = self.values.tolist() if numpy is not None and isinstance(self.values, numpy.ndarray) else self.values
        if self.type == "bool":
            values = [bool(value) for value in values]
        if self.type == "datetime":
            values = [_EPOCH + datetime.timedelta(microseconds=value) for value in values]
        if self.nulls is None:
            return list(values)
        return [None if missing else value for value, missing in zip(values, self.nulls)]


def decode(heads, buffers, rows):
    buffers = iter(buffers)
    columns = []
    for head in heads:
        kind = head["type"]
        shape = head.get("shape")
        values = _texts(kind, next(buffers), next(buffers)) if kind in ("utf8", "bytes", "json") else None
        if values is None:
            block = next(buffers)
            if numpy is not None:
                values = numpy.frombuffer(block, dtype=_DTYPES[kind])
                if shape is not None:
                    values = values.reshape([rows, *shape])
            else:
                values = array(_CODES[kind])
                values.frombytes(block)
                values = values.tolist()
                if shape is not None:
                    values = _nest(values, [rows, *shape])
        nulls = next(buffers) if head["nulls"] else None
        if kind == "json" and nulls is not None:
            values = [None if missing else json.loads(text) for text, missing in zip(values, nulls)]
        elif kind == "json":
            values = [json.loads(text) for text in values]
        columns.append(Column(head["name"], kind, values, nulls, shape))
    return columns


def _texts(kind, offsets, data):
    marks = memoryview(offsets).cast("I").tolist()
    if kind == "bytes":
        return [bytes(data[start:end]) for start, end in zip(marks, marks[1:])]
    block = bytes(data)
    text = block.decode("utf-8")
    if len(text) == len(block):
        return [text[start:end] for start, end in zip(marks, marks[1:])]
    return [block[start:end].decode("utf-8") for start, end in zip(marks, marks[1:])]


def _nest(flat, shape):
    for size in reversed(shape[1:]):
        flat = [flat[at : at + size] for at in range(0, len(flat), size)] if size else [[] for _ in range(shape[0])]
    return flat


def encode(columns):
    """Heads and buffers for (name, values) pairs; values are numpy arrays or lists, one element a row."""
    heads, buffers = [], []
    for name, values in columns:
        head, parts = _encode_array(values) if _is_array(values) else _encode_list(list(values))
        head["name"] = name
        heads.append(head)
        buffers.extend(parts)
    return heads, buffers


def _is_array(values):
    return numpy is not None and isinstance(values, numpy.ndarray)


def _encode_array(values):
    kind = values.dtype.kind
    shape = list(values.shape[1:])
    head = {"nulls": False}
    if shape:
        head["shape"] = shape
    if kind == "f":
        values = values.astype("<f4" if values.dtype.itemsize < 8 else "<f8", copy=False)
        return {**head, "type": "f32" if values.dtype.itemsize == 4 else "f64"}, [numpy.ascontiguousarray(values)]
    if kind in "iu" and (values.size == 0 or (values.max() <= _EXACT and values.min() >= -_EXACT)):
        return {**head, "type": "f64"}, [numpy.ascontiguousarray(values, dtype="<f8")]
    if kind == "b":
        return {**head, "type": "bool"}, [numpy.ascontiguousarray(values).view("u1")]
    if kind == "M":
        missing = numpy.isnat(values)
        texts = numpy.datetime_as_string(values.astype("M8[us]")).tolist()
        return _encode_list([None if gone else text for text, gone in zip(texts, missing)])
    return _encode_list(values.tolist() if kind != "O" else list(values))


def _encode_list(values):
    nulls = None
    if any(_is_missing(value) for value in values):
        nulls = bytes(1 if _is_missing(value) else 0 for value in values)
    kinds = {type(value) for value in values if not _is_missing(value)}
    if kinds <= {float} or (kinds <= {float, int} and all(_is_missing(value) or abs(value) <= _EXACT for value in values)):
        numbers = array("d", (0.0 if _is_missing(value) else value for value in values))
        head, parts = {"type": "f64"}, [numbers]
    elif kinds == {bool}:
        head, parts = {"type": "bool"}, [bytes(1 if value is True else 0 for value in values)]
    elif kinds == {str}:
        head, parts = {"type": "utf8"}, _encode_texts(["" if _is_missing(value) else value for value in values])
    else:
        texts = ["null" if _is_missing(value) else _to_json(value) for value in values]
        head, parts = {"type": "json"}, _encode_texts(texts)
    if nulls is not None:
        parts = [*parts, nulls]
    return {**head, "nulls": nulls is not None}, parts


def _encode_texts(texts):
    joined = "".join(texts)
    block = joined.encode("utf-8", "replace")
    if len(block) == len(joined):
        return [array("I", [0, *accumulate(map(len, texts))]), block]
    blocks = [text.encode("utf-8", "replace") for text in texts]
    return [array("I", [0, *accumulate(map(len, blocks))]), b"".join(blocks)]


def _is_missing(value):
    if value is None:
        return True
    kind = type(value)
    if kind is float:
        return value != value
    # pandas.NA and NaT are told by their type: to compare NA gives no truth value.
    return kind.__name__ in ("NAType", "NaTType")


def _to_json(value):
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)


def plain(value):
    """A prediction as what JSON has: dates as ISO 8601, bytes as base64, NaN as null, large integers as text."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        return value if abs(value) <= _EXACT else str(value)
    if kind is float:
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    if _is_missing(value):
        return None
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode("ascii")
    if numpy is not None and isinstance(value, numpy.datetime64):
        return None if numpy.isnat(value) else str(value)
    for method in ("tolist", "item", "model_dump", "to_dict"):
        if hasattr(value, method):
            try:
                result = getattr(value, method)()
            except Exception:
                continue
            if type(result) is not kind:
                return plain(result)
    if isinstance(value, (int, float, str)):
        return plain(next(base(value) for base in (str, int, float) if isinstance(value, base)))
    if kind.__name__ == "Decimal":
        return str(value)
    raise TypeError(f"a prediction is of the type {kind.__module__}.{kind.__qualname__}, which has no form in JSON")
