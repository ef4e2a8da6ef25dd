"""Connections that never say what they want, from somebody without a key: each is a place that a client lacks."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from interpreter_api.connections import HEAD_SECONDS

if TYPE_CHECKING:
    from support.server import Server

SLACK_SECONDS = 5.0
HOST = "Host: 127.0.0.1\r\n"
SLOW = {
    "says nothing": (b"", b""),
    "a head without end": (f"GET /health HTTP/1.1\r\n{HOST}X: ".encode(), b"x"),
    "a second head without end": (f"GET /health HTTP/1.1\r\n{HOST}\r\n".encode(), b"G"),
    "a body after the answer": (f"POST /api/execute HTTP/1.1\r\n{HOST}Content-Length: 99999\r\n\r\n".encode(), b" "),
}


@pytest.mark.attack("UP07", "MC09")
def test_a_connection_that_asks_for_nothing_is_ended_however_it_drips(server: Server) -> None:
    """All of them at once; bytes that keep coming do not set the clock back."""
    where = urlsplit(server.url)
    began = time.monotonic()
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as waiting:
        for name, (first, drip) in SLOW.items():
            connection = stack.enter_context(socket.create_connection((where.hostname, where.port), timeout=5))
            connection.sendall(first)
            waiting.register(connection, selectors.EVENT_READ, (name, drip))
        while waiting.get_map():
            left = {key.data[0] for key in waiting.get_map().values()}
            assert time.monotonic() - began < HEAD_SECONDS + SLACK_SECONDS, left
            for key, _ in waiting.select(0.2):
                connection = key.fileobj  # type: ignore[assignment]
                try:
                    ended = connection.recv(65536) == b""
                except ConnectionError:
                    ended = True
                if ended:
                    waiting.unregister(connection)
            for key in list(waiting.get_map().values()):
                with contextlib.suppress(OSError):
                    key.fileobj.send(key.data[1])  # type: ignore[union-attr]


@pytest.mark.attack("UP07")
def test_a_connection_that_is_used_now_and_then_is_not_ended_early(server: Server) -> None:
    """The clock is for one head: many requests on one connection take longer together."""
    where = urlsplit(server.url)
    request = f"GET /health HTTP/1.1\r\n{HOST}\r\n".encode()
    with socket.create_connection((where.hostname, where.port), timeout=5) as connection:
        began = time.monotonic()
        while time.monotonic() - began < HEAD_SECONDS + 1:
            for part in (request[:10], request[10:]):
                connection.sendall(part)
            head = b""
            while b"\r\n\r\n" not in head:
                head += (piece := connection.recv(65536))
                assert piece, "closed"
            assert head.startswith(b"HTTP/1.1 200")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            body = head.partition(b"\r\n\r\n")[2]
            while len(body) < length:
                body += connection.recv(65536)
            with contextlib.suppress(TimeoutError):  # nothing comes unasked: wait a moment between two requests
                connection.settimeout(1)
                assert connection.recv(1) != b"", "closed"
            connection.settimeout(5)
