import jax
import numpy as np
import pytest
from runs import copy_run, quick_config, run, tuned

from robust_jax import stages

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


def test_parts_of_a_batch_must_fit(cached, tmp_path):
    config = quick_config(distill__accum_steps=3)
    with pytest.raises(ValueError, match=r"distill.accum_steps must divide .* got 3 and 32; use a"):
        run(config, tmp_path / "run")
    config = quick_config(distill__accum_steps=16)
    with pytest.raises(ValueError, match=r"distill.batch_size / distill.accum_steps must be a mul"):
        run(config, tmp_path / "run")
