"""The main job, as a new user does it: a real CSV in, three charts and a workbook out, by MCP clients of others too.

The data is gapminder (1,704 rows: life expectancy, population and income of 142 countries, 1952-2007), which the
``plotly`` package on PyPI ships as ``plotly/package_data/datasets/gapminder.csv.gz``; source: Gapminder Foundation,
gapminder.org, CC BY 4.0. What the code must find is worked out here a second time with the csv module.
"""

from __future__ import annotations

import base64
import csv
import gzip
import io
import struct
import sys
import zipfile
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import httpx2
import pytest

from support.mcp_clients import KINDS, ClientKind, connect

if TYPE_CHECKING:
    from support.server import Server

SANDBOX_ENV = Path(sys.prefix).parent / ".venv-sandbox"
SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"

LOAD = """
frame = pd.read_csv("gapminder.csv.gz")
print(len(frame), "rows")
by_continent = frame[frame.year == 2007].groupby("continent").lifeExp.mean().round(6)
by_continent
"""
PLOT = """
frame.groupby("year").lifeExp.mean().plot(title="shown")
plt.show()

plt.figure()
by_continent.plot.bar(title="saved")
plt.savefig("life.png")

plt.figure()
sns.scatterplot(frame[frame.year == 2007], x="gdpPercap", y="lifeExp").set_title("left open")
"""
WORKBOOK = """
with pd.ExcelWriter("report.xlsx") as book:
    by_continent.to_excel(book, sheet_name="2007")
"""


def gapminder() -> bytes:
    """The data set's own bytes, from the package that the sandbox has installed."""
    [path] = SANDBOX_ENV.glob("lib/python3*/site-packages/plotly/package_data/datasets/gapminder.csv.gz")
    return path.read_bytes()


def expected_means(data: bytes) -> dict[str, float]:
    """Mean life expectancy in 2007 by continent, by the csv module alone."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in csv.DictReader(io.TextIOWrapper(gzip.GzipFile(fileobj=io.BytesIO(data)))):
        if row["year"] == "2007":
            values[row["continent"]].append(float(row["lifeExp"]))
    return {continent: round(fmean(ages), 6) for continent, ages in values.items()}


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, from a PNG's own header."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def sheet_cells(workbook: bytes) -> list[str]:
    """The first sheet's cells in order, text resolved, without any spreadsheet library."""
    with zipfile.ZipFile(io.BytesIO(workbook)) as archive:
        names = archive.namelist()
        shared = []
        if "xl/sharedStrings.xml" in names:
            root = ET.fromstring(archive.read("xl/sharedStrings.xml"))
            shared = ["".join(item.itertext()) for item in root.findall(f"{SHEET}si")]
        sheet = ET.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    cells = []
    for cell in sheet.iter(f"{SHEET}c"):
        text = "".join(cell.itertext())
        cells.append(shared[int(text)] if cell.get("t") == "s" else text)
    return cells


async def fetch(url: str) -> bytes:
    """What a link answers, with no key: the link itself is the right to read."""
    async with httpx2.AsyncClient() as http:
        answer = await http.get(url)
    assert answer.status_code == 200, answer.text
    return answer.content


@pytest.mark.covers("C01", "C02", "C04", "C05", "C06", "F03", "F05", "R03", "S01")
@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_a_csv_becomes_three_charts_and_a_workbook(server: Server, kind: ClientKind) -> None:
    data = gapminder()
    async with connect(kind, server) as client:
        created = await client.call("create_session", name=f"main job {kind}")
        session = created.structured["session_id"]
        wrote = await client.call(
            "write_file",
            session_id=session,
            path="gapminder.csv.gz",
            binary_base64=base64.b64encode(data).decode(),
        )
        assert wrote.structured["size"] == len(data)

        loaded = await client.call("execute_code", code=LOAD, session_id=session)
        assert not loaded.is_error, loaded.text
        assert loaded.structured["success"] is True
        assert loaded.structured["stdout"] == "1704 rows\n"
        for continent, mean in expected_means(data).items():
            assert continent in loaded.text
            assert f"{mean:.6f}".rstrip("0") in loaded.text

        drawn = await client.call("execute_code", code=PLOT, session_id=session)
        assert drawn.structured["success"] is True, drawn.text
        assert [chart["origin"] for chart in drawn.structured["charts"]] == ["show", "savefig", "open"]
        assert len(drawn.images) == 3
        for image in drawn.images:
            width, height = png_size(image)
            assert width > 100
            assert height > 100
        for chart in drawn.structured["charts"]:
            fetched = await fetch(chart["url"])
            assert png_size(fetched)
            assert fetched in drawn.images

        written = await client.call("execute_code", code=WORKBOOK, session_id=session)
        [book] = written.structured["files"]
        assert book["name"] == "report.xlsx"
        assert book["url"] in written.text
        assert book["uri"] == f"kernel://{session}/report.xlsx"
        assert book["uri"] in written.links
        workbook = await fetch(book["url"])
        assert len(workbook) == book["size"]
        cells = sheet_cells(workbook)
        for continent, mean in expected_means(data).items():
            assert float(cells[cells.index(continent) + 1]) == pytest.approx(mean, abs=1e-6)

        gone = await client.call("delete_session", session_id=session)
        assert gone.structured["deleted"] == session
        after = await client.call("execute_code", code="frame", session_id=session)
        assert after.is_error
        assert "not_found" in after.text
