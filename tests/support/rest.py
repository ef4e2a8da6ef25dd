"""REST as a client sees it: one connection pool to a running server, and another tenant's key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

if TYPE_CHECKING:
    from support.server import Server

PROBLEM = "application/problem+json"


def client(server: Server, key: str | None = None) -> httpx2.Client:
    """Requests as the first principal, or with another key."""
    headers = server.headers if key is None else {"Authorization": f"Bearer {key}"}
    return httpx2.Client(base_url=server.url, headers=headers, timeout=60)


def run(http: httpx2.Client, code: str, session_id: str, **body: Any) -> dict[str, Any]:
    """Execute code; the call itself must succeed."""
    answer = http.post("/api/execute", json={"code": code, "session_id": session_id, **body})
    assert answer.status_code == 200, answer.text
    result = answer.json()
    assert isinstance(result, dict)
    return result


def value(http: httpx2.Client, code: str, session_id: str) -> str | None:
    """Execute code that must succeed; the text of its last expression."""
    result = run(http, code, session_id)
    assert result["success"], result
    text = result["result"]
    assert text is None or isinstance(text, str)
    return text


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an error, which must be that one, complete, and in the standard form."""
    assert answer.status_code == status, (answer.status_code, answer.text[:2000])
    assert answer.headers["content-type"] == PROBLEM
    body = answer.json()
    assert isinstance(body, dict)
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["detail"]
    assert isinstance(body["retryable"], bool)
    assert "Traceback" not in answer.text
    return body


def make_key(server: Server, name: str, tenant: str) -> str:
    """A new principal's key, made with the program's own command."""
    made = subprocess.run(
        [str(Path(sys.prefix) / "bin" / "power-interpreter"), "keys", "create", name, "--tenant", tenant],
        env={"PATH": "/usr/bin:/bin", "DATA_DIR": str(server.data_dir), "HOME": "/"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return made.stdout.split()[-1]
