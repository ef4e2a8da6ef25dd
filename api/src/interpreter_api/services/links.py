"""Signed links to stored files, and file names that are safe wherever they are shown."""

from __future__ import annotations

import hashlib
import hmac
import mimetypes
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

from interpreter_api.errors import ForbiddenError

_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control characters, invisible formatting (right-to-left overrides among them), surrogates, line separators."""
MAX_NAME_BYTES = 200

LINKED_TYPES = {
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xls": "application/vnd.ms-excel",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "json": "application/json",
    "pdf": "application/pdf",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "svg": "image/svg+xml",
    "html": "text/html",
    "txt": "text/plain",
    "md": "text/markdown",
    "zip": "application/zip",
    "parquet": "application/vnd.apache.parquet",
}
"""The types that are stored and linked when code writes them (C06); anything else stays in the workspace."""


def mime_type_of(name: str) -> str:
    """By the name's ending; bytes that nobody should guess at where it is unknown."""
    ending = name.rpartition(".")[2].lower()
    return LINKED_TYPES.get(ending) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def safe_name(path: str) -> str:
    """The last part of ``path`` with nothing in it that could break a header, a log line or a reader's eye."""
    name = path.rsplit("/", 1)[-1].replace("\\", "_")
    name = "".join("_" if unicodedata.category(c) in _UNSAFE_CATEGORIES else c for c in name).strip()
    while len(name.encode()) > MAX_NAME_BYTES:
        stem, dot, ending = name.rpartition(".")
        name = f"{stem[:-1]}{dot}{ending}" if stem and len(ending) < 16 else name[:-1]
    return name if name.strip(". ") else "file"


def content_disposition(name: str, disposition: str = "attachment") -> str:
    """RFC 6266: a plain fallback, and the real name percent-encoded (RFC 5987). ASCII only, no way to break out."""
    name = safe_name(name)
    fallback = "".join(c if " " <= c <= "~" and c not in '"\\%;' else "_" for c in name)
    return f"{disposition}; filename=\"{fallback}\"; filename*=UTF-8''{quote(name, safe='')}"


@dataclass(frozen=True, slots=True)
class LinkSigner:
    """Makes and checks ``{base_url}/dl/{id}/{name}?expires=…&signature=…``.

    The signature covers the id, the name and the moment of expiry: a link where any of them was changed is refused.
    """

    key: bytes = field(repr=False)
    base_url: str

    def url(self, file_id: str, name: str, expires_at: datetime) -> str:
        """The link; it works until ``expires_at`` (whole seconds)."""
        expires = str(int(expires_at.timestamp()))
        signature = self._signature(file_id, name, expires)
        return f"{self.base_url}/dl/{file_id}/{quote(name, safe='')}?expires={expires}&signature={signature}"

    def check(self, file_id: str, name: str, expires: str, signature: str) -> None:
        """Raise ``ForbiddenError`` unless this server made the link and it has not expired."""
        expected = self._signature(file_id, name, expires)
        # bytes, because compare_digest refuses str that is not ASCII
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
            raise altered_link()
        # signed by us, so it is a number that we wrote
        if int(expires) <= datetime.now(UTC).timestamp():
            raise ForbiddenError("This link has expired.", remedy="Run the code again, or ask for the file anew.")

    def _signature(self, file_id: str, name: str, expires: str) -> str:
        message = "\n".join((file_id, quote(name, safe="", errors="replace"), expires))
        return hmac.new(self.key, message.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def altered_link() -> ForbiddenError:
    """The one answer for a link that this server did not make."""
    return ForbiddenError("This link is not valid.", remedy="Use the link exactly as it was given.")
