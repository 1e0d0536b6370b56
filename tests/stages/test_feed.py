from types import SimpleNamespace

import jax
import numpy as np
import pytest
from runs import copy_run, quick_config, run, tuned

from robust_jax import hosts, sharding, stages
from robust_jax.data.cache import FeatureCache
from robust_jax.stages import feed

pytest_plugins = ["finished_run"]
STAGES = ("cache", "distill")


@pytest.fixture(scope="module")
def cached(finished, tmp_path_factory):
    workdir = copy_run(finished, tmp_path_factory.mktemp("feed") / "run")
    config = quick_config(cache__use="true", stages=STAGES)
    run(config, workdir, rerun=["cache"])
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "memory", "said"),
    [
        (2.0, 16.0, "of features on the device, 2 steps a call"),
        (0.0, 16.0, "of features in memory"),
        (0.0, 0.0, "of features on disk"),
    ],
)
def test_features_are_the_same_wherever_they_lie(cached, tmp_path, capsys, device, memory, said):
    workdir = copy_run(cached, tmp_path / "run", without=("distill",))
    config = quick_config(
        cache__use="true",
        stages=("distill",),
        train__cache_on_device_gigabytes=device,
        train__cache_in_memory_gigabytes=memory,
    )
    run(config, workdir)
    assert f"distill/ours: 0.000 GB {said}" in capsys.readouterr().out
    assert stages.result(workdir, "distill")["loss"] > 0
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        tuned(workdir),
        tuned(cached),
    )


ROWS = 32


@pytest.fixture
def of_cache(tmp_path, monkeypatch):
    """What `feed.make` makes of a finished cache of boundary activations of a shape."""
    context = SimpleNamespace(
        workdir=tmp_path,
        config=quick_config(),
        training_mesh=sharding.make_mesh(),
        augmented_set=Elements,
    )
    monkeypatch.setattr(stages, "result", lambda workdir, name: {"used": True})
    monkeypatch.setattr(feed.cache_stage, "fingerprint", lambda context: {"of": "a test"})

    def made(shape):
        z = np.random.default_rng(0).normal(size=(ROWS, *shape)).astype(np.float32)
        block = {"z_clean": z, "z_aug": z, "label": np.zeros(ROWS, np.int32)}
        cache = FeatureCache(tmp_path / "cache", {"of": "a test"}, ROWS)
        cache.lay_out({name: values[:8] for name, values in block.items()}, 8)
        for start in range(0, ROWS, cache.block):
            stop = start + cache.block
            cache.write(start, {name: v[start:stop] for name, v in block.items()}, {})
        return feed.make(context, "distill/ours", taught=False)

    return made


class Elements:
    seed = 0

    def __len__(self):
        return ROWS


@pytest.mark.parametrize(
    ("shape", "devices", "steps"), [((7,), 1, 2), ((2, 2, 3), 4, 1)], ids=["vectors", "maps"]
)
def test_a_cpu_trains_on_vectors_with_one_device_and_on_maps_step_by_step(
    of_cache, shape, devices, steps
):
    fed = of_cache(shape)
    assert (fed.mesh.size, fed.steps_per_call, fed.cached) == (devices, steps, True)
    assert len(fed.frozen["cache"]["z_clean"].devices()) == devices


def test_several_hosts_train_on_vectors_together(of_cache, monkeypatch):
    monkeypatch.setattr(hosts, "count", lambda: 2)
    assert of_cache((7,)).mesh.size == jax.device_count()


def test_parts_of_a_batch_must_fit(cached, tmp_path):
    config = quick_config(distill__accum_steps=3)
    with pytest.raises(ValueError, match=r"distill.accum_steps must divide .* got 3 and 32; use a"):
        run(config, tmp_path / "run")
    config = quick_config(distill__accum_steps=16)
    with pytest.raises(ValueError, match=r"distill.batch_size / distill.accum_steps must be a mul"):
        run(config, tmp_path / "run")
