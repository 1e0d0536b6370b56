import re

import pytest
from page_reader import Reader

from robust_jax.report import sweep_page

CELLS = (
    ("small", "clean %", "a", "ours", "clean_accuracy", None),
    ("large", "clean %", "b", "ours", "clean_accuracy", 0.9),
    ("small", "tuned", "a", "ours", "tuned_params", None),
    ("large", "tuned", "b", "ours", "tuned_params", None),
)
SWEEP = {
    "title": "Two students",
    "note": "What is shown.\n\nWhat differs.",
    "runs": (("a", ()), ("b", ())),
    "seeds": (0, 1, 2),
    "columns": (("clean %", "percent"), ("tuned", "count")),
    "cells": CELLS,
    "figures": (
        ("by_student", "bars", ("clean %",), "student", "accuracy, %"),
        ("cost", "scatter", ("tuned", "clean %"), "parameters", "accuracy, %"),
    ),
}
ENTRIES = {
    (run, seed): {"ours": {"clean_accuracy": clean + 0.01 * seed, "tuned_params": 2_100_000}}
    for run, clean in (("a", 0.7), ("b", 0.8))
    for seed in range(3)
}
FACTS = {"Dataset": "digits"}
LINKS = [("a, seed 0", "../runs/a/seed_0/report/index.html")]


@pytest.fixture
def write(tmp_path):
    """Writes a report; returns its page, with every heading in one piece."""

    def write_page(sweep=SWEEP, entries=ENTRIES, facts=FACTS, links=LINKS):
        path = sweep_page.write(tmp_path, sweep, entries, facts, links)
        assert path == tmp_path / "index.html"
        return path.read_text(encoding="utf-8").replace("\u2060", "").replace("\xa0", " ")

    return write_page


def table(text):
    lines = re.findall("<tr>(.*?)</tr>", text)
    return [re.findall("<t[hd].*?>(.*?)</t[hd]>", line) for line in lines]


def test_whole_page(write, tmp_path):
    text = write()
    reader = Reader(text)
    for link in reader.links:
        assert (tmp_path / link).is_file() or link == LINKS[0][1]
    assert {"by_student.png", "by_student.pdf", "cost.png", "cost.pdf"} <= {*reader.links}
    assert table(text) == [
        ["", "clean %", "clean %, paper", "tuned"],
        ["small", "71.0 ± 2.5", "-", "2.1M"],
        ["large", "81.0 ± 2.5", "90.0", "2.1M"],
    ]
    assert "<title>Two students</title>" in text and "<dt>Dataset</dt><dd>digits</dd>" in text
    assert "<p>What is shown.</p>\n<p>What differs.</p>" in text
    assert 'alt="Bars: accuracy, % by student; clean %"' in text and "By student" in text
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text and "script" not in reader.tags


def test_the_markdown_says_the_same(write, tmp_path):
    write()
    title, shown, differs, rows, reading = (tmp_path / "table.md").read_text().split("\n\n")
    assert (title, shown, differs) == ("# Two students", "What is shown.", "What differs.")
    assert rows.splitlines()[2] == "| small | 71.0 ± 2.5 | - | 2.1M |"
    assert reading.startswith("Every number is the mean over 3 seeds.")


def test_only_what_is_in_the_table_is_explained(write):
    text = write()
    for part in ("over 3 seeds", "Student&#x27;s t", "“paper”", "“-” means", "Without ±"):
        assert part in text
    assert "fewer seeds" not in text
    no_paper = tuple((*cell[:5], None) for cell in CELLS)
    text = write({**SWEEP, "cells": no_paper})
    assert "paper" not in text and "“-” means" not in text
    text = write({**SWEEP, "cells": no_paper[:2], "figures": SWEEP["figures"][:1]})
    assert "Without ±" not in text


def test_one_seed_has_no_interval(write):
    text = write(
        {**SWEEP, "seeds": (0,)}, {key: found for key, found in ENTRIES.items() if key[1] == 0}
    )
    assert table(text)[1] == ["small", "70.0", "-", "2.1M"]
    assert "one seed" in text and "Student" not in text and "±" not in text


def test_seeds_that_are_not_finished_are_told(write):
    text = write(entries={key: found for key, found in ENTRIES.items() if key != ("a", 2)})
    assert table(text)[1][1] == "70.5 ± 6.4 (n = 2)"
    assert "fewer seeds" in text


def test_figures_without_data_go(write, tmp_path):
    write()
    assert (tmp_path / "cost.pdf").exists()
    bare = {
        key: {"ours": {"clean_accuracy": found["ours"]["clean_accuracy"]}}
        for key, found in ENTRIES.items()
    }
    text = write(entries=bare)
    assert "Not measured yet: Cost." in text and "cost.png" not in text
    assert not (tmp_path / "cost.pdf").exists() and not (tmp_path / "cost.png").exists()
    assert (tmp_path / "by_student.png").exists()


def test_everything_is_escaped(write):
    evil = "<script>alert('$title')</script>"
    sweep = {
        **SWEEP,
        "title": evil,
        "note": evil,
        "columns": ((evil, "percent"), ("tuned", "count")),
        "cells": tuple((evil, c.replace("clean %", evil), *rest) for _, c, *rest in CELLS[1::2]),
        "figures": (("f", "bars", (evil,), evil, evil),),
    }
    text = write(sweep, facts={evil: evil}, links=[(evil, f'"{evil}')])
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(&#x27;$title&#x27;)") >= 10
    Reader(text)
