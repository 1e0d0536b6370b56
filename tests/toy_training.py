"""A small training for the tests of the loop: linear regression behind a frozen layer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from robust_jax import sharding
from robust_jax.state import TrainState
from robust_jax.train import train

BATCH = 8
RATE = 0.1
OPTIMIZER = optax.sgd(RATE, momentum=0.9)


def step_fn(state, frozen, batch):
    """Linear regression behind a frozen layer, with dropout from the step number."""

    def loss_fn(params):
        key = jax.random.fold_in(jax.random.key(1), state.step)
        z = jnp.tanh(batch["x"] @ frozen["w"])
        z = z * jax.random.bernoulli(key, 0.7, z.shape)
        return jnp.mean((z @ params["w"] + params["b"] - batch["y"]) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.update(grads, OPTIMIZER, {"loss": loss, "step": state.step})


def new_state():
    return TrainState.create({"w": jnp.ones(5) / 5, "b": jnp.zeros(())}, OPTIMIZER)


def frozen():
    return {"w": jax.random.normal(jax.random.key(0), (3, 5))}


def make_batches(seen, batch_size=BATCH, poison=None):
    """Batches that note their steps in `seen`; `poison` maps steps (from 1) to a label."""

    def batches(start, stop):
        for step in range(start, stop):
            seen.append(step)
            x = np.random.default_rng(step).normal(size=(batch_size, 3)).astype(np.float32)
            y = x.sum(1)
            y[3] = (poison or {}).get(step + 1, y[3])
            yield {"x": x, "y": y}

    return batches


def run(workdir, total, *, seen=None, step=step_fn, arrays=None, mesh=None, poison=None, **options):
    defaults = {
        "batch_size": BATCH,
        "log_every_steps": 2,
        "checkpoint_every_steps": 3,
        "learning_rate": lambda step: RATE,
    }
    chosen = defaults | options
    return train(
        step,
        *(arrays or (new_state(), frozen())),
        make_batches([] if seen is None else seen, chosen["batch_size"], poison),
        name="toy",
        total_steps=total,
        workdir=workdir,
        mesh=mesh or sharding.make_mesh(),
        **chosen,
    )


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)
