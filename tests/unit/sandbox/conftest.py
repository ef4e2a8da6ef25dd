"""The shell in a process of the sandbox's environment, shared by the tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.shell import ShellServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShellServer]:
    """Every session is a fork of one preloaded process, as in a sandbox."""
    server = ShellServer(tmp_path_factory.mktemp("workspace"), tmp_path_factory.mktemp("home"))
    yield server
    server.stop()
