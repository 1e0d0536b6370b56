import copy

import pytest
from scipy import stats

from robust_jax.report import sweep_table
from robust_jax.report.sweep_table import Value

SWEEP = {
    "title": "Students",
    "note": "",
    "runs": (("small", ()), ("big", ())),
    "seeds": (0, 1, 2),
    "columns": (("clean %", "percent"), ("tuned", "count"), ("A %", "percent")),
    "cells": (
        ("big student", "clean %", "big", "ours", "clean_accuracy", 0.847),
        ("big student", "tuned", "big", "ours", "tuned_params", None),
        ("small | student", "clean %", "small", "ours", "clean_accuracy", None),
        ("big student", "A %", "big", "ours", "benchmarks/imagenet_a/accuracy", None),
    ),
    "figures": (("clean", "bars", ("clean %",), "student", "accuracy, %"),),
}
CLEAN = {("big", 0): 0.7, ("big", 1): 0.74, ("big", 2): 0.72, ("small", 1): 0.5}
ENTRIES = {
    key: {"ours": {"clean_accuracy": value, "tuned_params": 2_100_000}}
    for key, value in CLEAN.items()
}


def value_of(metric, entry):
    """The value of a table with one cell and one seed."""
    cell = ("row", "x", "run", "ours", metric, None)
    sweep = {"columns": (("x", "number"),), "cells": (cell,), "seeds": (0,)}
    return sweep_table.cells(sweep, {("run", 0): {"ours": entry}})["row", "x"].value


def test_interval_of_the_mean_is_scipys():
    numbers = [0.61, 0.66, 0.62, 0.69]
    found = Value.over(numbers)
    low, high = stats.ttest_1samp(numbers, 0).confidence_interval(0.95)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert found.n == 4


def test_one_seed_has_no_interval_and_equal_seeds_one_of_0():
    assert Value.over([0.1]) == Value(0.1, None, 1)
    assert Value.over([0.1, 0.1, 0.1]) == Value(0.1, 0.0, 3)


def test_grid():
    assert sweep_table.to_grid(SWEEP, ENTRIES) == [
        ["", "clean %", "clean %, paper", "tuned", "A %"],
        ["big student", "72.0 ± 5.0", "84.7", "2.1M", "-"],  # 4.303 * 0.02 / sqrt(3)
        ["small | student", "50.0 (n = 1)", "-", "-", "-"],
    ]


def test_a_cell_keeps_its_numbers_by_seed():
    cell = sweep_table.cells(SWEEP, ENTRIES)["big student", "clean %"]
    assert (cell.seeds, cell.paper, cell.method) == ({0: 0.7, 1: 0.74, 2: 0.72}, 0.847, "ours")


def test_a_table_without_a_run_has_dashes_alone():
    grid = sweep_table.to_grid(SWEEP, {})
    assert [set(line[1:]) for line in grid[1:]] == [{"-", "84.7"}, {"-"}]


def test_paths():
    by_corruption = {"gaussian_noise": [0.2, 0.4], "shot_noise": [0.5], "fog": [0.9]}
    entry = {
        "train_seconds": 7,
        "accuracy_by_corruption": by_corruption,
        "benchmarks": {"c": {"accuracy_by_corruption": {"fog": [0.1]}, "mce": None}},
        "transfer": {"pets": 0.25},
    }
    assert value_of("train_seconds", entry).mean == 7
    assert value_of("category/noise", entry).mean == pytest.approx(0.4)  # a mean of means
    assert value_of("benchmarks/c/category/weather", entry).mean == 0.1
    assert value_of("transfer/pets", entry).mean == 0.25
    assert value_of(("transfer/pets", "category/weather"), entry).mean == pytest.approx(0.575)


@pytest.mark.parametrize(
    "metric",
    [
        *("no", "benchmarks/c/mce", "benchmarks/c", "train_seconds/x", "category/noise"),
        ["train_seconds", "transfer/cars"],  # the mean of all or none
    ],
)
def test_what_was_not_measured_has_no_value(metric):
    entry = {"train_seconds": 7, "benchmarks": {"c": {"mce": None}}}
    assert value_of(metric, entry) is None


@pytest.mark.parametrize(
    ("form", "values", "text"),
    [
        ("percent", [0.731, 0.741], "73.6 ± 6.4"),
        ("fraction", [0.8, 0.9], "0.85 ± 0.64"),
        ("count", [2_100_000, 2_100_000], "2.1M"),
        ("count", [2_100_000, 2_110_000], "2.1M ± 64k"),
        ("seconds", [36.0, 36.3], "36.1 ± 1.9"),
        ("flops", [1.234e15], "1.23P"),
        ("flops", [999_900.0], "1M"),
        ("flops", [12.0], "12"),
        ("number", [0.001234], "0.00123"),
    ],
)
def test_formats(form, values, text):
    assert sweep_table.shown(Value.over(values), form) == text


def test_markdown_and_terminal_show_the_grid():
    head, rule, big, small = sweep_table.markdown(SWEEP, ENTRIES).splitlines()
    assert head == "|  | clean % | clean %, paper | tuned | A % |"
    assert rule == "| :-- | --: | --: | --: | --: |"
    assert big == "| big student | 72.0 ± 5.0 | 84.7 | 2.1M | - |"
    assert small.startswith("| small \\| student | 50.0")
    lines = sweep_table.text(SWEEP, ENTRIES).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert lines[2].split() == ["big", "student", "72.0", "±", "5.0", "84.7", "2.1M", "-"]


def test_lists_from_a_file_are_as_good_as_tuples():
    plain = {**SWEEP, "cells": [list(cell) for cell in SWEEP["cells"]]}
    sweep_table.validate(plain)
    assert sweep_table.to_grid(plain, ENTRIES) == sweep_table.to_grid(SWEEP, ENTRIES)


CELL = SWEEP["cells"][2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": ((*CELL[:1], "clean", *CELL[2:]),)}, "unknown column of row 'small . student'"),
        ({"cells": ((*CELL[:2], "smal", *CELL[3:]),)}, "got 'smal'; .*; did you mean 'small'"),
        ({"cells": ((*CELL[:4], "category/nois", None),)}, "got 'nois'; .*; did you mean 'noise'"),
        ({"cells": (CELL, CELL)}, "the same cell twice"),
        ({"columns": (("clean %", "percent"), ("clean %", "count"))}, "the same column twice"),
        ({"columns": (("clean %", "per cent"),)}, "unknown format of column 'clean %'"),
        ({"figures": (("f", "pie", ("A %",), "", ""),)}, "unknown kind of figure 'f'; got 'pie'"),
        ({"figures": (("f", "bars", ("B %",), "", ""),)}, "unknown column of figure 'f'"),
        (
            {"figures": (("f", "scatter", ("A %",), "", ""),)},
            "a column for x and one for y; got ..A %.. for",
        ),
        ({"figures": (("f", "lines", ("A %",), "", ""),)}, "got row 'big student' for figure 'f'"),
        ({"figures": SWEEP["figures"] * 2}, "the same figure twice; got 'clean'"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        sweep_table.validate({**copy.deepcopy(SWEEP), **changes})


def test_a_sweep_that_fits_is_accepted():
    lines = ("lines", "lines", ("tuned",), "", "")
    cells = (*SWEEP["cells"], ("1e-3", "more", "big", "ours", "x", None))
    figure = ("f", "lines", ("more",), "learning rate", "")
    columns = (*SWEEP["columns"], ("more", "number"))
    sweep_table.validate({**SWEEP, "columns": columns, "cells": cells, "figures": (figure,)})
    with pytest.raises(ValueError, match="rows of lines are numbers"):
        sweep_table.validate({**SWEEP, "figures": (lines,)})
