"""A variable in one line, without running any code of its own.

``repr`` and ``len`` belong to the object: they may hang, raise or change it. So only objects whose class is exactly one
that is known here are looked into; of everything else its class is named.
"""

from __future__ import annotations

import datetime as dt
import decimal
import pathlib
import sys
import types
from itertools import islice
from typing import Any, Final

from interpreter_sandbox.runtime.tracebacks import cut

MAX_PREVIEW_CHARS: Final = 200
_ITEMS: Final = 6
_DEPTH: Final = 2
_TEXT_CHARS: Final = 80
_MAX_BITS: Final = 400
_SCALARS: Final = frozenset(
    {bool, float, complex, type(None), type(...), decimal.Decimal, dt.date, dt.timedelta, pathlib.PosixPath}
)
_BRACKETS: Final[dict[type, str]] = {list: "[]", tuple: "()", set: "{}", frozenset: "{}", dict: "{}"}
_SIZED: Final = frozenset({*_BRACKETS, str, bytes, bytearray, range})
_class_name: Final = type.__dict__["__name__"].__get__
"""Past a metaclass, which could answer with code of its own."""


def describe(value: object) -> dict[str, object]:
    """``{"type", "length", "shape", "size_bytes", "preview"}``; None for what is not known of such an object."""
    kind = type(value)
    facts: dict[str, Any] = {"length": None, "shape": None, "size_bytes": None, "preview": ""}
    known = type(kind) is type
    try:
        if known and kind in _SIZED:
            facts["length"] = len(value)  # type: ignore[arg-type]
        if known and (kind in _SIZED or kind in _SCALARS or kind is int):
            facts["size_bytes"] = sys.getsizeof(value)
        facts |= (_table(value) if known else None) or {"preview": preview(value)}
    except Exception as error:  # noqa: BLE001 - changed by a thread meanwhile, or data that its library chokes on
        facts["preview"] = f"<not shown: {type(error).__name__}>"
    text = cut(facts["preview"], MAX_PREVIEW_CHARS).encode("utf-8", "replace").decode()
    return {"type": cut(_class_name(kind), 100).encode("utf-8", "replace").decode(), **facts, "preview": text}


def preview(value: Any, depth: int = _DEPTH) -> str:
    """The value's text, as far as that is safe to ask for."""
    kind = type(value)
    if type(kind) is not type:
        return _unknown(value)  # even to hash such a class may be its metaclass's code
    if kind in _SCALARS:
        return repr(value)
    if kind is int:
        return repr(value) if value.bit_length() <= _MAX_BITS else f"<int of {value.bit_length():,} bits>"
    if kind in {str, bytes, bytearray}:
        return repr(value[:_TEXT_CHARS]) + ("…" if len(value) > _TEXT_CHARS else "")
    if kind is range:
        return f"range({preview(value.start)}, {preview(value.stop)}, {preview(value.step)})"
    if kind is dt.datetime:
        return value.replace(tzinfo=None).isoformat()  # type: ignore[no-any-return]  # the zone may be user code
    if kind in _BRACKETS:
        return _container(value, depth)
    if kind is types.FunctionType:
        code = value.__code__
        return f"{value.__name__}({', '.join(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])})"
    if kind is types.ModuleType:
        name = types.ModuleType.__getattribute__(value, "__dict__").get("__name__")
        return f"module {name}" if type(name) is str else "module"
    return _unknown(value)


def _unknown(value: object) -> str:
    kind = type(value)
    return f"class {_class_name(value)}" if issubclass(kind, type) else f"<{_class_name(kind)} object>"


def _container(value: Any, depth: int) -> str:
    opening, closing = tuple(_BRACKETS[type(value)])
    if not value:
        return f"{_class_name(type(value))}()" if type(value) in {set, frozenset} else opening + closing
    if depth == 0:
        return f"{opening}…{closing}"
    if type(value) is dict:
        items = [f"{preview(key, 0)}: {preview(item, depth - 1)}" for key, item in islice(value.items(), _ITEMS)]
    else:
        items = [preview(item, depth - 1) for item in islice(value, _ITEMS)]
    if len(value) > _ITEMS:
        items.append("…")
    return f"{opening}{', '.join(items)}{',' if type(value) is tuple and len(value) == 1 else ''}{closing}"


def _table(value: Any) -> dict[str, Any] | None:
    """Arrays and tables of numpy and pandas: shape, bytes, and their beginning."""
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    kind = type(value)
    if numpy is not None and kind is numpy.ndarray:
        start = preview(value.flat[:_ITEMS].tolist())
        return {
            "length": value.shape[0] if value.shape else None,
            "shape": list(value.shape),
            "size_bytes": value.nbytes,
            "preview": f"{value.dtype} {start}",
        }
    if pandas is None or kind not in {pandas.DataFrame, pandas.Series}:
        return None
    shape = [int(count) for count in value.shape]
    if kind is pandas.Series:
        text, size = f"{value.dtype} {preview(value.iloc[:_ITEMS].tolist())}", value.memory_usage(index=True)
    else:
        text, size = f"columns {preview(value.columns[:_ITEMS].tolist())}", value.memory_usage(index=True).sum()
    return {"length": shape[0], "shape": shape, "size_bytes": int(size), "preview": text}
