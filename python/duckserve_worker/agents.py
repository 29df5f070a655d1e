"""Agents of MLflow (ResponsesAgent, ChatAgent, ChatModel) as chats, and how they ask duckserve while they answer.

For authors of agents: `ask`, `ask_stream`, `principal` and `openai_client` work inside `predict` and `predict_stream`,
in the thread that runs them. Outside of duckserve they raise LookupError.
"""

import contextlib
import contextvars
import importlib
import itertools
import json
import os
import sys
import time

from . import columns

_current = contextvars.ContextVar("duckserve_request")

# -- for the worker ---------------------------------------------------------------------------------------------------


def streams(model):
    """Whether the agent answers as events: its author wrote `predict_stream`."""
    _quiet_tracing()
    author = _author_of(model.pyfunc)
    written = getattr(type(author), "predict_stream", None)
    if written is None:
        return False
    return not any(written is getattr(known, "predict_stream", None) for known in _known_classes())


def _quiet_tracing():
    """MLflow traces agents into a database beside the model unless it is told where to."""
    if "MLFLOW_TRACKING_URI" in os.environ or "mlflow" not in sys.modules:
        return
    with contextlib.suppress(Exception):
        import mlflow.tracing

        mlflow.tracing.disable()


def chat(model, request):
    """What the agent gives for one call; how it is read is the other side's."""
    with _asking(request):
        return columns.plain(_plain_objects(model.pyfunc.predict(_input_of(model, request.header))))


def chat_stream(model, request):
    """Its events, as it yields them."""
    with _asking(request):
        for event in model.pyfunc.predict_stream(_input_of(model, request.header)):
            yield columns.plain(_plain_objects(event))


@contextlib.contextmanager
def _asking(request):
    token = _current.set(request)
    try:
        yield
    finally:
        # A generator that is dropped ends wherever it is found.
        with contextlib.suppress(ValueError):
            _current.reset(token)


def _author_of(pyfunc):
    """The object that the author wrote, out of what MLflow wraps around it."""
    for name in ("unwrap_python_model", "get_raw_model"):
        if hasattr(pyfunc, name):
            try:
                return getattr(pyfunc, name)()
            except Exception:
                continue
    return pyfunc


def _known_classes():
    try:
        from mlflow import pyfunc
    except ImportError:
        return ()
    names = ("PythonModel", "ResponsesAgent", "ChatAgent", "ChatModel")
    return tuple(found for found in (getattr(pyfunc, name, None) for name in names) if found is not None)


def _kind_of(pyfunc):
    author = _author_of(pyfunc)
    declared = getattr(author, "agent", None)
    if declared in ("responses", "chat_agent", "chat_model"):
        return declared
    names = {base.__name__ for base in type(author).__mro__}
    if "ChatAgent" in names:
        return "chat_agent"
    if "ChatModel" in names:
        return "chat_model"
    return "responses"


def _input_of(model, header):
    kind = _kind_of(model.pyfunc)
    parameters = header.get("parameters") or {}
    given = {name: value for name, value in (("custom_inputs", header.get("custom_inputs")),) if value}
    context = header.get("conversation")
    if kind == "chat_model":
        known = ("temperature", "max_tokens", "stop", "top_p", "top_k", "frequency_penalty", "presence_penalty", "tools")
        shared = {name: parameters[name] for name in known if parameters.get(name) is not None}
        return {"messages": [_text_message(each) for each in header["messages"]], **shared, **given}
    if context:
        given["context"] = context
    if kind == "chat_agent":
        return {"messages": [_text_message(each) for each in header["messages"]], **given}
    return {"input": list(_items_of(header["messages"])), **_response_parameters(parameters), **given}


def _text_message(message):
    """Chat agents take texts; of parts these are joined."""
    return {name: value for name, value in {**message, "content": _text_of(message.get("content"))}.items() if value is not None}


def _text_of(content):
    if content is None or isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _items_of(messages):
    """Messages of a chat as the items of a response's input."""
    for message in messages:
        role, content = message["role"], message.get("content")
        if role == "tool":
            yield {"type": "function_call_output", "call_id": message.get("tool_call_id", ""), "output": _text_of(content) or ""}
            continue
        if content is not None and content != "":
            yield {"type": "message", "role": role, "content": _parts_of(content)}
        for call in message.get("tool_calls") or ():
            called = call["function"]
            yield {
                "type": "function_call",
                "id": call["id"],
                "call_id": call["id"],
                "name": called["name"],
                "arguments": called["arguments"],
            }


def _parts_of(content):
    if isinstance(content, str) or all(part.get("type") == "text" for part in content):
        return _text_of(content)
    return [
        {"type": "input_text", "text": part["text"]}
        if part.get("type") == "text"
        else {"type": "input_image", "image_url": part["image_url"]["url"], "detail": "auto"}
        for part in content
    ]


def _response_parameters(parameters):
    names = {"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"}
    for same in ("temperature", "top_p", "parallel_tool_calls", "user"):
        names[same] = same
    shared = {new: parameters[old] for old, new in names.items() if parameters.get(old) is not None}
    tools = parameters.get("tools")
    if tools:
        shared["tools"] = [{"type": "function", **tool["function"]} for tool in tools]
        choice = parameters.get("tool_choice")
        if isinstance(choice, dict):
            choice = {"type": "function", "name": choice["function"]["name"]}
        if choice is not None:
            shared["tool_choice"] = choice
    return shared


def _plain_objects(value):
    """Pydantic objects without what is not set: an absent member is not the same as null."""
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_none=True)
    if isinstance(value, dict):
        return {key: _plain_objects(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_objects(each) for each in value]
    return value


# -- for authors of agents --------------------------------------------------------------------------------------------


def principal():
    """Who asks: `{"name", "kind", "groups"}`."""
    return dict(_request().header["principal"])


def ask(endpoint, **question):
    """Asks an endpoint of duckserve in the name of the caller, and waits.

    One of `messages` (a list, or a text), `prompt`, `input` (a text to embed) and `features` says what is asked;
    `parameters` is a dict as in the OpenAI API. Gives a dict: `content`, `tool_calls`, `finish_reason` and `usage` of a
    chat, `text` of a completion, `embedding`, or `prediction`. Raises duckserve_worker.serve.Asked with `code`.
    """
    return _request().ask({"endpoint": endpoint, **question})


def ask_stream(endpoint, **question):
    """The same as events: `{"type": "delta", "text"}`, `{"type": "tool_call", ...}`, last `{"type": "end", ...}`."""
    return _request().ask_stream({"endpoint": endpoint, **question})


def openai_client(**options):
    """A client of the `openai` package whose `model` is an endpoint of duckserve, asked in the name of the caller.

    Chat completions (also streamed) and embeddings of single texts. No network is used.
    """
    import openai

    httpx = _http_of(openai)

    class Transport(httpx.BaseTransport):
        def handle_request(self, request):
            try:
                return _answer_openai(httpx, request)
            except Exception as error:
                status = getattr(error, "status", None) or _STATUS.get(getattr(error, "code", None), 502)
                body = {"error": {"message": str(error), "code": getattr(error, "code", None), "type": "api_error"}}
                # Asking again is duckserve's business.
                return httpx.Response(status, json=body, headers={"x-should-retry": "false"})

    settings = {"base_url": "http://duckserve/v1", "api_key": "none", "max_retries": 0, **options}
    return openai.OpenAI(http_client=httpx.Client(transport=Transport()), **settings)


def _http_of(openai):
    """The HTTP package that this version of the client is built on (httpx, or its successor)."""
    names = [base.__module__.split(".")[0] for base in openai.DefaultHttpxClient.__mro__ if base.__name__ == "Client"]
    return importlib.import_module(names[0] if names else "httpx")


def _request():
    try:
        return _current.get()
    except LookupError:
        raise LookupError(
            "duckserve can be asked while an agent answers, in the thread that runs predict; "
            "a thread of the agent's own gets there with contextvars.copy_context().run(...)"
        ) from None


_numbers = itertools.count(1)
#: Of failures that the code of an agent may tell apart by their status.
_STATUS = {
    "BAD_REQUEST": 400,
    "INVALID_PARAMETER": 400,
    "WRONG_TASK": 400,
    "GUARDRAIL_TRIGGERED": 400,
    "PERMISSION_DENIED": 403,
    "ENDPOINT_NOT_FOUND": 404,
    "NOT_FOUND": 404,
    "PAYLOAD_TOO_LARGE": 413,
    "BUDGET_EXCEEDED": 429,
    "RATE_LIMIT_EXCEEDED": 429,
    "RATE_LIMITED": 429,
    "OVERLOADED": 503,
    "TIMEOUT": 504,
}


def _answer_openai(httpx, request):
    path = request.url.path
    body = json.loads(request.read() or b"{}")
    model = body.pop("model", "")
    is_stream = body.pop("stream", False)
    body.pop("stream_options", None)
    shared = {"id": f"ask-{next(_numbers)}", "created": int(time.time()), "model": model}
    if path.endswith("/embeddings"):
        text = body.pop("input", None)
        if isinstance(text, list) and len(text) == 1:
            (text,) = text
        # The client asks for base64 and reads numbers as well.
        body.pop("encoding_format", None)
        answer = ask(model, input=text, parameters=body)
        data = [{"object": "embedding", "index": 0, "embedding": answer["embedding"]}]
        return httpx.Response(200, json={**shared, "object": "list", "data": data, "usage": _usage(answer)})
    if not path.endswith("/chat/completions"):
        return httpx.Response(404, json={"error": {"message": f"{path} is not offered here", "type": "not_found_error"}})
    question = {"messages": body.pop("messages", None), "parameters": body}
    if is_stream:
        events = ask_stream(model, **question)
        # What fails before the first event deserves its status.
        first = next(events, None)
        content = _chunks(shared, itertools.chain([] if first is None else [first], events))
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=content)
    answer = ask(model, **question)
    message = {"role": "assistant", "content": answer.get("content")}
    if answer.get("tool_calls"):
        message["tool_calls"] = answer["tool_calls"]
    choice = {"index": 0, "message": message, "finish_reason": answer.get("finish_reason"), "logprobs": None}
    return httpx.Response(200, json={**shared, "object": "chat.completion", "choices": [choice], "usage": _usage(answer)})


def _chunks(shared, events):
    def frame(delta, finish_reason=None, **more):
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        chunk = {**shared, "object": "chat.completion.chunk", "choices": [choice], **more}
        return f"data: {json.dumps(chunk)}\n\n".encode()

    yield frame({"role": "assistant", "content": ""})
    for event in events:
        if event["type"] == "delta":
            yield frame({"content": event["text"]})
        elif event["type"] == "tool_call":
            called = {name: event[name] for name in ("name", "arguments") if name in event}
            call = {"index": event["index"], "type": "function", "function": called}
            yield frame({"tool_calls": [{**call, "id": event["id"]} if "id" in event else call]})
        else:
            yield frame({}, event["finish_reason"], usage=_usage(event))
    yield b"data: [DONE]\n\n"


def _usage(answer):
    usage = answer.get("usage") or {}
    given, written = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
    return {"prompt_tokens": given, "completion_tokens": written, "total_tokens": given + written}
