"""Asks the server with the anthropic package for Python."""

import anthropic
from calls import CLIENT, URL, WITH_CARD, WRONG, call, raised, report

QUESTION = "Which duck is this?"
MESSAGES = [{"role": "user", "content": QUESTION}]
TOOL = {
    "name": "find_duck",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def open_client(token=CLIENT):
    return anthropic.Anthropic(base_url=URL, api_key=token, max_retries=0)


client = open_client()


def ask(model="claude", messages=MESSAGES, **more):
    return client.messages.create(model=model, max_tokens=100, messages=messages, **more)


def told(error):
    return {
        "status": error.status_code,
        "type": error.body["error"]["type"],
        "retry_after": error.response.headers.get("retry-after"),
    }


@call("messages.create")
def _():
    answers = [ask(model) for model in ["claude", "chat"]]
    return [[answer.content[0].text, answer.usage.input_tokens, answer.stop_reason] for answer in answers]


@call("messages.stream")
def _():
    with client.messages.stream(model="claude", max_tokens=100, messages=MESSAGES) as stream:
        text = "".join(stream.text_stream)
        return [text, stream.get_final_message().usage.output_tokens]


@call("messages.create(tools)")
def _():
    answer = ask(tools=[TOOL], tool_choice={"type": "any"})
    return [answer.stop_reason, answer.content[0].name]


@call("messages.count_tokens")
def _():
    return client.messages.count_tokens(model="claude", messages=MESSAGES).input_tokens > 0


@call("AuthenticationError")
def _():
    wrong = open_client(token=WRONG)
    fail = lambda: wrong.messages.create(model="claude", max_tokens=9, messages=MESSAGES)
    return told(raised(anthropic.AuthenticationError, fail))


@call("NotFoundError")
def _():
    return told(raised(anthropic.NotFoundError, lambda: ask("gone")))


@call("RateLimitError")
def _():
    ask("limited-anthropic-python")
    return told(raised(anthropic.RateLimitError, lambda: ask("limited-anthropic-python")))


@call("BadRequestError")
def _():
    secret = [{"role": "user", "content": WITH_CARD}]
    return told(raised(anthropic.BadRequestError, lambda: ask("guarded", secret)))


report()
