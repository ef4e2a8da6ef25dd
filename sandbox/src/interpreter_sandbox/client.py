"""The api's side of the agent protocol: one :class:`AgentClient` for each sandbox.

AgentFailure
├── AgentError         the agent refused: ``code`` is one of :data:`~interpreter_sandbox.protocol.AGENT_ERRORS`
└── AgentUnavailable   the connection was refused, lost, or ended before the answer did
"""

from __future__ import annotations

import base64
import io
import json
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

import aiohttp
import jwt

from interpreter_sandbox.protocol import (
    AUDIENCE,
    TOKEN_LIFETIME_SECONDS,
    Event,
    ExecuteRequest,
    FileEntry,
    Health,
    Introspected,
    IntrospectRequest,
    Stats,
    to_json,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_TOKEN_REUSE_SECONDS: Final = 60
_CONNECT_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 60.0
_CALL_SECONDS: Final = 120.0
_STREAM_SLACK_SECONDS: Final = 60.0
_KEEP_ALIVE_SECONDS: Final = 600.0
_MAX_CONNECTIONS: Final = 32
_LARGE_BODY_BYTES: Final = 1 << 19
_MAX_REFUSAL_BYTES: Final = 64 << 10
_MAX_ANSWER_BYTES: Final = 64 << 20
_MAX_LINE_BYTES: Final = 64 << 20
"""One event, at most: several times what ``display_limit_bytes`` lets through. A longer line is no event."""


_T = TypeVar("_T")


class AgentFailure(Exception):  # noqa: N818 - a root, never raised itself
    """The root of what this client raises."""


class AgentError(AgentFailure):
    """The agent refused a request."""

    def __init__(self, code: str, status: int, message: str) -> None:
        """``code`` and ``status`` as in the protocol; ``message`` is for people."""
        super().__init__(f"{code}: {message}")
        self.code = code
        self.status = status
        self.message = message


class AgentUnavailable(AgentFailure):
    """The agent cannot be reached, or went away in the middle of an answer."""


class TokenSigner:
    """Makes the short-lived tokens that an agent accepts."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        """Sandboxes get the public half of this key."""
        self._private_key = private_key

    @property
    def public_key_base64(self) -> str:
        """The agent's ``public_key`` setting."""
        return base64.b64encode(self._private_key.public_key().public_bytes_raw()).decode()

    def for_sandbox(self, uid: str) -> Callable[[], str]:
        """A function that gives a valid token for one sandbox; the same one for a minute."""
        token, made_at = "", float("-inf")

        def current() -> str:
            nonlocal token, made_at
            if time.monotonic() - made_at > _TOKEN_REUSE_SECONDS:
                claims = {"aud": AUDIENCE, "sub": uid, "exp": int(time.time()) + TOKEN_LIFETIME_SECONDS}
                token, made_at = jwt.encode(claims, self._private_key, algorithm="EdDSA"), time.monotonic()
            return token

        return current


class AgentClient:
    """Speaks to one agent. Safe for concurrent use in one event loop; close it with :meth:`aclose`."""

    def __init__(self, http: aiohttp.ClientSession, token: Callable[[], str]) -> None:
        """Made by :meth:`over_unix` or :meth:`over_tcp`, in a running event loop."""
        self._http = http
        self._token = token

    @classmethod
    def over_unix(cls, path: str, token: Callable[[], str]) -> AgentClient:
        """An agent that listens on a Unix socket."""
        connector = aiohttp.UnixConnector(path, limit=_MAX_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE_SECONDS)
        return cls(_session("http://agent", connector), token)

    @classmethod
    def over_tcp(cls, host: str, port: int, token: Callable[[], str]) -> AgentClient:
        """An agent that listens on a port."""
        connector = aiohttp.TCPConnector(limit=_MAX_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE_SECONDS)
        return cls(_session(f"http://{f'[{host}]' if ':' in host else host}:{port}", connector), token)

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def health(self) -> Health:
        """Whether the sandbox can run code; needs no valid token."""
        return _shape(Health, await self._call("GET", "/health"))

    async def stats(self) -> Stats:
        """The sandbox by numbers."""
        return _shape(Stats, await self._call("GET", "/stats"))

    async def execute(self, request: ExecuteRequest) -> AsyncIterator[Event]:
        """Run a cell: its events up to ``done``. For an id that ran before, the events of that run.

        Ends early only by an error: :class:`AgentUnavailable` where the stream breaks off; :meth:`events` attaches
        to the execution again. Leaving the iterator does not stop the code: :meth:`interrupt` does.
        """
        seconds = request.timeout_seconds + request.grace_seconds + _STREAM_SLACK_SECONDS
        async for event in self._events("POST", "/executions", seconds, data=_body(to_json(request))):
            yield event

    async def events(self, execution_id: str, after: int = -1) -> AsyncIterator[Event]:
        """The events of an execution with ``seq`` > ``after``: those kept, then the live ones, up to ``done``."""
        async for event in self._events(
            "GET", f"/executions/{execution_id}/events", None, params={"after": str(after)}
        ):
            yield event

    async def acknowledge(self, execution_id: str) -> None:
        """The agent may forget that execution's events."""
        await self._call("DELETE", f"/executions/{execution_id}")

    async def interrupt(self, execution_id: str) -> None:
        """Stop the running execution; its stream ends with ``interrupted``. ``not_found`` where it does not run."""
        await self._call("POST", f"/executions/{execution_id}/interrupt")

    async def introspect(self, request: IntrospectRequest) -> Introspected:
        """Look into the namespace; ``data`` is the worker's word. ``busy`` while a cell runs."""
        answer = await self._call("POST", "/introspect", data=_body(to_json(request)))
        data = answer.pop("data", None)
        if not isinstance(data, dict):
            raise _nonsense()
        return replace(_shape(Introspected, answer), data=data)

    async def list_files(self, path: str = "", recursive: bool = False) -> tuple[list[FileEntry], bool]:
        """The entries of a folder of the workspace; True where there are more of them than an agent lists."""
        answer = await self._call("GET", "/files", params={"path": path, "recursive": str(recursive).lower()})
        entries, truncated = answer.get("entries"), answer.get("truncated")
        if not isinstance(entries, list) or not isinstance(truncated, bool):
            raise _nonsense()
        return [_shape(FileEntry, entry) for entry in entries], truncated

    @asynccontextmanager
    async def read_file(self, path: str) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """A file's size and its bytes."""
        async with self._open("GET", "/files/content", _ANSWER_SECONDS, params={"path": path}) as answer:
            if (size := answer.content_length) is None:
                raise _nonsense()
            yield size, answer.content.iter_any()

    async def write_file(self, path: str, content: bytes | AsyncIterator[bytes]) -> FileEntry:
        """Make or replace a file; it is there as a whole or not at all."""
        answer = await self._call("PUT", "/files/content", params={"path": path}, data=_body(content))
        return _shape(FileEntry, answer)

    async def delete_file(self, path: str) -> None:
        """Remove a file, or a folder with all in it."""
        await self._call("DELETE", "/files", params={"path": path})

    async def restart(self) -> None:
        """A fresh worker with an empty namespace; files stay."""
        await self._call("POST", "/restart")

    async def _events(self, method: str, path: str, seconds: float | None, **options: Any) -> AsyncIterator[Event]:
        async with self._open(method, path, seconds, **options) as answer:
            rest, done = bytearray(), False
            async for data in answer.content.iter_any():
                start = len(rest)
                rest += data
                if rest.find(b"\n", start) < 0:
                    if len(rest) > _MAX_LINE_BYTES:
                        raise AgentUnavailable("the agent sent a line that is no event")
                    continue
                *lines, unfinished = rest.split(b"\n")
                rest = unfinished
                for line in lines:
                    event = Event.decode(line.decode())
                    yield event
                    done = event.event == "done"
            # read to the end of the body, not to "done" only: a connection with an unread rest cannot be used again
        if not done:
            raise AgentUnavailable("the agent ended the stream before the execution was done")

    async def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        # a body that is sent takes the time that its sender takes
        total = None if "data" in options else _CALL_SECONDS
        async with self._open(method, path, _ANSWER_SECONDS, total=total, **options) as answer:
            data = bytearray()
            async for piece in answer.content.iter_any():
                data += piece
                if len(data) > _MAX_ANSWER_BYTES:
                    raise _nonsense()
            return _object(data)

    @asynccontextmanager
    async def _open(
        self, method: str, path: str, seconds: float | None, *, total: float | None = None, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful answer whose body is still to be read; ``seconds`` bounds each wait for bytes."""
        headers = {"authorization": f"Bearer {self._token()}"}
        timeout = aiohttp.ClientTimeout(total=total, sock_connect=_CONNECT_SECONDS, sock_read=seconds)
        try:
            async with self._http.request(
                method, path, headers=headers, timeout=timeout, allow_redirects=False, **options
            ) as answer:
                if answer.status >= 300:
                    raise _refusal(answer.status, await answer.content.read(_MAX_REFUSAL_BYTES))
                yield answer
        except (aiohttp.ClientError, TimeoutError) as error:
            raise AgentUnavailable(f"{type(error).__name__}: {error}") from error


def _session(base_url: str, connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    # what a hostile agent could use is off: cookies, compressed bodies; the environment's proxies are never asked
    return aiohttp.ClientSession(
        base_url,
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        skip_auto_headers=("accept", "accept-encoding", "user-agent"),
    )


def _body(content: bytes | AsyncIterator[bytes]) -> io.BytesIO | bytes | AsyncIterator[bytes]:
    """A large body goes out in pieces, so that other sessions are served in between."""
    return io.BytesIO(content) if isinstance(content, bytes) and len(content) > _LARGE_BODY_BYTES else content


def _nonsense() -> AgentUnavailable:
    return AgentUnavailable("the agent's answer is none of the protocol's")


def _object(body: bytes | bytearray) -> dict[str, Any]:
    """The JSON object that a body holds; :class:`AgentUnavailable` for anything else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise _nonsense() from None
    if not isinstance(found, dict):
        raise _nonsense()
    return found


def _shape(kind: type[_T], raw: object) -> _T:
    """``raw`` as one of the protocol's dataclasses, each field of its type; :class:`AgentUnavailable` where it is not.

    Text comes out fit for UTF-8: JSON can hold half of a surrogate pair, which nothing that takes it further can.
    """
    if not isinstance(raw, dict):
        raise _nonsense()
    values: dict[str, Any] = {}
    for name, wanted in get_type_hints(kind).items():
        if name not in raw:
            continue
        value = values[name] = _text(raw[name])
        allowed = get_args(wanted)
        if get_origin(wanted) is Literal:
            fits = value in allowed
        elif type(value) is bool:
            fits = wanted is bool
        else:
            fits = isinstance(value, (int, float) if wanted is float else allowed or wanted)
        if not fits:
            raise _nonsense()
    try:
        return kind(**values)
    except TypeError:
        raise _nonsense() from None


def _text(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _refusal(status: int, body: bytes) -> AgentError:
    try:
        error = _object(body)["error"]
        return AgentError(str(_text(error["code"])), status, str(_text(error["message"])))
    except (AgentUnavailable, KeyError, TypeError):
        return AgentError("invalid_answer", status, body[:200].decode("utf-8", "replace"))
