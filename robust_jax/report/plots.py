"""The figures of a run's report: each function draws one, as PNG (`path`) and beside it as PDF."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from robust_jax.report import CATEGORIES, category, drawing, label
from robust_jax.report.drawing import FAINT, INK, LEADER, TEXT, new_axes, save

GOOD, BAD = "#00694b", "#b03a00"
MAX_EXAMPLES = 12  # three by four: still readable on a telephone
EXAMPLE_KEYS = ("images", "labels", "original", "ours", "head", "caption")
Points = Mapping[str, tuple[float, float]]  # method -> x, y


def _scatter(figure: Figure, axes: Axes, points: Points) -> None:
    """Draws the markers and writes each method's name near its marker."""
    for method, (x, y) in points.items():
        axes.plot(x, y, **drawing.style(method, 10) | {"linestyle": "none"})
    axes.margins(0.18)
    drawing.place_names(figure, axes, [(label(m), point) for m, point in points.items()])


def accuracy_by_corruption(curves: Mapping[str, Mapping[str, float]], path: epath.PathLike) -> None:
    """A row a corruption, a marker a method; the rows are grouped by category.

    Args:
        curves: method -> corruption -> accuracy in [0, 1], mean over the severities.
    """
    known = [name for members in CATEGORIES.values() for name in members]
    measured = list(dict.fromkeys(name for curve in curves.values() for name in curve))
    measured.sort(key=lambda name: known.index(name) if name in known else len(known))
    groups = [category(name) for name in measured]
    # Every category starts with a heading, 0.8 rows high.
    heights = {n: i + 0.8 * len(set(groups[: i + 1])) for i, n in enumerate(measured)}
    figure, axes = new_axes(1.4 + 0.36 * (max(heights.values()) + 1), "accuracy, %")
    for name, height in heights.items():
        values = [100 * curve[name] for curve in curves.values() if name in curve]
        axes.plot([min(values), max(values)], [height, height], color="#c4c4c4", linewidth=1.5)
    shifts = np.linspace(-0.24, 0.24, len(curves)) if len(curves) > 1 else [0.0]
    for shift, (method, curve) in zip(shifts, curves.items(), strict=True):
        x, y = [100 * v for v in curve.values()], [heights[name] + shift for name in curve]
        axes.plot(x, y, label=label(method), **drawing.style(method, 7) | {"linestyle": "none"})
    for name, group in reversed(list(zip(measured, groups, strict=True))):
        if name == measured[groups.index(group)]:
            place, side = (-0.02, heights[name] - 0.8), axes.get_yaxis_transform()
            axes.text(*place, group, transform=side, ha="right", va="center", weight="bold", **TEXT)
    axes.set_yticks(list(heights.values()))
    axes.set_yticklabels([name.replace("_", " ") for name in heights], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(max(heights.values()) + 0.7, -0.4)
    drawing.legend(figure, ncols=3)
    save(figure, path)


def accuracy_by_severity(curves: Mapping[str, Mapping[int, float]], path: epath.PathLike) -> None:
    """A line a method over the severities, named at its right end.

    Args:
        curves: method -> severity -> accuracy in [0, 1]; severity 0 is the clean images.
    """
    figure, axes = new_axes(4.6, "severity of the corruption", "accuracy, %")
    for method, curve in curves.items():
        x = sorted(curve)
        axes.plot(x, [100 * curve[s] for s in x], **drawing.style(method, 8))
    severities = sorted({s for curve in curves.values() for s in curve})
    axes.set_xticks(severities, ["clean" if s == 0 else str(s) for s in severities])
    # Isotonic regression moves the names as little as possible to keep them a line apart.
    ends = {m: 100 * curve[max(curve)] for m, curve in curves.items()}
    order = sorted(ends, key=lambda m: ends[m])
    steps = 0.06 * np.ptp(axes.get_ylim()) * np.arange(len(order))
    places = isotonic_regression([ends[m] for m in order] - steps).x + steps
    arrow = LEADER | {"relpos": (0, 0.5), "shrinkB": 5}
    looks = TEXT | {"arrowprops": arrow, "textcoords": axes.get_yaxis_transform(), "va": "center"}
    for method, place in zip(order, places, strict=True):
        axes.annotate(label(method), (max(curves[method]), ends[method]), (1.04, place), **looks)
    save(figure, path)


def clean_against_corrupted(points: Points, path: epath.PathLike) -> None:
    """A marker a method: accuracy on clean images to the right, on corrupted images upwards.

    Args:
        points: method -> (clean accuracy, corrupted accuracy), in [0, 1].
    """
    figure, axes = new_axes(4.8, "accuracy on clean images, %", "accuracy on corrupted images, %")
    scaled = {m: (100 * clean, 100 * corrupted) for m, (clean, corrupted) in points.items()}
    _scatter(figure, axes, scaled)
    save(figure, path)


def accuracy_against_seconds(points: Points, path: epath.PathLike) -> None:
    """A marker a method: training time to the right (logarithmic), corrupted accuracy upwards.

    Args:
        points: method -> (training seconds > 0, corrupted accuracy in [0, 1]).
    """
    figure, axes = new_axes(4.8, "training time (logarithmic)", "accuracy on corrupted images, %")
    scaled = {m: (time, 100 * accuracy) for m, (time, accuracy) in points.items()}
    drawing.logarithmic(axes, [time for time, _ in scaled.values()])
    _scatter(figure, axes, scaled)
    save(figure, path)


def routing_histogram(
    clean: np.ndarray, shifted: np.ndarray, threshold: float, path: epath.PathLike
) -> None:
    """The routing scores of clean and of shifted images, and the threshold between the heads.

    The outermost bars hold everything beyond them.

    Args:
        clean: f32[n] scores; higher = more likely shifted.
        shifted: f32[m] scores.
        threshold: a score above it is sent to the unclean head.
    """
    scores = np.concatenate([clean, shifted]).astype(np.float64)
    if not clean.size or not shifted.size or not np.isfinite([*scores, threshold]).all():
        raise ValueError(
            f"routing scores must be finite and not empty; got {clean.size} clean, {shifted.size} "
            f"shifted, {np.isfinite(scores).sum()} finite, threshold {threshold}; evaluate again"
        )
    low, high = np.percentile(scores, [1, 99])
    edges = np.histogram_bin_edges([min(low, threshold), max(high, threshold)], bins=30)
    figure, axes = new_axes(
        4.2, "routing score (higher: more likely shifted)", "share of images, %"
    )
    for values, colour, hatch in ((clean, "#0072b2", ""), (shifted, "#e69f00", "////")):
        looks: dict[str, Any] = {"facecolor": (colour, 0.35), "edgecolor": colour, "hatch": hatch}
        looks |= {"label": "shifted images" if hatch else "clean images", "linewidth": 1.6}
        weights = np.full(values.size, 100 / values.size)
        values = np.clip(values, edges[0], edges[-1])
        axes.hist(values, edges.tolist(), weights=weights, histtype="stepfilled", **looks)
    axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.6, label="threshold")
    drawing.legend(figure, ncols=3)
    save(figure, path)


def example_grid(
    examples: Mapping[str, np.ndarray], classes: Sequence[str], path: epath.PathLike
) -> None:
    """The first images with what the original and our model answered, and which head did.

    Args:
        examples: images uint8[m, h, w, 3]; labels, original, ours int[m]; head int[m] (0 clean,
            1 unclean, 2 combined); caption str[m].
        classes: the class names.
    """
    shown = list(zip(*(examples[key] for key in EXAMPLE_KEYS), strict=True))[:MAX_EXAMPLES]
    height = 3.3 * -(-len(shown) // 3)  # a row is an image of 2 inches and five lines of text
    figure = Figure(figsize=(6.4, height), dpi=200)
    for i, (image, truth, original, ours, head, caption) in enumerate(shown):
        bottom = 1 - (3.3 * (i // 3) + 2.1) / height
        axes = figure.add_axes((i % 3 / 3 + 0.01, bottom, 0.31, 2.0 / height), anchor="SW")
        axes.set_axis_off()
        axes.imshow(image, interpolation="nearest" if len(image) < 96 else "antialiased")
        lines = [(str(caption), FAINT), (f"true: {classes[truth]}", INK)]
        for who, answer in (("original", original), ("ours", ours)):
            mark, colour = ("✓", GOOD) if answer == truth else ("✗", BAD)
            lines.append((f"{mark} {who}: {classes[answer]}", colour))
        lines.append((f"by the {('clean', 'unclean', 'combined')[head]} head", INK))
        for line, (text, colour) in enumerate(lines):
            text = " ".join(text.split())  # of one line, whatever a class is called
            text = text if len(text) <= 29 else f"{text[:28]}…"
            looks = TEXT | {"color": colour, "fontsize": 9.3, "va": "top"}
            looks |= {"xycoords": "axes fraction", "textcoords": "offset points"}
            axes.annotate(text, (0, 0), (0, -4 - 14 * line), **looks)
    save(figure, path)
