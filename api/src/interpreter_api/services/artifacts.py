"""Stores what an execution left behind, before its answer is sent: charts, and the files that code wrote."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg

from interpreter_api.data.files import FileTooLarge, FileWriter, NewFile
from interpreter_api.services.ids import new_id
from interpreter_api.services.links import LINKED_TYPES, mime_type_of, safe_name
from interpreter_api.services.models import ChartLink, FileLink
from interpreter_api.services.sandboxes import session_not_found
from interpreter_sandbox.client import AgentError, AgentUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from interpreter_api.data.files import FileRepository
    from interpreter_api.services.fold import CapturedChart, Folded
    from interpreter_api.services.links import LinkSigner
    from interpreter_sandbox.client import AgentClient
    from interpreter_sandbox.protocol import FileEntry

MAX_FILES = 100
STORE_SECONDS = 120.0
INLINE_BYTES = 2 << 20
INLINE_TOTAL_BYTES = 8 << 20
INLINE_TYPES = frozenset({"image/png", "image/jpeg"})
_NAMES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Artifacts:
    """What was stored, as links."""

    charts: list[ChartLink]
    files: list[FileLink]
    pictures: dict[str, bytes] = field(default_factory=dict, repr=False)
    """The charts' pictures by file id, as they came: no need to read back what was just written."""


class ArtifactStore:
    """The writing side of stored files."""

    def __init__(
        self, files: FileRepository, signer: LinkSigner, *, max_bytes: int, max_total_bytes: int, lifetime: timedelta
    ) -> None:
        """``max_bytes``: of one file. ``max_total_bytes``: of one execution; the size of a workspace.

        Honest files never reach the total, but files that are mostly holes would: they cost the code nothing.
        """
        self._files = files
        self._signer = signer
        self._max_bytes = max_bytes
        self.max_total_bytes = max_total_bytes
        self._lifetime = lifetime

    async def store(
        self, tenant_id: str, session_id: str, execution_id: str, folded: Folded, client: AgentClient
    ) -> Artifacts:
        """Store all of it in one transaction and answer the links; what is left out becomes a note in ``folded``.

        A chart that the code saved itself (``savefig``) and that file are one stored file.
        """
        if not folded.charts and not folded.files:
            return Artifacts([], [])
        to_link = self._select(folded)
        if not folded.charts and not to_link:
            return Artifacts([], [])
        batch = _Batch(self, tenant_id, session_id, execution_id, folded, client)
        try:
            async with asyncio.timeout(STORE_SECONDS), self._files.pool.acquire() as db, db.transaction():
                return await batch.run(FileWriter(db), to_link)
        except asyncpg.ForeignKeyViolationError:
            raise session_not_found() from None  # deleted while its code ran
        except TimeoutError:
            folded.note(f"Storing the files took longer than {STORE_SECONDS:g} seconds: none was linked.")
            return Artifacts([], [])

    def _select(self, folded: Folded) -> list[FileEntry]:
        """The files to store; the others are said."""
        linked, other, large = [], [], []
        for entry in folded.files:
            if entry.path.rpartition(".")[2].lower() not in LINKED_TYPES or "." not in entry.path:
                other.append(entry.path)
            elif entry.size > self._max_bytes:
                large.append(f"{entry.path} ({entry.size} bytes)")
            else:
                linked.append(entry)
        limit = f"{self._max_bytes >> 20} MiB"
        for names, why in (
            (other, "stay in the session's workspace without a link, their type is not one that is linked"),
            (large, f"stay in the session's workspace without a link, they are larger than {limit}"),
            ([e.path for e in linked[MAX_FILES:]], f"were not linked, one execution links at most {MAX_FILES} files"),
        ):
            if names:
                more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
                folded.note(f"Files that {why}: {', '.join(names[:_NAMES_SHOWN])}{more}.")
        return linked[:MAX_FILES]

    def new_file(
        self, tenant_id: str, session_id: str, execution_id: str, *, path: str, mime_type: str, is_chart: bool
    ) -> NewFile:
        """A file that begins to exist now. Its expiry is in whole seconds, as its link's is."""
        expires_at = (datetime.now(UTC) + self._lifetime).replace(microsecond=0)
        name = safe_name(path)
        return NewFile(new_id("fil_"), tenant_id, session_id, execution_id, is_chart, name, path, mime_type, expires_at)

    def link(self, new: NewFile, size: int, sha256: str) -> FileLink:
        """The link to a file that was just stored."""
        return FileLink(
            id=new.id,
            name=new.name,
            path=new.path,
            uri=f"kernel://{new.session_id}/{new.path}",
            url=self._signer.url(new.id, new.name, new.expires_at),
            mime_type=new.mime_type,
            size=size,
            sha256=sha256,
            expires_at=new.expires_at,
        )

    @property
    def max_bytes(self) -> int:
        """The largest file that is stored."""
        return self._max_bytes


@dataclass(slots=True)
class _Batch:
    """One execution's files on their way into one transaction."""

    store: ArtifactStore
    tenant_id: str
    session_id: str
    execution_id: str
    folded: Folded
    client: AgentClient
    stored_bytes: int = 0

    async def run(self, writer: FileWriter, entries: list[FileEntry]) -> Artifacts:
        saved = {chart.path: chart.mime_type for chart in self.folded.charts if chart.path}
        files: dict[str, FileLink] = {}
        for entry in entries:
            mime_type = mime_type_of(entry.path)
            is_chart = saved.get(entry.path) == mime_type
            if (link := await self._file(writer, entry, mime_type, is_chart=is_chart)) is not None:
                files[entry.path] = link
        charts, pictures = [], {}
        for captured in self.folded.charts:
            if (chart := await self._chart(writer, captured, files)) is not None:
                charts.append(chart)
                pictures[chart.id] = captured.data
        return Artifacts(charts, list(files.values()), pictures)

    async def _file(self, writer: FileWriter, entry: FileEntry, mime_type: str, *, is_chart: bool) -> FileLink | None:
        limit = min(self.store.max_bytes, self.store.max_total_bytes - self.stored_bytes)
        over = f"{entry.path} was not linked: over the limit of {limit} bytes."
        if entry.size > limit:
            self.folded.note(over)
            return None
        try:
            async with self.client.read_file(entry.path) as (_, chunks):
                return await self._write(writer, entry.path, mime_type, chunks, limit, is_chart=is_chart)
        except FileTooLarge:
            self.folded.note(over)  # it grew meanwhile, or the agent told less than it gave
        except AgentError as error:
            # gone again, replaced by a link that leaves the workspace, a FIFO...: the agent refuses, we say so
            self.folded.note(f"{entry.path} was not linked: {error.message}")
        except AgentUnavailable:
            self.folded.note(f"{entry.path} was not linked: the sandbox ended.")
        return None

    async def _chart(self, writer: FileWriter, chart: CapturedChart, files: dict[str, FileLink]) -> ChartLink | None:
        link = files.get(chart.path) if chart.path else None
        if link is None or link.mime_type != chart.mime_type:
            try:
                link = await self._write(
                    writer,
                    chart.path if chart.path and mime_type_of(chart.path) == chart.mime_type else chart.name,
                    chart.mime_type,
                    _once(chart.data),
                    self.store.max_bytes,
                    is_chart=True,
                )
            except FileTooLarge:
                self.folded.note(f"The chart {chart.name!r} was not stored: over the size limit.")
                return None
        return ChartLink(**link.model_dump(), origin=chart.origin)

    async def _write(
        self,
        writer: FileWriter,
        path: str,
        mime_type: str,
        chunks: AsyncIterator[bytes],
        limit: int,
        *,
        is_chart: bool,
    ) -> FileLink:
        new = self.store.new_file(
            self.tenant_id, self.session_id, self.execution_id, path=path, mime_type=mime_type, is_chart=is_chart
        )
        size, sha256 = await writer.store(new, chunks, limit)
        self.stored_bytes += size
        return self.store.link(new, size, sha256)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def with_pictures(charts: list[ChartLink], pictures: dict[str, bytes]) -> list[ChartLink]:
    """The charts with their pictures inline (by file id), as far as type and size allow."""
    room, shown = INLINE_TOTAL_BYTES, []
    for chart in charts:
        data = pictures.get(chart.id, b"")
        if data and chart.mime_type in INLINE_TYPES and len(data) <= min(room, INLINE_BYTES):
            room -= len(data)
            shown.append(chart.model_copy(update={"data_base64": base64.b64encode(data).decode()}))
        else:
            shown.append(chart)
    return shown
