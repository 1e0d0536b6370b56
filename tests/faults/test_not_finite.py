"""A loss or a gradient that is not finite: the run stops and says where, or passes over it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import copy_run, quick_config, tuned
from runs import run as run_config
from toy_training import OPTIMIZER, assert_equal, make_batches, new_state, run, step_fn

from robust_jax import checkpoint

pytest_plugins = ["finished_run"]

LATER = ("distill", "baselines", "evaluate", "report")
NAN, INF = float("nan"), float("inf")


def broken_gradient(state, frozen, batch):
    """`step_fn` whose loss is finite, but the gradient of `b` is not where a label is 1000."""

    def loss_fn(params):
        z = jnp.tanh(batch["x"] @ frozen["w"])
        loss = jnp.mean((z @ params["w"] + params["b"] - batch["y"]) ** 2)
        nothing = params["b"] - jax.lax.stop_gradient(params["b"])
        return loss + jnp.sqrt(jnp.where(batch["y"].max() == 1000, nothing, 1.0)) - 1.0

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.update(grads, OPTIMIZER, {"loss": loss})


@pytest.mark.parametrize(
    ("value", "step", "what"),
    [
        (NAN, step_fn, "loss"),
        (INF, step_fn, "loss"),
        (1e30, step_fn, "loss"),  # its square is too large
        (1000.0, broken_gradient, "gradient of b"),
    ],
)
@pytest.mark.parametrize(("log_every", "per_call"), [(1, 1), (100, 1), (2, 2)])
def test_it_stops_the_run(tmp_path, value, step, what, log_every, per_call):
    options = {
        "log_every_steps": log_every,
        "checkpoint_every_steps": 2 * per_call,
        "steps_per_call": per_call,
        "step": step,
    }
    message = (
        rf"^toy: the training diverged; got a {what} that is not finite at step 5, at the "
        r"learning rate 0\.1; lower the learning rate, or tolerate such steps with "
        r"--config\.train\.on_nan=skip:10; the last checkpoint is from before$"
    )
    with pytest.raises(FloatingPointError, match=message):
        run(tmp_path, 12, poison={5: value}, **options)
    with checkpoint.Checkpoints(tmp_path / "toy" / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() == 4
        state, meta = checkpoints.restore(4, new_state())
    good, times = run(tmp_path / "good", 4, **options)
    assert_equal(state, good)
    assert meta["loss"] == times["loss"]


def test_steps_are_passed_over(tmp_path, capsys):
    poison = {3: NAN, 6: INF}
    state, times = run(tmp_path / "whole", 8, poison=poison, max_faults=2)
    assert int(state.step) == 8
    assert state.faults.tolist() == [2, 3, 0]
    said = capsys.readouterr().out
    assert (
        "toy: 1 step(s) passed over of 2 allowed; got a loss that is not finite at step 3, at "
        "the learning rate 0.1" in said
    )
    assert "toy: 2 step(s) passed over of 2 allowed" in said
    # It is the training without those steps' batches.
    by_hand = new_state()
    for batch in make_batches([], poison=poison)(0, 8):
        if np.isfinite(batch["y"]).all():
            by_hand, _ = step_fn(by_hand, run_frozen(), batch)
        else:
            by_hand = by_hand.replace(step=by_hand.step + 1)
    for name, value in by_hand.params.items():
        np.testing.assert_allclose(state.params[name], value, rtol=1e-5)
    # Also when it is interrupted in between, and what was passed over counts.
    run(tmp_path / "parts", 3, poison=poison, max_faults=2)
    resumed, _ = run(tmp_path / "parts", 8, poison=poison, max_faults=2)
    assert_equal(resumed, state)
    assert np.isfinite(times["loss"])


def run_frozen():
    return {"w": jax.random.normal(jax.random.key(0), (3, 5))}


def test_one_more_than_allowed_stops_it(tmp_path):
    message = r"got a loss that is not finite at step 2, .*, and 2 more such steps; .*skip:10"
    with pytest.raises(FloatingPointError, match=message):
        run(tmp_path, 20, poison={2: NAN, 4: NAN, 11: NAN}, max_faults=2)
    with checkpoint.Checkpoints(tmp_path / "toy" / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() == 9


def test_batch_statistics_are_kept():
    state = new_state().replace(model_state={"batch_stats": {"mean": jnp.ones(3)}})
    grads = jax.tree.map(jnp.ones_like, state.params)
    changed = {"batch_stats": {"mean": jnp.array([1.0, NAN, 2.0])}}
    after, _ = state.update(grads, OPTIMIZER, {"loss": jnp.float32(1)}, changed)
    assert_equal(after.model_state, state.model_state)
    assert_equal(after.params, state.params)
    count, step, tensor = after.faults.tolist()
    assert (count, step) == (1, 1)
    assert state.watched(["loss"])[tensor] == "statistics of batch_stats/mean"


@pytest.mark.slow
def test_a_run_that_diverges_can_go_on(finished, tmp_path):
    """A learning rate that no network survives, in the whole program; then a good one."""
    workdir = copy_run(finished, tmp_path / "run", without=LATER)
    wild = quick_config(stages=("distill",), distill__learning_rate=1e30, distill__clip_norm=0.0)
    message = r"distill/ours: the training diverged; got a .* not finite at step \d+, at the learn"
    with pytest.raises(FloatingPointError, match=message):
        run_config(wild, workdir)
    run_config(quick_config(stages=("distill",)), workdir, rerun=["distill"])
    assert_equal(tuned(workdir), tuned(finished))


@pytest.mark.parametrize("value", ["skip", "skip:", "skip:0", "skip:-1", "skip:x", "ignore", ""])
def test_bad_values_of_the_option(tmp_path, value):
    with pytest.raises(ValueError, match=r"train.on_nan says what .* got .*'stop', or 'skip:K'"):
        run_config(quick_config(train__on_nan=value), tmp_path)
