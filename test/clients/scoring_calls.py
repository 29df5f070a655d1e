"""Asks the server over bare HTTP, as MLflow's scoring server and as a KServe server are asked."""

from base64 import b64encode
from pathlib import Path

import requests
from calls import CLIENT, STRANGER, URL, WITH_CARD, WRONG, call, report

COLUMNS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
ROW = [39.1, 18.7, 181, 3750]
CSV = Path(__file__).parents[2] / "examples" / "penguins" / "penguins.csv"
TARGET = "/serving-endpoints/penguins/invocations"
BEARER = {"Authorization": f"Bearer {CLIENT}"}
MESSAGES = {"messages": [{"role": "user", "content": "quack"}]}


def post(path, headers=BEARER, **body):
    return requests.post(URL + path, headers=headers, **body)


def told(answer):
    return [answer.status_code, answer.json().get("error_code")]


@call("POST /serving-endpoints/{name}/invocations(JSON)")
def _():
    bodies = [
        {"dataframe_records": [dict(zip(COLUMNS, ROW))]},
        {"dataframe_split": {"columns": COLUMNS, "index": [0], "data": [ROW]}},
        {"instances": [dict(zip(COLUMNS, ROW))]},
        {"inputs": {column: [value] for column, value in zip(COLUMNS, ROW)}},
    ]
    return [post(TARGET, json=body).json() for body in bodies]


@call("POST /serving-endpoints/{name}/invocations(CSV)")
def _():
    lines = CSV.read_text().splitlines()
    predictions = post(TARGET, headers={**BEARER, "Content-Type": "text/csv"}, data="\n".join(lines)).json()["predictions"]
    at = lines[0].split(",").index("species")
    right = sum(line.split(",")[at] == species for line, species in zip(lines[1:], predictions))
    return [len(predictions), right / len(predictions) > 0.98]


@call("POST /invocations")
def _():
    answer = post("/invocations", json={"dataframe_records": [dict(zip(COLUMNS, ROW))]})
    return [answer.status_code, answer.json(), answer.headers["served-model-name"]]


@call("GET /ping")
def _():
    return [requests.get(URL + path).status_code for path in ["/ping", "/health", "/v2/health/ready"]]


@call("GET /version")
def _():
    answer = requests.get(f"{URL}/version", headers=BEARER)
    return [answer.status_code, len(answer.text) > 0]


@call("POST /v2/models/{name}/infer")
def _():
    tensor = {"name": "features", "datatype": "FP64", "shape": [2, 4], "data": ROW + ROW}
    answer = post("/v2/models/penguins/infer", json={"id": "one", "inputs": [tensor]}).json()
    return [answer["model_name"], answer["id"], answer["outputs"][0]["datatype"], answer["outputs"][0]["data"]]


@call("tokens")
def _():
    basic = b64encode(f"token:{CLIENT}".encode()).decode()
    ways = [BEARER, {"x-api-key": CLIENT}, {"api-key": CLIENT}, {"Authorization": f"Basic {basic}"}, {}]
    return [post("/serving-endpoints/chat/invocations", headers=headers, json=MESSAGES).status_code for headers in ways]


@call("errors")
def _():
    path = "/serving-endpoints/{}/invocations"
    secret = {"messages": [{"role": "user", "content": WITH_CARD}]}
    post(path.format("limited-requests"), json=MESSAGES)
    limited = post(path.format("limited-requests"), json=MESSAGES)
    blocked = post(path.format("guarded"), json=secret)
    return {
        "none": told(post(path.format("chat"), headers={}, json=MESSAGES)),
        "wrong": told(post(path.format("chat"), headers={"Authorization": f"Bearer {WRONG}"}, json=MESSAGES)),
        "stranger": told(post(path.format("chat"), headers={"Authorization": f"Bearer {STRANGER}"}, json=MESSAGES)),
        "gone": told(post(path.format("gone"), json=MESSAGES)),
        "limited": [*told(limited), 0 < int(limited.headers["retry-after"]) <= 61],
        "blocked": [*told(blocked), "input_guardrail_triggered" in blocked.json()["message"]],
        "malformed": told(post(TARGET, headers={**BEARER, "Content-Type": "application/json"}, data="{")),
        "type": told(post(TARGET, headers={**BEARER, "Content-Type": "text/xml"}, data="<a/>")),
    }


report()
