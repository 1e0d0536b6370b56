import json
import os
import subprocess

import pytest
from runs import ROOT, command, copy_run, quick_config, run

from configs.paper import scales, table2
from robust_jax import config as config_lib
from robust_jax import main, stages, sweep, writers

pytest_plugins = ["finished_run"]

CELL = ("all", "clean", "one", "ours", "clean_accuracy", None)


def sweep_config(**changes):
    """A sweep of two runs of `quickstart` that differ in what is compared."""
    c = quick_config(**changes)
    c.sweep.title = "two"
    c.sweep.runs = (
        ("one", ()),
        ("two", (("baselines.methods", ("apt",)), ("augmented.fraction", 0.2))),
    )
    c.sweep.columns = (("clean", "percent"),)
    c.sweep.cells = (CELL,)
    return c


def test_runs_are_ordinary_configs_seed_by_seed():
    config = sweep_config(sweep__seeds=(0, 3))
    runs = sweep.expand(config)
    assert [(r.name, r.seed) for r in runs] == [("one", 0), ("two", 0), ("one", 3), ("two", 3)]
    assert [r.config.seed for r in runs] == [0, 0, 3, 3]
    assert runs[3].config.baselines.methods == ("apt",)
    assert runs[3].config.augmented.fraction == 0.2
    assert runs[2].config.augmented.fraction == config.augmented.fraction
    expected = config_lib.flatten(quick_config(seed=3, sweep__seeds=(3,)))
    assert config_lib.flatten(runs[2].config) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": ()}, "runs and seeds"),
        ({"seeds": ()}, "runs and seeds"),
        ({"seeds": (1, 1)}, "same run twice"),
        ({"runs": (("one", ()), ("one", ()))}, "same run twice"),
        ({"runs": (("../one", ()),)}, "names its directory"),
        ({"runs": (("one", (("augmented.fractoin", 0.1),)),)}, "did you mean 'augmented.fraction'"),
        ({"runs": (("one", (("augmented.fraction", "x"),)),)}, "another type"),
    ],
)
def test_what_a_sweep_cannot_be(changes, message):
    config = sweep_config()
    config.sweep.update(changes)
    with pytest.raises(ValueError, match=message):
        sweep.expand(config)


def test_a_bad_run_is_told_before_the_first_one_begins(tmp_path):
    config = sweep_config()
    config.sweep.runs = (*config.sweep.runs, ("bad", (("method.dropout", 2.0),)))
    with pytest.raises(ValueError, match=r"method\.dropout is out of range"):
        sweep.run(config, tmp_path / "w", main.run)
    assert not (tmp_path / "w").exists()


def test_shards_are_contiguous_and_together_everything():
    runs = sweep.expand(sweep_config(sweep__seeds=(0, 1, 2)))
    parts = [sweep.shard_of(runs, f"{i}/4") for i in range(4)]
    assert [len(part) for part in parts] == [2, 2, 1, 1]
    assert [one for part in parts for one in part] == runs == sweep.shard_of(runs, "")
    for wrong in ("4/4", "1", "a/b", "-1/2", "0/0"):
        with pytest.raises(ValueError, match="no such shard"):
            sweep.shard_of(runs, wrong)


def test_a_shard_of_an_ordinary_run_is_an_error(tmp_path):
    found = subprocess.run(
        command(tmp_path / "w", "--shard=0/2"), cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode != 0
    assert "only a sweep can be spread" in found.stderr


def adopted(workdir):
    """Stages that are done in a workdir."""
    return [name for name in stages.STAGES if stages.is_done(workdir, name)]


def begin(finished, tmp_path, **changes):
    """Takes over what fits from a finished run; returns the new workdir and its done stages."""
    workdir = sweep.epath.Path(tmp_path / "new")
    other = sweep.epath.Path(finished)
    fingerprint = writers.read_json(other / "stages" / "pretrain.json")["config"][
        "data.fingerprint"
    ]
    config = quick_config(**changes)
    stages.adopt(workdir, config, fingerprint, [other])
    return workdir, adopted(workdir)


def test_stages_are_taken_over_as_far_as_configs_agree(finished, tmp_path):
    workdir, done = begin(finished, tmp_path, method__dropout=0.1)
    assert done == ["pretrain", "distort", "teacher", "cache"]
    source = finished / "pretrain" / "variables"
    names = sorted(p.relative_to(source) for p in source.rglob("*") if p.is_file())
    assert names
    for name in names:  # linked, not copied
        assert os.path.samefile(source / name, workdir / "pretrain" / "variables" / name)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seed": 1}, []),
        ({"teacher__learning_rate": 0.01}, ["pretrain", "distort"]),
        # The distorted copies are the same, but the teacher before the cache is not.
        ({"student__name": "vit_tiny"}, ["distort", "teacher"]),
        ({"baselines__methods": ("apt",)}, ["pretrain", "distort", "teacher", "cache", "distill"]),
    ],
)
def test_no_stage_is_taken_over_from_another_config(finished, tmp_path, changes, expected):
    assert begin(finished, tmp_path, **changes)[1] == expected


def test_no_stage_is_taken_over_on_top_of_another_result(finished, tmp_path):
    other = copy_run(finished, tmp_path / "other")
    marker = other / "stages" / "teacher.json"
    found = json.loads(marker.read_text())
    found["result"]["seconds"] += 1.0  # the same config, trained once more
    marker.write_text(json.dumps(found))
    workdir = sweep.epath.Path(tmp_path / "new")
    fingerprint = found["config"]["data.fingerprint"]
    stages.adopt(workdir, quick_config(), fingerprint, [sweep.epath.Path(other)])
    # Of one run everything fits; with the teacher of the other one, its cache would not.
    assert adopted(workdir) == [n for n in stages.STAGES if n != "report"]
    (workdir / "stages" / "cache.json").unlink()
    (workdir / "stages" / "distill.json").unlink()
    stages.adopt(workdir, quick_config(), fingerprint, [sweep.epath.Path(finished)])
    assert "cache" not in adopted(workdir)


def test_an_unfinished_stage_is_not_taken_over(finished, tmp_path):
    other = copy_run(finished, tmp_path / "other")
    marker = other / "stages" / "teacher.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "done": False}))
    assert begin(other, tmp_path)[1] == ["pretrain", "distort"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A finished sweep of two runs, the second of which was run as a shard of its own."""
    workdir = tmp_path_factory.mktemp("sweep") / "w"
    config = sweep_config(evaluate__corruptions=("fog",))
    single = {"shard": "0/2"}
    sweep.run(config, workdir, _execute, **single)
    assert not (workdir / "results.jsonl").exists()
    sweep.run(config, workdir, _execute, shard="1/2")
    return workdir


def _execute(config, workdir, **options):
    run(config, workdir, **options)


def test_a_sweep_in_shards_ends_in_one_table(swept):
    assert (swept / "report" / "index.html").exists()
    summaries = {
        name: json.loads((swept / "runs" / name / "seed_0" / "summary.json").read_text())
        for name in ("one", "two")
    }
    accuracy = summaries["one"]["methods"]["ours"]["clean_accuracy"]
    assert f"{100 * accuracy:.1f}" in (swept / "report" / "table.md").read_text()
    assert "ours_no_kd" not in summaries["two"]["methods"]
    rows = [json.loads(line) for line in (swept / "results.jsonl").read_text().splitlines()]
    found = sweep.entries(rows)
    assert set(found) == {("one", 0), ("two", 0)}
    for name, summary in summaries.items():
        for method, entry in summary["methods"].items():
            assert found[name, 0][method] == entry
    # One student and one teacher: the second run has those of the first.
    for stage in ("pretrain", "teacher"):
        one, two = (swept / "runs" / n / "seed_0" / "stages" / f"{stage}.json" for n in summaries)
        assert one.read_text() == two.read_text()
    markers = [swept / "runs" / n / "seed_0" / "stages" / "distill.json" for n in summaries]
    assert markers[0].read_text() != markers[1].read_text()


def test_the_table_is_made_again_from_its_rows_alone(swept, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes((swept / "results.jsonl").read_bytes())
    config = sweep_config()
    sweep.report(config, map(json.loads, rows.read_text().splitlines()), tmp_path / "again")
    for path in (swept / "report").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_finished_sweep_runs_nothing_again(swept, capsys):
    before = (swept / "results.jsonl").read_bytes()
    sweep.run(sweep_config(evaluate__corruptions=("fog",)), swept, _execute)
    assert (swept / "results.jsonl").read_bytes() == before
    said = capsys.readouterr().out
    assert said.count("stage report: done before") == 2


def test_the_command_that_makes_a_table_again(tmp_path):
    rows = []
    for seed in (0, 1):
        for method in table2.SMALL_METHODS:
            where = {"run": "all", "seed": seed, "method": method, "n": 10}
            for part in ("clean", "corruption"):
                value = 0.5 + 0.1 * seed
                rows.append({**where, "metric": "f_correct", "set": part, "value": value})
            rows[-1]["corruption"], rows[-1]["severity"] = "fog", 1
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = "configs/paper/table2.py:small"
    sweep.main([str(path), "--config", config, "--out", str(tmp_path / "out")])
    text = (tmp_path / "out" / "table.md").read_text()
    assert "0.55 ± 0.64" in text  # 0.05 * sqrt(2) / sqrt(2) * t(0.975, 1) = 0.05 * 12.706
    with pytest.raises(ValueError, match="not the results of a sweep"):
        sweep.main([str(path), "--config", "configs/quickstart.py", "--out", str(tmp_path / "o")])
    with pytest.raises(ValueError, match="not the results of a sweep"):
        sweep.main(["absent", "--config", config, "--out", str(tmp_path / "o")])


def test_scales():
    assert scales.start("imagenet").imagenet
    assert not scales.start("").imagenet
    assert scales.start("small,dir=/x").config.data.source == "folder"
    for wrong in ("imagenet,small", "imagenet,runlocal", "imagenet,dir=x"):
        with pytest.raises(ValueError, match="of the small scale"):
            scales.start(wrong)
