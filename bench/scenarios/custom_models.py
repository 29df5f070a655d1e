"""The Python side of the benchmark custom-models: trains the models, and measures what the libraries do by themselves.

custom_models.py check
custom_models.py make FOLDER                    models as MLflow directories, and the rows they are asked about
custom_models.py measure FOLDER ROWS THREADS    each library's own predict over ROWS rows in this process
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

warnings.filterwarnings("ignore")
ROUNDS = 2
ONNX_BATCHES = [2_048, 131_072]


def base_rows():
    from sklearn.datasets import load_diabetes

    data = load_diabetes()
    return [name for name in data.feature_names], data.data, data.target


def features(rows):
    """Row i is the real row i modulo their number, moved a little: the same doubles as the SQL of the benchmark."""
    import pandas as pd

    columns, base, _ = base_rows()
    at = np.arange(rows)
    values = base[at % len(base)] + ((at % 1009) * 0.0001)[:, None]
    return pd.DataFrame(values, columns=columns)


def make(folder):
    import mlflow
    import pandas as pd
    import xgboost
    from mlflow.models import infer_signature
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import Ridge

    columns, base, target = base_rows()
    frame = pd.DataFrame(base, columns=columns)
    frame.to_csv(folder / "base.csv", index=False, float_format="%.17g")
    forest = RandomForestRegressor(30, max_depth=6, random_state=0, n_jobs=1).fit(frame, target)
    linear = Ridge(0.1).fit(frame, target)
    for name, model in {"forest": forest, "linear": linear}.items():
        signature = infer_signature(frame, model.predict(frame))
        mlflow.sklearn.save_model(model, folder / name, signature=signature, serialization_format="cloudpickle", pip_requirements=[])
    converted = to_onnx(forest, base[:1].astype("float32"), target_opset=17)
    signature = infer_signature(frame, forest.predict(frame))
    mlflow.onnx.save_model(converted, folder / "forest-onnx", signature=signature, pip_requirements=[])
    parameters = {"max_depth": 6, "eta": 0.1, "seed": 0, "nthread": 2}
    boosted = xgboost.train(parameters, xgboost.DMatrix(frame, target), num_boost_round=100)
    signature = infer_signature(frame, boosted.predict(xgboost.DMatrix(frame)))
    mlflow.xgboost.save_model(boosted, folder / "boosted", signature=signature, model_format="json", pip_requirements=[])


def best(run):
    """The result and the least seconds of a few rounds."""
    seconds = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        result = run()
        seconds = min(seconds, time.perf_counter() - started)
    return result, seconds


def measure(folder, rows, threads):
    import mlflow
    import onnxruntime
    import xgboost

    frame = features(rows)
    seconds = {}

    def keep(name, run):
        predictions, seconds[name] = best(run)
        np.asarray(predictions, dtype="<f8").tofile(folder / f"{name}.f64")

    for name in ["forest", "linear"]:
        loading = time.perf_counter()
        model = mlflow.sklearn.load_model(str(folder / name))
        seconds[f"{name}, loading"] = time.perf_counter() - loading
        keep(name, lambda: model.predict(frame))
    booster = mlflow.xgboost.load_model(str(folder / "boosted"))
    for count in sorted({1, threads}):
        booster.set_param({"nthread": count})
        keep("boosted" if count == 1 else f"boosted, {count} threads", lambda: booster.predict(xgboost.DMatrix(frame, nthread=count)))
    narrow = frame.to_numpy(dtype="float32")
    for count in sorted({1, threads}):
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = count
        session = onnxruntime.InferenceSession(str(folder / "forest-onnx" / "model.onnx"), settings, providers=["CPUExecutionProvider"])
        for batch in ONNX_BATCHES:

            def run():
                parts = [session.run(None, {"X": narrow[at : at + batch]})[0] for at in range(0, rows, batch)]
                return np.concatenate(parts).ravel()

            keep(f"forest-onnx, {count} threads, {batch} rows", run)
    print(json.dumps(seconds))


def check():
    import lightgbm, mlflow, onnxruntime, pandas, skl2onnx, sklearn, uvicorn, xgboost  # noqa: E401, F401

    print(json.dumps({"python": sys.version.split()[0], "mlflow": mlflow.__version__, "scikit-learn": sklearn.__version__, "xgboost": xgboost.__version__}))


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "check":
        check()
    elif what == "make":
        make(Path(rest[0]))
    else:
        measure(Path(rest[0]), int(rest[1]), int(rest[2]))
