"""Turns an MLflow model of scikit-learn into ONNX (or one of LightGBM into its own text), and checks that both agree.

    python convert_sklearn.py MODEL_FOLDER RESULT_FOLDER SIGNATURE.json

SIGNATURE.json has `inputs`: the columns (name, type, required), or one tensor (shape). Writes the converted model and
`result.json` into RESULT_FOLDER: {"ok": true, "kind", "notes"} or {"ok": false, "reason"}. Loads the model, so its
pickle is run: only for models whose code may be run. Not imported by the worker.
"""

import json
import os
import sys
import warnings

RANDOM_ROWS = 1000
#: Relative difference up to which numbers count as equal; of float32 models what float32 can hold.
EQUAL = 1e-6
EQUAL_SINGLE = 1e-5


class CannotConvert(Exception):
    """The text is for the person who registers the model."""


def main(folder, result_folder, signature_file):
    warnings.filterwarnings("ignore")
    with open(signature_file, encoding="utf-8") as file:
        signature = json.load(file)
    try:
        result = {"ok": True, **convert(folder, result_folder, signature["inputs"])}
    except CannotConvert as error:
        result = {"ok": False, "reason": str(error)}
    except ImportError as error:
        result = {"ok": False, "reason": f"a package is not installed: {error}"}
    except Exception as error:  # What converters throw is theirs: the model stays with Python.
        text = " ".join(str(error).split())[:400]
        result = {"ok": False, "reason": f"{type(error).__name__}: {text}"}
    with open(os.path.join(result_folder, "result.json"), "w", encoding="utf-8") as file:
        json.dump(result, file)


def convert(folder, result_folder, inputs):
    import yaml

    with open(os.path.join(folder, "MLmodel"), encoding="utf-8") as file:
        flavors = yaml.safe_load(file)["flavors"]
    predict_name = flavors.get("python_function", {}).get("predict_fn", "predict")
    model, kind = load(folder, flavors)
    if kind == "lightgbm":
        return convert_lightgbm(model, result_folder)
    rows = check_rows(folder, inputs, model, predict_name)
    return convert_sklearn(model, predict_name, inputs, rows, result_folder)


def load(folder, flavors):
    if "lightgbm" in flavors:
        import mlflow.lightgbm

        return mlflow.lightgbm.load_model(folder), "lightgbm"
    if "sklearn" not in flavors:
        raise CannotConvert("it has no flavour sklearn or lightgbm")
    flavor = flavors["sklearn"]
    try:
        import mlflow.sklearn
    except ImportError:
        path = os.path.join(folder, flavor["pickled_model"])
        with open(path, "rb") as file:
            if flavor.get("serialization_format") == "cloudpickle":
                import cloudpickle

                return cloudpickle.load(file), "sklearn"
            import pickle

            return pickle.load(file), "sklearn"
    return mlflow.sklearn.load_model(folder), "sklearn"


# --- LightGBM -----------------------------------------------------------------------------------------------------


def convert_lightgbm(model, result_folder):
    """The booster as text. Classes are kept beside it: they are nowhere in the text."""
    booster = getattr(model, "booster_", model)
    booster.save_model(os.path.join(result_folder, "model.txt"))
    classes = getattr(model, "classes_", None)
    if classes is not None and callable(getattr(model, "objective", None)):
        raise CannotConvert("its objective is a function of its own, so it answers with sums and not with classes")
    if classes is None:
        return {"kind": "lightgbm", "notes": ["saved as LightGBM's own text"]}
    return {
        "kind": "lightgbm",
        "classes": [item.item() if hasattr(item, "item") else item for item in classes],
        "notes": ["saved as LightGBM's own text; its classes are kept with the version"],
    }


# --- rows to compare on -------------------------------------------------------------------------------------------


def check_rows(folder, inputs, model, predict_name):
    """The input example and random rows in its range, as what the model takes; with missing values where it takes them."""
    import numpy
    import pandas

    random = numpy.random.default_rng(0)
    if len(inputs) == 1 and inputs[0].get("shape") is not None:
        shape = inputs[0]["shape"]
        if len(shape) != 1 or shape[0] < 1:
            raise CannotConvert(f"it takes a tensor of shape {shape}; only rows of a known width are converted")
        example = read_example(folder)
        values = numpy.asarray(example, dtype=float).reshape(-1, shape[0]) if example is not None else None
        low, high = (values.min(0), values.max(0)) if values is not None else (-10.0, 10.0)
        rows = random.uniform(low, high, (RANDOM_ROWS, shape[0]))
        return rows if values is None else numpy.concatenate([values, rows])

    example = read_example(folder)
    if example is not None and not isinstance(example, pandas.DataFrame):
        example = None
    columns = {}
    for column in inputs:
        known = None if example is None or column["name"] not in example else example[column["name"]].dropna()
        columns[column["name"]] = random_column(column, known, random)
    frame = pandas.DataFrame(columns)
    if example is not None and set(columns) <= set(example):
        frame = pandas.concat([example[list(columns)], frame], ignore_index=True)
    for column in inputs:
        name = column["name"]
        if column["type"] == "string" and frame[name].isna().any():
            raise CannotConvert(f'column "{name}" may be missing, and ONNX has no missing texts')
        if column["type"] in ("double", "float"):
            frame[name] = frame[name].astype(float)
    return with_missing(frame, inputs, model, predict_name)


def random_column(column, known, random):
    import numpy

    kind = column["type"]
    has_values = known is not None and len(known) > 0
    if kind == "string":
        if not column.get("required", True):
            raise CannotConvert(f'column "{column["name"]}" may be missing, and ONNX has no missing texts')
        if not has_values:
            raise CannotConvert(
                f'column "{column["name"]}" is a text, and without an input example there is nothing to compare on; '
                "save the model with input_example=..."
            )
        return random.choice(numpy.asarray(known.unique(), dtype=object), RANDOM_ROWS)
    if kind == "boolean":
        return random.random(RANDOM_ROWS) < 0.5
    if kind not in ("double", "float", "long", "integer"):
        raise CannotConvert(f'column "{column["name"]}" is of type {kind}')
    low, high = (float(known.min()), float(known.max())) if has_values else (-10.0, 10.0)
    margin = (high - low or 1.0) * 0.1
    values = random.uniform(low - margin, high + margin, RANDOM_ROWS)
    return numpy.round(values).astype("int64") if kind in ("long", "integer") else values


def with_missing(frame, inputs, model, predict_name):
    """A tenth of the numbers of some rows missing, where the model itself takes that."""
    import numpy
    import pandas

    numbers = [column["name"] for column in inputs if column["type"] in ("double", "float")]
    if not numbers:
        return frame
    holed = frame.sample(min(len(frame), 300), random_state=1).copy()
    mask = numpy.random.default_rng(2).random((len(holed), len(numbers))) < 0.1
    holed[numbers] = holed[numbers].mask(mask)
    try:
        getattr(model, predict_name)(holed)
    except Exception:
        return frame
    return pandas.concat([frame, holed], ignore_index=True)


def read_example(folder):
    try:
        from mlflow.models import Model

        return Model.load(folder).load_input_example(folder)
    except Exception:
        return None


# --- ONNX ---------------------------------------------------------------------------------------------------------


def convert_sklearn(model, predict_name, inputs, rows, result_folder):
    if predict_name not in ("predict", "predict_proba"):
        raise CannotConvert(f"it answers with {predict_name}; predict and predict_proba can be converted")
    expected = getattr(model, predict_name)(rows)
    is_matrix = not hasattr(rows, "columns") or takes_one_matrix(model, inputs)
    best = None
    # scikit-learn's own trees compare in float32, whatever they are given.
    for is_double in (False, True) if trees_of(model) else (True, False):
        try:
            onx = to_onnx(model, predict_name, inputs, rows, is_matrix, is_double)
            tell_missing(onx, model)
            actual = run(onx, inputs, rows, is_matrix, is_double)
            worst = difference(expected, actual)
        except CannotConvert as error:
            best = best or str(error)
            continue
        except Exception as error:
            best = best or f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            continue
        if worst <= (EQUAL if is_double else EQUAL_SINGLE):
            result = keep(onx, inputs, rows, actual, worst, result_folder)
            if not is_double and trees_of(model):
                result["notes"].append("calculated in float32, in which scikit-learn's trees compare as well")
            elif not is_double:
                result["notes"].append("calculated in float32: its form in doubles does not agree with the model")
            return result
        best = f"its ONNX form differs from the model by {worst:.3g} on {len(rows)} rows ({'double' if is_double else 'float'})"
    raise CannotConvert(best or "no converter is known")


def takes_one_matrix(model, inputs):
    """Columns come one by one where they are of several kinds, or something in the model picks them by name."""
    if any(column["type"] in ("string", "boolean") for column in inputs):
        return False
    steps = [model]
    while steps:
        step = steps.pop()
        if type(step).__name__ in ("ColumnTransformer", "FeatureUnion"):
            return False
        steps += [part for _, part in getattr(step, "steps", [])]
    return True


def to_onnx(model, predict_name, inputs, rows, is_matrix, is_double):
    from skl2onnx import convert_sklearn as convert_model
    from skl2onnx.common.data_types import BooleanTensorType, DoubleTensorType, FloatTensorType, StringTensorType
    from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs

    number = DoubleTensorType if is_double else FloatTensorType
    kinds = {"string": StringTensorType, "boolean": BooleanTensorType}
    if is_matrix:
        initial = [("features", number([None, rows.shape[1]]))]
    else:
        initial = [(column["name"], kinds.get(column["type"], number)([None, 1])) for column in inputs]
    is_classifier = hasattr(model, "classes_") or hasattr(model, "predict_proba")
    options = {id(model): {"zipmap": False}} if is_classifier else None
    onx = convert_model(model, initial_types=initial, options=options)
    names = [output.name for output in onx.graph.output]
    wanted = names[0] if predict_name == "predict" else names[-1]
    if predict_name == "predict_proba" and len(names) < 2:
        raise CannotConvert("its ONNX form has no probabilities")
    if len(names) > 1:
        onx = select_model_inputs_outputs(onx, outputs=[wanted])
    return onx


def trees_of(model):
    """The trees of a forest, of boosting or alone, in the order of the converter; empty for other models."""
    import numpy

    if hasattr(model, "tree_"):
        return [model.tree_]
    parts = getattr(model, "estimators_", None)
    if not isinstance(parts, (list, numpy.ndarray)):
        return []
    trees = [getattr(part, "tree_", None) for part in numpy.asarray(parts, dtype=object).ravel()]
    return [] if None in trees else trees


def tell_missing(onx, model):
    """The converter leaves out where missing values go in scikit-learn's trees."""
    from onnx import helper

    last = model.steps[-1][1] if getattr(model, "steps", None) else model
    trees = trees_of(last)
    nodes = [node for node in onx.graph.node if node.op_type.startswith("TreeEnsemble")]
    if not trees or len(nodes) != 1:
        return
    attributes = {attribute.name: attribute for attribute in nodes[0].attribute}
    if "nodes_treeids" not in attributes:
        return
    goes_left = [getattr(tree, "missing_go_to_left", None) for tree in trees]
    if any(flags is None for flags in goes_left):
        return
    places = zip(attributes["nodes_treeids"].ints, attributes["nodes_nodeids"].ints)
    flags = [int(goes_left[tree][node]) for tree, node in places]
    name = "nodes_missing_value_tracks_true"
    if name in attributes:
        nodes[0].attribute.remove(attributes[name])
    nodes[0].attribute.append(helper.make_attribute(name, flags))


def run(onx, inputs, rows, is_matrix, is_double):
    import numpy
    import onnxruntime

    session = onnxruntime.InferenceSession(onx.SerializeToString(), providers=["CPUExecutionProvider"])
    dtype = numpy.float64 if is_double else numpy.float32
    if is_matrix:
        feeds = {"features": numpy.asarray(rows, dtype=dtype)}
    else:
        kinds = {"string": object, "boolean": bool}
        feeds = {
            column["name"]: rows[column["name"]].to_numpy(dtype=kinds.get(column["type"], dtype)).reshape(-1, 1)
            for column in inputs
        }
        known = {item.name for item in session.get_inputs()}
        feeds = {name: values for name, values in feeds.items() if name in known}
    return session.run(None, feeds)[0]


def difference(expected, actual):
    """The largest relative difference; infinity where classes or shapes differ."""
    import numpy

    expected = numpy.asarray(expected)
    actual = numpy.asarray(actual)
    if expected.size != actual.size:
        raise CannotConvert(f"its ONNX form gives {actual.shape} for {expected.shape}")
    actual = actual.reshape(expected.shape)
    if expected.dtype.kind != "f":
        wrong = int((expected.astype(str) != actual.astype(str)).sum())
        if wrong > 0:
            raise CannotConvert(f"its ONNX form gives another class for {wrong} of {expected.size} rows")
        return 0.0
    if expected.size == 0:
        return 0.0
    both_missing = numpy.isnan(expected) & numpy.isnan(actual)
    gap = numpy.abs(expected - actual) / numpy.maximum(1.0, numpy.abs(expected))
    return float(numpy.where(both_missing, 0.0, gap).max())


def keep(onx, inputs, rows, actual, worst, result_folder):
    import skl2onnx

    with open(os.path.join(result_folder, "model.onnx"), "wb") as file:
        file.write(onx.SerializeToString())
    notes = [
        f"converted to ONNX by skl2onnx {skl2onnx.__version__}; on {len(rows)} rows the answers "
        + ("are equal" if worst == 0 else f"differ by {worst:.1g} at most, relative to the larger of 1 and the value")
    ]
    known = {item.name for item in onx.graph.input}
    unused = [column["name"] for column in inputs if column["name"] not in known]
    return {
        "kind": "onnx",
        "unused": [] if "features" in known else unused,
        "outputType": output_type(actual),
        "needsMissing": needs_missing(inputs),
        "notes": notes,
    }


def needs_missing(inputs):
    """Numbers may be missing by the signature; MLflow makes a column optional where its example has holes."""
    return any(not column.get("required", True) for column in inputs)


def output_type(values):
    """As a signature calls it, from what the ONNX form has given."""
    names = {"f": "float" if values.dtype.itemsize <= 4 else "double", "i": "long", "u": "long", "b": "boolean"}
    return names.get(values.dtype.kind, "string")


if __name__ == "__main__":
    main(*sys.argv[1:4])
