"""The libraries that are promised import and do one thing each (C07), on data that ships with one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.shell import ShellServer

pytestmark = [pytest.mark.covers("C07")]

WINE = "from sklearn.datasets import load_wine\nwine = load_wine(as_frame=True).frame\n"

USES = {
    "pandas": (WINE + "int(pd.read_csv('wine.csv').shape[0]) if wine.to_csv('wine.csv') is None else 0", "178"),
    "numpy": ("round(float(np.linalg.det(np.array([[2., 1.], [1., 3.]]))), 6)", "5.0"),
    "scipy": ("from scipy import stats\nround(float(stats.norm.ppf(0.975)), 3)", "1.96"),
    "scikit-learn": (
        WINE + "from sklearn.linear_model import LogisticRegression\n"
        "x = (wine.drop(columns='target') - wine.drop(columns='target').mean()) / wine.drop(columns='target').std()\n"
        "bool(LogisticRegression().fit(x, wine.target).score(x, wine.target) > 0.97)",
        "True",
    ),
    "statsmodels": (
        "data = sm.datasets.longley.load_pandas().data\n"
        "round(float(sm.OLS(data.TOTEMP, sm.add_constant(data.drop(columns='TOTEMP'))).fit().rsquared), 3)",
        "0.995",
    ),
    "matplotlib": ("plt.hist([1, 2, 2])[0].sum().item()", "3.0"),
    "seaborn": ("len(sns.color_palette('deep'))", "10"),
    "plotly": ("import plotly.data\nlen(plotly.data.gapminder())", "1704"),
    "sympy": ("import sympy\nx = sympy.Symbol('x')\nsympy.integrate(2 * x, x)", "x**2"),
    "openpyxl": (WINE + "wine.to_excel('wine.xlsx'); pd.read_excel('wine.xlsx').shape", "(178, 15)"),
    "xlsxwriter": (WINE + "wine.to_excel('x.xlsx', engine='xlsxwriter'); pd.read_excel('x.xlsx').shape", "(178, 15)"),
    "reportlab and pdfplumber": (
        "from reportlab.pdfgen.canvas import Canvas\nimport pdfplumber\n"
        "canvas = Canvas('page.pdf'); canvas.drawString(72, 720, 'Total 42'); canvas.save()\n"
        "pdfplumber.open('page.pdf').pages[0].extract_text()",
        "'Total 42'",
    ),
    "tabulate": ("from tabulate import tabulate\ntabulate([[1, 'a']], tablefmt='plain')", "'1  a'"),
    "pyarrow": (WINE + "wine.to_parquet('wine.parquet'); pd.read_parquet('wine.parquet').shape", "(178, 14)"),
    "duckdb": (WINE + "import duckdb\nduckdb.sql('select count(*) from wine').fetchall()", "[(178,)]"),
    "polars": (WINE + "import polars\npolars.from_pandas(wine).group_by('target').len().height", "3"),
    "python-calamine": (
        WINE + "wine.to_excel('wine.xlsx'); pd.read_excel('wine.xlsx', engine='calamine').shape",
        "(178, 15)",
    ),
}


@pytest.mark.parametrize("library", USES)
def test_library_does_its_thing(shell: ShellServer, library: str) -> None:
    code, expected = USES[library]
    cell = shell.cell(code)
    assert cell.text == expected
