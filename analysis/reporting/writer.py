"""The only writer of files: charts, tables, the answer for people (HTML, Markdown, LaTeX) and for programs (JSON)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis.charts import style
from analysis.loading.csv_table import FORMULA
from analysis.reporting import chances, figures
from analysis.reporting.latex_table import latex_table
from analysis.reporting.report import Report
from sweep.core.errors import UserError

ANSWER = "recommendation.json"
_TEMPLATES = ("report.html", "report.md", "table.tex")
# Colours of the charts that the page gives its own: it is read on light and on dark screens.
_THEMED = {
    style.INK: "--ink",
    style.FAINT: "--faint",
    style.GRID: "--grid",
    style.PAPER: "--card",
    style.COLOURS[0].lower(): "--blue",  # too dark for names on a dark screen
}


def write(report: Report, out: Path, suffixes: Sequence[str] = (".svg", ".png")) -> list[Path]:
    """All files of a report into `out`; returns them. See `replace_all`."""
    return replace_all(out, report.study.name, lambda folder: _write_into(report, folder, list(suffixes)))


def replace_all(out: Path, study: str, write_into: Callable[[Path], None]) -> list[Path]:
    """Files into `out` at once: what fails half-way leaves the folder as it was, and what an older report of the same
    study had in addition is deleted.

    Raises:
        UserError: where `out` holds something else than a report of this study, or cannot be written.
    """
    require_own(out, study)
    scratch: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        write_into(scratch)
        out.mkdir(exist_ok=True)
        for stale in _files_of(out):
            if not (scratch / stale).exists():
                (out / stale).unlink(missing_ok=True)
        return [file.replace(out / file.name) for file in sorted(scratch.iterdir())]
    except OSError as error:
        raise UserError(
            f"the report cannot be written into {out}: {error.strerror or error}; make room, or choose another folder "
            "with out=…"
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def require_own(out: Path, study: str) -> None:
    """Raises UserError where a report in `out` would replace something else than a report of the same study."""
    if not out.is_dir() or not any(out.iterdir()):
        return
    other = _answer(out).get("study")
    if other != study:
        what = f"the report of study {other}" if other else "files that are no report of this program"
        raise UserError(
            f"out = {out} holds {what}, which would be overwritten; choose another folder, or empty this one"
        )


def _answer(out: Path) -> dict[str, object]:
    try:
        found = json.loads((out / ANSWER).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _files_of(out: Path) -> list[str]:
    """The files of the report that is there."""
    files = _answer(out).get("files", [])
    names = [str(name) for name in files] if isinstance(files, list) else []
    return [name for name in names if Path(name).name == name]


def _write_into(report: Report, folder: Path, suffixes: list[str]) -> None:
    drawn = figures.draw_all(report, folder, suffixes)
    write_csv(report.runs.drop(columns=["conditions"], errors="ignore"), folder / "runs.csv")
    write_csv(_flat(report), folder / "settings.csv")
    svgs = {name: Markup(inline((folder / f"{name}.svg").read_text())) for name in drawn.names}
    latex_columns = latex_table(report)
    render(
        folder,
        _TEMPLATES,
        report=report,
        latex=latex_columns,
        picks=chances.picks(report.decision),
        picks_note=chances.note(report.decision),
        charts=svgs,
        left_out=drawn.left_out,
        main=figures.MAIN,
    )
    write_answer(folder, {**report.as_json(), "charts_left_out": drawn.left_out})


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """A CSV file in which a spreadsheet computes nothing: a text that begins as a formula does gets an apostrophe,
    which a spreadsheet does not show and `source=` takes away."""
    texts = {str(name): table[name] for name in table.select_dtypes(exclude="number").columns}
    safe = {name: [_as_text(cell) for cell in column] for name, column in texts.items()}
    table.assign(**safe).rename(columns=_as_text).to_csv(path, index=False)


def _as_text(cell: object) -> object:
    return f"'{cell}" if _is_formula(cell) else cell


def _is_formula(cell: object) -> bool:
    if not isinstance(cell, str) or not cell.startswith(FORMULA):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def write_answer(folder: Path, answer: Mapping[str, object]) -> None:
    """The answer for programs, with the names of all files. It is written last."""
    files = sorted([*(path.name for path in folder.iterdir()), ANSWER])
    text = json.dumps({**answer, "files": files}, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / ANSWER).write_text(text + "\n")


def render(folder: Path, names: Sequence[str], **content: object) -> None:
    """Fill templates, and write the results into `folder`."""
    templates = environment()
    for name in names:
        text = templates.get_template(f"{name}.j2").render(**content, **page_script())
        (folder / name).write_text(text)


def page_script() -> dict[str, str]:
    """The page's own script, and the only one that its policy lets run: text from outside never does."""
    text = resources.files("analysis").joinpath("templates/sort.js").read_text()
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"script": Markup(text), "script_hash": f"sha256-{digest}"}


def environment() -> Environment:
    """The templates: HTML escapes all text from outside by itself, the others by their filters."""
    made = Environment(
        loader=PackageLoader("analysis"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"cell": markdown_cell, "tex": latex}
    return made


def markdown_cell(text: object) -> str:
    """Text from outside inside Markdown: no table, no HTML, no mark-up, no formula, no link comes of it. A
    name_like_this stays readable in the source."""
    plain = " ".join(str(text).split())
    if re.search(r"[\\`*{}\[\]<>|~#$]|://|(^|\W)_|_(\W|$)", plain):
        plain = re.sub(r"([\\`*_{}\[\]<>|~#$]|:(?=//))", r"\\\1", plain)
    return plain


def latex(text: object) -> str:
    """Text from outside inside LaTeX. A row that begins with [ or * would be an option of the line break before it."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
               "–": "--", "×": r"$\times$", "·": r"\textperiodcentered{}", "<": r"\textless{}", ">": r"\textgreater{}",
               "|": r"\textbar{}", "[": "{[}", "*": "{*}", "…": r"\dots{}", "→": r"$\to$"}  # fmt: skip
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in " ".join(str(text).split()))


def _flat(report: Report) -> pd.DataFrame:
    """The settings for a spreadsheet: the memory column under its own name, outcomes and seeds as text."""
    flat = report.settings.rename(columns={"memory": report.memory_metric})
    return flat.assign(
        outcomes=[", ".join(f"{n} {o}" for o, n in outcomes.items()) for outcomes in flat["outcomes"]],
        seeds=[" ".join(map(str, seeds)) for seeds in flat["seeds"]],
    )


def inline(svg: str) -> str:
    """An SVG file as part of a page: without the prologue, as wide as its column, in the page's colours."""
    svg = svg[svg.index("<svg") :]
    for colour, variable in _THEMED.items():
        svg = re.sub(rf"(fill|stroke): ?{colour}", rf"\1: var({variable})", svg)
    return svg
