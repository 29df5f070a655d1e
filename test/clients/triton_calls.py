"""Asks the server with the HTTP client of Triton: tensors in bytes, as it sends them by itself, and in JSON."""

import numpy
import tritonclient.http as triton
from calls import CLIENT, URL, WRONG, call, raised, report
from tritonclient.utils import InferenceServerException

ROW = [39.1, 18.7, 181, 3750]
client = triton.InferenceServerClient(url=URL.removeprefix("http://"))


def bearer(token=CLIENT):
    """A new one each time: the client adds the length of a body to the headers it is given, and leaves it there."""
    return {"Authorization": f"Bearer {token}"}


def tensor(name, datatype, values, binary=True):
    array = numpy.array(values, dtype=object if datatype == "BYTES" else numpy.float64)
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def texts(array):
    return [value.decode() if isinstance(value, bytes) else value for value in array.tolist()]


@call("is_server_live")
def _():
    return [client.is_server_live(), client.is_server_ready()]


@call("get_server_metadata")
def _():
    return client.get_server_metadata(headers=bearer())["name"]


@call("is_model_ready")
def _():
    return [client.is_model_ready("penguins", headers=bearer()), client.is_model_ready("gone", headers=bearer())]


@call("get_model_metadata")
def _():
    said = client.get_model_metadata("penguins", headers=bearer())
    return [said["name"], [each["name"] for each in said["inputs"]]]


@call("infer")
def _():
    answer = client.infer("penguins", [tensor("features", "FP64", [ROW, ROW])], headers=bearer())
    return texts(answer.as_numpy("species"))


@call("infer(columns)")
def _():
    described = client.get_model_metadata("penguins", headers=bearer())
    inputs = [tensor(each["name"], "FP64", [value]) for each, value in zip(described["inputs"], ROW)]
    return texts(client.infer("penguins", inputs, headers=bearer()).as_numpy("species"))


@call("infer(binary_data=False)")
def _():
    answer = client.infer(
        "penguins",
        [tensor("features", "FP64", [ROW, ROW], binary=False)],
        outputs=[triton.InferRequestedOutput("species", binary_data=False)],
        headers=bearer(),
    )
    return texts(answer.as_numpy("species"))


@call("infer(embeddings)")
def _():
    said = []
    for model in ["embedded-static-256", "vectors"]:
        answer = client.infer(model, [tensor("text", "BYTES", [b"a duck", b"a goose"])], headers=bearer())
        vectors = answer.as_numpy("embedding")
        said.append([str(vectors.dtype), list(vectors.shape), bool(numpy.isclose(numpy.linalg.norm(vectors[0]), 1, atol=1e-3))])
    return said


@call("InferenceServerException")
def _():
    said = []
    for model, token in [("penguins", WRONG), ("gone", CLIENT)]:
        fail = lambda: client.infer(model, [tensor("features", "FP64", [ROW])], headers=bearer(token))
        said.append(raised(InferenceServerException, fail).status())
    return said


report()
