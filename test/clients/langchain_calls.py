"""Asks the server with LangChain: ChatOpenAI and OpenAIEmbeddings."""

import openai
from calls import CLIENT, URL, WITH_CARD, WRONG, call, raised, report
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

QUESTION = "Which duck is this?"
OPTIONS = {"base_url": f"{URL}/v1", "api_key": CLIENT, "max_retries": 0}


@tool
def find_duck(city: str) -> str:
    """Finds a duck."""
    return f"in the pond of {city}"


class Duck(BaseModel):
    species: str
    legs: int


def chat(model="chat", **more):
    return ChatOpenAI(**{**OPTIONS, "model": model, **more})


def told(error):
    return {"status": error.status_code, "code": error.code, "retry_after": error.response.headers.get("retry-after")}


@call("ChatOpenAI.invoke")
def _():
    answer = chat().invoke(QUESTION)
    return [answer.content, answer.usage_metadata["input_tokens"], answer.usage_metadata["output_tokens"]]


@call("ChatOpenAI.stream")
def _():
    whole = None
    for chunk in chat(stream_usage=True).stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    return [whole.content, whole.usage_metadata["output_tokens"]]


@call("ChatOpenAI.batch")
def _():
    return [answer.content for answer in chat().batch([QUESTION, QUESTION])]


@call("ChatOpenAI.bind_tools")
def _():
    bound = chat().bind_tools([find_duck], tool_choice="find_duck")
    first = bound.invoke(QUESTION)
    [asked] = first.tool_calls
    result = ToolMessage(find_duck.invoke(asked["args"]), tool_call_id=asked["id"])
    last = chat().invoke([HumanMessage(QUESTION), first, result])
    return [asked["name"], list(asked["args"]), last.content]


@call("ChatOpenAI.with_structured_output")
def _():
    methods = ["json_schema", "function_calling"]
    return [type(chat().with_structured_output(Duck, method=method).invoke(QUESTION)).__name__ for method in methods]


@call("ChatOpenAI.invoke(responses)")
def _():
    return chat(use_responses_api=True).invoke(QUESTION).text


@call("OpenAIEmbeddings.embed_documents")
def _():
    # Without this option the client sends OpenAI's token numbers, which mean nothing to another model.
    said = []
    for model in ["vectors", "embedded-static-256"]:
        embeddings = OpenAIEmbeddings(**OPTIONS, model=model, check_embedding_ctx_length=False)
        said.append([len(vector) for vector in embeddings.embed_documents(["a duck", "a goose"])])
    return said


@call("OpenAIEmbeddings.embed_query")
def _():
    embeddings = OpenAIEmbeddings(**OPTIONS, model="vectors", check_embedding_ctx_length=False)
    return len(embeddings.embed_query("a duck"))


@call("errors")
def _():
    return {
        "401": told(raised(openai.AuthenticationError, lambda: chat(api_key=WRONG).invoke(QUESTION))),
        "404": told(raised(openai.NotFoundError, lambda: chat("gone").invoke(QUESTION))),
        "400": told(raised(openai.BadRequestError, lambda: chat("guarded").invoke(WITH_CARD))),
    }


@call("RateLimitError")
def _():
    chat("limited-langchain").invoke(QUESTION)
    return told(raised(openai.RateLimitError, lambda: chat("limited-langchain").invoke(QUESTION)))


report()
