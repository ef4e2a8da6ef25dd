"""Messages of one stdio client carried to a server's ``/mcp``, in either protocol revision.

Each request is one POST and may run beside others. A cancelled request closes its POST, which interrupts the code
under both revisions, so ``notifications/cancelled`` itself need not travel.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2

from interpreter_api.mcp.headers import (
    METHOD_HEADER,
    NAME_HEADER,
    NAMED_BY,
    PROTOCOL_VERSION_HEADER,
    PROTOCOL_VERSION_META,
    SESSION_HEADER,
    header_value,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INTERNAL_ERROR = -32603

_TIMEOUT = httpx2.Timeout(10, read=None)  # a call may run for as long as the server lets it


@dataclass(frozen=True, slots=True)
class Target:
    """Where messages go, and the key that opens it."""

    url: str
    api_key: str


class Bridge:
    """Carries messages; ``write`` gets each line for the client, ``find`` says where the server is now."""

    def __init__(self, find: Callable[[], Awaitable[Target]], write: Callable[[bytes], None]) -> None:
        self._find = find
        self._write = write
        self._http = httpx2.AsyncClient(timeout=_TIMEOUT, trust_env=False)  # loopback: never by a proxy
        self._handshake: dict[str, str] = {}
        self._calls: dict[str | int, asyncio.Task[None]] = {}

    async def accept(self, line: bytes) -> None:
        """Take one line from the client. Returns when it is on its way; the handshake is waited for."""
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            self._fail(None, PARSE_ERROR, "Parse error")
            return
        if not isinstance(message, dict):
            self._fail(None, INVALID_REQUEST, "A message is one JSON object")
            return
        request_id = message.get("id")
        if "method" not in message:
            return  # an answer, and this server never asks
        if "id" not in message:
            await self._notify(message)
        elif not isinstance(request_id, str | int) or isinstance(request_id, bool) or request_id in self._calls:
            self._fail(None, INVALID_REQUEST, "A request needs an id that is a string or an integer, not in use")
        else:
            task = asyncio.create_task(self._call(request_id, message))
            self._calls[request_id] = task
            task.add_done_callback(lambda _: self._calls.pop(request_id, None))
            if message["method"] == "initialize":
                await asyncio.wait([task])

    async def drain(self, seconds: float) -> None:
        """Wait for running calls, but only so long; then end them and the connections."""
        if calls := dict(self._calls):
            await asyncio.wait(calls.values(), timeout=seconds)
            late = {request_id: task for request_id, task in calls.items() if not task.done()}
            for request_id, task in late.items():
                task.cancel()
                self._fail(request_id, INTERNAL_ERROR, "The client's end of input came long before the answer")
            await asyncio.gather(*late.values(), return_exceptions=True)
        await self._http.aclose()

    async def _notify(self, message: dict[str, Any]) -> None:
        if message["method"] == "notifications/cancelled":
            params = message.get("params")
            task = self._calls.get(params.get("requestId", "")) if isinstance(params, dict) else None
            if task is not None:
                task.cancel()
            return
        with suppress(httpx2.HTTPError):  # nobody waits for an answer to a notification
            target = await self._find()
            await self._http.post(target.url, json=message, headers=self._headers(message, target))

    async def _call(self, request_id: str | int, message: dict[str, Any]) -> None:
        try:
            try:
                await self._post(request_id, message)
            except httpx2.ConnectError:  # nothing was sent: the server of somebody else has ended, find another
                await self._post(request_id, message)
        except httpx2.HTTPError as error:
            self._fail(request_id, INTERNAL_ERROR, f"The connection to the server broke: {type(error).__name__}")
        except OSError as error:
            self._fail(request_id, INTERNAL_ERROR, str(error) or "The server did not start in time")

    async def _post(self, request_id: str | int, message: dict[str, Any]) -> None:
        target = await self._find()
        async with self._http.stream(
            "POST", target.url, json=message, headers=self._headers(message, target)
        ) as response:
            answer: dict[str, Any] | None = None
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                async for data in _sse_data(response):
                    answer = answer or _answer(data, request_id)
                    self._write(data)
            else:
                body = await response.aread()
                answer = _answer(body, request_id)
                if answer is not None:
                    self._write(body.replace(b"\n", b" "))  # JSON has raw line ends between tokens only
                else:
                    self._fail(request_id, *_refusal(response.status_code, body))
                    return
            if answer is None:
                self._fail(request_id, INTERNAL_ERROR, "The server ended the call without an answer")
            elif message["method"] == "initialize":
                self._handshake = _handshake(answer, response.headers.get(SESSION_HEADER))

    def _headers(self, message: dict[str, Any], target: Target) -> dict[str, str]:
        headers = {
            "accept": "application/json, text/event-stream",
            "authorization": f"Bearer {target.api_key}",
        }
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        meta = params.get("_meta")
        version = meta.get(PROTOCOL_VERSION_META) if isinstance(meta, dict) else None
        if not isinstance(version, str):
            return headers if message["method"] == "initialize" else headers | self._handshake
        headers[PROTOCOL_VERSION_HEADER] = header_value(version)
        headers[METHOD_HEADER] = header_value(str(message["method"]))
        name = params.get(NAMED_BY.get(message["method"], ""))
        if isinstance(name, str):
            headers[NAME_HEADER] = header_value(name)
        return headers

    def _fail(self, request_id: str | int | None, code: int, message: str) -> None:
        error = {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}
        self._write(json.dumps(error).encode())


def _handshake(answer: dict[str, Any], client_id: str | None) -> dict[str, str]:
    """The headers of every later message of a client that initialized: the agreed revision, and its name."""
    result = answer.get("result")
    version = result.get("protocolVersion") if isinstance(result, dict) else None
    headers = {SESSION_HEADER: client_id} if client_id else {}
    return headers | ({PROTOCOL_VERSION_HEADER: version} if isinstance(version, str) else {})


def _answer(body: bytes, request_id: str | int) -> dict[str, Any] | None:
    """The message, where it is the answer to this request."""
    try:
        message = json.loads(body)
    except ValueError:
        return None
    if isinstance(message, dict) and "method" not in message and message.get("id") == request_id:
        return message
    return None


def _refusal(status: int, body: bytes) -> tuple[int, str]:
    """Why an HTTP error: a JSON-RPC error without an id, or problem details."""
    with suppress(ValueError):
        problem = json.loads(body)
        if isinstance(problem, dict):
            error = problem.get("error")
            if isinstance(error, dict) and isinstance(error.get("code"), int):
                return error["code"], str(error.get("message", ""))
            return INTERNAL_ERROR, " ".join(str(problem[key]) for key in ("message", "remedy") if problem.get(key))
    return INTERNAL_ERROR, f"The server answered HTTP {status}"


async def _sse_data(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The data of each event; comments and other fields carry nothing here."""
    data: list[str] = []
    async for line in response.aiter_lines():
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            text, data = "".join(data), []
            if text:
                yield text.encode()
