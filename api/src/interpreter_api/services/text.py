"""An execution's answer as plain text, the way a model reads it: output, result, error, links."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interpreter_api.services.models import ExecutionResult, FileLink

TRACEBACK_LINES = 30
MAX_CHARS = 100_000


def render(result: ExecutionResult) -> str:
    """stdout, stderr, result, the traceback's end, notes, what happened to the state, and a line for each link.

    Longer parts than :data:`MAX_CHARS` lose their middle, and say so; the structured content has them whole.
    """
    parts = [_cut(result.stdout.rstrip("\n"))]
    if result.stderr.strip():
        parts.append("[stderr]\n" + _cut(result.stderr.rstrip("\n")))
    if result.result is not None:
        parts.append(_cut(result.result))
    if result.error is not None:
        error = result.error
        head = f"[{error.code}] {error.type}: {error.message}" if error.type else f"[{error.code}] {error.message}"
        lines = error.traceback[-TRACEBACK_LINES:]
        if len(error.traceback) > len(lines):
            lines = [f"... {len(error.traceback) - len(lines)} lines of the traceback left out ...", *lines]
        parts.append(_cut("\n".join([*lines, head])))
        if error.remedy:
            parts.append(error.remedy)
    if result.session_info.state == "lost" and result.session_info.notice:
        parts.append("[session] " + result.session_info.notice)
    parts += [f"[note] {note}" for note in result.notes]
    if links := _links(result):
        parts.append("\n".join(links))
    return "\n".join(part for part in parts if part) or "(no output)"


def _links(result: ExecutionResult) -> list[str]:
    shown, lines = set(), []
    for kind, link in [("Chart", chart) for chart in result.charts] + [("File", file) for file in result.files]:
        if link.id not in shown:  # a saved figure is both; once is enough
            shown.add(link.id)
            lines.append(f"{kind}: {link.name} ({_size(link)}) {link.url}")
    return lines


def _size(link: FileLink) -> str:
    if link.size < 1024:
        return f"{link.size} bytes"
    return f"{link.size / 1024:.1f} KiB" if link.size < 1 << 20 else f"{link.size / (1 << 20):.1f} MiB"


def _cut(text: str) -> str:
    if len(text) <= MAX_CHARS:
        return text
    half = MAX_CHARS // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
