"""The figures of a sweep: bars, lines and points with their 95 % intervals over the seeds.

A filled mark was measured, a hollow one is the paper's. Series differ in hatch, marker and dash
too, so the figures read in grey.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from textwrap import wrap
from typing import Any

from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_jax.report import LABELS, drawing, label
from robust_jax.report.sweep_table import FORMATS, Entries, Filled, Sweep, cells, rows

Point = tuple[float, float]
Style = tuple[str, str, Any]  # colour, marker, dash

ORDERED: tuple[Style, ...] = (  # of series that are no methods
    ("#0072b2", "o", "-"),
    ("#e69f00", "^", (0, (5, 2))),
    ("#000000", "s", (0, (1, 1.5))),
    ("#cc79a7", "v", (0, (8, 3))),
    ("#009e73", "D", (0, (5, 1.5, 1, 1.5))),
    ("#56b4e9", "P", (0, (3, 1, 1, 1, 1, 1))),
    ("#d55e00", "X", (0, (2, 2))),
    ("#777777", "p", (0, (1, 4))),
)
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "----", "oo", "++")
BAR: dict[str, Any] = {"ecolor": drawing.INK, "elinewidth": 1.2, "capsize": 3}
HOLLOW: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 1.4}
LOGARITHMIC = ("count", "seconds", "flops")  # formats of x in a scatter


@dataclass(frozen=True)
class _Plot:
    """What a figure shows: rows, and columns with their formats."""

    cells: Mapping[tuple[str, str], Filled]
    rows: Sequence[str]
    forms: Mapping[str, str]
    xlabel: str
    ylabel: str

    def number(self, row: str, column: str) -> Point | None:
        """The mean of a cell and half its interval as drawn; None where nothing was measured."""
        cell = self.cells.get((row, column))
        if cell is None or cell.value is None:
            return None
        scale = self._scale(column)
        return scale * cell.value.mean, scale * (cell.value.half or 0)

    def paper(self, row: str, column: str) -> float | None:
        """The paper's value of a cell as drawn."""
        cell = self.cells.get((row, column))
        return None if cell is None or cell.paper is None else self._scale(column) * cell.paper

    def _scale(self, column: str) -> float:
        return 100 if self.forms[column] == "percent" else 1


def draw(sweep: Sweep, entries: Entries, figure: Sequence[Any], path: epath.PathLike) -> str:
    """Draws one of the sweep's figures, as PNG (`path`) and beside it as PDF.

    Returns:
        How to read it; "" where nothing of it was measured, and then nothing is drawn.
    """
    _, kind, columns, xlabel, ylabel = figure
    shown = {key: cell for key, cell in cells(sweep, entries).items() if key[1] in columns}
    if all(cell.value is None for cell in shown.values()):
        return ""
    labels = [row for row in rows(sweep) if any((row, column) in shown for column in columns)]
    forms = dict(sweep["columns"])
    plot = _Plot(shown, labels, {name: forms[name] for name in columns}, xlabel, ylabel)
    said = KINDS[kind](plot, path)
    if said and any(cell.value and cell.value.half for cell in shown.values()):
        said += " The thin lines with caps are 95 % intervals over the seeds."
    return said


def _bars(plot: _Plot, path: epath.PathLike) -> str:
    """A group of bars a row, a bar a column; a diamond is the paper's value."""
    width = min(0.82 / len(plot.forms), 0.35)
    names, turned = drawing.tick_names(plot.rows)
    figure, axes = drawing.new_axes(5.4 if turned else 4.4, plot.xlabel, plot.ylabel)
    papers = []
    for i, (column, (colour, _, _)) in enumerate(_styles(plot.forms).items()):
        shift = (i - (len(plot.forms) - 1) / 2) * width
        found = [(x + shift, plot.number(row, column)) for x, row in enumerate(plot.rows)]
        known = [(x, *pair) for x, pair in found if pair is not None]
        hatch = HATCHES[i % len(HATCHES)]
        looks: dict[str, Any] = {"facecolor": (colour, 0.3 if hatch else 0.75), "hatch": hatch}
        looks |= {"edgecolor": colour, "linewidth": 1.2, "label": label(column)}
        axes.bar([x for x, *_ in known], [y for _, y, _ in known], 0.9 * width, **looks)
        _whiskers(axes, known)
        values = [(x + shift, plot.paper(row, column)) for x, row in enumerate(plot.rows)]
        papers += [(x, y) for x, y in values if y is not None]
    for x, y in papers:
        axes.plot(x, y, "D", color=drawing.INK, markersize=5, zorder=5, **HOLLOW)
    turn: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), names, parse_math=False, **turn if turned else {})
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    drawing.format_axis(axes.yaxis, FORMATS, plot.forms.values())
    _legend(figure, axes, "D" if papers else "")
    drawing.save(figure, path)
    return _said("A group of bars is a row of the table, a bar a column.", bool(papers), "diamond")


def _lines(plot: _Plot, path: epath.PathLike) -> str:
    """A line a column over the rows, whose labels are x; logarithmic where x lie too close."""
    order = sorted(plot.rows, key=float)
    xs = [float(row) for row in order]
    gaps = [right - left for left, right in pairwise(xs)]
    close = len(xs) > 2 and min(gaps) < 0.06 * sum(gaps)
    log = close and xs[0] > 0
    figure, axes = drawing.new_axes(4.4, _axis_name(plot.xlabel, log), plot.ylabel)
    if log:
        axes.set_xscale("log")
        axes.minorticks_off()
    if log or not close:
        axes.set_xticks(xs, order, parse_math=False)
    papers = []
    for column, (colour, marker, dash) in _styles(plot.forms).items():
        found = [(x, plot.number(row, column)) for x, row in zip(xs, order, strict=True)]
        known = [(x, *pair) for x, pair in found if pair is not None]
        looks: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "markersize": 8,
            "linestyle": dash,
        }
        axes.plot([x for x, *_ in known], [y for _, y, _ in known], label=label(column), **looks)
        _whiskers(axes, known, colour)
        values = [(x, plot.paper(row, column)) for x, row in zip(xs, order, strict=True)]
        if paper := [(x, y) for x, y in values if y is not None]:
            axes.plot(*zip(*paper, strict=True), **looks | HOLLOW | {"linewidth": 0.8})
            papers += paper
    drawing.format_axis(axes.yaxis, FORMATS, plot.forms.values())
    _legend(figure, axes, "o" if papers else "")
    drawing.save(figure, path)
    return _said("A line is a column of the table, a mark a row.", bool(papers), "mark")


def _scatter(plot: _Plot, path: epath.PathLike) -> str:
    """A named point a row; the rows of a method are joined, dotted lines lead to the paper's."""
    (x_column, x_form), (y_column, y_form) = plot.forms.items()
    log = x_form in LOGARITHMIC
    series: dict[str, list[str]] = {}  # method -> its rows
    points: dict[str, tuple[Point, Point]] = {}  # row -> x, y and half their intervals
    papers: dict[str, Point] = {}
    for row in plot.rows:
        x, y = plot.number(row, x_column), plot.number(row, y_column)
        if x is None or y is None or (log and x[0] <= 0):
            continue
        series.setdefault(plot.cells[row, y_column].method, []).append(row)
        points[row] = (x[0], y[0]), (x[1], y[1])
        right, up = plot.paper(row, x_column), plot.paper(row, y_column)
        if right is not None and up is not None and (right > 0 or not log):
            papers[row] = right, up
    if not points:
        return ""
    figure, axes = drawing.new_axes(4.8, _axis_name(plot.xlabel, log), plot.ylabel)
    for method, (colour, marker, dash) in _styles(series).items():
        order = sorted(series[method], key=lambda row: points[row])
        x, y = zip(*(points[row][0] for row in order), strict=True)
        x_halves, y_halves = zip(*(points[row][1] for row in order), strict=True)
        looks: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 8}
        axes.plot(x, y, linestyle=dash, label=label(method), **looks)
        axes.errorbar(x, y, y_halves, x_halves, fmt="none", **BAR | {"ecolor": colour})
        for row in (row for row in order if row in papers):
            way = zip(points[row][0], papers[row], strict=True)
            axes.plot(*way, color=drawing.FAINT, linestyle=":", linewidth=1)
            axes.plot(*papers[row], linestyle="none", **looks | HOLLOW)
    if log:
        values = [x for x, _ in (*(point for point, _ in points.values()), *papers.values())]
        drawing.logarithmic(axes, values, None if x_form == "seconds" else FORMATS[x_form])
    drawing.format_axis(axes.yaxis, FORMATS, [y_form])
    axes.margins(0.18)
    _legend(figure, axes, "o" if papers else "", len(series) > 1)
    ends = [(points[row][0], papers[row]) for row in papers]
    for (right, up), (wide, high) in points.values():
        ends += [((right - wide, up), (right + wide, up)), ((right, up - high), (right, up + high))]
    for found in series.values():
        ends += pairwise(sorted(points[row][0] for row in found))
    names = []
    for method, found in series.items():
        told = f"{label(method)}, " if len(series) > 1 else ""  # by the legend
        names += [("\n".join(wrap(row.removeprefix(told), 24)), points[row][0]) for row in found]
    drawing.place_names(figure, axes, names, ends)
    drawing.save(figure, path)
    said = _said("A point is a row of the table.", bool(papers), "mark")
    if len(points) < len(plot.rows):
        least = " above 0" if log else ""
        said += f" Rows without both numbers{least} are left out."
    return said


KINDS: dict[str, Callable[[_Plot, epath.PathLike], str]] = {
    "bars": _bars,
    "lines": _lines,
    "scatter": _scatter,
}


def _styles(names: Iterable[str]) -> dict[str, Style]:
    """The methods' own styles where all the names are methods (keys or labels), else in order."""
    keys = {text: key for key, text in LABELS.items()}
    methods = {name: keys.get(name, name) for name in names}
    if all(key in drawing.STYLES for key in methods.values()):
        return {name: drawing.STYLES[key] for name, key in methods.items()}
    return {name: ORDERED[i % len(ORDERED)] for i, name in enumerate(methods)}


def _whiskers(
    axes: Axes, known: list[tuple[float, float, float]], colour: str = drawing.INK
) -> None:
    if some := [point for point in known if point[2]]:
        x, y, half = zip(*some, strict=True)
        axes.errorbar(x, y, half, fmt="none", **BAR | {"ecolor": colour})


def _legend(figure: Figure, axes: Axes, paper: str, several: bool = True) -> None:
    """Names the series, where there are several, and the mark of the paper's values."""
    handles, names = axes.get_legend_handles_labels()
    handles, names = (handles, names) if (several and len(names) > 1) or paper else ([], [])
    if paper:
        looks: dict[str, Any] = {"color": drawing.INK, "linestyle": "none", "markersize": 6}
        handles.append(Line2D([], [], marker=paper, **looks | HOLLOW))
        names.append("paper")
    names = ["\n".join(wrap(name, 32)) for name in names]
    longest = max((len(line) for name in names for line in name.split("\n")), default=0)
    columns = 4 if longest < 12 else 3 if longest < 18 else 2
    if names:
        drawing.legend(figure, handles, names, ncols=columns)


def _axis_name(name: str, log: bool) -> str:
    return f"{name} (logarithmic)" if log and "logarithmic" not in name else name


def _said(marks: str, papers: bool, mark: str) -> str:
    return f"{marks} A hollow {mark} is the paper's value." if papers else marks
