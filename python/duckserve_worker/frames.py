"""Frames: a JSON header and raw buffers behind it. The form and the kinds are described in src/engines/python/frames.ts."""

import json
import os
import struct
import threading

VERSION = 1
_PREFIX = struct.Struct("<3sBIQ")
_ZEROS = b"\0" * 8
# One system call takes a limited number of buffers; smaller ones are joined first.
_JOIN_BELOW = 65536


def _padded(size):
    return (size + 7) & ~7


class Closed(Exception):
    """The other side has gone."""


class Channel:
    """Frames over a file descriptor. Sending is safe from several threads; reading is for one."""

    def __init__(self, fd):
        self._fd = fd
        self._lock = threading.Lock()

    def send(self, kind, id, header=None, buffers=()):
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        fields = dict(header or {})
        fields["kind"] = kind
        fields["id"] = id
        fields["sizes"] = [view.nbytes for view in views]
        text = json.dumps(fields, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        body = sum(_padded(view.nbytes) for view in views)
        parts = [_PREFIX.pack(b"DSW", VERSION, len(text), body), text, _ZEROS[: _padded(len(text)) - len(text)]]
        with self._lock:
            for view in views:
                if view.nbytes >= _JOIN_BELOW:
                    self._write(b"".join(parts))
                    self._write(view)
                    parts = []
                else:
                    parts.append(view)
                parts.append(_ZEROS[: _padded(view.nbytes) - view.nbytes])
            self._write(b"".join(parts))

    def receive(self):
        """The next frame as (kind, id, header, buffers). Raises Closed at the end."""
        mark, version, header_size, body_size = _PREFIX.unpack(self._read(_PREFIX.size))
        if mark != b"DSW" or version != VERSION:
            raise Closed(f"what came is no frame of version {VERSION}")
        padded = _padded(header_size)
        # One block for all, so that arrays can lie in it without a copy: header and buffers begin at multiples of 8.
        block = self._read(padded + body_size)
        header = json.loads(block[:header_size].tobytes().decode("utf-8"))
        buffers = []
        at = padded
        for size in header.get("sizes", ()):
            buffers.append(block[at : at + size])
            at += _padded(size)
        return header["kind"], header["id"], header, buffers

    def _write(self, data):
        view = memoryview(data)
        while view.nbytes:
            try:
                view = view[os.write(self._fd, view) :]
            except OSError as error:
                raise Closed(str(error)) from None

    def _read(self, size):
        block = memoryview(bytearray(size))
        at = 0
        while at < size:
            try:
                count = os.readv(self._fd, [block[at:]])
            except OSError as error:
                raise Closed(str(error)) from None
            if count == 0:
                raise Closed("end of stream")
            at += count
        return block
