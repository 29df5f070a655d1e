"""Asks the server with MLflow's deployments client for Databricks: the life of an endpoint, and queries."""

import os

from calls import ADMIN, CLIENT, STUB_URL, URL, WITH_CARD, WRONG, call, raised, report

os.environ["DATABRICKS_HOST"] = URL
os.environ["DATABRICKS_TOKEN"] = ADMIN
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"

from mlflow.deployments import get_deploy_client  # noqa: E402
from requests import HTTPError  # noqa: E402

NAME = "made-by-mlflow"
COLUMNS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
ROW = [39.1, 18.7, 181, 3750]
MESSAGES = [{"role": "user", "content": "quack"}]
client = get_deploy_client("databricks")


def entity(name):
    openai_config = {"openai_api_base": f"{STUB_URL}/v1", "openai_api_key_plaintext": "key-of-the-provider"}
    model = {"name": name, "provider": "openai", "task": "llm/v1/chat", "openai_config": openai_config}
    return {"name": name, "external_model": model}


def told(error):
    return [error.response.status_code, error.response.json()["error_code"]]


@call("create_endpoint")
def _():
    made = client.create_endpoint(
        config={
            "name": NAME,
            "config": {"served_entities": [entity("first")]},
            "tags": [{"key": "team", "value": "ducks"}],
        }
    )
    served = made["config"]["served_entities"][0]
    return [made["name"], made["state"]["ready"], made["endpoint_type"], served["state"]["deployment"]]


@call("create_endpoint(name)")
def _():
    # The older form, with the name beside the configuration.
    made = client.create_endpoint(name="made-by-older-mlflow", config={"served_entities": [entity("first")]})
    client.delete_endpoint("made-by-older-mlflow")
    return made.name


@call("get_endpoint")
def _():
    found = client.get_endpoint(NAME)
    return [found.name, found["tags"], "key-of-the-provider" in str(found)]


@call("list_endpoints")
def _():
    names = [endpoint["name"] for endpoint in client.list_endpoints()]
    return [name in names for name in [NAME, "penguins"]]


@call("update_endpoint_config")
def _():
    routes = [{"served_model_name": "second", "traffic_percentage": 100}]
    changed = client.update_endpoint_config(
        endpoint=NAME, config={"served_entities": [entity("second")], "traffic_config": {"routes": routes}}
    )
    # The new version may be on its way in `pending_config`.
    shown = changed.get("pending_config") or changed["config"]
    return [shown["config_version"], [served["name"] for served in shown["served_entities"]]]


@call("update_endpoint_tags")
def _():
    return client.update_endpoint_tags(NAME, {"add_tags": [{"key": "stage", "value": "test"}], "delete_tags": ["team"]})


@call("update_endpoint_rate_limits")
def _():
    limits = {"rate_limits": [{"calls": 50, "key": "user", "renewal_period": "minute"}]}
    return client.update_endpoint_rate_limits(NAME, limits)


@call("update_endpoint_ai_gateway")
def _():
    gateway = {
        "usage_tracking_config": {"enabled": True},
        "rate_limits": [{"calls": 2, "key": "endpoint", "renewal_period": "minute"}],
        "guardrails": {"input": {"pii": {"behavior": "BLOCK"}}},
    }
    said = client.update_endpoint_ai_gateway(NAME, gateway)
    return {"same": said == gateway, "get": client.get_endpoint(NAME)["ai_gateway"] == gateway}


@call("predict(messages)")
def _():
    answer = client.predict(endpoint="chat", inputs={"messages": MESSAGES, "max_tokens": 50})
    return [answer["choices"][0]["message"]["content"], answer["usage"]["prompt_tokens"]]


@call("predict(prompt)")
def _():
    return client.predict(endpoint="completions", inputs={"prompt": "Once"})["choices"][0]["text"]


@call("predict(input)")
def _():
    return [
        len(client.predict(endpoint=name, inputs={"input": "a duck"})["data"][0]["embedding"])
        for name in ["vectors", "embedded-static-256"]
    ]


@call("predict(dataframe_records, dataframe_split, instances, inputs)")
def _():
    bodies = [
        {"dataframe_records": [dict(zip(COLUMNS, ROW))]},
        {"dataframe_split": {"columns": COLUMNS, "data": [ROW]}},
        {"instances": [ROW]},
        {"inputs": [ROW]},
    ]
    return [client.predict(endpoint="penguins", inputs=body)["predictions"] for body in bodies]


@call("predict_stream")
def _():
    chunks = list(client.predict_stream(endpoint="chat", inputs={"messages": MESSAGES}))
    pieces = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"]]
    return ["".join(pieces), len(pieces) > 3]


def asked(name, text="quack"):
    return client.predict(endpoint=name, inputs={"messages": [{"role": "user", "content": text}]})


@call("HTTPError")
def _():
    said = {
        "404": told(raised(HTTPError, lambda: asked("gone"))),
        "400": told(raised(HTTPError, lambda: asked("guarded", WITH_CARD))),
    }
    os.environ["DATABRICKS_TOKEN"] = CLIENT
    said["403"] = told(raised(HTTPError, lambda: asked("private")))
    os.environ["DATABRICKS_TOKEN"] = WRONG
    said["401"] = told(raised(HTTPError, lambda: asked("chat")))
    os.environ["DATABRICKS_TOKEN"] = ADMIN
    return said


@call("HTTPError(429)")
def _():
    # By way of the Databricks SDK it would wait for the minute that retry-after names, and then have its answer.
    os.environ["MLFLOW_ENABLE_DB_SDK"] = "false"
    asked(NAME)
    asked(NAME)
    limited = raised(HTTPError, lambda: asked(NAME))
    os.environ["MLFLOW_ENABLE_DB_SDK"] = "true"
    return [*told(limited), 0 < int(limited.response.headers["retry-after"]) <= 61]


@call("delete_endpoint")
def _():
    client.delete_endpoint(NAME)
    return told(raised(HTTPError, lambda: client.get_endpoint(NAME)))


report()
