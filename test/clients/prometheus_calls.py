"""Reads the metrics with the parser of prometheus_client, and the export of an endpoint."""

import requests
from calls import ADMIN, CLIENT, URL, call, report
from prometheus_client.parser import text_string_to_metric_families

MESSAGES = [{"role": "user", "content": "Which duck is this?"}]


def read(path, token=ADMIN):
    answer = requests.get(URL + path, headers={"Authorization": f"Bearer {token}"})
    answer.raise_for_status()
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def sample(families, family, **labels):
    return sum(
        sample.value
        for sample in families[family].samples
        if labels.items() <= sample.labels.items() and not sample.name.endswith(("_created", "_bucket", "_sum"))
    )


@call("text_string_to_metric_families(/metrics)")
def _():
    before = read("/metrics")
    for _ in range(3):
        requests.post(
            f"{URL}/v1/chat/completions",
            headers={"Authorization": f"Bearer {CLIENT}"},
            json={"model": "echo-chat", "messages": MESSAGES, "temperature": 1},
        ).raise_for_status()
    after = read("/metrics")
    types = {
        name: after[name].type
        for name in [
            "duckserve_requests",
            "duckserve_tokens",
            "duckserve_http_requests",
            "gen_ai_client_operation_duration_seconds",
            "duckserve_queue_in_flight",
        ]
    }
    asked = [sample(families, "duckserve_requests", endpoint="echo-chat") for families in (before, after)]
    return {"types": types, "more": asked[1] - asked[0]}


@call("text_string_to_metric_families(export)")
def _():
    families = read("/api/2.0/serving-endpoints/echo-chat/metrics")
    return {name: family.type for name, family in families.items()}


@call("requests.get")
def _():
    return requests.get(f"{URL}/metrics", headers={"Authorization": f"Bearer {CLIENT}"}).status_code


report()
