"""A second tenant on a running server, made as its operator makes one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.server import Server


def second_key(server: Server) -> str:
    """The API key of a principal in a tenant of its own; the same one at each call for the same server."""
    return _key(str(server.data_dir))


@cache
def _key(data_dir: str) -> str:
    done = subprocess.run(
        [str(Path(sys.prefix) / "bin" / "power-interpreter"), "keys", "create", "second", "--tenant", "second"],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "DATA_DIR": data_dir},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"\bpi_[A-Za-z0-9_-]{20,}", done.stdout)
    assert found, done.stdout
    return found[0]
