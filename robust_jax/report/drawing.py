"""What all figures share: axes, styles, the placing of names, and saving as PNG and PDF.

No pyplot, so nothing global is touched. Colours are those of Okabe and Ito (2008); every method
also has its own marker and dash, so the figures read in grey.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from textwrap import wrap
from typing import Any

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import Bbox

Point = tuple[float, float]

INK, FAINT = "#222222", "#767676"
TEXT: dict[str, Any] = {"fontsize": 11, "color": INK, "parse_math": False}  # a name may hold "$"
LEADER = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.7}
LEGEND: dict[str, Any] = {"loc": "outside upper center", "frameon": False, "fontsize": 11}

STYLES: dict[str, tuple[str, str, Any]] = {  # method -> colour, marker, dash
    "original": ("#000000", "s", (0, (1, 1.5))),
    "teacher": ("#777777", "P", (0, (1, 3))),
    "teacher_clean": ("#777777", "P", (0, (1, 6))),
    "apt": ("#e69f00", "^", (0, (5, 2))),
    "full_finetune": ("#56b4e9", "D", (0, (5, 1.5, 1, 1.5))),
    "wise_ft": ("#cc79a7", "v", (0, (8, 3))),
    "lp_ft": ("#d55e00", "X", (0, (3, 1, 1, 1, 1, 1))),
    "ours": ("#0072b2", "o", "-"),
}
VARIANTS = {
    "no_kd": "<",
    "no_kld": ">",
    "no_umc": "p",
    "max_logit": "h",
    "product": "H",
    "gate": "*",
}
STYLES |= {f"ours_{name}": ("#0072b2", marker, "-") for name, marker in VARIANTS.items()}
TIMES = {0.001: "1 ms", 0.003: "3 ms", 0.01: "10 ms", 0.03: "30 ms"}
TIMES |= {
    0.1: "0.1 s",
    0.3: "0.3 s",
    1: "1 s",
    3: "3 s",
    10: "10 s",
    30: "30 s",
    60: "1 min",
    180: "3 min",
}
TIMES |= {600: "10 min", 1800: "30 min", 3600: "1 h", 10800: "3 h", 36000: "10 h"}
TIMES |= {86400: "1 day", 259200: "3 days", 864000: "10 days"}


def style(method: str, size: float) -> dict[str, Any]:
    """How the line and the markers of a method look."""
    colour, marker, dash = STYLES.get(method, (FAINT, "d", ":"))
    face = "white" if method.startswith("ours_") else colour  # variants are hollow
    looks = {"color": colour, "marker": marker, "linestyle": dash}
    return looks | {"markerfacecolor": face, "markersize": size}


def new_axes(height: float, xlabel: str, ylabel: str = "") -> tuple[Figure, Axes]:
    """A figure 1280 pixels wide and `height` inches high, with empty axes."""
    figure = Figure(figsize=(6.4, height), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=11, colors=INK)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    # No line starts with "%": wrap does not break at this space.
    xlabel, ylabel = (name.replace(" %", "\N{NO-BREAK SPACE}%") for name in (xlabel, ylabel))
    axes.set_xlabel("\n".join(wrap(xlabel, 66)), **TEXT)
    axes.set_ylabel("\n".join(wrap(ylabel, 40)), **TEXT)
    return figure, axes


def legend(figure: Figure, *entries: Any, ncols: int) -> None:
    """Writes the legend above the axes.

    Args:
        entries: handles and names; none for those of the axes.
    """
    for text in figure.legend(*entries, ncols=ncols, **LEGEND).get_texts():
        text.set_parse_math(False)


def save(figure: Figure, path: epath.PathLike) -> None:
    """Writes the figure as PNG and beside it as PDF."""
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Without a date the same numbers give the same bytes.
    for kind, metadata in (("png", None), ("pdf", {"CreationDate": None})):
        with target.with_suffix(f".{kind}").open("wb") as file:
            figure.savefig(file, format=kind, metadata=metadata)


def logarithmic(
    axes: Axes, values: Sequence[float], name: Callable[[float], str] | None = None
) -> None:
    """Makes the x axis logarithmic, with a factor of two beside the values, which must be > 0.

    Args:
        name: writes a value at its tick; None for seconds.
    """
    low, high = min(values) / 2, max(values) * 2
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.minorticks_off()
    ticks = TIMES if name is None else {value: name(value) for value in _round(low, high)}
    shown = [value for value in ticks if low <= value <= high]
    shown = shown[:: -(-len(shown) // 7)] if shown else []  # more would touch
    axes.set_xticks(shown, [ticks[value] for value in shown])


def _round(low: float, high: float) -> list[float]:
    """Round numbers of a logarithmic axis, the densest that are at most seven."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        values = [step * 10.0**k for k in decades for step in steps]
        values = [value for value in values if low <= value <= high]
        if len(values) <= 7:
            break
    return values


def format_axis(
    axis: Axis, formats: Mapping[str, Callable[[float], str]], used: Iterable[str]
) -> None:
    """Names the ticks of an axis in its format, where all that it shows has the same one.

    Percentages, fractions and plain numbers keep the usual ticks.
    """
    names = set(used)
    if len(names) == 1 and (name := names.pop()) in ("count", "seconds", "flops"):
        axis.set_major_formatter(FuncFormatter(lambda value, _: formats[name](value)))


def tick_names(names: Sequence[str]) -> tuple[list[str], bool]:
    """Breaks the names of groups along the x axis into lines, and says whether to turn them."""
    width = 58 // len(names)
    upright = [wrap(name, max(width, 7), break_long_words=False) for name in names]
    if all(len(lines) <= 3 and max(map(len, lines), default=0) <= width for lines in upright):
        return ["\n".join(lines) for lines in upright], False
    return ["\n".join(wrap(name, 24)) for name in names], True


def place_names(
    figure: Figure,
    axes: Axes,
    names: Sequence[tuple[str, Point]],
    lines: Sequence[tuple[Point, Point]] = (),
) -> None:
    """Writes each name near its point, at the nearest place that covers least.

    Everything else must be drawn before: the layout is fixed here.

    Args:
        lines: the ends of lines, which a name would rather cross than be far away.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the places found below hold for this layout only
    renderer, dot = FigureCanvasAgg(figure).get_renderer(), figure.dpi / 72
    centres = [axes.transData.transform(point) for _, point in names]
    taken = [Bbox([c - 6 * dot, c + 6 * dot]) for c in centres]
    drawn, frame = [], axes.get_window_extent()
    for line in lines:  # an interval may reach below 0, where a logarithmic axis has no place
        start, end = np.clip(axes.transData.transform(line), frame.min, frame.max)
        for part in np.linspace(0, 1, 2 + int(np.hypot(*(end - start)) / (8 * dot))):
            mid = start + part * (end - start)
            drawn.append(Bbox([mid - 4 * dot, mid + 4 * dot]))
    sides = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
    for (name, point), centre in zip(names, centres, strict=True):
        note = axes.annotate(name, point, ha="center", va="center", **TEXT)
        half = np.divide(note.get_window_extent(renderer).size, 2) + dot
        least = math.inf
        for radius, side in product((7, 14, 24, 36, 50, 70, 95), sides):
            place = centre + np.array(side) * (radius * dot + half)
            box = Bbox([place - half, place + half])
            inside = frame.contains(*box.min) and frame.contains(*box.max)
            hidden = sum(box.overlaps(other) for other in taken) + (0 if inside else len(taken))
            crossed = sum(box.overlaps(other) for other in drawn)
            if (cost := 100 * hidden + crossed + radius / 10) < least:
                least, best = cost, (place, box, radius)
        place, box, radius = best
        taken.append(box)
        note.remove()
        where: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center"}
        where |= {"xytext": (place - centre) / dot, "arrowprops": LEADER if radius > 7 else None}
        axes.annotate(name, point, **where, **TEXT)
