"""The api as its own sandbox's victim: whatever an agent that was taken over answers, a typed error comes of it.

The agent here is a Unix socket that says what it is told to. Nothing of the product is replaced: the client is the
api's own, and these errors are the ones that its services turn into ``sandbox_lost``.
"""

from __future__ import annotations

import asyncio
import json
import resource
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from interpreter_sandbox.client import AgentClient, AgentFailure, AgentUnavailable
from interpreter_sandbox.protocol import Event, ExecuteRequest
from support.local import runtime_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.anyio, pytest.mark.attack("RES19")]

SECONDS = 20
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def answer(body: object, head: bytes = b"HTTP/1.1 200 OK\r\n") -> bytes:
    """A whole answer; ``body`` as JSON where it is not bytes already."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head + b"Content-Length: %d\r\n\r\n" % len(data) + data


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@asynccontextmanager
async def hostile(said: bytes, again: bytes = b"", times: int = 0) -> AsyncIterator[AgentClient]:
    """A client of an agent that answers every connection with ``said``, then ``again`` as often as asked."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            writer.write(said)
            for _ in range(times):
                writer.write(again)
                await writer.drain()
        except ConnectionError:
            pass  # the client had enough
        finally:
            writer.close()

    with runtime_folder() as folder:
        path = str(folder / "agent.sock")
        async with await asyncio.start_unix_server(talk, path), AgentClient.over_unix(path, lambda: "token") as client:
            yield client


async def execute(client: AgentClient) -> list[Event]:
    """One execution's events."""
    return [event async for event in client.execute(ExecuteRequest("exe_1", "1", 5))]


EVENTS = {
    "not JSON": b"}{",
    "too deep": b"[" * 100_000,
    "no object": b"[]",
    "no seq": b'{"event": "done", "data": {}}',
    "a list for seq": b'{"seq": [], "event": "done", "data": {}}',
    "infinity for seq": b'{"seq": 1e999, "event": "done", "data": {}}',
    "no event": b'{"seq": 0, "data": {}}',
    "a list for event": b'{"seq": 0, "event": [], "data": {}}',
    "an unknown event": b'{"seq": 0, "event": "host_call", "data": {}}',
    "no data": b'{"seq": 0, "event": "done"}',
    "a huge number": b'{"seq": ' + b"9" * 10_000 + b', "event": "done", "data": {}}',
    "no UTF-8": b'{"seq": 0, "event": "done", "data": {"a": "\xff"}}',
}


@pytest.mark.parametrize("line", EVENTS.values(), ids=EVENTS.keys())
async def test_a_line_that_is_no_event_is_an_error_that_the_api_expects(line: bytes) -> None:
    """``ValueError`` (which ``ExecutionService`` handles) or the client's own; never anything else."""
    async with asyncio.timeout(SECONDS), hostile(CHUNKED + chunk(line + b"\n") + b"0\r\n\r\n") as client:
        with pytest.raises((ValueError, AgentFailure)):
            await execute(client)


async def test_a_line_without_end_is_given_up_before_it_takes_the_memory() -> None:
    """A gigabyte without a newline costs some times the limit of a line, not a gigabyte."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with asyncio.timeout(SECONDS), hostile(CHUNKED, chunk(b"x" * (1 << 20)), 1024) as client:
        with pytest.raises(AgentUnavailable):
            await execute(client)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10  # kilobytes


async def test_an_answer_without_end_is_given_up_before_it_takes_the_memory() -> None:
    """The same where one JSON object is expected."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with asyncio.timeout(SECONDS), hostile(CHUNKED, chunk(b" " * (1 << 20)), 1024) as client:
        with pytest.raises(AgentUnavailable):
            await client.list_files()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10


ENTRY = {"path": "a", "size": 1, "modified": 1.0, "is_dir": False}
LISTINGS = {
    "not JSON": b"}{",
    "too deep": b"[" * 100_000,
    "no object": b"[]",
    "no entries": {"truncated": False},
    "entries are no list": {"entries": "abc", "truncated": False},
    "an entry is no object": {"entries": [1], "truncated": False},
    "a number for a path": {"entries": [ENTRY | {"path": 5}], "truncated": False},
    "text for a size": {"entries": [ENTRY | {"size": "x"}], "truncated": False},
    "a field too few": {"entries": [{"path": "a"}], "truncated": False},
}


@pytest.mark.parametrize("body", LISTINGS.values(), ids=LISTINGS.keys())
async def test_an_answer_of_another_shape_is_a_lost_agent(body: object) -> None:
    """What ``WorkspaceService`` turns into ``sandbox_lost`` instead of a failure of the server."""
    async with asyncio.timeout(SECONDS), hostile(answer(body)) as client:
        with pytest.raises(AgentUnavailable):
            await client.list_files()


async def test_half_a_surrogate_pair_in_a_path_comes_out_as_text() -> None:
    """JSON can hold it, UTF-8 and so every answer of ours cannot."""
    body = b'{"entries": [{"path": "\\ud800", "size": 1, "modified": 1.0}], "truncated": false}'
    async with asyncio.timeout(SECONDS), hostile(answer(body)) as client:
        entries, truncated = await client.list_files()
    assert [entry.path.encode() for entry in entries] == [b"?"]
    assert not truncated


HEADS = {
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "a huge header": answer({}, b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20) + b"\r\n"),
    "less than promised": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
    "a length below zero": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
    "an error that is not JSON": answer(b"[" * 100_000, b"HTTP/1.1 500 No\r\n"),
    "an error of odd shape": answer({"error": [1]}, b"HTTP/1.1 404 No\r\n"),
    "nothing": b"",
}


@pytest.mark.parametrize("said", HEADS.values(), ids=HEADS.keys())
async def test_what_is_no_answer_of_http_is_a_typed_failure(said: bytes) -> None:
    """On every kind of call: one object, a file's bytes, a stream of events."""
    async with asyncio.timeout(SECONDS), hostile(said) as client:
        with pytest.raises(AgentFailure):
            await client.list_files()
        with pytest.raises((AgentFailure, ValueError)):
            await execute(client)
        with pytest.raises(AgentFailure):
            async with client.read_file("a") as (_, pieces):
                [piece async for piece in pieces]


async def test_a_file_without_a_length_is_refused() -> None:
    """The length is what the api tells its own client first."""
    async with asyncio.timeout(SECONDS), hostile(CHUNKED + chunk(b"data") + b"0\r\n\r\n") as client:
        with pytest.raises(AgentUnavailable):
            async with client.read_file("a"):
                pass


async def test_headers_without_end_are_given_up() -> None:
    """Half a gigabyte of small headers."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = b"".join(b"X-%d: %s\r\n" % (n, b"x" * 1000) for n in range(1000))
    async with asyncio.timeout(SECONDS), hostile(b"HTTP/1.1 200 OK\r\n", lines, 512) as client:
        with pytest.raises(AgentFailure):
            await client.list_files()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
