import json

import pytest
from etils import epath
from runs import copy_run, quick_config, resolved, run

from robust_jax import stages, writers

pytest_plugins = ["finished_run"]

DEPENDANTS = {
    "pretrain": ["pretrain", "cache", "distill", "baselines", "evaluate", "report"],
    "distort": ["distort", "teacher", "cache", "distill", "baselines", "evaluate", "report"],
    "teacher": ["teacher", "cache", "distill", "baselines", "evaluate", "report"],
    "cache": ["cache", "distill", "baselines", "evaluate", "report"],
    "distill": ["distill", "evaluate", "report"],
    "baselines": ["baselines", "evaluate", "report"],
    "evaluate": ["evaluate", "report"],
    "report": ["report"],
}


@pytest.mark.parametrize("name", stages.STAGES)
def test_clearing_a_stage_clears_what_depends_on_it_and_no_more(tmp_path, name):
    workdir = epath.Path(tmp_path)
    for stage, found in stages.STAGES.items():
        for output in found.outputs:
            (workdir / output).parent.mkdir(parents=True, exist_ok=True)
            if output.endswith((".json", ".jsonl")):
                (workdir / output).write_text("x")
            else:
                (workdir / output / "inner").mkdir(parents=True)
        writers.write_json(workdir / "stages" / f"{stage}.json", {"done": True, "config": {}})
    stages.clear(workdir, name)
    for stage, found in stages.STAGES.items():
        kept = stage not in DEPENDANTS[name]
        assert stages.is_done(workdir, stage) == kept
        for output in found.outputs:
            assert (workdir / output).exists() == kept, (stage, output)
    stages.clear(workdir, name)  # nothing is left to clear


def markers(workdir):
    return {path.name: path.read_text() for path in (workdir / "stages").iterdir()}


def check(workdir, rerun=(), **changes):
    """Checks a changed config against the workdir of a run on the same data."""
    stages.check(epath.Path(workdir), quick_config(**changes), resolved(workdir), rerun)


def told(capsys):
    """The lines that say which stage runs."""
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if line.startswith("stage ") and line.count(" ") < 4]


def test_finished_stages_are_skipped_and_a_rerun_is_of_its_dependants_only(
    finished, tmp_path, capsys
):
    workdir = copy_run(finished, tmp_path / "run")
    before, summary = markers(workdir), (workdir / "summary.json").read_text()
    run(quick_config(), workdir)
    assert told(capsys) == [f"stage {name}: done before" for name in stages.STAGES]
    assert markers(workdir) == before

    (workdir / "summary.json").unlink()
    run(quick_config(), workdir, rerun=["report"])
    *earlier, report = told(capsys)
    assert earlier == [f"stage {name}: done before" for name in stages.STAGES if name != "report"]
    assert report == "stage report"
    assert (workdir / "summary.json").read_text() == summary
    assert (workdir / "report" / "index.html").exists()
    assert markers(workdir) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"distill__learning_rate": 0.25},
            r"stage 'distill' in .*another config; got distill.learning_rate: 0.001 -> 0.25; "
            r"restore the value, use another workdir, or add --rerun=distill",
        ),
        (
            # Whether this time's stages include it or not.
            {"teacher__total_steps": 5, "distill__clip_norm": 2.0, "stages": ("evaluate",)},
            r"stage 'teacher' in .*got teacher.total_steps: 4 -> 5; .*--rerun=teacher",
        ),
        (
            {"selection__score": "sum", "evaluate__severities": (1,)},
            r"got evaluate.severities: \[1, 5\] -> \[1\], selection.score: 'gate' -> 'sum'",
        ),
    ],
)
def test_a_changed_config_is_refused(finished, changes, message):
    with pytest.raises(ValueError, match=message):
        check(finished, **changes)


def test_a_refused_run_leaves_the_workdir_as_it_was(finished):
    before = (finished / "config.json").read_text()
    with pytest.raises(ValueError, match=r"got distill.learning_rate: 0.001 -> 0.25"):
        run(quick_config(distill__learning_rate=0.25), finished)
    assert (finished / "config.json").read_text() == before


def test_keys_that_determine_nothing_and_stages_to_rerun_may_change(finished):
    check(finished, train__log_every_steps=50, stages=("evaluate", "report"))
    check(finished, rerun=["teacher"], teacher__total_steps=5, distill__clip_norm=2.0)
    with pytest.raises(ValueError, match=r"stage 'teacher' .*got teacher.total_steps: 4 -> 5"):
        check(finished, rerun=["cache"], teacher__total_steps=5)


def test_changed_data_is_refused(finished):
    message = r"stage 'pretrain' .*got data.fingerprint: '.*' -> 'other'"
    with pytest.raises(ValueError, match=message):
        other = resolved(finished) | {"data.fingerprint": "other"}
        stages.check(epath.Path(finished), quick_config(), other)


def test_what_the_student_wants_of_images_decides_about_the_teacher_too(finished):
    other = resolved(finished) | {"resolved.image_size": 64}
    with pytest.raises(ValueError, match=r"stage '\w+' .*got resolved.image_size: 32 -> 64"):
        stages.check(epath.Path(finished), quick_config(), other)


def test_a_workdir_from_before_a_key_had_its_default(finished, tmp_path):
    workdir = copy_run(finished, tmp_path / "run")
    for path in (workdir / "stages").iterdir():
        marker = json.loads(path.read_text())
        for key in ("data.classes", "resolved.image_size"):
            marker["config"].pop(key, None)
        path.write_text(json.dumps(marker))
    check(workdir)
    with pytest.raises(ValueError, match=r"got data.classes: \[\] -> \['1', '2'\]"):
        stages.check(
            epath.Path(workdir), quick_config(data__classes=("1", "2")), resolved(finished)
        )


def test_the_result_of_an_unfinished_stage_is_told(tmp_path):
    workdir = epath.Path(tmp_path)
    message = r"stage 'cache' has not finished in .*; add it to config.stages and run again"
    with pytest.raises(ValueError, match=message):
        stages.result(workdir, "cache")
    writers.write_json(workdir / "stages" / "cache.json", {"done": False, "config": {}})
    with pytest.raises(ValueError, match=message):
        stages.result(workdir, "cache")


def test_stages_that_lack_what_they_need_are_told(finished, tmp_path):
    message = r"stage 'distill' needs the result of 'cache'; got .*; add 'cache' to config.stages"
    with pytest.raises(ValueError, match=message):
        stages.check(epath.Path(tmp_path), quick_config(stages=("distill", "evaluate")), {})
    with pytest.raises(ValueError, match=message):
        check(finished, rerun=["cache"], stages=("distill",))


def test_an_evaluation_without_corruptions(finished, tmp_path):
    workdir = copy_run(finished, tmp_path / "run", without=("evaluate", "report"))
    run(quick_config(evaluate__corruptions=()), workdir)
    there, here = (
        json.loads((path / "summary.json").read_text())["methods"] for path in (finished, workdir)
    )
    absent = {"corrupted_accuracy", "accuracy_by_corruption", "routing_auroc"}
    absent |= {"f_correct_shift", "f_correct_severe"}
    for method, entry in here.items():
        want = {key: value for key, value in there[method].items() if key not in absent}
        for head in want.get("heads", {}).values():
            del head["corrupted_accuracy"]
        assert entry == want, method
    page = (workdir / "report" / "index.html").read_text()
    assert "Routing between the heads" not in page
    assert "Clean against corrupted" not in page
    assert (workdir / "evaluate" / "examples.npz").exists()
    assert not (workdir / "evaluate" / "routing.npz").exists()
