"""The table of a sweep: what its cells mean, their mean over the seeds, and their text.

Knows nothing of files or HTML. `sweep` is the config's section `sweep`; `entries` is
{(run, seed): {method: entry}} with entries as in summary.json. What was not measured is "-".
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from robust_jax.config import nearest
from robust_jax.report import CATEGORIES, count, flops, percent, seconds, terminal
from robust_jax.report.tables import category_table

Sweep = Mapping[str, Any]
Entries = Mapping[tuple[str, int], Mapping[str, Mapping[str, Any]]]

FORMATS: dict[str, Callable[[float], str]] = {
    "percent": percent,
    "fraction": "{:.2f}".format,
    "count": count,
    "seconds": seconds,
    "flops": flops,
    "number": "{:.3g}".format,
}
KINDS = ("bars", "lines", "scatter")


@dataclass(frozen=True)
class Value:
    """A mean over n seeds and half the width of its 95 % interval.

    The interval is Student's t with n - 1 degrees of freedom: None for one seed, 0 where all the
    seeds agree exactly.
    """

    mean: float
    half: float | None
    n: int

    @classmethod
    def over(cls, values: Iterable[float]) -> "Value":
        """The value of at least one number."""
        numbers = [float(value) for value in values]
        n = len(numbers)
        if len(set(numbers)) == 1:
            return cls(numbers[0], None if n == 1 else 0.0, n)
        error = np.std(numbers, ddof=1) / math.sqrt(n)
        return cls(float(np.mean(numbers)), float(stats.t.ppf(0.975, n - 1) * error), n)


@dataclass(frozen=True)
class Filled:
    """A cell with its numbers: the value over the seeds, and the paper's; None where there is none.

    `method` is the method it shows, `seeds` the measured number of each seed.
    """

    value: Value | None
    paper: float | None
    method: str
    seeds: Mapping[int, float]


class _Cell(NamedTuple):
    row: str
    column: str
    run: str
    method: str
    metric: Any
    paper: float | None


def rows(sweep: Sweep) -> list[str]:
    """The labels of the rows, in the order of their first cells."""
    return list(dict.fromkeys(cell[0] for cell in sweep["cells"]))


def cells(sweep: Sweep, entries: Entries) -> dict[tuple[str, str], Filled]:
    """The numbers of every cell, by row label and column heading."""
    filled = {}
    for cell in (_Cell(*cell) for cell in sweep["cells"]):
        paths = (cell.metric,) if isinstance(cell.metric, str) else cell.metric
        seeds = {}
        for (run, seed), methods in sorted(entries.items()):
            if run == cell.run:
                found = [_measured(methods.get(cell.method, {}), path) for path in paths]
                known = [value for value in found if value is not None]
                if len(known) == len(found):
                    seeds[seed] = sum(known) / len(known)
        value = Value.over(seeds.values()) if seeds else None
        filled[cell.row, cell.column] = Filled(value, cell.paper, cell.method, seeds)
    return filled


def _measured(entry: Mapping[str, Any], path: str) -> float | None:
    """The number at a path of an entry; None where there is none."""
    node: Any = entry
    parts = path.split("/")
    for i, part in enumerate(parts):
        if not isinstance(node, Mapping):
            return None
        if part == "category":
            means = category_table({"methods": {"": node}})
            return means[0].get("/".join(parts[i + 1 :])) if means else None
        node = node.get(part)
    return node if isinstance(node, int | float) else None


def shown(value: Value, form: str) -> str:
    """A value as text: "73.1 ± 1.2", without the interval where there is none or it is 0."""
    write = FORMATS[form]
    if not value.half:
        return write(value.mean)
    half = value.half if form in ("percent", "fraction") else float(f"{value.half:.2g}")
    return f"{write(value.mean)} ± {write(half)}"


def to_grid(sweep: Sweep, entries: Entries) -> list[list[str]]:
    """The table as text, its headings first.

    A column with a value of the paper has a second one, "HEADING, paper". A cell with fewer seeds
    than the sweep says how many: "73.1 (n = 1)".
    """
    filled, labels, wanted = cells(sweep, entries), rows(sweep), len(sweep["seeds"])
    columns: list[list[str]] = [["", *labels]]
    for heading, form in sweep["columns"]:
        found = [filled.get((row, heading)) for row in labels]
        column = [heading]
        for cell in found:
            if cell is None or cell.value is None:
                column.append("-")
            else:
                few = f" (n = {cell.value.n})" if cell.value.n < wanted else ""
                column.append(shown(cell.value, form) + few)
        columns.append(column)
        papers = [None if cell is None else cell.paper for cell in found]
        if any(paper is not None for paper in papers):
            texts = ["-" if paper is None else FORMATS[form](paper) for paper in papers]
            columns.append([f"{heading}, paper", *texts])
    return [list(line) for line in zip(*columns, strict=True)]


def text(sweep: Sweep, entries: Entries) -> str:
    """The table for a terminal."""
    return terminal.aligned(to_grid(sweep, entries), names=1)


def markdown(sweep: Sweep, entries: Entries) -> str:
    """The table in Markdown: names to the left, numbers to the right."""
    head, *body = (
        [" ".join(plain(cell).replace("|", "\\|").splitlines()) for cell in line]
        for line in to_grid(sweep, entries)
    )
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *body))


def plain(text: str) -> str:
    """Text for Markdown, in which a tag would be one of the page."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def validate(sweep: Sweep) -> None:
    """Checks that columns, cells and figures belong together.

    Raises:
        ValueError: for an unknown column, run, format, category or kind of figure, for a column,
            cell or figure given twice, and for a figure that its columns cannot fill.
    """
    headings, runs = [heading for heading, _ in sweep["columns"]], [run for run, _ in sweep["runs"]]
    _once("column", headings)
    for heading, form in sweep["columns"]:
        _known(f"format of column {heading!r}", form, FORMATS)
    for cell in (_Cell(*cell) for cell in sweep["cells"]):
        _known(f"column of row {cell.row!r}", cell.column, headings)
        _known(f"run of row {cell.row!r}", cell.run, runs)
        for path in (cell.metric,) if isinstance(cell.metric, str) else cell.metric:
            if "category" in (parts := path.split("/")):
                _known(f"category of row {cell.row!r}", parts[-1], CATEGORIES)
    _once("cell", [tuple(cell[:2]) for cell in sweep["cells"]])
    _once("figure", [name for name, *_ in sweep["figures"]])
    for name, kind, shown_columns, *_ in sweep["figures"]:
        _known(f"kind of figure {name!r}", kind, KINDS)
        for heading in shown_columns:
            _known(f"column of figure {name!r}", heading, headings)
        if kind == "scatter" and len(shown_columns) != 2:
            raise ValueError(
                f"a scatter has a column for x and one for y; got {list(shown_columns)} for "
                f"figure {name!r}; name two"
            )
        if kind == "lines":
            for cell in (_Cell(*cell) for cell in sweep["cells"]):
                if cell.column in shown_columns and not _is_number(cell.row):
                    raise ValueError(
                        f"the rows of lines are numbers; got row {cell.row!r} for figure "
                        f"{name!r}; label it with its x, or draw bars"
                    )


def _known(what: str, name: str, names: Iterable[str]) -> None:
    if name not in names:
        raise ValueError(
            f"unknown {what}; got {name!r}; use one of {', '.join(names)}{nearest(name, names)}"
        )


def _once(what: str, names: list[Any]) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"the same {what} twice; got {twice[0]!r}; give each once")


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False
