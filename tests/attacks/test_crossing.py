"""XS: one session's things do not turn up in another, neither beside it nor after it."""

from __future__ import annotations

import json
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from support.attack import SYSTEM_PYTHON, Session, Target, canary, control, payload
from support.host import agent_of, worker_of

OWN_SHARED_PLACES = "for place in /tmp /dev/shm /var/tmp /mnt; do mount -t tmpfs none $place; done\nexport HOME=/mnt\n"


@pytest.mark.attack("XS01", "XS04")
def test_shared_places_are_not_shared(session: Session, neighbour: Session) -> None:
    """Control: two processes of one machine (in namespaces of their own) find all that the other left."""
    name, marker = f"canary-{secrets.token_hex(6)}", canary()
    leave, look = payload("crossing.leave", marker=marker, name=name), payload("crossing.look", name=name)
    first = OWN_SHARED_PLACES + f'{SYSTEM_PYTHON} -c "$LEAVE" >&2'
    left = control(look, namespaces=["--mount", "--ipc"], before=first, env={"LEAVE": leave.source()})
    assert not left.refused, f"void: {left.refused}"
    neighbours = neighbour.attack(leave)
    assert {"/tmp", "/dev/shm", "System V shared memory", "POSIX queue"} <= set(neighbours.succeeded), "void"
    own = neighbour.attack(look)
    assert {"/tmp", "/dev/shm", "System V shared memory", "POSIX queue"} <= set(own.succeeded), "void"
    inside = session.attack(look)
    assert not inside.succeeded
    assert marker not in inside.raw
    for folder in ("/tmp", "/dev/shm", "/var/tmp", os.environ.get("HOME", "/root")):
        assert not Path(folder, name).exists(), "it reached the host"
    session.assert_usable()


@pytest.mark.attack("XS04")
def test_keyrings_are_not_shared(session: Session, neighbour: Session) -> None:
    """Control: as an ordinary user, whose keyring the next process of that user reads."""
    leave, look = payload("crossing.keyring_leave", marker=canary()), payload("crossing.keyring_look")
    user = 1_900_000_000 + secrets.randbelow(1_000_000)
    assert control(leave, uid=user).succeeded, "void"
    assert control(look, uid=user).succeeded, "void"
    assert not neighbour.attack(leave).succeeded
    assert not session.attack(look).succeeded
    session.assert_usable()


@pytest.mark.attack("XS02")
def test_a_session_made_again_is_empty(target: Target) -> None:
    """The same name, the same id, and "default" again. Control: before the end, all of it is there."""
    marker = canary()
    first = target.session(name="made again")
    first.run(f"secret = {marker!r}; open('secret.txt', 'w').write(secret); open('/tmp/secret.txt', 'w').write(secret)")
    seen = "import os; (globals().get('secret'), os.listdir('.'), os.path.exists('/tmp/secret.txt'))"
    assert marker in first.run(seen)["result"]
    content = f"/api/sessions/{first.id}/files/content"
    assert target.request("GET", content, params={"path": "secret.txt"}).text == marker
    first.delete()

    gone = first.post(seen)
    never = Session("ses_" + "a" * 26, target).post(seen)
    assert (gone.status_code, never.status_code) == (404, 404)
    assert gone.json()["code"] == never.json()["code"]
    for path in (f"/api/sessions/{first.id}", f"/api/sessions/{first.id}/files"):
        assert target.request("GET", path).status_code == 404
    again = target.session(name="made again")
    assert again.id != first.id
    found = again.run(seen)
    assert found["result"] == "(None, [], False)"
    again.delete()

    default = Session("default", target)
    default.run(f"secret = {marker!r}; open('secret.txt', 'w').write(secret)")
    assert marker in default.run(seen)["result"]
    default.delete()
    assert default.run(seen)["result"] == "(None, [], False)"
    default.delete()


@pytest.mark.attack("XS03")
def test_a_used_sandbox_is_never_used_again(target: Target) -> None:
    """Six sessions in a row look for what the one before left. Control: a session's own second call finds it."""
    name = f"canary-{secrets.token_hex(6)}"
    agents, users = [], []
    for _ in range(6):
        made = target.session(name="one of six")
        found = made.attack(payload("crossing.look", name=name))
        assert not found.succeeded
        made.attack(payload("crossing.leave", marker=canary(), name=name))
        assert "/tmp" in made.attack(payload("crossing.look", name=name)).succeeded, "void"
        agent = agent_of(made)
        agents.append(psutil.Process(agent.pid))
        users.append(agent.status("Uid"))
        made.delete()
    assert len({agent.pid for agent in agents}) == 6
    _, alive = psutil.wait_procs(agents, timeout=10)
    assert not alive, "a sandbox outlives its session"


@pytest.mark.attack("XS01", on="local")
def test_each_sandbox_has_another_user_outside(session: Session, neighbour: Session) -> None:
    """Seen on the host: not the server's user, and not the neighbour's either."""
    users = {worker_of(session).status("Uid"), worker_of(neighbour).status("Uid")}
    assert len(users) == 2
    assert os.geteuid() not in users


@pytest.mark.attack("XS06")
def test_concurrent_clients_get_their_own(target: Target) -> None:
    """Six sessions, ninety calls with unique markers at once: no answer is another's."""
    sessions = [target.session(name=f"client {n}") for n in range(6)]
    for made in sessions:
        made.run(f"own = {made.id!r}")

    def ask(made: Session) -> None:
        for _ in range(15):
            marker = secrets.token_hex(8)
            ran = made.run(f"print({marker!r}); (own, {marker!r})")
            assert ran["stdout"] == marker + "\n"
            assert ran["result"] == repr((made.id, marker))

    with ThreadPoolExecutor(6) as clients:
        list(clients.map(ask, sessions))
    for made in sessions:
        made.delete()


@pytest.mark.attack("XS07")
def test_output_of_a_stopped_run_is_not_in_the_next(fresh_session: Session) -> None:
    stopped = fresh_session.run(
        "import time\nfrom threading import Thread\n"
        "def _flood():\n    while True:\n        print('OLD'); time.sleep(0.001)\n"
        "Thread(target=_flood, daemon=True).start()\nwhile True: pass",
        timeout=1,
    )
    assert stopped["error"]["code"] == "timeout"
    if stopped["session_info"]["state"] == "lost":
        assert "OLD" not in json.dumps(fresh_session.run("'next'"))
    fresh_session.assert_usable()
