"""CR: no secret of the server is anywhere in a sandbox, and the agent's memory is closed to the code beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from support.attack import SYSTEM_PYTHON, Session, Target, assert_contained, canary, control, payload
from support.host import all_processes

OWN_PROCESSES = ["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
"""The controls look through every process: through their own, in a namespace of theirs."""


@pytest.mark.attack("CR01")
def test_no_environment_holds_a_secret(session: Session, target: Target) -> None:
    """Control: where a process of the same machine has the secret in its environment, it is found."""
    attack = payload("credentials.environments")
    secret = canary()
    unsandboxed = control(attack, namespaces=OWN_PROCESSES, env={"API_KEY": secret}, before="sleep 30 &")
    inside = session.attack(attack)
    assert hashlib.sha256(secret.encode()).hexdigest() in unsandboxed.raw
    assert_contained(unsandboxed, inside)
    assert target.secret not in inside.raw
    names = set(inside.facts["names"])
    assert not {name for name in names if "KEY" in name or "SECRET" in name or "TOKEN" in name or "DATABASE" in name}
    # The agent's and the zygote's environment as the host sees it: what nobody can read inside is not there either.
    for environment in environments_of_sandboxes():
        assert target.secret not in environment


def environments_of_sandboxes() -> list[str]:
    """The environment of every process of the runtime, read by root from outside."""
    found = []
    for process in all_processes():
        try:
            if b"interpreter_sandbox" in process.command:
                found.append(Path(f"/proc/{process.pid}/environ").read_text(errors="replace"))
        except OSError:
            continue  # it ended meanwhile
    assert found, "void: no sandbox was looked at"
    return found


@pytest.mark.attack("CR03")
def test_no_secret_is_in_the_workers_memory(session: Session, target: Target) -> None:
    """Control: a process that was given the secret finds it in its own memory."""
    attack = payload("credentials.own_memory")
    secret = canary()
    unsandboxed = control(attack, env={"API_KEY": secret})
    assert hashlib.sha256(secret.encode()).hexdigest() in unsandboxed.raw
    inside = session.attack(attack, timeout=50)
    assert inside.facts["works"], "void: the scan does not find what is there"
    assert_contained(unsandboxed, inside)
    assert hashlib.sha256(target.secret.encode()).hexdigest() not in inside.raw
    session.assert_usable()


@pytest.mark.attack("CR04")
def test_other_processes_are_closed(session: Session) -> None:
    """Control: of two processes with the same user, one reads the other."""
    attack = payload("credentials.other_memory")
    unsandboxed = control(attack, namespaces=OWN_PROCESSES, before="sleep 30 &")
    assert_contained(unsandboxed, session.attack(attack))
    session.assert_usable()


@pytest.mark.attack("CR04")
def test_no_core_is_dumped(session: Session, tmp_path: Path) -> None:
    attack = payload("credentials.core_dump")
    unsandboxed = control(attack, cwd=tmp_path, python=SYSTEM_PYTHON)
    assert_contained(unsandboxed, session.attack(attack))
    session.assert_usable()


@pytest.mark.attack("CR04")
def test_the_agents_configuration_holds_no_private_key(session: Session) -> None:
    """Its command line is readable by the code beside it: a public key at most."""
    ran = session.run("open('/proc/1/cmdline').read().split(chr(0))")
    assert ran["success"], ran["error"]
    shown = ran["result"].lower()
    assert "private" not in shown
    assert "secret" not in shown


@pytest.mark.attack("CR06")
def test_errors_name_no_secret(session: Session, target: Target) -> None:
    answers = [
        target.request("GET", "/api/sessions/ses_unknown"),
        target.request("POST", "/api/execute", json={"code": 5}),
        target.request("GET", "/health"),
        session.post("import os; raise RuntimeError(os.environ)"),
    ]
    for answer in answers:
        assert target.secret not in json.dumps([answer.text, dict(answer.headers)])
    assert target.secret not in target.server.output()
