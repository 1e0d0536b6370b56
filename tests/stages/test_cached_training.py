from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from runs import copy_run, networks, quick_config, run, tuned

from robust_jax import costs, models, stages, writers
from robust_jax.stages import cache, report
from robust_jax.stages.context import Context

pytest_plugins = ["finished_run"]


def test_cached_and_streamed_training_agree(finished, tmp_path, capsys):
    workdir = copy_run(finished, tmp_path / "run")
    config = quick_config(cache__use="true", cache__dtype="float32", stages=("cache", "distill"))
    run(config, workdir, rerun=["cache"])
    assert "cache: built, cache.use=true: 0.000 GB" in capsys.readouterr().out
    assert (workdir / "cache" / "z_clean" / "zarr.json").exists()
    assert not (finished / "cache").exists()  # `auto` streamed there
    cached, streamed = tuned(workdir), tuned(finished)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), cached, streamed)
    start = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(streamed["heads"]))
    assert start > 2e-3  # they were trained at all


@pytest.mark.slow
def test_what_the_cache_costs(finished, tmp_path):
    workdir = epath.Path(copy_run(finished, tmp_path / "run"))
    options = {"cache__use": "true", "baselines__methods": ("apt",)}
    config = quick_config(stages=("cache",), **options)
    run(config, workdir, rerun=["cache"])
    found = stages.result(workdir, "cache")
    assert found["seconds"] > 0 and found["compile_seconds"] > 0
    context = Context(config, workdir)
    images = 2 * 32 * -(-len(context.augmented_set()) // 32)
    whole = {}
    for network in ("student", "teacher"):
        model, entry = context.network(network)
        variables = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), context.shapes(model))

        def forward(variables, batch, model=model, entry=entry):
            return model.apply(variables, models.normalise(batch, entry))

        batch = np.zeros((1, 32, 32, 3), np.uint8)
        whole[network] = costs.flops(images, forward, variables, batch)["flops"]
    taught = found["teacher"]
    assert taught["flops"] == pytest.approx(whole["teacher"], rel=0.02)
    trunk = found["flops"] - taught["flops"]
    assert 0.8 * whole["student"] < trunk < whole["student"]  # without the tail
    for key in ("seconds", "compile_seconds"):
        assert 0 < taught[key] < found[key]
    # Who has no teacher pays for the features alone.
    run(quick_config(stages=("distill", "baselines"), **options), workdir)
    said = {method: report.costs(context, method) for method in ("apt", "ours")}
    tuned = stages.result(workdir, "baselines")["apt"]
    for key, cost in (("flops", "train_flops"), ("seconds", "train_seconds")):
        assert said["apt"][cost] == pytest.approx(found[key] - taught[key] + tuned[key])
        needed = [stages.result(workdir, name)[key] for name in ("teacher", "cache", "distill")]
        assert said["ours"][cost] == pytest.approx(sum(needed))

    # A build that was interrupted after its first block goes on counting.
    marker = workdir / "stages" / "cache.json"
    before = writers.read_json(marker)
    writers.write_json(marker, {**before, "done": False})
    first = {"0": {"seconds": 1000.0, "teacher": 30.0}}
    writers.write_json(workdir / "cache" / "done-0.json", first)
    spent = {"compile_trunk": 500.0, "compile_teacher": 70.0}
    writers.write_json(workdir / "cache" / "spent.json", spent)
    run(config, workdir)
    again = stages.result(workdir, "cache")
    assert 1000 < again["seconds"] < 1100
    assert 570 < again["compile_seconds"] < 670
    assert 70 < again["teacher"]["compile_seconds"] < 120 and again["teacher"]["seconds"] > 30
    assert again["flops"] == found["flops"]

    unused = stages.result(epath.Path(finished), "cache")  # `auto` streamed there
    assert [unused[key] for key in ("seconds", "compile_seconds", "flops")] == [0, 0, 0]


@pytest.mark.parametrize(
    ("use", "gigabytes", "passes", "expected", "why"),
    [
        ("true", 99.0, 0.1, True, "cache.use=true"),
        ("false", 0.1, 9.0, False, "cache.use=false"),
        ("auto", 2.5, 9.0, False, "it would exceed cache.max_gigabytes=2.0"),
        ("auto", 1.0, 1.0, False, "training visits no element twice"),
        ("auto", 1.0, 1.1, True, "training visits each element more than once"),
    ],
)
def test_when_to_cache(use, gigabytes, passes, expected, why):
    section = SimpleNamespace(use=use, max_gigabytes=2.0)
    assert cache.decide(section, gigabytes, passes) == (expected, why)


@pytest.mark.slow
def test_frozen_arrays_in_half_precision_go_through_the_stages(finished, tmp_path):
    later = ("cache", "distill", "baselines", "evaluate", "report")
    workdir = copy_run(finished, tmp_path / "run", without=later)
    config = quick_config(method__frozen_dtype="bfloat16", stages=("cache", "distill"))
    run(config, workdir)
    frozen = networks(workdir, config).frozen()["params"]
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(frozen)} == {"float32", "bfloat16"}
