"""What is written into documents from the code: tables, and the API reference."""

import re
import sys

import pytest
from runs import ROOT

from robust_jax import config as config_lib

DOCS = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_every_key_is_in_the_document():
    table = (ROOT / "docs" / "configs.md").read_text().partition("<!-- table configs -->")[2]
    named = set(re.findall(r"^\| `([\w.]+)`", table, re.MULTILINE))
    groups = {
        "SECTION": config_lib.TRAINED_SECTIONS,
        "MIXTURE": ("teacher.mixture", "augmented.mixture", "selection.mixture"),
    }
    told = []
    for name in named:
        group, _, key = name.partition(".")
        told += [f"{section}.{key}" for section in groups[group]] if group in groups else [name]
    assert sorted(told) == sorted(config_lib.flatten(config_lib.base()))


def make_tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import make_tables

    return make_tables


@pytest.mark.parametrize("name", DOCS)
def test_written_tables_are_those_of_the_code(name, monkeypatch):
    made = make_tables(monkeypatch)
    text = (ROOT / "docs" / name).read_text()
    # Counting the parameters of all models takes half a minute.
    models = re.search(r"<!-- table models -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    kept = models[1] if models else ""
    monkeypatch.setattr(made, "TABLES", {**made.TABLES, "models": lambda: kept})
    assert made.renewed(text) == text, "run `python docs/make_tables.py`"


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCS)
def test_the_table_of_models_is_that_of_the_code(name, monkeypatch):
    text = (ROOT / "docs" / name).read_text()
    assert make_tables(monkeypatch).renewed(text) == text, "run `python docs/make_tables.py`"


def test_comments_of_the_table_are_those_of_their_keys(monkeypatch):
    source = (
        "def get_config():\n"
        "    c.one = 1  # of one\n"
        "    # of two,\n"
        "    # at length\n"
        "    c.two = 2\n"
        "    c.three = 3\n"
        "    c.four = (\n"
        "        # of four\n"
        "        4\n"
        "    )\n"
        "    c.five = _made(1)\n"
        "def _made():\n"
        "    m.x = 1  # of x\n"
    )
    found = make_tables(monkeypatch).read_base(source)
    assert [tuple(key) for key in found["get_config"]] == [
        ("one", "of one", ""),
        ("two", "of two, at length", ""),
        ("three", "as above", ""),
        ("four", "of four", ""),
        ("five", "", "_made"),
    ]
    assert [tuple(key) for key in found["_made"]] == [("x", "of x", "")]


def test_the_api_reference_is_of_every_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "pdoc", object())  # not among what tests need
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import make_api

    files = [p.relative_to(ROOT).with_suffix("") for p in (ROOT / "robust_jax").rglob("*.py")]
    names = {".".join(p.parts).removesuffix(".__init__") for p in files}
    assert set(make_api.modules()) == {n for n in names if not n.endswith("__main__")}
