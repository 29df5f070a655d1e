"""Trains small models on real data, saves them as their users would, and writes beside each what its own library
predicts: OUT/NAME/model and OUT/NAME/expected.json, with an OUT/README.md that lists them. Seeds are fixed.

Usage: make_models.py OUT [NAME...]
"""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn import datasets

warnings.filterwarnings("ignore")
HERE = Path(__file__).parent
PENGUINS = HERE.parents[1] / "node_modules" / "vega-datasets" / "data" / "penguins.json"
EXAMPLE_ROWS = 5
MAKERS = {}


def made(name):
    def keep(make):
        MAKERS[name] = make
        return make

    return keep


def plain(value):
    """What JSON has for a prediction: no NaN, no types of NumPy."""
    if isinstance(value, pd.DataFrame):
        return [{str(key): plain(cell) for key, cell in row.items()} for row in value.to_dict("records")]
    if isinstance(value, pd.Series):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if value is pd.NA:
        return None
    return value


def split(frame):
    return {"dataframe_split": {"columns": list(frame.columns), "data": plain(frame.to_numpy(dtype=object))}}


def case(body, predictions, title="all rows", **more):
    return {"title": title, "body": body, "predictions": plain(predictions), **more}


def frame_of(data, target=None):
    frame = pd.DataFrame(data.data, columns=[str(name) for name in data.feature_names]).astype("float64")
    frame.columns = [name.replace(" (cm)", "").replace(" ", "_").replace("/", "_") for name in frame.columns]
    return frame


def with_holes(frame, share=0.1, seed=7):
    """The same with cells missing, as real tables have them."""
    holes = np.random.default_rng(seed).random(frame.shape) < share
    return frame.mask(holes)


def penguins():
    """344 rows; sex is not known of all of them, and of two nothing is measured."""
    names = {
        "Species": "species",
        "Island": "island",
        "Beak Length (mm)": "bill_length_mm",
        "Beak Depth (mm)": "bill_depth_mm",
        "Flipper Length (mm)": "flipper_length_mm",
        "Body Mass (g)": "body_mass_g",
        "Sex": "sex",
    }
    table = pd.DataFrame(json.loads(PENGUINS.read_text())).rename(columns=names)
    for text in ["island", "sex"]:
        table[text] = table[text].astype(object).where(table[text].notna(), None)
    return table


def needs(*packages):
    """Requirements as MLflow infers them, without the process it starts for that."""
    return [f"{package}=={version(package)}" for package in packages]


SKLEARN = needs("scikit-learn", "cloudpickle", "pandas")
XGBOOST = [f"xgboost=={version('xgboost-cpu')}", *needs("pandas")]
LIGHTGBM = needs("lightgbm", "pandas")


def check_pyfunc(path, frame, own, params=None):
    """What MLflow gives for the saved model must be what the library gave for the one in memory."""
    loaded = mlflow.pyfunc.load_model(str(path))
    again = loaded.predict(frame, params=params) if params else loaded.predict(frame)
    left, right = plain(again), plain(own)
    if isinstance(left, list) and left and isinstance(left[0], dict) and len(left[0]) == 1:
        left = [next(iter(row.values())) for row in left]
    np.testing.assert_equal(np.asarray(left, dtype=object).shape, np.asarray(right, dtype=object).shape)
    if isinstance(right[0], str):
        assert left == right
    elif not isinstance(right[0], dict):
        np.testing.assert_allclose(np.asarray(left, dtype=float), np.asarray(right, dtype=float), rtol=1e-12)


# scikit-learn


@made("sklearn-classifier")
def _(path):
    import sklearn
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data = datasets.load_iris()
    frame = frame_of(data)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, data.target_names[data.target])
    own = model.predict(frame)
    mlflow.sklearn.save_model(
        model, path, signature=infer_signature(frame, own), input_example=frame.head(EXAMPLE_ROWS), serialization_format="cloudpickle", pip_requirements=SKLEARN
    )
    check_pyfunc(path, frame, own)
    return {"library": f"scikit-learn {sklearn.__version__}", "data": "iris", "engine": "python", "cases": [case(split(frame), own)]}


@made("sklearn-regressor")
def _(path):
    import sklearn
    from sklearn.ensemble import RandomForestRegressor

    data = datasets.load_diabetes()
    frame = frame_of(data)
    model = RandomForestRegressor(30, max_depth=6, random_state=0).fit(frame, data.target)
    own = model.predict(frame)
    mlflow.sklearn.save_model(
        model, path, signature=infer_signature(frame, own), input_example=frame.head(EXAMPLE_ROWS), serialization_format="cloudpickle", pip_requirements=SKLEARN
    )
    check_pyfunc(path, frame, own)
    return {"library": f"scikit-learn {sklearn.__version__}", "data": "diabetes", "engine": "python", "cases": [case(split(frame), own)]}


@made("sklearn-pipeline")
def _(path):
    """Texts and numbers with cells missing, through a ColumnTransformer."""
    import sklearn
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    table = penguins()
    numbers = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
    texts = ["island", "sex"]
    frame = table[numbers + texts].copy()
    frame[numbers] = with_holes(frame[numbers].astype("float64"))
    model = make_pipeline(
        ColumnTransformer(
            [
                ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
                ("texts", OneHotEncoder(handle_unknown="ignore"), texts),
            ]
        ),
        RandomForestClassifier(40, max_depth=6, random_state=0),
    ).fit(frame, table["species"])
    own = model.predict(frame)
    mlflow.sklearn.save_model(
        model, path, signature=infer_signature(frame, own), input_example=frame.head(EXAMPLE_ROWS), serialization_format="cloudpickle", pip_requirements=SKLEARN
    )
    check_pyfunc(path, frame, own)
    return {"library": f"scikit-learn {sklearn.__version__}", "data": "penguins", "engine": "python", "cases": [case(split(frame), own)]}


@made("sklearn-skops")
def _(path):
    """As MLflow 3 writes scikit-learn by itself: no pickle, but skops."""
    import sklearn
    from sklearn.linear_model import Ridge

    data = datasets.load_diabetes()
    frame = frame_of(data)
    model = Ridge(alpha=0.1).fit(frame, data.target)
    own = model.predict(frame)
    mlflow.sklearn.save_model(
        model, path, signature=infer_signature(frame, own), serialization_format="skops", pip_requirements=needs("scikit-learn", "skops", "pandas")
    )
    check_pyfunc(path, frame, own)
    return {"library": f"scikit-learn {sklearn.__version__}", "data": "diabetes", "engine": "python", "cases": [case(split(frame), own)]}


@made("sklearn-probabilities")
def _(path):
    """`predict_proba` as the pyfunc's function: several numbers a row."""
    import sklearn
    from sklearn.ensemble import RandomForestClassifier

    data = datasets.load_wine()
    frame = frame_of(data)
    model = RandomForestClassifier(30, random_state=0).fit(frame, data.target)
    own = model.predict_proba(frame)
    mlflow.sklearn.save_model(
        model, path, pyfunc_predict_fn="predict_proba", signature=infer_signature(frame, own), serialization_format="cloudpickle", pip_requirements=SKLEARN
    )
    check_pyfunc(path, frame, own)
    return {"library": f"scikit-learn {sklearn.__version__}", "data": "wine", "engine": "python", "cases": [case(split(frame), own)]}


@made("sklearn-tensor")
def _(path):
    """An old-style tensor signature: one unnamed tensor of 64 numbers a row."""
    import sklearn
    from sklearn.linear_model import LogisticRegression

    data = datasets.load_digits()
    rows = data.data[:300].astype("float64")
    model = LogisticRegression(max_iter=200).fit(data.data, data.target)
    own = model.predict(rows)
    mlflow.sklearn.save_model(model, path, signature=infer_signature(rows, own), serialization_format="cloudpickle", pip_requirements=SKLEARN)
    return {
        "library": f"scikit-learn {sklearn.__version__}",
        "data": "digits",
        "engine": "python",
        "cases": [
            case({"instances": plain(rows)}, own, "instances"),
            case({"inputs": plain(rows)}, own, "inputs"),
        ],
    }


# XGBoost


def save_xgboost(path, model, signature, frame, **more):
    example = frame.head(EXAMPLE_ROWS)
    mlflow.xgboost.save_model(model, path, signature=signature, input_example=example, pip_requirements=XGBOOST, **more)


@made("xgboost-booster")
def _(path):
    import xgboost

    data = datasets.load_diabetes()
    frame = with_holes(frame_of(data))
    model = xgboost.train(
        {"max_depth": 4, "eta": 0.2, "seed": 0, "nthread": 2}, xgboost.DMatrix(frame, data.target), num_boost_round=60
    )
    own = model.predict(xgboost.DMatrix(frame))
    save_xgboost(path, model, infer_signature(frame, own), frame)
    check_pyfunc(path, frame, own)
    return {"library": f"xgboost {xgboost.__version__}", "data": "diabetes with holes", "engine": "trees", "cases": [case(split(frame), own)]}


@made("xgboost-classifier")
def _(path):
    import xgboost

    data = datasets.load_wine()
    frame = frame_of(data)
    model = xgboost.XGBClassifier(n_estimators=30, max_depth=3, random_state=0, n_jobs=2).fit(frame, data.target)
    own = model.predict(frame)
    save_xgboost(path, model, infer_signature(frame, own), frame, model_format="json")
    check_pyfunc(path, frame, own)
    return {"library": f"xgboost {xgboost.__version__}", "data": "wine", "engine": "trees", "cases": [case(split(frame), own)]}


@made("xgboost-regressor")
def _(path):
    import xgboost

    data = datasets.load_diabetes()
    frame = with_holes(frame_of(data), seed=8)
    model = xgboost.XGBRegressor(n_estimators=50, max_depth=5, random_state=0, n_jobs=2).fit(frame, data.target)
    own = model.predict(frame)
    save_xgboost(path, model, infer_signature(frame, own), frame)
    check_pyfunc(path, frame, own)
    return {"library": f"xgboost {xgboost.__version__}", "data": "diabetes with holes", "engine": "trees", "cases": [case(split(frame), own)]}


@made("xgboost-binary-file")
def _(path):
    """A file as `save_model` writes it, without MLflow around it."""
    import xgboost

    data = datasets.load_breast_cancer()
    frame = with_holes(frame_of(data), 0.05)
    model = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 3, "seed": 0, "nthread": 2, "booster": "dart", "rate_drop": 0.1},
        xgboost.DMatrix(frame, data.target),
        num_boost_round=25,
    )
    own = model.predict(xgboost.DMatrix(frame))
    path.mkdir()
    model.save_model(path / "model.ubj")
    return {
        "library": f"xgboost {xgboost.__version__}",
        "data": "breast cancer with holes",
        "engine": "trees",
        "file": "model.ubj",
        "cases": [case(split(frame), own)],
    }


@made("xgboost-categorical-file")
def _(path):
    """Categories as their codes, which is what the model's file knows of them."""
    import xgboost

    table = penguins()
    frame = pd.DataFrame(
        {
            "island": table["island"].astype("category").cat.codes.astype("float64"),
            "bill_length_mm": table["bill_length_mm"].astype("float64"),
            "bill_depth_mm": table["bill_depth_mm"].astype("float64"),
        }
    )
    frame = frame.mask(with_holes(frame, seed=9).isna())
    types = ["c", "float", "float"]
    matrix = xgboost.DMatrix(frame, table["body_mass_g"].fillna(4000), feature_types=types, enable_categorical=True)
    model = xgboost.train({"max_depth": 4, "seed": 0, "nthread": 2, "max_cat_to_onehot": 1}, matrix, num_boost_round=30)
    own = model.predict(matrix)
    path.mkdir()
    model.save_model(path / "model.json")
    return {
        "library": f"xgboost {xgboost.__version__}",
        "data": "penguins with holes",
        "engine": "trees",
        "file": "model.json",
        "cases": [case(split(frame), own)],
    }


# LightGBM


def save_lightgbm(path, model, signature, frame, **more):
    example = frame.head(EXAMPLE_ROWS)
    mlflow.lightgbm.save_model(model, path, signature=signature, input_example=example, pip_requirements=LIGHTGBM, **more)


@made("lightgbm-booster")
def _(path):
    import lightgbm

    data = datasets.load_breast_cancer()
    frame = with_holes(frame_of(data))
    model = lightgbm.train(
        {"objective": "binary", "num_leaves": 15, "seed": 0, "verbose": -1, "num_threads": 2, "deterministic": True},
        lightgbm.Dataset(frame, data.target),
        num_boost_round=40,
    )
    own = model.predict(frame)
    save_lightgbm(path, model, infer_signature(frame, own), frame)
    check_pyfunc(path, frame, own)
    return {"library": f"lightgbm {lightgbm.__version__}", "data": "breast cancer with holes", "engine": "trees", "cases": [case(split(frame), own)]}


@made("lightgbm-classifier")
def _(path):
    import lightgbm

    data = datasets.load_wine()
    frame = frame_of(data)
    model = lightgbm.LGBMClassifier(n_estimators=30, num_leaves=7, random_state=0, verbose=-1, n_jobs=2)
    model.fit(frame, data.target_names[data.target])
    own = model.predict(frame)
    save_lightgbm(path, model, infer_signature(frame, own), frame, serialization_format="cloudpickle")
    check_pyfunc(path, frame, own)
    return {"library": f"lightgbm {lightgbm.__version__}", "data": "wine", "engine": "python", "cases": [case(split(frame), own)]}


@made("lightgbm-categorical-file")
def _(path):
    import lightgbm

    table = penguins()
    frame = pd.DataFrame(
        {
            "island": table["island"].astype("category").cat.codes.astype("float64"),
            "bill_length_mm": table["bill_length_mm"].astype("float64"),
            "bill_depth_mm": table["bill_depth_mm"].astype("float64"),
        }
    )
    frame = frame.mask(with_holes(frame, seed=9).isna())
    model = lightgbm.train(
        {"objective": "regression", "num_leaves": 15, "seed": 0, "verbose": -1, "num_threads": 2, "min_data_in_leaf": 5},
        lightgbm.Dataset(frame, table["body_mass_g"].fillna(4000), categorical_feature=["island"]),
        num_boost_round=40,
    )
    own = model.predict(frame)
    path.mkdir()
    model.save_model(str(path / "model.txt"))
    return {
        "library": f"lightgbm {lightgbm.__version__}",
        "data": "penguins with holes",
        "engine": "trees",
        "file": "model.txt",
        "cases": [case(split(frame), own)],
    }


# ONNX


def run_onnx(model, feeds):
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))


def onnx_library():
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def iris_onnx(options):
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    data = datasets.load_iris()
    rows = data.data.astype("float32")
    model = LogisticRegression(max_iter=300).fit(rows, data.target_names[data.target])
    converted = to_onnx(model, rows[:1], options=options, target_opset=17)
    return converted, rows, [name.replace(" (cm)", "").replace(" ", "_") for name in data.feature_names]


def by_row(outputs):
    """One object a row, as several outputs are given; one value where there is one."""
    columns = {name: plain(values) for name, values in outputs.items()}
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, cells)) for cells in zip(*columns.values())]


@made("onnx-zipmap")
def _(path):
    """A classifier with skl2onnx's own options: probabilities are a sequence of maps."""
    converted, rows, columns = iris_onnx(None)
    own = run_onnx(converted, {"X": rows})
    mlflow.onnx.save_model(converted, path, pip_requirements=needs("onnx", "onnxruntime", "pandas"))
    return {
        "library": onnx_library(),
        "data": "iris",
        "engine": "onnx",
        "cases": [case({"instances": plain(rows)}, by_row(own), "instances")],
    }


@made("onnx-plain")
def _(path):
    converted, rows, columns = iris_onnx({"zipmap": False})
    own = run_onnx(converted, {"X": rows})
    mlflow.onnx.save_model(converted, path, pip_requirements=needs("onnx", "onnxruntime", "pandas"), signature=infer_signature(rows, own))
    return {
        "library": onnx_library(),
        "data": "iris",
        "engine": "onnx",
        "cases": [
            case({"instances": plain(rows)}, by_row(own), "instances"),
            case({"inputs": plain(rows)}, by_row(own), "inputs"),
        ],
    }


@made("onnx-columns")
def _(path):
    """One input a column, texts and numbers, in a file without MLflow."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    table = penguins().dropna(subset=["bill_length_mm", "bill_depth_mm", "body_mass_g"])
    frame = table[["bill_length_mm", "bill_depth_mm", "island"]].copy()
    frame["island"] = frame["island"].astype(object)
    frame[["bill_length_mm", "bill_depth_mm"]] = frame[["bill_length_mm", "bill_depth_mm"]].astype("float32")
    model = make_pipeline(
        ColumnTransformer(
            [
                ("numbers", StandardScaler(), ["bill_length_mm", "bill_depth_mm"]),
                ("island", OneHotEncoder(), ["island"]),
            ]
        ),
        RandomForestRegressor(20, max_depth=5, random_state=0),
    ).fit(frame, table["body_mass_g"])
    types = [
        ("bill_length_mm", FloatTensorType([None, 1])),
        ("bill_depth_mm", FloatTensorType([None, 1])),
        ("island", StringTensorType([None, 1])),
    ]
    converted = to_onnx(model, initial_types=types, target_opset=17)
    own = run_onnx(
        converted,
        {name: frame[[name]].to_numpy(dtype=object if name == "island" else "float32") for name in frame.columns},
    )
    path.mkdir()
    (path / "model.onnx").write_bytes(converted.SerializeToString())
    return {
        "library": onnx_library(),
        "data": "penguins",
        "engine": "onnx",
        "file": "model.onnx",
        "cases": [case(split(frame), [row[0] if isinstance(row, list) else row for row in by_row(own)])],
    }


@made("onnx-int64")
def _(path):
    from skl2onnx import to_onnx
    from sklearn.tree import DecisionTreeClassifier

    data = datasets.load_digits()
    rows = data.data.astype("int64")
    model = DecisionTreeClassifier(max_depth=8, random_state=0).fit(rows, data.target)
    converted = to_onnx(model, rows[:1], options={"zipmap": False}, target_opset=17)
    rows = rows[:300]
    own = run_onnx(converted, {"X": rows})
    mlflow.onnx.save_model(converted, path, pip_requirements=needs("onnx", "onnxruntime", "pandas"), signature=infer_signature(rows, own))
    return {
        "library": onnx_library(),
        "data": "digits",
        "engine": "onnx",
        "cases": [case({"instances": plain(rows)}, by_row(own), "instances")],
    }


def graph(nodes, inputs, outputs, weights=()):
    import onnx

    made_of = onnx.helper.make_graph(nodes, "made", inputs, outputs, list(weights))
    model = onnx.helper.make_model(made_of, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


@made("onnx-two-inputs")
def _(path):
    """Two named tensors in, two out, one of them truth values."""
    import onnx
    from onnx import TensorProto, helper

    data = datasets.load_wine().data[:150].astype("float32")
    left, right = data[:, :3], data[:, 3:6]
    converted = graph(
        [
            helper.make_node("Mul", ["left", "right"], ["product"]),
            helper.make_node("Greater", ["left", "right"], ["greater"]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("left", "right")],
        [
            helper.make_tensor_value_info("product", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("greater", TensorProto.BOOL, ["n", 3]),
        ],
    )
    own = run_onnx(converted, {"left": left, "right": right})
    mlflow.onnx.save_model(converted, path, pip_requirements=needs("onnx", "onnxruntime", "pandas"), signature=infer_signature({"left": left, "right": right}, own))
    named = [{"left": plain(a), "right": plain(b)} for a, b in zip(left, right)]
    return {
        "library": f"{onnx_library()}, onnx {onnx.__version__}",
        "data": "wine",
        "engine": "onnx",
        "cases": [
            case({"instances": named}, by_row(own), "instances"),
            case({"inputs": {"left": plain(left), "right": plain(right)}}, by_row(own), "inputs"),
        ],
    }


@made("onnx-fixed-batch")
def _(path):
    """A graph that takes eight rows at once, no more and no fewer."""
    from onnx import TensorProto, helper, numpy_helper

    data = datasets.load_iris()
    weights = np.random.default_rng(3).normal(size=(4, 2)).astype("float32")
    converted = graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    rows = data.data[:100].astype("float32")
    padded = np.vstack([rows, np.zeros((4, 4), dtype="float32")])
    own = np.vstack([run_onnx(converted, {"x": padded[at : at + 8]})["y"] for at in range(0, len(padded), 8)])[:100]
    path.mkdir()
    (path / "model.onnx").write_bytes(converted.SerializeToString())
    return {
        "library": onnx_library(),
        "data": "iris",
        "engine": "onnx",
        "file": "model.onnx",
        "cases": [case({"instances": plain(rows)}, own, "instances, 100 rows")],
    }


@made("onnx-images")
def _(path):
    """Images of 8 x 8 as nested lists."""
    from onnx import TensorProto, helper, numpy_helper
    from sklearn.neural_network import MLPClassifier

    data = datasets.load_digits()
    net = MLPClassifier((32,), max_iter=60, random_state=0).fit(data.data, data.target)
    names = ["w0", "b0", "w1", "b1"]
    arrays = [net.coefs_[0], net.intercepts_[0], net.coefs_[1], net.intercepts_[1]]
    converted = graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "w0", "b0"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "w1", "b1"], ["z"]),
            helper.make_node("Softmax", ["z"], ["probabilities"], axis=1),
        ],
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(np.asarray(array, dtype="float32"), name) for name, array in zip(names, arrays)],
    )
    images = data.images[:200].astype("float32")
    own = run_onnx(converted, {"image": images})
    mlflow.onnx.save_model(converted, path, pip_requirements=needs("onnx", "onnxruntime", "pandas"), signature=infer_signature(images, own["probabilities"]))
    return {
        "library": f"{onnx_library()}, from scikit-learn's MLPClassifier",
        "data": "digits",
        "engine": "onnx",
        "cases": [case({"instances": plain(images)}, own["probabilities"], "instances")],
    }


@made("onnx-xgboost")
def _(path):
    """A classifier of XGBoost as onnxmltools converts it."""
    import onnxmltools
    import xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    data = datasets.load_wine()
    rows = data.data.astype("float32")
    model = xgboost.XGBClassifier(n_estimators=20, max_depth=3, random_state=0, n_jobs=2).fit(rows, data.target)
    converted = onnxmltools.convert_xgboost(model, initial_types=[("features", FloatTensorType([None, 13]))], target_opset=15)
    own = run_onnx(converted, {"features": rows})
    path.mkdir()
    (path / "model.onnx").write_bytes(converted.SerializeToString())
    return {
        "library": f"{onnx_library()}, onnxmltools {onnxmltools.__version__}",
        "data": "wine",
        "engine": "onnx",
        "file": "model.onnx",
        "cases": [case({"instances": plain(rows)}, by_row(own), "instances")],
    }


# Models of one's own code

CODE_MODULE = '''"""Beside the model: what it imports."""


def scaled(values, factor):
    return values * factor
'''

CODE_MODEL = '''import mlflow
import numpy as np
import pandas as pd
from scaling import scaled


class Sums(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        params = params or {}
        total = scaled(model_input.select_dtypes("number").sum(axis=1), params.get("factor", 1.0))
        return pd.DataFrame({"total": total, "label": [params.get("prefix", "row") + ":" + kind for kind in model_input["kind"]]})


mlflow.models.set_model(Sums())
'''


@made("pyfunc-code")
def _(path):
    """A model from code, with a module of its own beside it, parameters, and two outputs."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    source = path.parent / "source"
    source.mkdir()
    (source / "scaling.py").write_text(CODE_MODULE)
    (source / "sums.py").write_text(CODE_MODEL)
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=250),
            "n": rng.integers(-5, 5, 250),
            "kind": rng.choice(["Ärger", "duck", "雨", ""], 250),
        }
    )
    signature = ModelSignature(
        inputs=Schema([ColSpec("double", "x"), ColSpec("long", "n"), ColSpec("string", "kind")]),
        outputs=Schema([ColSpec("double", "total"), ColSpec("string", "label")]),
        params=ParamSchema([ParamSpec("factor", "double", 1.0), ParamSpec("prefix", "string", "row")]),
    )
    sys.path.insert(0, str(source))
    mlflow.pyfunc.save_model(path, python_model=str(source / "sums.py"), code_paths=[str(source / "scaling.py")], signature=signature, pip_requirements=needs("pandas"))
    sys.path.remove(str(source))
    loaded = mlflow.pyfunc.load_model(str(path))
    params = {"factor": 2.5, "prefix": "p"}
    return {
        "library": f"mlflow {mlflow.__version__}",
        "data": "made",
        "engine": "python",
        "cases": [
            case(split(frame), loaded.predict(frame)),
            case(split(frame), loaded.predict(frame, params=params), "with params", params=params),
        ],
    }


class Distance(mlflow.pyfunc.PythonModel):
    """Distances to two points; a tensor in, a tensor out."""

    def load_context(self, context):
        self.points = np.load(context.artifacts["points"])

    def predict(self, context, model_input, params=None):
        rows = np.asarray(model_input, dtype="float64")
        return np.sqrt(((rows[:, None, :] - self.points[None]) ** 2).sum(axis=2))


@made("pyfunc-tensor")
def _(path):
    """A cloudpickled PythonModel with an artifact and a tensor signature."""
    data = datasets.load_iris().data
    points = path.parent / "points.npy"
    np.save(points, data[[0, 100]])
    own = np.sqrt(((data[:, None, :] - data[[0, 100]][None]) ** 2).sum(axis=2))
    mlflow.pyfunc.save_model(
        path, python_model=Distance(), artifacts={"points": str(points)}, signature=infer_signature(data, own), pip_requirements=needs("cloudpickle", "numpy", "pandas")
    )
    check_pyfunc(path, data, own)
    return {
        "library": f"mlflow {mlflow.__version__}",
        "data": "iris",
        "engine": "python",
        "cases": [case({"instances": plain(data)}, own, "instances"), case({"inputs": plain(data)}, own, "inputs")],
    }


class Odd(mlflow.pyfunc.PythonModel):
    """Ends or fails on purpose: `crash` ends the process, `raise` is an exception, any other number its square."""

    def predict(self, context, model_input, params=None):
        import os

        values = model_input["x"]
        if (values == 13).any():
            raise ValueError("thirteen cannot be squared here")
        if (values == 666).any():
            os._exit(3)
        return values**2


@made("pyfunc-odd")
def _(path):
    frame = pd.DataFrame({"x": [float(n) for n in range(10)]})
    own = frame["x"] ** 2
    mlflow.pyfunc.save_model(path, python_model=Odd(), signature=infer_signature(frame, own), pip_requirements=needs("cloudpickle", "pandas"))
    check_pyfunc(path, frame, own)
    return {"library": f"mlflow {mlflow.__version__}", "data": "made", "engine": "python", "cases": [case(split(frame), own)]}


# Agents: they repeat what was said, so that no network is needed.

RESPONSES_AGENT = '''import mlflow
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentRequest, ResponsesAgentResponse, ResponsesAgentStreamEvent


class Echo(ResponsesAgent):
    def predict(self, request: ResponsesAgentRequest) -> ResponsesAgentResponse:
        items = [event.item for event in self.predict_stream(request) if event.type == "response.output_item.done"]
        return ResponsesAgentResponse(output=items, custom_outputs=request.custom_inputs)

    def predict_stream(self, request: ResponsesAgentRequest):
        said = request.input[-1].content
        if not isinstance(said, str):
            said = "".join(part["text"] for part in said)
        words = f"You said: {said}".split(" ")
        for at, word in enumerate(words):
            yield ResponsesAgentStreamEvent(**self.create_text_delta(delta=word if at == 0 else " " + word, item_id="msg_1"))
        yield ResponsesAgentStreamEvent(
            type="response.output_item.done", item=self.create_text_output_item(text=" ".join(words), id="msg_1")
        )


mlflow.models.set_model(Echo())
'''

CHAT_AGENT = '''import mlflow
from mlflow.pyfunc import ChatAgent
from mlflow.types.agent import ChatAgentChunk, ChatAgentMessage, ChatAgentResponse


class Echo(ChatAgent):
    def predict(self, messages, context=None, custom_inputs=None):
        text = f"You said: {messages[-1].content}"
        return ChatAgentResponse(messages=[ChatAgentMessage(role="assistant", content=text, id="1")], custom_outputs=custom_inputs)

    def predict_stream(self, messages, context=None, custom_inputs=None):
        words = f"You said: {messages[-1].content}".split(" ")
        for at, word in enumerate(words):
            content = word if at == 0 else " " + word
            yield ChatAgentChunk(delta=ChatAgentMessage(role="assistant", content=content, id="1"))


mlflow.models.set_model(Echo())
'''

CHAT_MODEL = '''import mlflow
from mlflow.pyfunc import ChatModel
from mlflow.types.llm import ChatChoice, ChatChoiceDelta, ChatChunkChoice, ChatCompletionChunk, ChatCompletionResponse, ChatMessage


class Echo(ChatModel):
    def predict(self, context, messages, params):
        text = f"You said: {messages[-1].content}"
        return ChatCompletionResponse(choices=[ChatChoice(message=ChatMessage(role="assistant", content=text))], model="echo")

    def predict_stream(self, context, messages, params):
        words = f"You said: {messages[-1].content}".split(" ")
        for at, word in enumerate(words):
            delta = ChatChoiceDelta(role="assistant", content=word if at == 0 else " " + word)
            yield ChatCompletionChunk(choices=[ChatChunkChoice(delta=delta)], model="echo")


mlflow.models.set_model(Echo())
'''


def save_agent(path, code):
    source = path.parent / "source"
    source.mkdir()
    (source / "agent.py").write_text(code)
    mlflow.pyfunc.save_model(path, python_model=str(source / "agent.py"), pip_requirements=needs("pydantic"))
    return {"library": f"mlflow {mlflow.__version__}", "data": "none", "engine": "python", "task": "llm/v1/chat", "cases": []}


@made("agent-responses")
def _(path):
    return save_agent(path, RESPONSES_AGENT)


@made("agent-chat")
def _(path):
    return save_agent(path, CHAT_AGENT)


@made("agent-chat-model")
def _(path):
    return save_agent(path, CHAT_MODEL)


def main(out, *names):
    unknown = set(names) - set(MAKERS)
    if unknown:
        raise SystemExit(f"There is no {', '.join(sorted(unknown))}; there are {', '.join(MAKERS)}.")
    failed = {}
    for name in names or MAKERS:
        folder = out / name
        folder.mkdir(parents=True)
        make = MAKERS[name]
        try:
            expected = {"name": name, **make(folder / "model")}
        except Exception as problem:  # one library that changes must not hide what the others do
            failed[name] = f"{type(problem).__name__}: {problem}"
            continue
        if make.__doc__:
            expected["about"] = make.__doc__.strip()
        (folder / "expected.json").write_text(json.dumps(expected, allow_nan=False))
    lines = ["# Models with the predictions of their own libraries", "", "| name | library | data | engine expected |", "|---|---|---|---|"]
    for folder in sorted(out.iterdir()):
        if (folder / "expected.json").exists():
            expected = json.loads((folder / "expected.json").read_text())
            lines.append(f"| {folder.name} | {expected['library']} | {expected['data']} | {expected['engine']} |")
    lines += [
        "",
        "`NAME/model` is what is registered (for those with `file` in expected.json: `NAME/model/FILE`).",
        "`NAME/expected.json` has `cases`, each with a request `body` and the library's own `predictions`.",
    ]
    (out / "README.md").write_text("\n".join(lines) + "\n")
    print(json.dumps({"made": sorted(set(names or MAKERS) - set(failed)), "failed": failed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
