"""The supervised step on a small network: its average of the variables and its losses."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from robust_jax import models
from robust_jax.method import supervised
from robust_jax.state import TrainState

K, VIEWS = 3, ("image", "aug1", "aug2")


class Small(nn.Module):
    """Batch norm and one layer on the mean colours of quarters."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.avg_pool(images, (4, 4), (4, 4)).reshape(len(images), -1)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        return nn.Dense(K)(x)


def variables():
    model = Small()
    images = np.random.default_rng(1).normal(size=(8, 8, 8, 3)).astype(np.float32)
    return dict(model.init(jax.random.key(0), images))


def batch(seed, same=False):
    draw = np.random.default_rng(seed)
    views = {view: draw.integers(0, 256, (8, 8, 8, 3), np.uint8) for view in VIEWS}
    if same:
        views = dict.fromkeys(VIEWS, views["image"])
    return {**views, "label": np.arange(8, dtype=np.int32) % K}


def run(steps, *, averaged=False, **options):
    """States before and after each step."""
    optimizer = optax.sgd(0.5)
    step = jax.jit(
        supervised.make_step(Small(), models.entry("resnet_small"), optimizer, **options)
    )
    found = variables()
    state = TrainState.create(found.pop("params"), optimizer, found, averaged=averaged)
    states = [state]
    for i in range(steps):
        state, _ = step(state, {}, batch(i))
        states.append(state)
    return states


def current(state):
    return {"params": state.params, **state.model_state}


def test_the_average_by_hand():
    states = run(3)
    # min(0.22, (1 + t) / (10 + t)): the second term counts in the first step only.
    expected = jax.tree.map(np.asarray, current(states[0]))
    for state, decay in zip(states[1:], (2 / 11, 0.22, 0.22), strict=True):
        expected = jax.tree.map(
            lambda old, new, d=decay: d * old + (1 - d) * np.asarray(new), expected, current(state)
        )
    averaged = run(3, averaged=True, ema_decay=0.22)
    assert jax.tree.structure(averaged[3].average) == jax.tree.structure(expected)
    for found, wanted in zip(
        jax.tree.leaves(averaged[3].average), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    # It is not what is trained, and does not change it.
    for found, wanted in zip(
        jax.tree.leaves(current(averaged[3])), jax.tree.leaves(current(states[3])), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    changes = jax.tree.map(lambda a, b: np.abs(a - b).max(), expected, current(states[3]))
    assert min(changes["params"]["Dense_0"].values()) > 1e-4
    assert min(changes["batch_stats"]["BatchNorm_0"].values()) > 1e-4


def test_without_a_decay_there_is_no_average():
    for state in run(2):
        assert state.average is None


def test_the_first_average_is_a_copy_of_the_variables():
    (state,) = run(0, averaged=True, ema_decay=0.9)
    for found, wanted in zip(
        jax.tree.leaves(state.average), jax.tree.leaves(current(state)), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
        assert found is not wanted  # a step donates both


def metrics(same, **options):
    optimizer = optax.sgd(0.5)
    step = jax.jit(
        supervised.make_step(
            Small(), models.entry("resnet_small"), optimizer, loss="augmix_jsd", **options
        )
    )
    found = variables()
    state = TrainState.create(found.pop("params"), optimizer, found)
    return {name: float(value) for name, value in step(state, {}, batch(0, same))[1].items()}


def test_three_equal_views_do_not_diverge():
    found = metrics(same=True)
    assert found["jensen_shannon"] == pytest.approx(0, abs=1e-6)
    assert found["loss"] == pytest.approx(found["cross_entropy"], abs=1e-5)


def test_the_consistency_loss_counts_with_its_weight():
    found = metrics(same=False, jsd_weight=3.0)
    assert found["jensen_shannon"] > 0.01
    together = found["cross_entropy"] + 3 * found["jensen_shannon"]
    assert found["loss"] == pytest.approx(together, rel=1e-5)


def test_the_loss_is_of_the_clean_view():
    """By hand: one pass of all views, with the statistics of all of them."""
    found, entry = metrics(same=False), models.entry("resnet_small")
    images = np.stack([batch(0)[view] for view in VIEWS], 1).reshape(-1, 8, 8, 3)
    logits, _ = Small().apply(
        variables(), models.normalise(images, entry), train=True, mutable=["batch_stats"]
    )
    clean = np.asarray(logits, np.float64)[::3]
    log_probs = clean - np.log(np.exp(clean).sum(-1, keepdims=True))
    expected = -log_probs[np.arange(8), batch(0)["label"]].mean()
    assert found["cross_entropy"] == pytest.approx(expected, rel=1e-4)
