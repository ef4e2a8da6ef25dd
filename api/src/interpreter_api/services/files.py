"""Files that outlive their sandbox: stored in Postgres, read through signed links until they expire."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from interpreter_api.errors import NotFoundError
from interpreter_api.services.links import altered_link, safe_name
from interpreter_api.services.models import FileLink
from interpreter_api.services.ports import Download
from interpreter_api.services.ranges import parse_range

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from interpreter_api.data.files import FileRepository, FileRow
    from interpreter_api.services.links import LinkSigner
    from interpreter_api.services.ports import Principal
    from interpreter_api.services.sessions import SessionService

MAX_LISTED = 1000
_FILE_ID = re.compile(r"fil_[a-z2-7]{26}\Z")


def link_to(row: FileRow, signer: LinkSigner) -> FileLink:
    """The public shape of a stored file."""
    return FileLink(
        id=row.id,
        name=row.name,
        path=row.path,
        uri=f"kernel://{row.session_id}/{row.path}",
        url=signer.url(row.id, row.name, row.expires_at),
        mime_type=row.mime_type,
        size=row.size,
        sha256=row.sha256,
        expires_at=row.expires_at,
    )


class StoredFileService:
    """The reading side; ``artifacts`` writes."""

    def __init__(self, files: FileRepository, sessions: SessionService, signer: LinkSigner) -> None:
        self._files = files
        self._sessions = sessions
        self._signer = signer

    async def open(
        self,
        file_id: str,
        *,
        name: str | None,
        expires: str,
        signature: str,
        byte_range: str | None = None,
        if_range: str | None = None,
    ) -> Download:
        """The bytes behind a link; nothing is read before ``chunks`` is iterated.

        ``name`` is None for ``/dl/{id}``. ``if_range`` is an ETag: the range counts only where it is still the
        file's. ``ForbiddenError`` for a link that was altered or expired, ``NotFoundError`` where the file was
        deleted, ``RangeNotSatisfiableError`` for a range beyond its end.
        """
        if name is not None:  # a forged link costs no look into the database
            self._signer.check(file_id, name, expires, signature)
        elif not _FILE_ID.match(file_id):
            raise altered_link()
        row = await self._files.by_link(file_id)
        if name is None:
            if row is None:
                raise altered_link()  # without the row nobody can tell a deleted file's link from a forged one
            self._signer.check(file_id, row.name, expires, signature)
        if row is None:
            raise _gone()
        return self._download(row, byte_range, if_range)

    async def open_chart(
        self,
        principal: Principal,
        session_id: str,
        filename: str,
        byte_range: str | None = None,
        if_range: str | None = None,
    ) -> Download:
        """The newest chart of that name in the caller's session."""
        session = await self._sessions.row(principal, session_id)
        row = None
        if filename == safe_name(filename):  # no stored file has any other name
            row = await self._files.newest_chart(principal.tenant_id, session.id, filename)
        if row is None:
            raise _gone()
        return self._download(row, byte_range, if_range)

    async def list(self, principal: Principal, session_id: str) -> list[FileLink]:
        """What the session's executions stored and has not expired, newest first, at most 1000."""
        session = await self._sessions.row(principal, session_id)
        rows = await self._files.list(principal.tenant_id, session.id, MAX_LISTED)
        return [link_to(row, self._signer) for row in rows]

    async def read_small(self, file_id: str, max_bytes: int) -> bytes | None:
        """The bytes of a file that one of the caller's own answers names; None where it is gone or larger."""
        row = await self._files.by_link(file_id)
        if row is None or row.size > max_bytes:
            return None
        return b"".join([chunk async for chunk in self._files.read(row, 0, row.size)])

    def _download(self, row: FileRow, byte_range: str | None, if_range: str | None) -> Download:
        if if_range is not None and if_range.strip() != f'"{row.sha256}"':
            byte_range = None
        start, end = parse_range(byte_range, row.size)
        return Download(link_to(row, self._signer), start, end, self._chunks(row, start, end))

    async def _chunks(self, row: FileRow, start: int, end: int) -> AsyncIterator[bytes]:
        async for chunk in self._files.read(row, start, end):
            yield chunk


def _gone() -> NotFoundError:
    return NotFoundError("This file does not exist any more.", remedy="Run the code that made it again.")
