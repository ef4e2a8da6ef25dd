"""RES04-RES07: a session that wants all memory or disk gets its share and a clear error."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from support.attack import SYSTEM_PYTHON, Session, Target, assert_contained, assert_usable_or_said, control, payload
from support.attack_limits import MEMORY_MB, WORKSPACE_MB
from support.host import agent_of

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Memory-backed scratch space for the controls, emptied at once."""
    folder = Path("/dev/shm/canary-scratch")
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.mark.attack("RES04")
def test_memory(session: Session) -> None:
    attack = payload("resources.memory", total_mib=MEMORY_MB + 256)
    inside = session.attack(attack, timeout=50)
    assert_contained(control(attack), inside)
    assert all("MemoryError" in refusal for refusal in inside.refused.values()), inside.refused
    session.assert_usable()


@pytest.mark.attack("RES04")
@pytest.mark.parametrize(
    "code",
    ["bytearray(1 << 40)", "leak = []\nwhile True:\n    leak.append(bytearray(1 << 20))"],
    ids=["one piece", "leak"],
)
def test_the_error_names_memory_and_the_agent_lives(fresh_session: Session, code: str) -> None:
    fresh_session.run("kept = 1")
    agent = agent_of(fresh_session)
    attacked = fresh_session.run(code, timeout=30)
    assert attacked["success"] is False
    assert attacked["error"]["code"] == "memory_limit", attacked["error"]
    assert "memory" in (attacked["error"]["message"] + attacked["error"]["remedy"]).lower()
    assert agent_of(fresh_session) == agent
    assert_usable_or_said(fresh_session, attacked)


@pytest.mark.attack("RES05")
@pytest.mark.parametrize("kind", ["shared_memory", "anonymous_files", "shared_mapping"])
def test_memory_beside_the_processes_limit(fresh_session: Session, target: Target, kind: str) -> None:
    """More than the sandbox's memory in places that no limit of a process counts; the host must not pay for it."""
    fresh_session.run("kept = 1")
    attack = payload(f"resources.{kind}", total_mib=3 * MEMORY_MB)
    unsandboxed = control(attack, python=SYSTEM_PYTHON)
    assert not unsandboxed.refused, "void"
    before = psutil.virtual_memory().available
    answer = fresh_session.post(attack.source(), timeout=40)
    after = psutil.virtual_memory().available
    text = answer.text
    assert '"succeeded": true' not in text.replace("\\", ""), text[:2000]
    assert before - after < 2.5 * MEMORY_MB * MIB
    attacked = answer.json()
    if answer.status_code != 200:
        assert attacked["code"] == "sandbox_lost", text
        after_loss = fresh_session.assert_usable()
        assert after_loss["session_info"]["state"] == "lost"
    else:
        assert_usable_or_said(fresh_session, attacked)


@pytest.mark.attack("RES06")
def test_disk(session: Session, target: Target, scratch: Path) -> None:
    unsandboxed = control(payload("resources.disk", total_mib=2 * WORKSPACE_MB, folder=str(scratch)))
    attack = payload("resources.disk", total_mib=2 * WORKSPACE_MB, folder="/workspace")
    assert_contained(unsandboxed, session.attack(attack, timeout=50))
    session.assert_usable()


@pytest.mark.attack("RES06")
def test_other_writable_places_are_bounded(session: Session, scratch: Path) -> None:
    """Every folder that the code can write to: /tmp, /dev/shm, its home."""
    unsandboxed = control(payload("resources.disk", total_mib=3 * MEMORY_MB, folder=str(scratch)))
    assert not unsandboxed.refused, "void"
    writable = session.run(
        "import os\nsorted({p for p, _, _ in os.walk('/') if not p.startswith(('/proc', '/sys')) "
        "and os.access(p, os.W_OK) and (os.path.ismount(p) or p in ('/tmp', '/dev/shm', os.environ['HOME']))})"
    )["result"]
    assert "/workspace" in writable
    for folder in ("/tmp", "/dev/shm"):
        inside = session.attack(payload("resources.disk", total_mib=3 * MEMORY_MB, folder=folder), timeout=50)
        assert not inside.succeeded, folder
    session.assert_usable()


@pytest.mark.attack("RES06")
def test_a_full_workspace_is_said(fresh_session: Session, target: Target) -> None:
    """The code gets the kernel's error, an upload a typed one; reading and deleting still work."""
    filled = fresh_session.run(
        "try:\n    with open('big.bin', 'wb', 0) as f:\n        while f.write(bytes(1 << 20)): pass\n"
        "except OSError as e:\n    print(e.errno)"
    )
    assert filled["stdout"].strip() in {"28", "27"}, filled
    while fresh_session.run("with open('more.bin', 'ab', 0) as f: f.write(bytes(1 << 16)) == 1 << 16")["success"]:
        pass
    content = f"/api/sessions/{fresh_session.id}/files/content"
    refused = target.request("PUT", content, params={"path": "up.bin"}, content=bytes(4 * MIB))
    assert 400 <= refused.status_code < 600, refused.text
    assert refused.json()["code"] != "internal", refused.text
    assert "space" in refused.text.lower()
    assert target.request("DELETE", content.removesuffix("/content"), params={"path": "big.bin"}).status_code < 300
    assert target.request("PUT", content, params={"path": "up.bin"}, content=bytes(MIB)).status_code < 300
    fresh_session.assert_usable()


@pytest.mark.attack("RES07")
def test_empty_files(session: Session, scratch: Path) -> None:
    """One more than the workspace has inodes stands for ten million."""
    count = 100_001
    unsandboxed = control(payload("resources.empty_files", count=count, folder=str(scratch)), python=SYSTEM_PYTHON)
    attack = payload("resources.empty_files", count=count, folder="/workspace")
    inside = session.attack(attack, timeout=50)
    assert_contained(unsandboxed, inside)
    assert inside.facts["reached"] > 1000
    session.assert_usable()


@pytest.mark.attack("RES07")
def test_many_files_do_not_slow_the_next_cells(fresh_session: Session) -> None:
    made = fresh_session.run("for n in range(50_000):\n    open(f'f{n}', 'x').close()", timeout=50)
    assert made["success"], made["error"]
    started = time.monotonic()
    fresh_session.assert_usable()
    assert time.monotonic() - started < 2


@pytest.mark.attack("RES04", on="local")
def test_memory_of_many_processes(fresh_session: Session) -> None:
    """Each child stays below the limit of one process; together they want four times the sandbox's memory."""
    code = (
        "import os, time\nfor _ in range({children}):\n    if os.fork() == 0:\n        _b = bytearray({size})\n"
        "        for i in range(0, len(_b), 4096): _b[i] = 1\n        time.sleep({seconds})\n        os._exit(0)\n"
        "print('all', sum(os.waitstatus_to_exitcode(os.wait()[1]) == 0 for _ in range({children})))"
    )
    size = MEMORY_MB // 2 * MIB
    plain = subprocess.run(
        [SYSTEM_PYTHON, "-c", code.format(children=8, size=size, seconds=1)], capture_output=True, text=True, check=True
    )
    assert plain.stdout == "all 8\n", "void"
    fresh_session.run("kept = 1")
    agent = agent_of(fresh_session)
    attacked = fresh_session.run(code.format(children=8, size=size, seconds=5), timeout=20)
    assert "all 8" not in attacked["stdout"]
    assert agent.alive
    assert_usable_or_said(fresh_session, attacked)


@pytest.mark.attack("RES06")
def test_sparse_files_are_not_stored_as_if_they_were_data(fresh_session: Session, target: Target) -> None:
    """A hundred files of 45 MiB of holes cost the code nothing; the server must not pay gigabytes for them."""
    attacked = fresh_session.run(
        "for n in range(100):\n    with open(f'hole{n}.csv', 'wb') as f: f.truncate(45 << 20)", timeout=30
    )
    assert attacked["success"], attacked["error"]
    stored = sum(file["size"] for file in attacked["files"])
    assert stored <= WORKSPACE_MB * MIB, f"{stored >> 20} MiB were stored for a workspace of {WORKSPACE_MB} MiB"
    assert attacked["notes"], "what was not stored must be said"
    fresh_session.assert_usable()


@pytest.mark.attack("RES07", "UP01")
def test_hostile_file_names(fresh_session: Session, target: Target) -> None:
    """Names that are not UTF-8, hold line breaks or are as long as can be; folders deeper than a path may be."""
    made = fresh_session.run(
        "import os\n"
        "for name in (b'\\xff\\xfe.csv', b'a\\nb.csv', b'c\\r\\nSet-Cookie: x.csv', b'\"quoted\".csv', \n"
        "             b'x' * 251 + b'.csv', '\\u202egpj.csv'.encode(), b'%2e%2e%2fetc.csv', b' .csv', b'-rf.csv',\n"
        "             b'\\x1b[31m.csv'):\n"
        "    open(os.path.join(b'.', name), 'w').write('content')\n"
        "top = os.getcwd()\nfor _ in range(400):\n    os.mkdir('deep' * 20); os.chdir('deep' * 20)\n"
        "open('bottom.csv', 'w').write('1')\nos.chdir(top)\nos.symlink('.', 'loop')"
    )
    assert made["success"], made["error"]
    url = f"/api/sessions/{fresh_session.id}/files"
    for recursive in ("false", "true"):
        listing = target.request("GET", url, params={"recursive": recursive})
        assert listing.status_code == 200, listing.text[:1000]
    for file in made["files"]:
        answer = target.request("GET", file["url"].removeprefix(target.server.url), headers={})
        assert answer.status_code == 200, (file, answer.text)
        assert answer.content == b"content"
        assert "set-cookie" not in answer.headers
        assert "\n" not in answer.headers["content-disposition"]
    started = time.monotonic()
    deleted = target.request("DELETE", url, params={"path": "deep" * 20})
    assert deleted.status_code < 300, deleted.text
    assert time.monotonic() - started < 10
    fresh_session.assert_usable()
