"""Fixtures that every suite shares. Nothing is mocked: `server` is the program that users run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support import server as real_server

pytest_plugins = ["support.rows"]

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio: the api and asyncpg do."""
    return "asyncio"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real_server.Server]:
    """One running server for the whole test run, with its own Postgres and data folder."""
    started = real_server.start(tmp_path_factory.mktemp("server") / "data")
    yield started
    started.stop()
