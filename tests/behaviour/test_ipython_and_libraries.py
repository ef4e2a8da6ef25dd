"""IPython's conveniences and the promised libraries, over REST in a real sandbox.

The data is what the libraries themselves ship (gapminder in plotly, Longley in statsmodels, diabetes in scikit-learn),
and the expected numbers are published ones: NIST's certified R² for Longley, scikit-learn's documented R² for diabetes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support import rest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2


@pytest.fixture(scope="module")
def session_id(http: httpx2.Client) -> Iterator[str]:
    """One session for the whole file: these promises are about code, not about isolation."""
    made: str = http.post("/api/sessions", json={"name": "libraries"}).json()["session_id"]
    yield made
    http.delete(f"/api/sessions/{made}")


@pytest.mark.covers("C03")
@pytest.mark.parametrize(
    ("code", "stdout", "result"),
    [
        ("!echo hello from $HOME", "hello from /workspace\n", None),
        ("names = !printf 'a\\nb\\n'\nlist(names)", "", "['a', 'b']"),
        ("%%bash\necho $((6 * 7))", "42\n", None),
        ("%pwd", "", "'/workspace'"),
        ("import asyncio\nawait asyncio.sleep(0, 'awaited')", "", "'awaited'"),
        ("x = 5\nx * 2;", "", None),
        ("for i in range(2): print(i)\ni", "0\n1\n", "1"),
    ],
)
def test_what_a_notebook_understands(
    http: httpx2.Client, session_id: str, code: str, stdout: str, result: str | None
) -> None:
    answer = rest.run(http, code, session_id)
    assert (answer["success"], answer["stdout"], answer["result"]) == (True, stdout, result), answer


@pytest.mark.covers("C03")
def test_the_last_result_and_help(http: httpx2.Client, session_id: str) -> None:
    assert rest.run(http, "6 * 7", session_id)["result"] == "42"
    assert rest.run(http, "_ + 1", session_id)["result"] == "43"
    shown = rest.run(http, "len?", session_id)["stdout"]
    assert "Return the number of items in a container" in shown
    assert "\x1b" not in shown


@pytest.mark.covers("C04")
def test_the_usual_names_need_no_import(http: httpx2.Client, session_id: str) -> None:
    names = "print(*[m.__name__ for m in (pd, np, plt, sns, go, px, sm)])"
    modules = "pandas numpy matplotlib.pyplot seaborn plotly.graph_objects plotly.express statsmodels.api"
    assert rest.run(http, names, session_id)["stdout"] == modules + "\n"
    written = "with safe_open('a.txt', 'w') as f: f.write('ok')\nopen('a.txt').read()"
    assert rest.run(http, written, session_id)["result"] == "'ok'"
    refused = rest.run(http, "safe_open('/etc/passwd')", session_id)
    assert refused["success"] is False
    assert "/workspace" in refused["error"]["message"]


LIBRARIES = {
    "pandas": ("int(px.data.gapminder().query('year == 2007').lifeExp.count())", "142"),
    "numpy": ("round(float(np.linalg.det(np.array([[2., 1.], [1., 3.]]))), 9)", "5.0"),
    "scipy": ("from scipy.optimize import brentq\nround(brentq(lambda x: x * x - 2, 0, 2), 6)", "1.414214"),
    "scikit-learn": (
        "from sklearn.datasets import load_diabetes\nfrom sklearn.linear_model import LinearRegression\n"
        "x, y = load_diabetes(return_X_y=True)\nround(LinearRegression().fit(x, y).score(x, y), 4)",
        "0.5177",
    ),
    "statsmodels": (
        "d = sm.datasets.longley.load()\nround(float(sm.OLS(d.endog, sm.add_constant(d.exog)).fit().rsquared), 9)",
        "0.995479005",
    ),
    "sympy": (
        "import sympy\nx = sympy.Symbol('x')\nsympy.integrate(sympy.exp(-x**2), (x, -sympy.oo, sympy.oo))",
        "sqrt(pi)",
    ),
    "tabulate": ("from tabulate import tabulate\ntabulate([['a', 1]], tablefmt='plain')", "'a  1'"),
    "xlsxwriter and openpyxl": (
        "import xlsxwriter, openpyxl\nwith xlsxwriter.Workbook('t.xlsx') as b: b.add_worksheet('s').write(0, 0, 'x')\n"
        "openpyxl.load_workbook('t.xlsx')['s']['A1'].value",
        "'x'",
    ),
    "python-calamine": (
        "pd.DataFrame({'n': [7]}).to_excel('c.xlsx')\nint(pd.read_excel('c.xlsx', engine='calamine').n[0])",
        "7",
    ),
    "reportlab and pdfplumber": (
        "from reportlab.pdfgen.canvas import Canvas\nimport pdfplumber\nc = Canvas('r.pdf')\n"
        "c.drawString(72, 720, 'quarterly report')\nc.save()\npdfplumber.open('r.pdf').pages[0].extract_text()",
        "'quarterly report'",
    ),
    "pyarrow and duckdb": (
        "import duckdb\npx.data.gapminder().to_parquet('g.parquet', engine='pyarrow')\n"
        "duckdb.sql(\"select count(distinct country) from 'g.parquet'\").fetchall()",
        "[(142,)]",
    ),
    "polars": (
        "import polars\npx.data.gapminder().to_csv('g.csv')\n"
        "polars.read_csv('g.csv').filter(polars.col('year') == 1952)['country'].n_unique()",
        "142",
    ),
}


@pytest.mark.covers("C07")
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_does_its_work(http: httpx2.Client, session_id: str, library: str) -> None:
    code, expected = LIBRARIES[library]
    answer = rest.run(http, code, session_id)
    assert answer["result"] == expected, answer["error"] or answer


@pytest.mark.covers("C05", "C07")
@pytest.mark.parametrize(
    "code",
    [
        "plt.plot([1, 2, 3])",
        "sns.histplot(px.data.tips().total_bill)",
        "px.scatter(px.data.iris(), x='sepal_width', y='sepal_length').show()",
    ],
    ids=["matplotlib", "seaborn", "plotly"],
)
def test_a_plotting_library_makes_one_picture(http: httpx2.Client, session_id: str, code: str) -> None:
    answer = rest.run(http, code, session_id)
    assert answer["error"] is None
    [chart] = answer["charts"]
    assert chart["mime_type"] == "image/png"
    assert chart["size"] > 1000
