"""``GET /docs``: the REST reference as one plain page, written from OpenAPI; no script, nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h2{margin:2.2rem 0 .2rem;font-size:1.05rem}code,h2{font-family:ui-monospace,monospace}
b{display:inline-block;min-width:4.5rem;color:#0a5}p{margin:.3rem 0;white-space:pre-line}
table{border-collapse:collapse;font-size:.9rem;margin:.4rem 0}td{padding:.15rem .8rem .15rem 0;vertical-align:top}
@media(prefers-color-scheme:dark){body{color:#dfe3e8;background:#16191d}b{color:#4c9}a{color:#8bf}}
"""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


@router.get("/docs")
async def reference(request: Request) -> HTMLResponse:
    """The page. Public: it says what the source says, and nothing of this server's data."""
    return HTMLResponse(render(request.app.openapi()), headers=_HEADERS)


def render(openapi: dict[str, Any]) -> str:
    """The page for an OpenAPI document."""
    info = openapi["info"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>",
        f"<style>{_STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{escape(info.get('description', ''))}</p>",
        "<p>Send the key as <code>Authorization: Bearer KEY</code> or <code>X-API-Key: KEY</code>. "
        "Machines read <a href=/openapi.json>/openapi.json</a>.</p>",
    ]
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(method, path, operation))
    return "".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = [
        (f"{found['name']} ({found['in']})", found.get("description") or found.get("schema", {}).get("description", ""))
        for found in operation.get("parameters", ())
    ]
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        rows.append(("body", f"{media} {_schema_name(content)}"))
    rows += [(status, answer.get("description", "")) for status, answer in operation.get("responses", {}).items()]
    table = "".join(f"<tr><td><code>{escape(str(left))}</code><td>{escape(right)}" for left, right in rows)
    text = escape(operation.get("description") or operation.get("summary", ""))
    return f"<h2><b>{method.upper()}</b> {escape(path)}</h2><p>{text}</p><table>{table}</table>"


def _schema_name(content: dict[str, Any]) -> str:
    reference: str = content.get("schema", {}).get("$ref", "")
    return reference.rpartition("/")[2]
