"""What the scripts of this folder share: addresses, tokens, and a note of what each call came to."""

import json
import os

URL = os.environ["DUCKSERVE_URL"]
STUB_URL = os.environ["STUB_URL"]
ADMIN = os.environ["ADMIN_TOKEN"]
CLIENT = os.environ["CLIENT_TOKEN"]
STRANGER = os.environ["STRANGER_TOKEN"]
WRONG = os.environ["WRONG_TOKEN"]
WITH_CARD = os.environ["WITH_CARD"]

_noted = {}


def call(name):
    """Runs the function below at once and notes what it returns, or what it raised: the next call is made anyway."""

    def note(function):
        try:
            _noted[name] = function()
        except Exception as raised:
            _noted[name] = f"{type(raised).__name__}: {raised}"
        return function

    return note


def raised(kind, function):
    """The error of this kind that the function raises."""
    try:
        answer = function()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected, not {answer!r}")


def report():
    """Prints what was noted, as the last line."""
    print(json.dumps(_noted, default=str))
