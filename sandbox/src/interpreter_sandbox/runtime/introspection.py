"""What stands in the namespace, what could be typed next, and what a name is: answered without running a cell.

Completions come from IPython's own completer over the living objects (jedi is off), descriptions from IPython's
inspector; both ask objects for their attributes or their text, which is user code. :mod:`look` bounds its time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from IPython.core.completer import provisionalcompleter
from IPython.utils.tokenutil import token_at_cursor

from interpreter_sandbox.runtime.outputs import TEXT
from interpreter_sandbox.runtime.previews import describe
from interpreter_sandbox.runtime.tracebacks import cut, strip_ansi

if TYPE_CHECKING:
    from interpreter_sandbox.protocol import IntrospectRequest
    from interpreter_sandbox.runtime.interpreter import Interpreter

MAX_VARIABLES: Final = 500
MAX_MATCHES: Final = 200
MAX_INSPECTION_CHARS: Final = 50_000
_MAX_NAME_CHARS: Final = 200


class Introspection:
    """Over the shell of this process."""

    def __init__(self, interpreter: Interpreter) -> None:
        """Nothing is asked yet."""
        self._interpreter = interpreter

    def answer(self, request: IntrospectRequest) -> dict[str, object]:
        """``Introspected.data`` for the request; raises what objects' own code raises."""
        match request.kind:
            case "variables":
                return self._variables()
            case "complete":
                return self._complete(request.code, request.cursor_pos)
            case "inspect":
                return self._inspect(request.code, request.cursor_pos, request.detail_level)
            case "nothing":
                return {}

    def _variables(self) -> dict[str, object]:
        """The names that the user made: what the shell had before, and names with ``_`` in front, are left out."""
        hidden, missing = self._interpreter.user_ns_hidden, object()
        found = [
            (name, value)
            for name, value in self._interpreter.user_ns.copy().items()  # one step: threads may add to it
            if type(name) is str and not name.startswith("_") and value is not hidden.get(name, missing)
        ]
        found.sort(key=lambda entry: entry[0])
        shown = [{"name": _text(name, _MAX_NAME_CHARS), **describe(value)} for name, value in found[:MAX_VARIABLES]]
        return {"variables": shown, "total": len(found)}

    def _complete(self, code: str, cursor_pos: int) -> dict[str, object]:
        shell = self._interpreter
        shell.set_completer_frame()  # type: ignore[no-untyped-call]
        completer: Any = shell.Completer
        with shell.builtin_trap, provisionalcompleter():
            found = list(completer.completions(code, cursor_pos))
        start = min((match.start for match in found), default=cursor_pos)
        matches = [
            # from the common start on, as every match is put in place of the same characters
            {"text": _text(code[start : match.start] + match.text, _MAX_NAME_CHARS), "type": _kind(match.type)}
            for match in found[:MAX_MATCHES]
        ]
        return {"matches": matches, "total": len(found), "cursor_start": start, "cursor_end": cursor_pos}

    def _inspect(self, code: str, cursor_pos: int, detail_level: int) -> dict[str, object]:
        name = token_at_cursor(code, cursor_pos)
        shown = _text(name, _MAX_NAME_CHARS)
        if not name:
            return {"found": False, "name": "", "text": ""}
        try:
            bundle = self._interpreter.object_inspect_mime(name, detail_level)  # type: ignore[no-untyped-call]
        except KeyError:
            return {"found": False, "name": shown, "text": ""}
        return {"found": True, "name": shown, "text": _text(strip_ansi(str(bundle[TEXT])), MAX_INSPECTION_CHARS)}


def _kind(found: object) -> str:
    return found if isinstance(found, str) and found != "<unknown>" else ""


def _text(text: str, limit: int) -> str:
    """Bounded, and fit for UTF-8."""
    return cut(text, limit).encode("utf-8", "replace").decode()
