"""Asks the server with the openai package: chat, stream, embeddings, models, an error. Prints one JSON object."""

import json
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="unused", max_retries=0)
messages = [{"role": "user", "content": "quack quack quack"}]

chat = client.chat.completions.create(model="echo-chat", messages=messages, temperature=0)
stream = client.chat.completions.create(model="echo-chat", messages=messages, stream=True)
pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices and chunk.choices[0].delta.content]
embeddings = client.embeddings.create(model="embedded-static-256", input=["a duck", "a goose"])
try:
    client.chat.completions.create(model="gone", messages=messages)
    error = None
except openai.NotFoundError as thrown:
    error = thrown.code

print(
    json.dumps(
        {
            "content": chat.choices[0].message.content,
            "total_tokens": chat.usage.total_tokens,
            "pieces": pieces,
            "lengths": [len(item.embedding) for item in embeddings.data],
            "models": [model.id for model in client.models.list()],
            "error": error,
        }
    )
)
