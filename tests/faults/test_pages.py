"""Pages show the names of classes and files as text: nothing in a name becomes a tag."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from runs import folder_config, run

from robust_jax import contact_sheet
from robust_jax.report import page, plots, sweep_page, sweep_table

HOSTILE = {
    "a script": "<script>alert(1)</script>",
    "the end of a style": "</style><script>alert(1)</script>",
    "the end of a title": "</title></head><body onload=alert(1)>",
    "quotes": "\"'`onerror='alert(1)'",
    "an ampersand": "salt & pepper &lt;b&gt; &amp;",
    "newlines": "two\nlines\r\nand\ttabs",
    "a comment": "<!-- never closed",
    "the end of a cell": "</td></tr></table>",
    "placeholders": "$title ${body} {0} %s \\1",
    "mathematics": "$x_{$ \\frac",
    "an address": "javascript:alert(1)",
    "a right-to-left mark": "a\u202etxt.exe",
    "nothing but a space": " ",
    "no letter": "🐜 \x7f",
}
VOID = ("meta", "img", "br")


class Browser(HTMLParser):
    """What a browser would see: tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.attributes, self.text = set(), [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)

    def handle_comment(self, data):
        pytest.fail(f"a comment: {data}")


def read(path):
    """The page, with none but our own tags, and addresses of files beside it only."""
    found = Browser(path.read_text(encoding="utf-8"))
    assert not found.tags & {"script", "iframe", "object", "embed", "link", "base", "form", "b1"}
    assert not [key for key, _ in found.attributes if key.startswith("on")]
    addresses = [value for key, value in found.attributes if key in ("src", "href")]
    assert all(value and ":" not in value and not value.startswith("/") for value in addresses)
    return found


def made_run(tmp_path, name):
    """The files of a run whose classes, dataset and methods are called `name`."""
    entry = {"clean_accuracy": 0.9, "corrupted_accuracy": 0.7, "train_seconds": 3.0}
    entry["accuracy_by_corruption"] = {name: [0.7, 0.6], "fog": [0.5]}
    entry["benchmarks"] = {name: {"accuracy": 0.5}}
    dataset = {"name": name, "classes": [name, "b"], "train_images": 9, "eval_images": 40}
    summary = {
        "config": {"data.dir": name, name: [name]},
        "dataset": dataset | {"shared_images": 2},
        "methods": {name: entry, "original": entry, "ours": entry},
    }
    row = {"method": "ours", "metric": "accuracy", "set": "clean", "value": 0.9, "n": 40, "seed": 1}
    other = row | {"set": "corruption", "corruption": name, "severity": 1}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "results.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(other)}\n")
    examples = {
        "images": np.zeros((2, 16, 12, 3), np.uint8),
        "labels": np.array([0, 1]),
        "original": np.array([1, 0]),
        "ours": np.array([0, 0]),
        "head": np.array([0, 1]),
        "caption": np.array([name] * 2),
    }
    (tmp_path / "evaluate").mkdir()
    np.savez(tmp_path / "evaluate" / "examples.npz", **examples)
    return tmp_path


# Of emoji and marks that the figures' font has not.
@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("kind", HOSTILE)
def test_the_report_shows_names_as_text(tmp_path, kind):
    name = HOSTILE[kind]
    found = read(page.write(made_run(tmp_path, name)))
    text = " ".join(found.text)
    shown = name.replace("\r\n", "\n")  # as every reader of text does
    assert text.count(shown) >= 5
    assert "2 of the images of val" in text
    assert (tmp_path / "report" / "examples.png").stat().st_size > 1000


def test_a_name_that_is_not_utf8_does_not_stop_the_report(tmp_path):
    found = read(page.write(write_dir(tmp_path)))
    assert "data/\\udcff" in " ".join(found.text)


def write_dir(tmp_path):
    root = made_run(tmp_path, "plain")
    summary = json.loads((root / "summary.json").read_text())
    summary["config"]["data.dir"] = "data/\udcff"  # as Python gives the byte 255 of a name
    (root / "summary.json").write_text(json.dumps(summary))
    return root


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("kind", HOSTILE)
def test_the_report_of_a_sweep_shows_names_as_text(tmp_path, kind):
    name = HOSTILE[kind]
    sweep = {
        "title": name,
        "note": name,
        "runs": ((name, ()),),
        "seeds": (0,),
        "columns": ((name, "percent"),),
        "cells": ((name, name, name, "ours", "clean_accuracy", 0.5),),
        "figures": (("by_name", "bars", (name,), name, name),),
    }
    entries = {(name, 0): {"ours": {"clean_accuracy": 0.7}}}
    links = [(name, "../runs/a/index.html")]
    found = read(sweep_page.write(tmp_path, sweep, entries, {name: name}, links))
    assert len(found.text) > 8
    markdown = (tmp_path / "table.md").read_text()
    assert "<" not in markdown
    lines = sweep_table.markdown(sweep, entries).splitlines()
    assert len(lines) == 3 and lines[2].count(" | ") == lines[1].count(" | ") == 2


def test_a_name_takes_one_line_of_the_examples(tmp_path):
    examples = {
        "images": np.zeros((1, 16, 12, 3), np.uint8),
        **{key: np.array([0]) for key in ("labels", "original", "ours", "head")},
        "caption": np.array(["fog"]),
    }
    drawn = {}
    for name in ("two\nlines", "two lines"):
        path = tmp_path / f"{len(drawn)}.png"
        plots.example_grid(examples, (name, "b"), path)
        drawn[name] = path.read_bytes()
    assert drawn["two\nlines"] == drawn["two lines"]


@pytest.mark.parametrize("name", ["$x_{$", "<script>", "two\nlines", "a & b", "\\frac{"])
def test_a_contact_sheet_shows_names_as_text(tmp_path, name):
    rows = [(name, np.zeros((2, 8, 8, 3), np.uint8), [name, name])]
    contact_sheet.write(rows, str(tmp_path / "sheet.png"))
    assert Image.open(tmp_path / "sheet.png").size[0] > 100


def test_a_contact_sheet_reads_images_as_all_do(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 10), "red").save(tmp_path / "a.jpg", exif=exif)
    (image,) = contact_sheet.opened([tmp_path / "a.jpg"])
    assert image.size == (10, 30)
    (tmp_path / "b.jpg").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"b.jpg: cannot decode the image; got 6 bytes"):
        contact_sheet.opened([tmp_path / "b.jpg"])


FOLDERS = ["<script>alert(1)<script>", "\"'&amp;", "two\nlines", "<!-- a", "$x_{$", "-rf", "{0}%s"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_whole_run_on_hostile_names(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for label, name in enumerate(FOLDERS):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for file in ("a\nb.png", "<img src=x>.png", "--.png", "'\".png", *"123456"):
                pixels = rng.integers(0, 100, (32, 32, 3), np.uint8) + np.uint8(20 * label)
                path = tmp_path / "data" / part / name / file
                Image.fromarray(pixels).save(path.with_suffix(".png"))
    config = folder_config(tmp_path / "data")
    run(config, tmp_path / "run")
    found = read(tmp_path / "run" / "report" / "index.html")
    text = "\n".join(found.text)
    assert all(name in text for name in FOLDERS)
