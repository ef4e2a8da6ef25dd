"""Figures are captured exactly once, by every way that shows one (C05). The data ship with the libraries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from support.shell import image

if TYPE_CHECKING:
    from support.shell import Cell, ShellServer

pytestmark = [pytest.mark.covers("C05")]

# scikit-learn's wine table, read from its folder: importing scikit-learn for every case would take minutes
WINE = """\
import importlib.util, pathlib
_data = pathlib.Path(importlib.util.find_spec("sklearn").origin).parent / "datasets" / "data" / "wine_data.csv"
wine = pd.read_csv(_data, skiprows=1, header=None).rename(
    columns={0: "alcohol", 9: "color_intensity", 10: "hue", 13: "target"})
"""
PLOT = WINE + "fig, ax = plt.subplots()\nax.scatter(wine.alcohol, wine.color_intensity)\n"
GAPMINDER = (
    "import plotly.data\nfig = px.scatter(plotly.data.gapminder().query('year == 2007'), x='gdpPercap', y='lifeExp')\n"
)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PLOTLY = "application/vnd.plotly.v1+json"


def origins(cell: Cell) -> list[str]:
    assert cell.status == "ok", cell.error
    return cell.origins


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("plt.show()", ["show"]),
        ("fig.show()", ["show"]),
        ("plt.savefig('wine.png')", ["savefig"]),
        ("", ["open"]),
        ("fig", ["display"]),
        ("display(fig)", ["display"]),
        ("plt.close(fig)", []),
    ],
)
def test_each_way_captures_the_figure_once(shell: ShellServer, code: str, expected: list[str]) -> None:
    cell = shell.cell(PLOT + code)
    assert origins(cell) == expected
    for chart in cell.charts:
        assert chart["mime_type"] == "image/png"
        assert image(chart).startswith(PNG_SIGNATURE)
        assert len(image(chart)) > 5_000


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("fig.savefig('a.png'); plt.show()", ["savefig"]),
        ("fig.savefig('a.png', dpi=200, bbox_inches='tight')", ["savefig"]),
        ("fig.savefig('a.png'); fig.savefig('a.pdf'); fig.savefig('a.svg')", ["savefig"]),
        ("plt.show(); plt.show()", ["show"]),
        ("fig.show(); fig.show(); fig", ["show"]),
        ("fig.show(); fig.canvas.draw(); plt.show()", ["show"]),
        ("fig.show(); plt.tight_layout if False else None; plt.savefig('b.png')", ["show"]),
        ("display(fig); display(fig); fig", ["display"]),
        ("ax.set_title('one'); plt.show(); ax.set_title('two'); plt.show(); plt.show()", ["show", "show"]),
        ("plt.savefig('a.png'); ax.set_title('changed')", ["savefig", "open"]),
        ("ax.set_title('x'); plt.savefig('a.png'); ax.set_title('y'); ax.set_title('x')", ["savefig"]),
        ("plt.show(); plt.plot([1, 2]); plt.show()", ["show", "show"]),
        ("fig2, ax2 = plt.subplots(); ax2.plot([1, 2])", ["open", "open"]),
        ("import io; fig.savefig(io.BytesIO()); plt.close()", ["savefig"]),
        ("import io; fig.savefig(io.BytesIO(), format='raw'); plt.close()", []),
    ],
)
def test_the_same_figure_counts_once_and_a_changed_one_again(
    shell: ShellServer, code: str, expected: list[str]
) -> None:
    assert origins(shell.cell(PLOT + code)) == expected


@pytest.mark.parametrize("layout", ["constrained", "tight"])
def test_a_layout_that_settles_while_drawing_is_no_change(shell: ShellServer, layout: str) -> None:
    code = WINE + f"fig, axs = plt.subplots(2, 2, layout={layout!r})\naxs[0, 0].plot(wine.alcohol)\n"
    assert origins(shell.cell(code + "plt.savefig('a.png'); fig.canvas.draw(); plt.show()")) == ["savefig"]


def test_a_saved_figure_is_the_file_that_the_code_wrote(shell: ShellServer) -> None:
    png, pdf, svg, jpg, outside = shell.session(
        PLOT + "import os; os.makedirs('out'); plt.savefig('out/wine.png', dpi=50)",
        PLOT + "plt.savefig('wine.pdf')",
        PLOT + "plt.savefig('wine.svg')",
        PLOT + "plt.savefig('wine.jpg')",
        PLOT + "import tempfile; plt.savefig(tempfile.mkdtemp() + '/wine.png')",
    )
    (chart,) = png.charts
    assert (chart["path"], chart["name"], chart["mime_type"]) == ("out/wine.png", "wine.png", "image/png")
    assert png.stdout == ""
    (chart,) = pdf.charts
    assert (chart["path"], chart["mime_type"]) == ("wine.pdf", "application/pdf")
    assert image(chart, "application/pdf").startswith(b"%PDF")
    assert image(chart).startswith(PNG_SIGNATURE)
    (chart,) = svg.charts
    assert "<svg" in chart["data"]["image/svg+xml"]
    assert image(chart).startswith(PNG_SIGNATURE)
    (chart,) = jpg.charts
    assert image(chart, "image/jpeg").startswith(b"\xff\xd8")
    (chart,) = outside.charts
    assert chart["path"] is None
    assert (shell.workspace / "wine.pdf").read_bytes().startswith(b"%PDF")


def test_the_captured_bytes_are_the_saved_ones(shell: ShellServer) -> None:
    cell = shell.cell(PLOT + "plt.savefig('wine', dpi=50)")
    (chart,) = cell.charts
    assert chart["path"] == "wine.png"
    assert image(chart) == (shell.workspace / "wine.png").read_bytes()


def test_figures_are_closed_when_their_cell_is_over(shell: ShellServer) -> None:
    opened, next_cell, again = shell.session(PLOT, "len(plt.get_fignums())", "fig")
    assert origins(opened) == ["open"]
    assert next_cell.text == "0"
    assert next_cell.charts == []
    assert origins(again) == ["display"]


def test_showing_then_saving_writes_the_chart_not_an_empty_page(shell: ShellServer) -> None:
    code = PLOT + "plt.savefig('before.png'); plt.show(); plt.savefig('after.png')"
    assert origins(shell.cell(code)) == ["savefig"]
    assert (shell.workspace / "before.png").read_bytes() == (shell.workspace / "after.png").read_bytes()


@pytest.mark.parametrize("backend", ["import matplotlib; matplotlib.use('Agg')", "%matplotlib inline", "plt.ion()"])
def test_what_people_write_for_other_places_changes_nothing(shell: ShellServer, backend: str) -> None:
    cell = shell.cell(f"{backend}\n{PLOT}plt.show()")
    assert origins(cell) == ["show"]
    assert cell.stderr == ""


def test_seaborn_and_pandas_draw_with_matplotlib(shell: ShellServer) -> None:
    seaborn, grid, pandas = shell.session(
        WINE + "sns.histplot(wine, x='alcohol', hue='target');",
        WINE + "sns.relplot(wine, x='alcohol', y='hue', col='target').savefig('grid.png')",
        WINE + "wine.groupby('target').alcohol.mean().plot.bar()\nplt.show()",
    )
    assert [origins(cell) for cell in (seaborn, grid, pandas)] == [["open"], ["savefig"], ["show"]]


def test_an_animation_is_a_file_not_a_hundred_charts(shell: ShellServer) -> None:
    cell = shell.cell(
        PLOT + "from matplotlib.animation import FuncAnimation\n"
        "FuncAnimation(fig, lambda i: ax.set_title(str(i)), frames=5).save('a.gif', writer='pillow')\nplt.close()"
    )
    assert origins(cell) == []
    assert (shell.workspace / "a.gif").read_bytes().startswith(b"GIF")


def test_more_charts_than_allowed_are_counted_and_said(shell: ShellServer) -> None:
    cell = shell.cell("for i in range(5):\n    plt.figure(); plt.plot([i, 1])", max_charts=2)
    assert origins(cell) == ["open", "open"]
    assert "3 more chart(s) were not captured" in " ".join(cell.notes)
    assert "3 more chart(s)" in cell.events[-1]["data"]["data"]["text/plain"]


def test_a_chart_over_the_display_limit_is_said_not_dropped(shell: ShellServer) -> None:
    noise = "plt.imshow(np.random.default_rng(0).random((900, 900)), interpolation='none')\n"
    small, huge = shell.session(
        {"code": noise + "plt.savefig('noise.png', dpi=400)", "display_limit_bytes": 900_000},
        {"code": noise, "display_limit_bytes": 20_000},
    )
    (chart,) = small.charts
    assert chart["path"] == "noise.png"
    assert len(chart["data"]["image/png"]) < 900_000
    assert origins(huge) == []
    assert "image/png" in " ".join(huge.notes)
    assert "left out" in huge.events[-1]["data"]["data"]["text/plain"]


def test_a_figure_that_cannot_be_drawn_is_said(shell: ShellServer) -> None:
    left, shown, after = shell.session(
        "plt.title(r'$\\frac{1$'); plt.plot([1])", "plt.title(r'$\\frac{1$'); plt.show()", "plt.plot([1]); plt.show()"
    )
    assert left.status == "ok"
    assert "could not be drawn" in " ".join(left.notes)
    assert shown.status == "error"
    assert origins(after) == ["show"]


def test_open_figures_are_captured_when_the_cell_fails_too(shell: ShellServer) -> None:
    cell = shell.cell(PLOT + "1 / 0")
    assert cell.status == "error"
    assert cell.origins == ["open"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("fig.show()", ["show"]),
        ("fig", ["display"]),
        ("fig.show(); fig.show(); fig", ["show"]),
        ("fig.show(renderer='browser')", ["show"]),
        ("fig.show(); fig.update_layout(title='changed'); fig.show()", ["show", "show"]),
        ("fig.write_image('a.png'); fig.show()", ["savefig"]),
        ("fig.write_html('a.html')", []),
    ],
)
def test_plotly_figures_are_captured_once_with_json_and_png(shell: ShellServer, code: str, expected: list[str]) -> None:
    cell = shell.cell(GAPMINDER + code)
    assert origins(cell) == expected
    for chart in cell.charts:
        assert image(chart).startswith(PNG_SIGNATURE)
        (trace,) = chart["data"][PLOTLY]["data"]
        assert trace["type"] == "scatter"
        json.dumps(chart["data"][PLOTLY], allow_nan=False)


def test_plotly_writes_every_format(shell: ShellServer) -> None:
    cell = shell.cell(
        GAPMINDER
        + "for kind in ('png', 'jpg', 'svg', 'pdf', 'webp'):\n    fig.write_image(f'g.{kind}', width=300, height=200)\n"
        "import plotly.io as pio; pio.write_image(fig, open('h.png', 'wb'), format='png'); fig.to_image('png')[:4]"
    )
    assert origins(cell) == ["savefig"]
    assert cell.charts[0]["path"] == "g.png"
    assert cell.text == "b'\\x89PNG'"
    starts = {"png": PNG_SIGNATURE, "jpg": b"\xff\xd8", "svg": b"<svg", "pdf": b"%PDF", "webp": b"RIFF"}
    for kind, start in starts.items():
        assert (shell.workspace / f"g.{kind}").read_bytes().startswith(start)


def test_the_plotly_renderer_ends_with_its_cell(shell: ShellServer) -> None:
    _, after = shell.session(
        GAPMINDER + "fig.show()",
        "import glob\n[open(f).read() for f in glob.glob('/proc/[0-9]*/comm') if 'kaleido' in open(f).read() "
        "and open(f.replace('comm', 'stat')).read().split()[2] != 'Z']",
    )
    assert after.text == "[]"


def test_an_image_that_is_displayed_counts_as_a_chart(shell: ShellServer) -> None:
    cell = shell.cell("from PIL import Image\nImage.new('RGB', (40, 30), 'red')")
    assert origins(cell) == ["display"]
    assert image(cell.charts[0]).startswith(PNG_SIGNATURE)
