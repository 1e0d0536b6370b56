"""Baselines that train all of the student, and what the others share with `ours`."""

import json
import shutil

import jax
import numpy as np
import pytest
from runs import copy_run, networks, quick_config, run, tuned
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robust_jax import config as config_lib
from robust_jax import models
from robust_jax.checkpoint import parameter_hash
from robust_jax.data.pipeline import ordered_batches
from robust_jax.method.adapted import robustified
from robust_jax.stages import answers, before_after, routing, transfer_rows, wise_ft
from robust_jax.stages.context import Context

pytest_plugins = ["finished_run"]

METHODS = ("full_finetune", "lp_ft", "wise_ft")


def options(**changes):
    # Fast enough for the fine-tuned networks to leave the student behind.
    chosen = {"finetune__learning_rate": 3e-3, "finetune__total_steps": 6}
    return quick_config(baselines__methods=METHODS, **(chosen | changes))


@pytest.fixture(scope="module")
def compared(finished, tmp_path_factory):
    """A run with the three baselines."""
    workdir = tmp_path_factory.mktemp("compared") / "run"
    copy_run(finished, workdir, without=("baselines", "evaluate", "report"))
    run(options(), workdir)
    return workdir


@pytest.fixture(scope="module")
def ends(compared):
    found = networks(compared, options())
    return [found.variables(path) for path in ("pretrain", "baselines/full_finetune")]


def facts(workdir, stage):
    return json.loads((workdir / "stages" / f"{stage}.json").read_text())["result"]


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
def test_rows_and_costs(compared):
    summary = json.loads((compared / "summary.json").read_text())["methods"]
    assert set(METHODS) < set(summary)
    took = facts(compared, "baselines")
    original = summary["original"]
    for name in METHODS:
        entry = summary[name]
        assert entry["tuned_params"] == entry["total_params"] == original["total_params"]
        assert set(original) | {"train_seconds", "compile_seconds", "train_flops"} == set(entry)
    for cost, key in (
        ("train_seconds", "seconds"),
        ("compile_seconds", "compile_seconds"),
        ("train_flops", "flops"),
    ):
        assert summary["full_finetune"][cost] == took["full_finetune"][key]
        assert summary["wise_ft"][cost] == took["full_finetune"][key]  # its choice is no training
        assert took["wise_ft"][key] > 0


@pytest.mark.slow
def test_what_is_tuned_with_a_frozen_trunk_costs_less(compared):
    tuning, whole = facts(compared, "distill"), facts(compared, "baselines")
    per_step = whole["full_finetune"]["flops"] / 6
    assert 0 < tuning["flops"] / 4 < per_step / 2
    # Plain cross-entropy sees one view of three.
    assert whole["lp_ft"]["flops"] / 6 == pytest.approx(per_step / 3, rel=0.05)
    # Without backward passes: two views of each held-out image for each of eleven networks.
    forward = whole["lp_ft"]["flops"] / 6 / 32 / 3
    size = 64 * -(-len(Context(options(), compared).calibration_set()) // 64)
    assert whole["wise_ft"]["flops"] == pytest.approx(11 * 2 * size * forward, rel=0.15)
    summary = json.loads((compared / "summary.json").read_text())["methods"]
    needed = [facts(compared, stage) for stage in ("teacher", "cache", "distill")]
    for cost, key in (("train_flops", "flops"), ("compile_seconds", "compile_seconds")):
        assert summary["ours"][cost] == sum(found[key] for found in needed)


@pytest.mark.slow
def test_costs_that_an_older_version_did_not_tell_are_absent(compared, tmp_path):
    workdir = copy_run(compared, tmp_path / "run")
    path = workdir / "stages" / "teacher.json"
    marker = json.loads(path.read_text())
    for key in ("flops", "compile_seconds"):
        del marker["result"][key]
    path.write_text(json.dumps(marker))
    run(options(), workdir, rerun=["report"])
    summary = json.loads((workdir / "summary.json").read_text())["methods"]
    costs = {"train_seconds", "train_flops", "compile_seconds"}
    assert costs & set(summary["ours"]) == {"train_seconds"}
    assert costs <= set(summary["full_finetune"])
    page = (workdir / "report" / "index.html").read_text()
    assert "training FLOPs" in page and "compile s" in page


@pytest.mark.slow
def test_the_losses_are_those_of_their_papers(compared):
    for name, tags in (("full_finetune", {"jensen_shannon"}), ("lp_ft", set())):
        events = EventAccumulator(str(compared / "tb" / "baselines" / name))
        events.Reload()
        found = set(events.Tags()["tensors"])
        assert {"cross_entropy", "loss"} <= found
        assert found & {"jensen_shannon"} == tags


@pytest.mark.slow
def test_everything_is_tuned_and_begins_at_the_student(compared, ends, tmp_path):
    original, found = ends
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), original["params"], found["params"])
    assert all(jax.tree.leaves(moved))
    # Without a step in which to move, it is the student.
    still = options(finetune__learning_rate=1e-30, finetune__weight_decay=0.0)
    still.stages = ("baselines",)
    copy_run(compared, tmp_path / "run", without=("baselines", "evaluate", "report"))
    run(still, tmp_path / "run")
    kept = networks(tmp_path / "run", still)
    for name in METHODS:
        equal(kept.variables(f"baselines/{name}"), original)


@pytest.mark.slow
def test_wise_ft_at_its_ends_is_bit_for_bit_what_it_interpolates(ends):
    original, found = ends
    signed = [jax.tree.map(lambda a: a.at[(0,) * a.ndim].set(-0.0), end) for end in ends]
    for alpha, end in zip((0.0, 1.0), signed, strict=True):
        equal(
            jax.tree.map(lambda a: np.asarray(a).view(np.uint32), end),
            jax.tree.map(
                lambda a: np.asarray(a).view(np.uint32), wise_ft.interpolate(*signed, alpha)
            ),
        )
    between = wise_ft.interpolate(original, found, 0.3)
    jax.tree.map(
        lambda a, b, c: np.testing.assert_allclose(
            c, 0.7 * np.float64(a) + 0.3 * np.float64(b), rtol=1e-6, atol=1e-7
        ),
        original,
        found,
        between,
    )


@pytest.mark.slow
def test_held_out_images_choose_alpha(compared, ends):
    took = facts(compared, "baselines")["wise_ft"]
    context = Context(options(), compared)
    model, entry = context.network("student")
    (batch,) = ordered_batches(context.calibration_set(), batch_size=144)
    rows = batch["mask"]
    assert rows.sum() == len(context.calibration_set())
    accuracies = []
    for alpha in wise_ft.ALPHAS:
        variables = wise_ft.interpolate(*ends, alpha)
        right = [
            model.apply(variables, models.normalise(batch[view], entry)).argmax(-1)
            == batch["label"]
            for view in ("clean", "aug")
        ]
        accuracies.append([float(np.mean(view[rows])) for view in right])
    np.testing.assert_allclose(took["held_out"], accuracies, atol=1.01 / rows.sum())
    means = np.mean(took["held_out"], axis=1)
    assert took["alpha"] == wise_ft.ALPHAS[int(np.argmax(means))]
    stored = networks(compared, options()).variables("baselines/wise_ft")
    equal(stored, wise_ft.interpolate(*ends, took["alpha"]))


@pytest.mark.slow
def test_the_rows_of_a_run_come_from_one_evaluation(compared, ends):
    """The answers of a fine-tuned network are those of its own forward pass."""
    found = networks(compared, options())
    arrays = answers.load_arrays(found)
    assert set(METHODS) < set(arrays)
    assert parameter_hash(arrays["full_finetune"]) == parameter_hash(ends[1])
    stored = np.load(compared / "evaluate" / "outputs" / "clean.npz")
    for name in METHODS:
        accuracy = json.loads((compared / "summary.json").read_text())["methods"][name]
        assert stored[f"{name}/label"].shape == (64,)
        assert 0 <= accuracy["clean_accuracy"] <= 1


def test_inference_ablations_share_the_trained_heads(finished):
    found = networks(finished)
    arrays = answers.load_arrays(found)
    routed = routing.routed_methods(found, arrays["tuned"])
    used = {name: routing.ROUTED[name][0] for name in routed}
    hashes = {name: parameter_hash(arrays["tuned"][key]) for name, key in used.items()}
    shared = {"ours", "ours_no_kld", "ours_no_umc", "ours_max_logit", "ours_product"}
    assert {hashes[name] for name in shared} == {parameter_hash(tuned(finished))}
    assert hashes["ours_no_kd"] not in {hashes[name] for name in shared}


def test_without_kd_the_teacher_is_never_asked(finished, tmp_path):
    """Its network may be missing; whoever needs it then fails."""
    workdir = copy_run(finished, tmp_path / "run", without=("distill", "baselines", "evaluate"))
    shutil.rmtree(workdir / "teacher" / "variables")
    config = quick_config(baselines__methods=("ours_no_kd",), stages=("baselines",))
    run(config, workdir)
    there, here = (networks(path) for path in (finished, workdir))
    heads = answers.HEADS
    path = "baselines/ours_no_kd"
    equal(here.tuned(path, heads), there.tuned(path, heads))
    config.stages = ("distill",)
    with pytest.raises((ValueError, FileNotFoundError), match="teacher"):
        run(config, workdir)


@pytest.mark.slow
def test_the_fine_tuned_network_is_transferred_too(compared):
    """It is the network that was stored, not a tail behind the student's trunk."""
    base = config_lib.base().data
    views = {key: base[key] for key in ("train_ops", "eval_ops")}
    found = before_after.of_run(compared, "combined", views, ["full_finetune"])
    assert set(found.networks) == {"original", "ours", "full_finetune"}
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    features = found.features(found.variables, {"image": pixels, "label": np.zeros(4, np.int32)})
    net = networks(compared, options())
    x = models.normalise(jax.numpy.asarray(pixels), net.student_entry)
    for name, path in (("original", "pretrain"), ("full_finetune", "baselines/full_finetune")):
        want = net.student_model.apply(net.variables(path), x, stop="head")
        np.testing.assert_allclose(features[name], want, rtol=1e-4, atol=1e-4)
    assert np.abs(features["full_finetune"] - features["original"]).max() > 1e-2
    rows = []
    for name, value in (("original", 0.25), ("full_finetune", 0.75)):
        rows.append({"dataset": "d", "protocol": "p", "seed": 0, "method": name})
        for metric in ("accuracy", "mean_per_class"):
            rows[-1][metric] = {"value": value, "low": 0.0, "high": 1.0}
    table = transfer_rows.format_table({"rows": rows}).splitlines()
    assert table[0].split()[-5:] == ["before", "after", "full", "fine-tuning", "difference"]
    assert "25.0 [0.0, 100.0]  -" in table[2] and "75.0 [0.0, 100.0]" in table[2]
    for wrong in ("apt", "ours_no_kd", "x"):  # the run has no ours_no_kd
        with pytest.raises(ValueError, match=f"no such network to transfer; got '{wrong}'"):
            before_after.of_run(compared, "combined", views, [wrong])


def test_ours_without_kd_is_transferred_too(finished):
    base = config_lib.base().data
    views = {key: base[key] for key in ("train_ops", "eval_ops")}
    found = before_after.of_run(finished, "clean", views, ["ours_no_kd"])
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    features = found.features(found.variables, {"image": pixels, "label": np.zeros(4, np.int32)})
    net = networks(finished)
    frozen = jax.device_get(net.variables("pretrain"))
    x = models.normalise(jax.numpy.asarray(pixels), net.student_entry)
    for name, path in (("ours", "distill/ours"), ("ours_no_kd", "baselines/ours_no_kd")):
        tuned_ = jax.device_get(net.tuned(path, answers.HEADS))
        network, variables = robustified(net.student(answers.HEADS), frozen, tuned_, "clean")
        want = network.apply(variables, x, stop="head")
        np.testing.assert_allclose(features[name], want, rtol=1e-4, atol=1e-4)
    assert np.abs(features["ours"] - features["ours_no_kd"]).max() > 1e-6
