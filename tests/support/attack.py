"""Attacks: the same payload with and without the sandbox, and what it achieved.

A payload is a function in ``tests/attacks/payloads``. It runs as a plain process on this machine first, where it
must succeed (the positive control: a payload that cannot work proves nothing), then as code in a session of the
real server, where every attempt must be refused. Whoever calls looks at canaries besides: files, sockets, sinks.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import httpx2

    from support.machine import Machine
    from support.server import Server

T = TypeVar("T")
PAYLOADS = Path(__file__).resolve().parent.parent / "attacks" / "payloads"
SANDBOX_PYTHON = Path(sys.prefix).parent / ".venv-sandbox" / "bin" / "python"
SYSTEM_PYTHON = Path("/usr/bin/python3")
MARK = "@attack-report@"
LACKING = frozenset({errno.ENOSYS, errno.EAFNOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EPROTONOSUPPORT})
"""What a kernel answers that was built without the thing asked for."""

_LOADER = """\
import json as _json, sys as _sys, types as _types
for _name, _source in _json.loads({modules!r}).items():
    _sys.modules[_name] = _types.ModuleType(_name)
    exec(compile(_source, _name + ".py", "exec"), _sys.modules[_name].__dict__)
print({mark!r} + _json.dumps(_sys.modules["payload"].{function}(**_json.loads({arguments!r}))), flush=True)
"""


def canary() -> str:
    """A secret that occurs nowhere else: where it turns up, something leaked."""
    return "pi-canary-" + secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Payload:
    """One function of a payload module, with its arguments."""

    module: str
    function: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def source(self) -> str:
        """A self-contained program that prints the report as one marked line."""
        modules = {"kit": (PAYLOADS / "kit.py").read_text(), "payload": (PAYLOADS / f"{self.module}.py").read_text()}
        return _LOADER.format(
            modules=json.dumps(modules),
            mark=MARK,
            function=self.function,
            arguments=json.dumps(self.arguments),
        )


def payload(name: str, /, **arguments: Any) -> Payload:
    """``payload("kernel.mounts")``: the function ``mounts`` of ``payloads/kernel.py``."""
    module, _, function = name.partition(".")
    return Payload(module, function, arguments)


@dataclass(frozen=True, slots=True)
class Report:
    """What a payload achieved. ``raw`` is all that came back, for the search for canaries."""

    attempts: dict[str, dict[str, Any]]
    facts: dict[str, Any]
    raw: str

    @property
    def succeeded(self) -> dict[str, str]:
        """The attempts that worked, with what they got."""
        return {name: outcome["detail"] for name, outcome in self.attempts.items() if outcome["succeeded"]}

    @property
    def refused(self) -> dict[str, str]:
        """The attempts that did not, with the refusal."""
        return {name: outcome["detail"] for name, outcome in self.attempts.items() if not outcome["succeeded"]}

    @classmethod
    def parse(cls, output: str, raw: str) -> Report:
        """The report in a program's output; an error where there is none."""
        lines = [line.partition(MARK)[2] for line in output.splitlines() if MARK in line]
        if not lines:
            raise AssertionError(f"the payload did not report: {raw[-3000:]}")
        report = json.loads(lines[-1])
        return cls(report["attempts"], report["facts"], raw)


def control(
    attack: Payload,
    *,
    namespaces: Sequence[str] = (),
    before: str = "",
    uid: int | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    python: Path = SANDBOX_PYTHON,
    seconds: float = 60,
) -> Report:
    """Run the payload on this machine without a sandbox, and report what it achieved.

    ``namespaces`` are options of ``unshare``: with them, destructive payloads act on nothing that anyone else
    uses. ``before`` is shell, run as root in those namespaces, to set the scene. ``uid``: who the attacker is.
    """
    command = [str(python), "-I", "-c", attack.source()]
    if uid is not None:
        command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *command]
    if before:
        command = ["sh", "-ec", before + '\nexec "$@"', "sh", *command]
    if namespaces:
        command = ["unshare", *namespaces, *command]
    done = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        pass_fds=pass_fds,
        timeout=seconds,
        check=False,
    )
    return Report.parse(done.stdout, done.stdout + done.stderr)


def assert_contained(unsandboxed: Report, inside: Report) -> None:
    """Every attempt worked without the sandbox, and none of them inside it.

    Where this machine's kernel was built without something, its attempt cannot work anywhere. Then the sandbox must
    refuse by itself, as it will on a kernel that has it: with another error than "no such thing here".
    """
    missing = {
        name: outcome["detail"]
        for name, outcome in unsandboxed.attempts.items()
        if not outcome["succeeded"] and outcome["errno"] not in LACKING
    }
    assert not missing, f"void: without the sandbox these failed too: {missing}"
    assert unsandboxed.succeeded, "void: nothing worked without the sandbox"
    assert set(inside.attempts) == set(unsandboxed.attempts)
    assert not inside.succeeded, f"the sandbox let these through: {inside.succeeded}"
    open_on_other_kernels = {
        name: outcome["detail"]
        for name, outcome in inside.attempts.items()
        if outcome["errno"] in LACKING and name in unsandboxed.refused and name not in NOT_FILTERED
    }
    assert not open_on_other_kernels, f"only this kernel refuses these: {open_on_other_kernels}"


NOT_FILTERED = frozenset({"SCTP socket"})
"""Protocols, not families: the empty network namespace is what stops them, so no filter needs to."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session of the attacked server, by REST."""

    id: str
    target: Target

    def post(self, code: str, timeout: float | None = 20, **fields: Any) -> httpx2.Response:
        """``POST /api/execute`` as it answers."""
        body = {"code": code, "session_id": self.id, "timeout": timeout, **fields}
        return self.target.request("POST", "/api/execute", json=body)

    def run(self, code: str, timeout: float | None = 20) -> dict[str, Any]:
        """The result of one cell; a refusal by the server is a failure of the test."""
        answer = self.post(code, timeout)
        assert answer.status_code == 200, answer.text[:2000]
        result: dict[str, Any] = answer.json()
        return result

    def attack(self, attack: Payload, timeout: float = 30) -> Report:
        """Run the payload in this session."""
        result = self.run(attack.source(), timeout)
        return Report.parse(result["stdout"], json.dumps(result))

    def assert_usable(self) -> dict[str, Any]:
        """The session answers, rightly. Returns the result, whose ``session_info`` says what was lost."""
        result = self.run("1+1")
        assert (result["success"], result["result"]) == (True, "2"), result
        return result

    def delete(self) -> None:
        """End the session; the sandbox dies with it."""
        answer = self.target.request("DELETE", f"/api/sessions/{self.id}")
        assert answer.status_code in {200, 204, 404}, answer.text


@dataclass(frozen=True, slots=True)
class Target:
    """A running server under attack. ``kind`` is the backend, ``machine`` the network it lives in."""

    kind: Literal["local", "kubernetes"]
    server: Server
    machine: Machine
    client: httpx2.Client
    secret: str

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run it in the machine's network."""
        return self.machine.call(function, *arguments)

    def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """One authenticated request."""
        options.setdefault("headers", self.server.headers)
        return self.machine.call(lambda: self.client.request(method, self.server.url + path, **options))

    def session(self, **fields: Any) -> Session:
        """A new session."""
        answer = self.request("POST", "/api/sessions", json=fields)
        assert answer.status_code in {200, 201}, answer.text
        return Session(answer.json()["session_id"], self)


def assert_usable_or_said(session: Session, *replies: dict[str, Any]) -> None:
    """The session answers; where the attack cost it its state (its variable ``kept``), a reply said so and why."""
    after = session.assert_usable()
    if session.run("'kept' in dir()")["result"] != "True":
        told = [reply.get("session_info", {}) for reply in (*replies, after)]
        assert any(info.get("state") == "lost" and info.get("notice") for info in told), told
