"""The worker: reads frames on a thread of its own, works on them in others, and ends when the other side has gone."""

import os
import queue
import signal
import sys
import threading
import time
import traceback

from . import columns, rescue
from .frames import Channel, Closed


class Cancelled(BaseException):
    """Nobody waits for this request any more. No `except Exception` of a model may swallow it."""


class Asked(Exception):
    """What this model has asked could not be answered; `code` is duckserve's, `status` that of HTTP."""

    def __init__(self, code, message, status=None):
        super().__init__(message)
        self.code = code
        self.status = status


class Request:
    """A request while it is answered; what agents see of duckserve."""

    def __init__(self, worker, id, kind, header, buffers):
        self._worker = worker
        self.id = id
        self.kind = kind
        self.header = header
        self.buffers = buffers
        self.is_cancelled = False

    def emit(self, event):
        """Sends an event (anything JSON has) of a stream. Raises Cancelled when nobody waits any more."""
        if self.is_cancelled:
            raise Cancelled()
        self._worker.channel.send("event", self.id, {"event": event})

    def ask(self, question):
        """Asks duckserve another thing in the name of the caller, and waits. Raises Asked."""
        for kind, value in self._worker.ask(self, question):
            if kind == "answer":
                return value
        raise Asked("CANCELLED", "duckserve has gone")

    def ask_stream(self, question):
        """The same as events, as they come. Raises Asked."""
        for kind, value in self._worker.ask(self, {**question, "stream": True}):
            if kind == "event":
                yield value


class Worker:
    def __init__(self, fd):
        self.channel = Channel(fd)
        self._jobs = queue.SimpleQueue()
        self._requests = {}
        self._answers = {}
        self._asked = 0
        self._lock = threading.Lock()
        self.model = None

    def run(self):
        threading.Thread(target=self._read, name="duckserve-frames", daemon=True).start()
        self._work()

    def ask(self, request, question):
        with self._lock:
            self._asked += 1
            number = self._asked
            answers = self._answers[number] = queue.SimpleQueue()
        try:
            self.channel.send("ask", request.id, {"ask": number, "request": request.id, "question": question})
            while True:
                kind, header = answers.get()
                if kind == "ask_event":
                    yield "event", header["event"]
                elif header.get("error"):
                    error = header["error"]
                    raise Asked(error["code"], error["message"], error.get("status"))
                else:
                    yield "answer", header.get("value")
                    return
        finally:
            with self._lock:
                self._answers.pop(number, None)

    def _read(self):
        try:
            while True:
                kind, id, header, buffers = self.channel.receive()
                if kind == "cancel":
                    with self._lock:
                        request = self._requests.get(id)
                    if request is not None:
                        request.is_cancelled = True
                elif kind in ("answer", "ask_event"):
                    with self._lock:
                        answers = self._answers.get(header["ask"])
                    if answers is not None:
                        answers.put((kind, header))
                elif kind == "close":
                    self._jobs.put(None)
                else:
                    request = Request(self, id, kind, header, buffers)
                    with self._lock:
                        self._requests[id] = request
                    self._jobs.put(request)
        except Closed:
            pass
        except BaseException:
            traceback.print_exc()
        # Whatever is under way has nobody to answer to. What the model has started goes with it.
        try:
            if os.getpgrp() == os.getpid():
                os.killpg(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(0)

    def _work(self):
        while True:
            request = self._jobs.get()
            if request is None:
                # For the threads beside this one.
                self._jobs.put(None)
                return
            try:
                self._answer(request)
            except Closed:
                return
            except BaseException as error:
                if not isinstance(error, (Exception, SystemExit, KeyboardInterrupt, Cancelled)):
                    raise
                self._refuse(request, error)
            finally:
                with self._lock:
                    self._requests.pop(request.id, None)

    def _refuse(self, request, error):
        if isinstance(error, Cancelled) or request.is_cancelled:
            fields = {"type": "Cancelled", "message": "nobody waits any more", "code": "CANCELLED"}
        else:
            fields = rescue.describe(error)
            if isinstance(error, Asked):
                fields["code"] = error.code
            self.log("".join(traceback.format_exception(type(error), error, error.__traceback__)))
        self.channel.send("error", request.id, fields)

    def log(self, text):
        print(text.rstrip(), file=sys.stderr, flush=True)

    def _answer(self, request):
        if request.is_cancelled:
            raise Cancelled()
        if request.kind == "load":
            self._load(request)
        elif request.kind == "predict":
            self._predict(request)
        elif request.kind in ("chat", "chat_stream"):
            self._chat(request)
        else:
            raise ValueError(f"there is no request of the kind {request.kind!r}")

    def _load(self, request):
        from . import model

        started = time.monotonic()
        self.model = model.load(request.header)
        streams = False
        if request.header.get("agent"):
            from . import agents

            streams = agents.streams(self.model)
        versions = {name: _version_of(name) for name in ("mlflow", "numpy", "pandas")}
        for _ in range(1, request.header.get("threads", 1)):
            threading.Thread(target=self._work, daemon=True).start()
        self.channel.send(
            "ready",
            request.id,
            {
                "python": sys.version.split()[0],
                "loaded_with": self.model.loaded_with,
                "versions": versions,
                "streams": streams,
                "seconds": time.monotonic() - started,
            },
        )

    def _chat(self, request):
        from . import agents

        if request.kind == "chat":
            answer = agents.chat(self.model, request)
            self.channel.send("result", request.id, {"answer": columns.plain(answer)})
            return
        for event in agents.chat_stream(self.model, request):
            request.emit(columns.plain(event))
        self.channel.send("result", request.id, {"answer": None})

    def _predict(self, request):
        from . import model

        table = model.Table(request.header, request.buffers)
        params = request.header.get("params") or {}

        def predict(start, end):
            if request.is_cancelled:
                raise Cancelled()
            data = table.pick(start, end)
            pairs = model.predictions(self.model.predict(data, params), end - start)
            heads, buffers = columns.encode(pairs)
            return {"rows": end - start, "columns": heads}, buffers

        answered, failed = rescue.predict_rows(predict, table.rows, self.log)
        if request.is_cancelled:
            raise Cancelled()
        parts, buffers = [], []
        for start, end, (head, own) in answered:
            parts.append({**head, "start": start, "buffers": len(own)})
            buffers.extend(own)
        failures = [{"start": start, "end": end, **failure} for start, end, failure in failed]
        self.channel.send("result", request.id, {"parts": parts, "failed": failures}, buffers)


def _version_of(name):
    module = sys.modules.get(name)
    return getattr(module, "__version__", None)
