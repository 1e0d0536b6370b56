import itertools

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from robust_jax.report import drawing, sweep_plots, sweep_table

NAMES = (
    "ResNet-50 supervised",
    "ViT-S/16 (legacy, 48M)",
    "un$known_{",
    "CLIP ViT-L/14 at 336 px",
    *("ViT-B/16 augreg", "CLIP RN50", "CLIP RN101", "UniCL Swin-Tiny"),
)
COLUMNS = ("clean %", "corrupted %", "ImageNet-A %", "ImageNet-R %", "ObjectNet %")
VALUES = {"percent": 0.6, "count": 2e6, "seconds": 40.0, "flops": 3e15, "number": 3.0}


def made_up(rows, columns, *, method=lambda row: "ours", papers=(), spread=0.01):
    """A sweep with a run a row and three seeds; every value grows with the row."""
    cells, entries = [], {}
    for (i, row), (column, form) in itertools.product(enumerate(rows), columns.items()):
        mean = VALUES[form] * (1 + 0.05 * i)
        paper = 1.2 * mean if (row, column) in papers else None
        cells.append((row, column, f"r{i}", method(row), column, paper))
        for seed in range(3):
            entry = entries.setdefault((f"r{i}", seed), {}).setdefault(method(row), {})
            entry[column] = mean * (1 + spread * (seed - 1))
    runs = [(f"r{i}", ()) for i in range(len(rows))]
    sweep = {"runs": runs, "seeds": (0, 1, 2), "columns": tuple(columns.items()), "cells": cells}
    return sweep, entries


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """Draws and checks the files; returns what was said, and the figure."""
    kept = []
    save = drawing.save
    monkeypatch.setattr(
        drawing, "save", lambda figure, path: kept.append(figure) or save(*kept, path)
    )

    def draw_one(made, kind, columns, xlabel="student", ylabel="accuracy, %"):
        sweep, entries = made
        figure, path = ("f", kind, tuple(columns), xlabel, ylabel), tmp_path / "f.png"
        sweep_table.validate({**sweep, "figures": (figure,)})
        said = sweep_plots.draw(sweep, entries, figure, path)
        with Image.open(path) as image:
            assert image.size[0] == 1280 and np.asarray(image.convert("L")).std() > 5
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
        return said, kept[0]

    return draw_one


def overlaps(figure):
    """The pairs of texts that cover each other; turned ones are left out."""
    figure.draw_without_rendering()
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text()]
    upright = [t for t in texts if t.get_rotation() in (0, 90)]
    boxes = [(t.get_text(), Text.get_window_extent(t)) for t in upright]  # without its arrow
    pairs = itertools.combinations(boxes, 2)
    return [(a, b) for (a, box), (b, other) in pairs if box.overlaps(other)]


def whiskers(figure):
    """Half the length of every interval along y."""
    (axes,) = figure.axes
    segments = [s for c in axes.collections for s in c.get_segments()]
    return [abs(end[1] - start[1]) / 2 for start, end in segments if start[0] == end[0]]


@pytest.mark.parametrize(("rows", "columns"), [(8, 5), (2, 1), (3, 2), (5, 4)])
def test_bars(rows, columns, draw):
    forms = dict.fromkeys(COLUMNS[:columns], "percent")
    papers = {(NAMES[0], COLUMNS[0]), (NAMES[1], COLUMNS[columns - 1])}
    said, figure = draw(made_up(NAMES[:rows], forms, papers=papers), "bars", forms)
    (axes,) = figure.axes
    assert len(axes.patches) == rows * columns
    assert sum(line.get_marker() == "D" for line in axes.lines) == 2
    assert "hollow diamond" in said and "95 % intervals" in said
    heights = [patch.get_height() for patch in axes.patches[:rows]]
    assert heights == pytest.approx([60 * (1 + 0.05 * i) for i in range(rows)])
    half = 4.302653 * 0.6 / np.sqrt(3)  # of 59.4, 60.0, 60.6
    assert whiskers(figure)[0] == pytest.approx(half)
    assert len({patch.get_hatch() for patch in axes.patches}) == columns
    assert not overlaps(figure)


def test_without_papers_and_spread_neither_is_explained(draw):
    made = made_up(NAMES[:2], {"clean %": "percent"}, spread=0)
    said, figure = draw(made, "bars", ["clean %"])
    assert said == "A group of bars is a row of the table, a bar a column."
    assert not whiskers(figure) and not figure.legends


def test_a_missing_bar_leaves_the_papers_value(draw):
    sweep, entries = made_up(NAMES[:2], {"clean %": "percent"}, papers={(NAMES[1], "clean %")})
    del entries["r1", 0], entries["r1", 1], entries["r1", 2]
    _, figure = draw((sweep, entries), "bars", ["clean %"])
    (axes,) = figure.axes
    assert len(axes.patches) == 1
    (paper,) = [line for line in axes.lines if line.get_marker() == "D"]
    assert paper.get_xydata() == pytest.approx(np.array([[1, 0.6 * 1.05 * 120]]))


def test_counts_are_written_as_in_the_table(draw):
    _, figure = draw(made_up(NAMES[:2], {"tuned": "count"}), "bars", ["tuned"])
    assert "1M" in [text.get_text() for text in figure.axes[0].get_yticklabels()]


def test_lines_of_methods_have_their_own_styles(draw):
    rows, forms = ("2", "0.1", "1"), {"ours": "percent", "full fine-tuning": "percent"}
    said, figure = draw(made_up(rows, forms, papers={("1", "ours")}), "lines", forms)
    (axes,) = figure.axes
    ours, full = (line for line in axes.lines if line.get_label() in forms)
    styles = drawing.STYLES
    assert (ours.get_color(), ours.get_marker()) == styles["ours"][:2]
    assert (full.get_color(), full.get_marker()) == styles["full_finetune"][:2]
    assert list(ours.get_xdata()) == [0.1, 1, 2] and axes.get_xscale() == "linear"
    assert ours.get_ydata() == pytest.approx([63, 66, 60])
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert [list(line.get_xdata()) for line in hollow] == [[1]] and "hollow mark" in said
    assert len(whiskers(figure)) == 6 and not overlaps(figure)


def test_lines_whose_x_lie_close_get_a_logarithmic_axis(draw):
    _, figure = draw(made_up(("1", "2", "10", "100"), {"a": "percent"}), "lines", ["a"], "samples")
    (axes,) = figure.axes
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "samples (logarithmic)"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "2", "10", "100"]


@pytest.mark.parametrize("form", ["count", "seconds", "flops", "percent"])
def test_scatter(form, draw):
    papers = {(row, column) for row in NAMES[:3] for column in ("x", "y")} | {(NAMES[3], "y")}
    forms = {"x": form, "y": "percent"}
    made = made_up(
        NAMES, forms, method=lambda row: "apt" if "CLIP" in row else "ours", papers=papers
    )
    _, figure = draw(made, "scatter", ["x", "y"])
    (axes,) = figure.axes
    assert axes.get_xscale() == ("linear" if form == "percent" else "log")
    joined = {line.get_label(): len(line.get_xdata()) for line in axes.lines}
    assert joined["APT"] == 3 and joined["ours"] == 5
    assert sum(line.get_markerfacecolor() == "white" for line in axes.lines) == 3
    assert {t.get_text().replace("\n", " ") for t in axes.texts} == set(NAMES)
    assert not overlaps(figure)


def test_names_leave_out_what_the_legend_tells(draw):
    forms, rows = {"x": "percent", "y": "percent"}, ("APT, 1M", "APT, 2M", "ours, 1M")
    made = made_up(rows, forms, method=lambda row: row.split(",")[0].lower())
    _, figure = draw(made, "scatter", forms)
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["1M", "1M", "2M"]


def test_an_interval_may_reach_below_0_on_a_logarithmic_axis(draw):
    forms = {"x": "seconds", "y": "percent"}
    _, figure = draw(made_up(NAMES, forms, spread=0.6), "scatter", forms)
    assert len(figure.axes[0].texts) == 8 and not overlaps(figure)


def test_a_row_at_0_has_no_place_on_a_logarithmic_axis(draw):
    sweep, entries = made_up(NAMES[:3], {"x": "count", "y": "percent"})
    for seed in range(3):
        entries["r0", seed]["ours"]["x"] = 0
    said, figure = draw((sweep, entries), "scatter", ["x", "y"])
    assert {t.get_text() for t in figure.axes[0].texts} == set(NAMES[1:3])
    assert "Rows without both numbers above 0 are left out." in said


@pytest.mark.parametrize("kind", ["bars", "lines", "scatter"])
def test_nothing_measured_draws_nothing(kind, tmp_path):
    sweep, entries = made_up(("1", "2"), {"x": "percent", "y": "percent"})
    figure, path = ("f", kind, ("x", "y"), "", ""), tmp_path / "f.png"
    assert sweep_plots.draw(sweep, {}, figure, path) == "" and not path.exists()
    assert sweep_plots.draw(sweep, entries, figure, path) and path.exists()


@pytest.mark.parametrize("form", [None, "count"])
@pytest.mark.parametrize("values", [[1.0, 2.0], [0.02, 7e5], [3600.0], [1.0, 1e12]])
def test_a_logarithmic_axis_has_few_ticks_that_are_named(values, form):
    _, axes = drawing.new_axes(4, "x")
    drawing.logarithmic(axes, values, sweep_table.FORMATS.get(form))
    assert 1 <= len(axes.get_xticks()) <= 7
    assert len({t.get_text() for t in axes.get_xticklabels()}) == len(axes.get_xticks())


def test_names_keep_off_the_intervals(draw):
    forms = {"x": "percent", "y": "percent"}
    _, figure = draw(made_up(NAMES[:4], forms), "scatter", forms)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    ends = [np.array(s) for found in axes.collections for s in found.get_segments()]
    points = np.concatenate([np.linspace(start, end, 50) for start, end in ends])
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    covered = [p for p in axes.transData.transform(points) for box in boxes if box.contains(*p)]
    assert len(ends) == 8 and len(boxes) == 4 and not covered
