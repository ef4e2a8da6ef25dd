"""The agent's HTTP face: routes of the agent protocol as one small ASGI application.

Plain ASGI, because a framework's imports would cost every sandbox more memory than this module has lines to save.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final, TypeVar, get_origin, get_type_hints
from urllib.parse import parse_qs

from interpreter_sandbox.protocol import ExecuteRequest, IntrospectRequest
from interpreter_sandbox.runtime.files import Refusal
from interpreter_sandbox.runtime.http_server import ClientGone, Receive, Scope, Send

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from interpreter_sandbox.runtime.engine import Engine
    from interpreter_sandbox.runtime.execution import Execution
    from interpreter_sandbox.runtime.tokens import TokenVerifier

_MAX_REQUEST_BYTES: Final = 64 << 20
_JSON: Final = [(b"content-type", b"application/json")]
_NDJSON: Final = [(b"content-type", b"application/x-ndjson")]


def _types(kind: type) -> dict[str, tuple[type, ...]]:
    """What JSON may hold for each field; which text a ``Literal`` allows is checked by whoever acts on it."""
    return {
        name: (int, float) if wanted is float else (str,) if get_origin(wanted) is not None else (wanted,)
        for name, wanted in get_type_hints(kind).items()
    }


_FIELDS: Final = {kind: _types(kind) for kind in (ExecuteRequest, IntrospectRequest)}
_EXECUTE_REQUIRED: Final = ("execution_id", "code", "timeout_seconds")
_Request = TypeVar("_Request", ExecuteRequest, IntrospectRequest)


class AgentApp:
    """The ASGI application."""

    def __init__(self, engine: Engine, verifier: TokenVerifier) -> None:
        """Every request but ``GET /health`` must pass ``verifier``."""
        self._engine = engine
        self._verifier = verifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        try:
            await self._route(scope, receive, send)
        except Refusal as refusal:
            body = {"error": {"code": refusal.code, "message": refusal.message}}
            await _answer(send, body, refusal.status)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if (method, path) == ("GET", "/health"):
            await _answer(send, asdict(self._engine.health()))
            return
        self._authorize(scope)
        engine, query = self._engine, _Query(scope["query_string"])
        match method, path.strip("/").split("/"):
            case "POST", ["executions"]:
                execution = await engine.execute(_request(ExecuteRequest, _EXECUTE_REQUIRED, await _body(receive)))
                await _stream_events(send, execution, -1)
            case "GET", ["executions", execution_id, "events"]:
                await _stream_events(send, engine.execution(execution_id), query.number("after", -1))
            case "DELETE", ["executions", execution_id]:
                engine.acknowledge(execution_id)
                await _answer(send, {})
            case "POST", ["executions", execution_id, "interrupt"]:
                engine.interrupt(execution_id)
                await _answer(send, {})
            case "GET", ["files"]:
                entries, truncated = engine.files.list(query.text("path"), recursive=query.flag("recursive"))
                await _answer(send, {"entries": [asdict(entry) for entry in entries], "truncated": truncated})
            case "GET", ["files", "content"]:
                await self._send_file(send, query.text("path"))
            case "PUT", ["files", "content"]:
                entry = await engine.files.write(query.text("path"), _chunks(receive))
                await _answer(send, asdict(entry))
            case "DELETE", ["files"]:
                engine.files.delete(query.text("path"))
                await _answer(send, {})
            case "POST", ["introspect"]:
                wanted = _request(IntrospectRequest, ("kind",), await _body(receive))
                await _answer(send, asdict(await engine.introspect(wanted)))
            case "POST", ["restart"]:
                await engine.restart()
                await _answer(send, {})
            case "GET", ["stats"]:
                await _answer(send, asdict(await engine.stats()))
            case _:
                raise Refusal("not_found", "no such route")

    def _authorize(self, scope: Scope) -> None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) == 1 and given[0][:7].lower() == b"bearer " and self._verifier.accepts(given[0][7:]):
            return
        raise Refusal("unauthorized", "a valid token for this sandbox is needed")

    async def _send_file(self, send: Send, path: str) -> None:
        file = self._engine.files.open(path)
        try:
            headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(file.size).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for data in file.chunks():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            file.close()


class _Query:
    """The query string; ``Refusal`` for a value that makes no sense."""

    def __init__(self, raw: bytes) -> None:
        try:
            self._values = parse_qs(raw.decode("ascii"), errors="strict", max_num_fields=10)
        except ValueError:
            raise Refusal("invalid_argument", "the query string is not valid") from None

    def text(self, name: str) -> str:
        return self._values.get(name, [""])[-1]

    def flag(self, name: str) -> bool:
        return self.text(name).lower() in ("1", "true")

    def number(self, name: str, default: int) -> int:
        try:
            return int(self.text(name)[:20] or default)
        except ValueError:
            raise Refusal("invalid_argument", f"{name} is a number") from None


async def _answer(send: Send, body: object, status: int = 200) -> None:
    data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    headers = [*_JSON, (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def _stream_events(send: Send, execution: Execution, after: int) -> None:
    started = False
    async for data, last in execution.follow(after):
        if not started:
            started = True
            await send({"type": "http.response.start", "status": 200, "headers": _NDJSON})
        await send({"type": "http.response.body", "body": data, "more_body": not last})


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        if body := message.get("body"):
            yield body
        if not message.get("more_body"):
            return


async def _body(receive: Receive) -> bytes:
    data = bytearray()
    async for chunk in _chunks(receive):
        data += chunk
        if len(data) > _MAX_REQUEST_BYTES:
            raise Refusal("too_large", f"a request has at most {_MAX_REQUEST_BYTES} bytes")
    return bytes(data)


def _request(kind: type[_Request], required: tuple[str, ...], body: bytes) -> _Request:
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal("invalid_argument", "the body is not JSON") from None
    if not isinstance(raw, dict) or not all(name in raw for name in required):
        raise Refusal("invalid_argument", f"the body is an object with {', '.join(required)}")
    types = _FIELDS[kind]
    known = {name: raw[name] for name in types if name in raw}
    for name, value in known.items():
        if not isinstance(value, types[name]) or isinstance(value, bool):
            raise Refusal("invalid_argument", f"{name} has the wrong type")
    return kind(**known)
