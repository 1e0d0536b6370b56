import json
import os
import shutil
import subprocess

import jax
import numpy as np
import pytest
from runs import ROOT, command, copy_run, quick_config, resolved, run

from configs.paper import scales, table1, table2
from robust_jax import config as config_lib
from robust_jax import main, plan, stages, sweep, sweep_runs
from robust_jax.stages.networks import Networks

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
    runs = sweep_runs.expand(config)
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
        sweep_runs.expand(config)


def test_a_bad_run_is_told_before_the_first_one_begins(tmp_path):
    config = sweep_config()
    config.sweep.runs = (*config.sweep.runs, ("bad", (("method.dropout", 2.0),)))
    with pytest.raises(ValueError, match=r"method\.dropout is out of range"):
        sweep.run(config, tmp_path / "w", main.run)
    assert not (tmp_path / "w").exists()


def test_shards_are_contiguous_and_together_everything():
    runs = sweep_runs.expand(sweep_config(sweep__seeds=(0, 1, 2)))
    parts = [sweep_runs.shard_of(runs, f"{i}/4") for i in range(4)]
    assert [len(part) for part in parts] == [2, 2, 1, 1]
    assert [one for part in parts for one in part] == runs == sweep_runs.shard_of(runs, "")
    for wrong in ("4/4", "1", "a/b", "-1/2", "0/0"):
        with pytest.raises(ValueError, match="no such shard"):
            sweep_runs.shard_of(runs, wrong)


def test_a_shard_of_an_ordinary_run_is_an_error(tmp_path):
    found = subprocess.run(
        command(tmp_path / "w", "--shard=0/2"), cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode != 0
    assert "only a sweep can be spread" in found.stderr


def adopted(workdir):
    """Stages that are done in a workdir."""
    return [name for name in stages.STAGES if stages.is_done(workdir, name)]


def begin(finished, tmp_path, beside=None, **changes):
    """Takes over what fits from a finished run; returns the new workdir and its done stages."""
    workdir, other = (sweep.epath.Path(path) for path in (tmp_path / "new", finished))
    stages.adopt(workdir, quick_config(**changes), resolved(other) | (beside or {}), [other])
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
        ({"seed": 1, "student_seed": 0}, ["pretrain", "distort"]),
        ({"student_seed": 1}, []),
        ({"teacher__learning_rate": 0.01}, ["pretrain", "distort"]),
        # The distorted copies are the same, but the teacher before the cache is not.
        ({"student__name": "vit_tiny"}, ["distort", "teacher"]),
        ({"baselines__methods": ("apt",)}, ["pretrain", "distort", "teacher", "cache", "distill"]),
    ],
)
def test_no_stage_is_taken_over_from_another_config(finished, tmp_path, changes, expected):
    assert begin(finished, tmp_path, **changes)[1] == expected


@pytest.mark.slow
def test_the_student_of_another_seed_is_trained_the_same(finished, tmp_path):
    run(quick_config(seed=1, student_seed=0, stages=("pretrain",)), tmp_path)
    left, right = (
        jax.tree.leaves(Networks.restore(where).variables("pretrain"))
        for where in (finished, tmp_path)
    )
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)
    # Whatever else is drawn at random is of the run's own seed.
    context = plan.make(quick_config(seed=1, student_seed=0), tmp_path)
    given = plan.make(quick_config(), tmp_path)
    np.testing.assert_array_equal(context.calibration.labels, given.calibration.labels)
    assert (context.augmented_set().seed, given.augmented_set().seed) == (1, 0)


def test_copies_and_teachers_are_of_one_size_and_one_resize(finished, tmp_path):
    """They are made for a student, though no key of theirs names it."""
    for key, value in (("resolved.image_size", 64), ("resolved.distort.ops", "decode")):
        beside = {key: value}
        assert begin(finished, tmp_path / key, beside, student__name="vit_tiny")[1] == []


@pytest.mark.parametrize("stage", ["pretrain", "teacher"])
def test_no_stage_is_taken_over_on_top_of_another_result(finished, tmp_path, stage):
    other = copy_run(finished, tmp_path / "other")
    marker = other / "stages" / f"{stage}.json"
    found = json.loads(marker.read_text())
    found["result"]["seconds"] += 1.0  # the same config, trained once more
    marker.write_text(json.dumps(found))
    workdir, done = begin(other, tmp_path)
    # Of one run everything fits; with the network of another one, its students would not.
    assert done == [n for n in stages.STAGES if n != "report"]
    needed = [n for n in stages.dependants(stage) if n not in (stage, "report")]
    for name in needed:
        (workdir / "stages" / f"{name}.json").unlink()
    if stage == "teacher":  # a cache that is not used says nothing of what is before it
        assert json.loads((finished / "stages" / "cache.json").read_text())["result"] == {
            "used": False,
            **(nothing := {"seconds": 0.0, "compile_seconds": 0.0, "flops": 0.0}),
            "teacher": nothing,
        }
        shutil.copy(finished / "stages" / "cache.json", workdir / "stages" / "cache.json")
    stages.adopt(workdir, quick_config(), resolved(finished), [sweep.epath.Path(finished)])
    assert not set(needed) - {"cache"} & set(adopted(workdir))


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


@pytest.mark.slow
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
    found = sweep.entries(rows[1:])
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


@pytest.mark.slow
def test_the_table_is_made_again_from_its_rows_alone(swept, tmp_path):
    rows = tmp_path / "moved" / "results.jsonl"
    rows.parent.mkdir()
    rows.write_bytes((swept / "results.jsonl").read_bytes())
    sweep.main([str(rows), "--out", str(rows.parent / "report")])
    files = sorted(path.name for path in (swept / "report").iterdir())
    assert {"index.html", "table.md"} <= set(files)
    for name in files:
        again = (rows.parent / "report" / name).read_bytes()
        assert again == (swept / "report" / name).read_bytes(), name
    sweep.main([str(rows), "--out", str(tmp_path / "elsewhere")])
    page = (tmp_path / "elsewhere" / "index.html").read_text()
    assert 'href="../moved/runs/one/seed_0/report/index.html"' in page
    assert (
        'href="../runs/one/seed_0/report/index.html"'
        in (swept / "report" / "index.html").read_text()
    )


@pytest.mark.slow
def test_a_finished_sweep_runs_nothing_again(swept, capsys):
    before = (swept / "results.jsonl").read_bytes()
    sweep.run(sweep_config(evaluate__corruptions=("fog",)), swept, _execute)
    assert (swept / "results.jsonl").read_bytes() == before
    said = capsys.readouterr().out
    assert said.count("stage report: done before") == 2


@pytest.mark.slow
def test_a_workdir_holds_one_sweep(swept):
    with pytest.raises(ValueError, match=r"of another config; got other evaluate.severities;"):
        sweep.run(
            sweep_config(evaluate__corruptions=("fog",), evaluate__severities=(2,)), swept, _execute
        )


def test_the_mean_over_seeds_and_its_interval(tmp_path):
    rows = [sweep._header(table2.get_config("small"))]
    for seed in (0, 1):
        for method in table2.SMALL_METHODS:
            where = {"run": "all", "seed": seed, "method": method, "n": 10}
            for part in ("clean", "corruption"):
                value = 0.5 + 0.1 * seed
                rows.append({**where, "metric": "f_correct", "set": part, "value": value})
            rows[-1]["corruption"], rows[-1]["severity"] = "fog", 1
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sweep.main([str(path), "--out", str(tmp_path / "out")])
    text = (tmp_path / "out" / "table.md").read_text()
    assert "0.55 ± 0.64" in text  # 0.05 * sqrt(2) / sqrt(2) * t(0.975, 1) = 0.05 * 12.706
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    with pytest.raises(ValueError, match="not the results of a sweep"):
        sweep.main([str(path), "--out", str(tmp_path / "o")])
    with pytest.raises(ValueError, match="no such file; got 'absent'"):
        sweep.main(["absent", "--out", str(tmp_path / "o")])


def test_the_papers_numbers_go_with_its_setting(capsys):
    config = table1.get_config("imagenet")
    same = sweep_runs.without_paper(
        config, ["data.dir", "student.weights", "train.log_every_steps"]
    )
    assert same is config and capsys.readouterr().out == ""
    other = sweep_runs.without_paper(config, ["data.dir", "distill.total_epochs"])
    assert "left out: distill.total_epochs changed the setting" in capsys.readouterr().out
    assert [cell[:5] for cell in other.sweep.cells] == [cell[:5] for cell in config.sweep.cells]
    assert {cell[5] for cell in other.sweep.cells} == {None}


def test_missing_files_are_told_before_the_first_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = sweep_config()
    config.sweep.runs = (
        ("one", ()),
        ("two", (("evaluate.sets", ("c=folder_c:sets/c", "tfds:imagenet_r")),)),
        ("three", (("student.weights", "w.pth"), ("teacher.weights", "hf://a/b"))),
    )
    config.sweep.transfer = (("pets", (("source", "folder"), ("dir", "pets"))),)
    with pytest.raises(ValueError, match=r"missing; got none at sets/c, w\.pth, pets; put"):
        sweep.run(config, tmp_path / "w", _execute)
    assert not (tmp_path / "w").exists()
    config.sweep.transfer = (("pets", (("sourse", "folder"),)),)
    with pytest.raises(ValueError, match=r"transfer 'pets' changes an unknown key; got 'sourse'"):
        sweep.run(config, tmp_path / "w", _execute)


def test_rerun_is_of_one_run(tmp_path):
    line = command(tmp_path / "w", "--rerun=distill", config="configs/paper/table2.py:small")
    found = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode != 0
    assert "--rerun is of one run" in found.stderr
    assert not (tmp_path / "w").exists()


def test_scales():
    assert scales.start("imagenet").imagenet
    assert not scales.start("").imagenet
    assert scales.start("small,dir=/x").config.data.source == "folder"
    for wrong in ("imagenet,small", "imagenet,runlocal", "imagenet,dir=x"):
        with pytest.raises(ValueError, match="of the small scale"):
            scales.start(wrong)
