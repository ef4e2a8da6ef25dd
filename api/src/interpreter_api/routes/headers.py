"""The headers that make it safe to serve bytes which somebody's code wrote."""

from __future__ import annotations

from interpreter_api.services.links import content_disposition


def download_headers(name: str, mime_type: str) -> dict[str, str]:
    """``attachment``, no scripts, no caches in between, no referrer: whatever the bytes are.

    ``X-Content-Type-Options: nosniff`` is on every answer of the server (``access``).
    """
    text = mime_type.startswith("text/") or mime_type in {"application/json", "image/svg+xml"}
    return {
        "Content-Type": f"{mime_type}; charset=utf-8" if text else mime_type,
        "Content-Disposition": content_disposition(name),
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cross-Origin-Resource-Policy": "same-site",
        "Cache-Control": "private, no-cache",
        "Referrer-Policy": "no-referrer",
    }
