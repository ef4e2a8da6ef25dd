"""The agent's files by its client, and what an execution says that it wrote."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from interpreter_sandbox.client import AgentError
from support import agent as agents
from support.agent import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from interpreter_sandbox.client import AgentClient

LIMIT = 4 << 20
pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[agents.Agent]:
    """One agent for this module's tests."""
    with agents.running(tmp_path_factory.mktemp("agent"), max_file_bytes=LIMIT) as started:
        yield started


@pytest.fixture
async def client(agent: agents.Agent) -> AsyncIterator[AgentClient]:
    """A client."""
    async with agent.client() as made:
        await agents.wait_ready(made)
        yield made


async def read(client: AgentClient, path: str) -> bytes:
    """A whole file."""
    async with client.read_file(path) as (size, chunks):
        data = b"".join([chunk async for chunk in chunks])
    assert len(data) == size
    return data


@pytest.mark.covers("F03")
async def test_files_go_both_ways_whole(client: AgentClient) -> None:
    content = bytes(range(256)) * 8000

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]

    entry = await client.write_file("in/büro & co?.bin", parts())
    assert (entry.path, entry.size) == ("in/büro & co?.bin", len(content))
    assert await read(client, "in/büro & co?.bin") == content
    assert (await run(client, "len(open('in/büro & co?.bin', 'rb').read())")).result == str(len(content))
    await run(client, "open('out.txt', 'w').write('')")
    assert await read(client, "out.txt") == b""
    assert {entry.path for entry in (await client.list_files(recursive=True))[0]} >= {"in", entry.path, "out.txt"}
    await client.delete_file("in")
    for call in (client.delete_file("in"), read(client, "in/büro & co?.bin"), client.list_files("in")):
        with pytest.raises(AgentError) as refused:
            await call
        assert refused.value.code == "not_found"


@pytest.mark.covers("C06")
async def test_an_execution_says_what_it_wrote(client: AgentClient) -> None:
    await client.write_file("uploaded.csv", b"a\n1\n")
    code = "pd.read_csv('uploaded.csv').to_excel('sheet.xlsx')\nimport os; os.mkdir('d')\nopen('d/x', 'w').write('abc')"
    files = (await run(client, code)).done.files
    assert [(f.path, f.is_dir) for f in files] == [("d/x", False), ("sheet.xlsx", False)]
    assert files[0].size == 3
    assert (await run(client, "1 + 1")).done.files == []
    crashed = await run(client, "open('last', 'w').write('x')\nos._exit(1)")
    assert (crashed.done.status, [f.path for f in crashed.done.files]) == ("crashed", ["last"])


@pytest.mark.attack("FS03", "FS04", "FS05")
async def test_nothing_outside_the_workspace_is_served(agent: agents.Agent, client: AgentClient) -> None:
    canary = agent.workspace.parent / "canary"
    canary.write_text("secret")
    links = {"up": "../canary", "root": "/", "agent": "/proc/1/environ"}
    code = f"import os\nfor name, target in {links}.items(): os.symlink(target, name)"
    assert (await run(client, code + "\nopen('up').read()")).result == "'secret'", "the positive control"
    for path in ("../canary", "up", f"root{canary}", "agent", "root", "/etc/passwd", "a/../../canary"):
        with pytest.raises(AgentError) as refused:
            await read(client, path)
        assert refused.value.code in {"path_refused", "not_found"}, path
    for path in ("../canary", f"root{canary}"):
        for call in (client.write_file(path, b"x"), client.delete_file(path)):
            with pytest.raises(AgentError):
                await call
    assert canary.read_text() == "secret"


@pytest.mark.attack("FS08")
async def test_a_fifo_is_refused_at_once(client: AgentClient) -> None:
    await run(client, "import os; os.mkfifo('fifo')")
    began = time.monotonic()
    with pytest.raises(AgentError) as refused:
        await read(client, "fifo")
    assert refused.value.code == "not_a_file"
    assert time.monotonic() - began < 1


async def test_a_file_over_the_limit_leaves_nothing(client: AgentClient) -> None:
    await client.write_file("big", b"old")
    with pytest.raises(AgentError) as refused:
        await client.write_file("big", b"x" * (LIMIT + 1))
    assert (refused.value.code, refused.value.status) == ("too_large", 413)
    assert await read(client, "big") == b"old"
    assert not [f for f in (await client.list_files())[0] if "partial" in f.path]
    assert (await run(client, f"with open('big2', 'wb') as f: f.write(b'x' * {LIMIT + 1})")).done.status == "error"
