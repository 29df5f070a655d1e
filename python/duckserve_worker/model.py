"""A model of the `python_function` flavour: loaded by MLflow where it is installed, else by the same contract.

The contract: a loader module has `_load_pyfunc(data_path)`, which gives an object with `predict`.
"""

import importlib
import importlib.util
import inspect
import os
import sys

from . import columns

try:
    import pandas
except ImportError:
    pandas = None
try:
    import numpy
except ImportError:
    numpy = None


class Mismatch(Exception):
    """Predictions that cannot be told apart by row. The text holds no data."""

    is_safe = True


class Model:
    def __init__(self, pyfunc, loaded_with):
        #: What MLflow has loaded (`PyFuncModel`), or what `_load_pyfunc` gave.
        self.pyfunc = pyfunc
        self.loaded_with = loaded_with
        self._takes_params = _takes_params(pyfunc)

    def predict(self, data, params):
        if params and self._takes_params:
            return self.pyfunc.predict(data, params=params)
        return self.pyfunc.predict(data)


def load(header):
    folder = header["folder"]
    if importlib.util.find_spec("mlflow") is not None:
        import mlflow.pyfunc

        return Model(mlflow.pyfunc.load_model(folder), "mlflow")
    loader = header.get("loader_module")
    if not loader:
        raise ModuleNotFoundError("the model names no loader module, and mlflow is not installed in its environment")
    if header.get("code"):
        code = os.path.join(folder, header["code"])
        sys.path.insert(0, code)
        # MLflow adds the folders in it as well.
        sys.path[1:1] = [entry.path for entry in os.scandir(code) if entry.is_dir() and entry.name != "__pycache__"]
    try:
        module = importlib.import_module(loader)
    except ModuleNotFoundError as error:
        if loader.split(".")[0] == "mlflow":
            raise ModuleNotFoundError(
                f"the loader of the model is {loader}, and mlflow is not installed in its environment"
            ) from None
        raise error
    data = os.path.join(folder, header["data"]) if header.get("data") else folder
    return Model(module._load_pyfunc(data), loader)


def _takes_params(pyfunc):
    try:
        parameters = inspect.signature(pyfunc.predict).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(each.name == "params" or each.kind is each.VAR_KEYWORD for each in parameters)


class Table:
    """The rows of a request. `pick` gives what the model is handed for a range of them."""

    def __init__(self, header, buffers):
        self.rows = header["rows"]
        self._form = header.get("form", "table")
        self._columns = columns.decode(header["columns"], buffers, self.rows)
        self._dtypes = [head.get("dtype") for head in header["columns"]]
        self._whole = None

    def pick(self, start, end):
        if self._whole is None:
            self._whole = self._build()
        if start == 0 and end == self.rows:
            return self._whole
        if self._form == "tensor":
            return self._whole[start:end]
        if isinstance(self._whole, dict):
            return {name: values[start:end] for name, values in self._whole.items()}
        return self._whole.iloc[start:end].reset_index(drop=True)

    def _build(self):
        if self._form == "tensor":
            return self._array(0)
        if self._form == "tensors":
            return {column.name: self._array(index) for index, column in enumerate(self._columns)}
        names = [index if column.name is None else column.name for index, column in enumerate(self._columns)]
        if pandas is None:
            return {name: column.cells() for name, column in zip(names, self._columns)}
        if len(set(names)) == len(names):
            return pandas.DataFrame({name: _series(column) for name, column in zip(names, self._columns)}, columns=names)
        frame = pandas.concat([pandas.Series(_series(column)) for column in self._columns], axis=1)
        frame.columns = names
        return frame

    def _array(self, index):
        column = self._columns[index]
        values = column.values
        if numpy is None:
            return column.cells()
        if not isinstance(values, numpy.ndarray):
            cells = column.cells()
            dtype = self._dtypes[index]
            is_text = column.type in ("utf8", "bytes")
            if dtype is None or is_text:
                array = numpy.array(cells) if column.type == "json" else numpy.array(cells, dtype=object)
                return array
            return numpy.array(cells, dtype=dtype)
        dtype = self._dtypes[index]
        return values if dtype is None else values.astype(dtype, copy=False)


def _series(column):
    """A column of a data frame as MLflow makes it of JSON: missing numbers are NaN, missing texts None."""
    values, nulls = column.values, column.nulls
    if column.type == "datetime":
        moments = numpy.array(values).view("M8[us]").astype("M8[ns]")
        if nulls is not None:
            moments[numpy.frombuffer(nulls, dtype="?")] = numpy.datetime64("NaT")
        return moments
    if not isinstance(values, numpy.ndarray):
        cells = column.cells()
        return pandas.Series(cells, dtype=object)
    if column.shape is not None:
        return pandas.Series(list(values), dtype=object)
    if nulls is None:
        return values
    missing = numpy.frombuffer(nulls, dtype="?")
    if values.dtype.kind == "f":
        values = values.copy()
        values[missing] = numpy.nan
        return values
    if values.dtype.kind == "b":
        cells = values.astype(object)
        cells[missing] = None
        return cells
    numbers = values.astype("float64")
    numbers[missing] = numpy.nan
    return numbers


def predictions(result, rows):
    """What `predict` gave as (name, values) pairs of `rows` elements each. Raises Mismatch."""
    if pandas is not None and isinstance(result, pandas.DataFrame):
        _require(len(result), rows)
        return [(str(name), _values(result.iloc[:, at])) for at, name in enumerate(result.columns)]
    if pandas is not None and isinstance(result, pandas.Series):
        _require(len(result), rows)
        return [(None if result.name is None else str(result.name), _values(result))]
    if hasattr(result, "toarray") and hasattr(result, "tocsr"):
        result = result.toarray()
    if numpy is not None and isinstance(result, numpy.ndarray):
        if result.ndim == 0:
            result = result.reshape(1)
        _require(len(result), rows)
        return [(None, result)]
    if isinstance(result, dict):
        sizes = {name: _length(values) for name, values in result.items()}
        if result and all(size == rows for size in sizes.values()):
            return [(str(name), _plain_list(values)) for name, values in result.items()]
        if rows == 1:
            return [(None, [result])]
        raise Mismatch(f"the model gave {sizes} values for {rows} rows" if len(sizes) < 9 else "columns differ in length")
    if isinstance(result, (list, tuple)):
        if len(result) != rows and rows == 1:
            return [(None, [list(result)])]
        _require(len(result), rows)
        return [(None, list(result))]
    if hasattr(result, "tolist"):
        return predictions(result.tolist(), rows)
    if rows == 1:
        return [(None, [result])]
    raise Mismatch(f"the model gave one {type(result).__name__} for {rows} rows, and not one prediction a row")


def _values(series):
    if numpy is not None and isinstance(series.dtype, numpy.dtype) and series.dtype.kind in "fiubM":
        return series.to_numpy()
    return series.tolist()


def _plain_list(values):
    if numpy is not None and isinstance(values, numpy.ndarray):
        return values
    return _values(values) if pandas is not None and isinstance(values, pandas.Series) else list(values)


def _length(values):
    if isinstance(values, (str, bytes, dict)) or not hasattr(values, "__len__"):
        return None
    return None if getattr(values, "ndim", 1) == 0 else len(values)


def _require(count, rows):
    if count != rows:
        raise Mismatch(f"the model gave {count} predictions for {rows} rows")
