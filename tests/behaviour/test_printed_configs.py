"""What `make run` prints works when it is pasted: each client configuration, taken from the output as it stands."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from support import server as real_server
from support.mcp_clients import mcporter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.server import Server

KEYS = {"generated": "", "given": "a-key-of-my-own-0123456789"}


@pytest.fixture(scope="module", params=KEYS)
def printed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server as `make run` starts it, with a key of its own and with one from API_KEY; and what it printed."""
    folder = tmp_path_factory.mktemp("printed") / "data"
    started = real_server.start(folder, {"API_KEY": KEYS[request.param]}, show_key=True)
    yield started, started.output()
    started.stop()


def section(output: str, title: str) -> str:
    """The indented text below a title."""
    found = re.search(rf"^{re.escape(title)}[^\n]*:\n((?:  .*\n)+)", output, re.MULTILINE)
    assert found, f"no section {title} in:\n{output}"
    return found[1]


async def runs_code(entry: dict[str, Any]) -> None:
    """The entry, pasted into a client that others wrote, runs code."""
    async with mcporter(entry) as client:
        answer = await client.call("execute_code", code="6 * 7")
    assert answer.structured["result"] == "42", answer.text


@pytest.mark.covers("R03", "R04")
@pytest.mark.anyio
@pytest.mark.parametrize("title", ["Claude Desktop", "Cursor"])
async def test_the_configurations_in_claudes_form(printed: tuple[Server, str], title: str) -> None:
    config = json.loads(section(printed[1], title))
    [entry] = config["mcpServers"].values()
    await runs_code(entry)


@pytest.mark.covers("R03", "R04")
@pytest.mark.anyio
async def test_the_configuration_for_vs_code(printed: tuple[Server, str]) -> None:
    [entry] = json.loads(section(printed[1], "VS Code"))["servers"].values()
    assert entry.pop("type") == "http"
    await runs_code(entry)


@pytest.mark.covers("R03", "R04")
@pytest.mark.anyio
@pytest.mark.parametrize("title", ["Claude Code", "MCP Inspector"])
async def test_the_command_lines(printed: tuple[Server, str], title: str) -> None:
    words = shlex.split(section(printed[1], title))
    name, value = words[words.index("--header") + 1].split(": ", 1)
    [url] = [word for word in words if word.startswith("http://")]
    await runs_code({"url": url, "headers": {name: value}})


@pytest.mark.covers("R02", "R04")
def test_the_line_for_curl(printed: tuple[Server, str]) -> None:
    words = shlex.split(section(printed[1], "REST"))
    assert words[0] == "curl"
    headers = dict(words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "-H")
    [url] = [word for word in words if word.startswith("http://")]
    answer = real_server.post(url, headers, words[words.index("-d") + 1].encode())
    assert answer["result"] == "2"
