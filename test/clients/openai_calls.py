"""Asks the server with the openai package for Python."""

import openai
from calls import CLIENT, URL, WITH_CARD, WRONG, call, raised, report
from pydantic import BaseModel

QUESTION = "Which duck is this?"
MESSAGES = [{"role": "user", "content": QUESTION}]
TOOL = {
    "name": "find_duck",
    "description": "Finds a duck.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Duck(BaseModel):
    species: str
    legs: int


def open_client(token=CLIENT, base="/v1"):
    return openai.OpenAI(base_url=URL + base, api_key=token, max_retries=0)


client = open_client()


def told(error):
    return {"status": error.status_code, "code": error.code, "retry_after": error.response.headers.get("retry-after")}


@call("chat.completions.create")
def _():
    said = {}
    for base in ["/v1", "/serving-endpoints", "/ai-gateway/mlflow/v1"]:
        answer = open_client(base=base).chat.completions.create(model="chat", messages=MESSAGES, temperature=0)
        said[base] = [answer.choices[0].message.content, answer.usage.prompt_tokens, answer.usage.completion_tokens]
    return said


@call("chat.completions.create(stream)")
def _():
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model="chat", messages=MESSAGES, stream=True, stream_options=options)
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    return {"text": "".join(pieces), "tokens": chunks[-1].usage.completion_tokens}


@call("chat.completions.create(cut stream)")
def _():
    pieces = []

    def read():
        for chunk in client.chat.completions.create(model="cut", messages=MESSAGES, stream=True):
            pieces.append(chunk.choices[0].delta.content or "")

    error = raised(openai.APIError, read)
    return ["".join(pieces), error.code]


@call("chat.completions.create(tools)")
def _():
    answer = client.chat.completions.create(
        model="chat", messages=MESSAGES, tools=[{"type": "function", "function": TOOL}], tool_choice="required"
    )
    [choice] = answer.choices
    return [choice.finish_reason, choice.message.tool_calls[0].function.name]


@call("chat.completions.parse")
def _():
    answer = client.chat.completions.parse(model="chat", messages=MESSAGES, response_format=Duck)
    return type(answer.choices[0].message.parsed).__name__


@call("completions.create")
def _():
    return client.completions.create(model="completions", prompt="Once").choices[0].text


@call("embeddings.create")
def _():
    models = ["vectors", "embedded-static-256"]
    answers = [client.embeddings.create(model=model, input=["a duck", "a goose"]) for model in models]
    return {
        "lengths": [[len(item.embedding) for item in answer.data] for answer in answers],
        "tokens": answers[0].usage.prompt_tokens,
    }


@call("responses.create")
def _():
    answer = client.responses.create(model="chat", input=QUESTION, instructions="Be brief.")
    return [answer.status, answer.output_text]


@call("responses.stream")
def _():
    with client.responses.stream(model="chat", input=QUESTION) as stream:
        types = [event.type for event in stream]
        return [types[0], types[-1], stream.get_final_response().output_text]


@call("models.list")
def _():
    names = [model.id for model in client.models.list()]
    return {name: name in names for name in ["chat", "penguins", "private"]}


@call("AuthenticationError")
def _():
    wrong = open_client(token=WRONG)
    return told(raised(openai.AuthenticationError, lambda: wrong.models.list()))


@call("NotFoundError")
def _():
    ask = lambda: client.chat.completions.create(model="gone", messages=MESSAGES)
    return told(raised(openai.NotFoundError, ask))


@call("PermissionDeniedError")
def _():
    ask = lambda: client.chat.completions.create(model="private", messages=MESSAGES)
    return told(raised(openai.PermissionDeniedError, ask))


@call("RateLimitError")
def _():
    ask = lambda: client.chat.completions.create(model="limited-openai-python", messages=MESSAGES)
    ask()
    return told(raised(openai.RateLimitError, ask))


@call("BadRequestError")
def _():
    secret = [{"role": "user", "content": WITH_CARD}]
    ask = lambda: client.chat.completions.create(model="guarded", messages=secret)
    return told(raised(openai.BadRequestError, ask))


report()
