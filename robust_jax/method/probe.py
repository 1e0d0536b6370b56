"""The linear probe: a softmax regression on fixed features, fitted by L-BFGS."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

# Strengths of the penalty, from strong to weak; held-out images choose.
PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
MAX_STEPS = 300
TOLERANCE = 1e-5  # norm of the gradient


def fit(
    z: np.ndarray,
    labels: np.ndarray,
    held_out: tuple[np.ndarray, np.ndarray],
    num_classes: int,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Fits a linear classifier.

    The mean cross-entropy and l/2 sum_ij E[z_i^2] W_ij^2 are minimised for each l of `PENALTIES`,
    beginning where the one before ended; the held-out images choose. The second moments make the
    penalty what dropout on the features costs (Wager et al. 2013): the student is about to be
    tuned, and asked, under dropout, to which a weight on a large mean with little spread matters.

    Args:
      z: features f32[n, d].
      labels: int[n].
      held_out: features and labels that choose the penalty.
      num_classes: k.

    Returns:
      {"kernel": f32[d, k], "bias": f32[k]}, and what was chosen.
    """
    size = np.sqrt(np.mean(np.square(z, dtype=np.float64), axis=0))
    # A feature that is always zero says nothing; it must not be divided by nothing either.
    size = np.where(size > 1e-30, size, np.inf).astype(np.float32)
    scaled = jnp.asarray(z / size)
    weights = {
        "kernel": jnp.zeros((z.shape[1], num_classes)),
        "bias": jnp.zeros(num_classes),
    }
    best: tuple[float, float, dict[str, np.ndarray]] | None = None
    for penalty in PENALTIES:
        weights = _minimise(weights, scaled, jnp.asarray(labels), jnp.float32(penalty))
        kernel = np.asarray(weights["kernel"]) / size[:, None]
        folded = {"kernel": kernel, "bias": np.array(weights["bias"])}
        answers = (held_out[0] @ folded["kernel"] + folded["bias"]).argmax(axis=1)
        accuracy = float(np.mean(answers == held_out[1]))
        if best is None or accuracy > best[0]:
            best = accuracy, penalty, folded
    assert best is not None  # there are penalties
    return best[2], {"held_out_accuracy": best[0], "penalty": best[1]}


@functools.partial(jax.jit, donate_argnums=0)
def _minimise(weights: Any, z: jax.Array, labels: jax.Array, penalty: jax.Array) -> Any:
    def loss(weights: Any) -> jax.Array:
        logits = z @ weights["kernel"] + weights["bias"]
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return entropy + penalty / 2 * jnp.sum(jnp.square(weights["kernel"]))

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: Any) -> Any:
        weights, state, count, _ = carry
        value, grad = value_and_grad(weights, state=state)
        updates, state = optimizer.update(
            grad, state, weights, value=value, grad=grad, value_fn=loss
        )
        return optax.apply_updates(weights, updates), state, count + 1, optax.tree.norm(grad)

    def unfinished(carry: Any) -> jax.Array:
        return (carry[2] < MAX_STEPS) & (carry[3] > TOLERANCE)

    start = (weights, optimizer.init(weights), 0, jnp.float32(jnp.inf))
    return jax.lax.while_loop(unfinished, step, start)[0]
