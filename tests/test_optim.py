from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robust_jax import optim


def section(**keys):
    defaults = {
        "optimizer": "sgd",
        "learning_rate": 0.5,
        "schedule": "constant",
        "warmup_percent": 0.0,
        "weight_decay": 0.0,
        "clip_norm": 0.0,
    }
    return SimpleNamespace(**(defaults | keys))


def rates(steps=20, **keys):
    schedule = optim.schedule(section(**keys), steps)
    return np.array([float(schedule(i)) for i in range(steps)])


def test_schedules_without_warm_up():
    np.testing.assert_allclose(rates(), 0.5)
    cosine = 0.25 * (1 + np.cos(np.pi * np.arange(20) / 20))
    np.testing.assert_allclose(rates(schedule="cosine"), cosine, rtol=1e-5)


def test_schedules_with_warm_up():
    linear = np.arange(5) / 5 * 0.5
    constant = rates(warmup_percent=25.0)
    np.testing.assert_allclose(constant, np.r_[linear, np.full(15, 0.5)], rtol=1e-6)
    cosine = 0.25 * (1 + np.cos(np.pi * np.arange(15) / 15))
    found = rates(warmup_percent=25.0, schedule="cosine")
    np.testing.assert_allclose(found, np.r_[linear, cosine], rtol=1e-5)


def test_steps_divide_by_ten_after_each_third():
    found = rates(21, schedule="step")
    np.testing.assert_allclose(found, np.repeat([0.5, 0.05, 0.005], 7), rtol=1e-5)
    # The thirds are of all steps, warm-up included.
    rise, found = np.arange(4) / 4 * 0.5, rates(21, schedule="step", warmup_percent=20.0)
    expected = np.r_[rise, np.full(3, 0.5), np.repeat([0.05, 0.005], 7)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_steps_divide_a_warm_up_too_and_short_runs_start_at_the_full_rate():
    found = rates(21, schedule="step", warmup_percent=48.0)
    rise = np.r_[np.arange(10) / 10 * 0.5, np.full(11, 0.5)]
    np.testing.assert_allclose(found, rise * np.repeat([1, 0.1, 0.01], 7), rtol=1e-5)
    np.testing.assert_allclose(rates(1, schedule="step"), [0.5])
    np.testing.assert_allclose(rates(2, schedule="step")[0], 0.5)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_run_of_warm_up_only_trains_nonetheless(schedule):
    found = rates(schedule=schedule, warmup_percent=100.0)
    assert found[0] == 0.0
    assert found[-1] == 0.5
    assert rates(1, schedule=schedule, warmup_percent=100.0) == [0.5]


def params():
    return {"kernel": jnp.array([[3.0, 4.0]]), "bias": jnp.array([2.0]), "scale": jnp.array(1.0)}


def updates(grads, **keys):
    optimizer = optim.make(section(**keys), 10)
    found, _ = optimizer.update(grads, optimizer.init(params()), params())
    return {k: np.asarray(v) for k, v in found.items()}


def test_decay_is_for_matrices_only():
    assert optim.decay_mask(params()) == {"kernel": True, "bias": False, "scale": False}
    zero = jax.tree.map(jnp.zeros_like, params())
    for optimizer in ("sgd", "adamw"):
        found = updates(zero, optimizer=optimizer, weight_decay=0.1)
        # Nesterov momentum adds the new gradient 0.9 times over.
        times = 1.9 if optimizer == "sgd" else 1.0
        expected = -0.5 * 0.1 * times * np.array([[3, 4]])
        np.testing.assert_allclose(found["kernel"], expected, rtol=1e-5)
        assert found["bias"] == found["scale"] == 0


def test_gradients_are_clipped_together():
    grads = {"kernel": jnp.array([[6.0, 0.0]]), "bias": jnp.array([8.0]), "scale": jnp.array(0.0)}
    free, clipped = updates(grads), updates(grads, clip_norm=1.0)
    np.testing.assert_allclose(free["kernel"], [[-0.5 * 1.9 * 6, 0]], rtol=1e-6)
    for name in grads:
        np.testing.assert_allclose(clipped[name], free[name] / 10, rtol=1e-5)
    small = jax.tree.map(lambda g: g / 100, grads)
    np.testing.assert_allclose(updates(small, clip_norm=1.0)["bias"], free["bias"] / 100)


def test_adam_moves_by_the_rate_and_takes_no_decay():
    grads = jax.tree.map(lambda p: 7 * p, params())
    for value in updates(grads, optimizer="adam").values():
        np.testing.assert_allclose(value, np.full_like(value, -0.5), rtol=1e-4)
    with pytest.raises(ValueError, match=r"'adam' has no weight decay; got .*=0.1; use 'adamw'"):
        optim.make(section(optimizer="adam", weight_decay=0.1), 10)
