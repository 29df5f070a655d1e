"""Asks the server with the Databricks SDK: the life of an endpoint, queries in each body, SQL, tokens."""

import json

from databricks.sdk import WorkspaceClient
from databricks.sdk.clock import Clock
from databricks.sdk.config import Config
from databricks.sdk.errors import (
    BadRequest,
    InvalidParameterValue,
    NotFound,
    NotImplemented,
    PermissionDenied,
    ResourceAlreadyExists,
    Unauthenticated,
)
from databricks.sdk.service.serving import (
    AiGatewayConfig,
    AiGatewayGuardrailParameters,
    AiGatewayGuardrailPiiBehavior,
    AiGatewayGuardrailPiiBehaviorBehavior,
    AiGatewayGuardrails,
    AiGatewayRateLimit,
    AiGatewayRateLimitRenewalPeriod,
    AiGatewayUsageTrackingConfig,
    ChatMessage,
    ChatMessageRole,
    DataframeSplitInput,
    EndpointCoreConfigInput,
    EndpointTag,
    ExternalFunctionRequestHttpMethod,
    ExternalModel,
    ExternalModelProvider,
    OpenAiConfig,
    Route,
    ServedEntityInput,
    ServingEndpointAccessControlRequest,
    ServingEndpointPermissionLevel,
    TrafficConfig,
)
from calls import ADMIN, CLIENT, STUB_URL, URL, WITH_CARD, WRONG, call, raised, report

NAME = "made-by-databricks-sdk"
COLUMNS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
ROW = [39.1, 18.7, 181, 3750]


class NotedClock(Clock):
    """Sleeps are noted, not slept: the SDK waits as long as a 429 asks for, and tries again until its time is over."""

    def __init__(self):
        self.now = 0.0
        self.slept = []

    def time(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def open_workspace(token=ADMIN, **more):
    return WorkspaceClient(config=Config(host=URL, token=token, auth_type="pat", **more))


def say(text="quack"):
    return [ChatMessage(role=ChatMessageRole.USER, content=text)]


def entity(name):
    model = ExternalModel(
        name=name,
        provider=ExternalModelProvider.OPENAI,
        task="llm/v1/chat",
        openai_config=OpenAiConfig(openai_api_base=f"{STUB_URL}/v1", openai_api_key_plaintext="key-of-the-provider"),
    )
    return ServedEntityInput(name=name, external_model=model)


def told(error):
    return [type(error).__name__, error.error_code]


workspace = open_workspace()
endpoints = workspace.serving_endpoints
asking = open_workspace(CLIENT).serving_endpoints


@call("serving_endpoints.create_and_wait")
def _():
    made = endpoints.create_and_wait(
        name=NAME,
        config=EndpointCoreConfigInput(name=NAME, served_entities=[entity("first")]),
        tags=[EndpointTag(key="team", value="ducks")],
        description="made by a client",
    )
    [served] = made.config.served_entities
    return {
        "ready": made.state.ready.value,
        "creator": made.creator,
        "task": made.task,
        "version": made.config.config_version,
        "deployment": served.state.deployment.value,
        "routes": [[route.served_entity_name, route.traffic_percentage] for route in made.config.traffic_config.routes],
        "holds_key": "key-of-the-provider" in str(made.as_dict()),
        "key": served.external_model.openai_config.openai_api_key.startswith("{{secrets/"),
    }


@call("serving_endpoints.create")
def _():
    fail = lambda: endpoints.create(name=NAME, config=EndpointCoreConfigInput(name=NAME, served_entities=[entity("first")]))
    return told(raised(ResourceAlreadyExists, fail))


@call("serving_endpoints.get")
def _():
    found = endpoints.get(NAME)
    return {
        "name": found.name,
        "description": found.description,
        "permission": found.permission_level.value,
        "tags": [tag.as_dict() for tag in found.tags],
        "update": found.state.config_update.value,
    }


@call("serving_endpoints.list")
def _():
    names = [endpoint.name for endpoint in endpoints.list()]
    seen = [endpoint.name for endpoint in asking.list()]
    return {"all": [name in names for name in [NAME, "penguins", "private"]], "other": NAME in seen}


@call("serving_endpoints.update_config_and_wait")
def _():
    routes = [
        Route(served_entity_name="first", traffic_percentage=0),
        Route(served_entity_name="second", traffic_percentage=100),
    ]
    changed = endpoints.update_config_and_wait(
        NAME,
        served_entities=[entity("first"), entity("second")],
        traffic_config=TrafficConfig(routes=routes),
    )
    served = endpoints.query(NAME, messages=say()).served_model_name
    return {
        "version": changed.config.config_version,
        "entities": [served.name for served in changed.config.served_entities],
        "served_model_name": served,
    }


@call("serving_endpoints.update_config")
def _():
    route = Route(served_entity_name="nobody", traffic_percentage=100)
    fail = lambda: endpoints.update_config(
        NAME, served_entities=[entity("first")], traffic_config=TrafficConfig(routes=[route])
    )
    error = raised(BadRequest, fail)
    return {"error": error.error_code, "version": endpoints.get(NAME).config.config_version}


@call("serving_endpoints.put_ai_gateway")
def _():
    block = AiGatewayGuardrailPiiBehavior(behavior=AiGatewayGuardrailPiiBehaviorBehavior.BLOCK)
    answer = endpoints.put_ai_gateway(
        NAME,
        usage_tracking_config=AiGatewayUsageTrackingConfig(enabled=True),
        guardrails=AiGatewayGuardrails(input=AiGatewayGuardrailParameters(pii=block)),
        rate_limits=[AiGatewayRateLimit(calls=100, renewal_period=AiGatewayRateLimitRenewalPeriod.MINUTE)],
    )
    return {"answer": answer.as_dict(), "get": endpoints.get(NAME).ai_gateway == AiGatewayConfig.from_dict(answer.as_dict())}


@call("serving_endpoints.patch")
def _():
    said = endpoints.patch(NAME, add_tags=[EndpointTag(key="stage", value="test")], delete_tags=["team"])
    return [tag.as_dict() for tag in said.tags]


@call("serving_endpoints.get_permission_levels")
def _():
    levels = endpoints.get_permission_levels(endpoints.get(NAME).id).permission_levels
    return [level.permission_level.value for level in levels]


@call("serving_endpoints.set_permissions")
def _():
    query = ServingEndpointAccessControlRequest(
        user_name="bob@example.org", permission_level=ServingEndpointPermissionLevel.CAN_QUERY
    )
    before = raised(PermissionDenied, lambda: asking.query(NAME, messages=say()))
    said = endpoints.set_permissions(endpoints.get(NAME).id, access_control_list=[query])
    levels = {
        entry.user_name: [level.permission_level.value for level in entry.all_permissions]
        for entry in said.access_control_list
        if entry.user_name
    }
    after = asking.query(NAME, messages=say()).choices[0].message.content
    return {"before": told(before), "levels": levels["bob@example.org"], "type": said.object_type, "after": after}


@call("serving_endpoints.update_permissions")
def _():
    view = ServingEndpointAccessControlRequest(
        group_name="clients", permission_level=ServingEndpointPermissionLevel.CAN_VIEW
    )
    said = endpoints.update_permissions(endpoints.get(NAME).id, access_control_list=[view])
    return sorted(entry.user_name or entry.group_name for entry in said.access_control_list)


@call("serving_endpoints.get_permissions")
def _():
    said = endpoints.get_permissions(endpoints.get(NAME).id)
    return said.object_id == f"/serving-endpoints/{endpoints.get(NAME).id}" and len(said.access_control_list)


@call("serving_endpoints.query(messages)")
def _():
    answer = asking.query("chat", messages=say(), max_tokens=20, temperature=0.0, usage_context={"team": "ducks"})
    return [answer.choices[0].message.content, answer.usage.prompt_tokens, answer.served_model_name]


@call("serving_endpoints.query(prompt)")
def _():
    return asking.query("completions", prompt="Once").choices[0].text


@call("serving_endpoints.query(input)")
def _():
    return [len(asking.query(name, input=["a duck"]).data[0].embedding) for name in ["vectors", "embedded-static-256"]]


@call("serving_endpoints.query(dataframe_records, dataframe_split, instances, inputs)")
def _():
    bodies = [
        {"dataframe_records": [dict(zip(COLUMNS, ROW))]},
        {"dataframe_split": DataframeSplitInput(columns=COLUMNS, data=[ROW])},
        {"instances": [ROW]},
        {"inputs": [ROW]},
    ]
    return [asking.query("penguins", **body).predictions for body in bodies]


@call("serving_endpoints.query(stream)")
def _():
    try:
        return str(asking.query("chat", messages=say(), stream=True))
    except Exception as error:
        return type(error).__name__


@call("api_client.do(stream)")
def _():
    body = {"messages": [{"role": "user", "content": "quack"}], "stream": True}
    path = "/serving-endpoints/chat/invocations"
    lines = workspace.api_client.do("POST", path, body=body, raw=True)["contents"].read().decode().split("\n\n")
    return [lines[0].startswith("data: {"), lines[-2]]


@call("serving_endpoints.get_open_ai_client")
def _():
    answer = asking.get_open_ai_client().chat.completions.create(
        model="chat", messages=[{"role": "user", "content": "quack"}]
    )
    return answer.choices[0].message.content


@call("serving_endpoints.get_langchain_chat_open_ai_client")
def _():
    return asking.get_langchain_chat_open_ai_client("chat").invoke("quack").content


@call("serving_endpoints.logs")
def _():
    return endpoints.logs(NAME, "second").logs


@call("serving_endpoints.build_logs")
def _():
    return len(endpoints.build_logs(NAME, "second").logs) > 0


@call("serving_endpoints.export_metrics")
def _():
    text = endpoints.export_metrics(NAME).contents.read().decode()
    return [name in text for name in ["request_count_total", "request_latency_ms_bucket"]]


@call("serving_endpoints.get_open_api")
def _():
    document = json.loads(endpoints.get_open_api("penguins").contents.read())
    return [document["openapi"], document["info"]["title"], list(document["paths"])]


@call("serving_endpoints.delete")
def _():
    endpoints.delete(NAME)
    return told(raised(NotFound, lambda: endpoints.get(NAME)))


@call("current_user.me")
def _():
    me = open_workspace(CLIENT).current_user.me()
    return [me.user_name, [group.display for group in me.groups]]


@call("tokens.create")
def _():
    own = open_workspace(CLIENT).tokens
    made = own.create(comment="laptop", lifetime_seconds=3600)
    user = open_workspace(made.token_value).current_user.me().user_name
    listed = made.token_info.token_id in [token.token_id for token in own.list()]
    own.delete(made.token_info.token_id)
    refused = raised(Unauthenticated, lambda: open_workspace(made.token_value).current_user.me())
    return [user, listed, told(refused)]


@call("statement_execution.execute_statement")
def _():
    said = workspace.statement_execution.execute_statement(
        statement="SELECT ai_query('echo-chat', 'from SQL') AS said", warehouse_id="any"
    )
    return said.result.data_array


@call("errors")
def _():
    wrong = open_workspace(WRONG).serving_endpoints
    return {
        "401": told(raised(Unauthenticated, lambda: wrong.query("chat", messages=say()))),
        "403": told(raised(PermissionDenied, lambda: asking.query("private", messages=say()))),
        "404": told(raised(NotFound, lambda: asking.query("gone", messages=say()))),
        "400": told(raised(InvalidParameterValue, lambda: asking.query("chat", messages=say(), max_tokens=-1))),
        "guardrail": told(raised(BadRequest, lambda: asking.query("guarded", messages=say(WITH_CARD)))),
    }


@call("errors(501)")
def _():
    fail = [
        lambda: endpoints.http_request("connection", ExternalFunctionRequestHttpMethod.GET, "/"),
        lambda: endpoints.patch_telemetry_config("chat"),
    ]
    return [told(raised(NotImplemented, each)) for each in fail]


@call("errors(429)")
def _():
    clock = NotedClock()
    patient = open_workspace(ADMIN, clock=clock, retry_timeout_seconds=30).serving_endpoints
    config = EndpointCoreConfigInput(name=NAME, served_entities=[entity("first")])
    limit = AiGatewayRateLimit(calls=1, renewal_period=AiGatewayRateLimitRenewalPeriod.MINUTE)
    patient.create(name="limited-databricks-sdk", config=config, ai_gateway=AiGatewayConfig(rate_limits=[limit]))
    patient.query("limited-databricks-sdk", messages=say())
    error = raised(TimeoutError, lambda: patient.query("limited-databricks-sdk", messages=say()))
    return {"cause": told(error.__cause__), "waited": [30 < seconds < 63 for seconds in clock.slept]}


report()
