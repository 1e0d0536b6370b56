from types import SimpleNamespace

import jax
import numpy as np
import pytest
from runs import copy_run, quick_config, run, tuned

from robust_jax.stages import cache

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
