"""The linear probe: a softmax regression on fixed features, fitted by L-BFGS.

Minimised is E[cross-entropy] + l/2 sum W^2, with no penalty on the bias. Summed over n examples and
divided by l n that is scikit-learn's objective with C = 1 / (l n). Two solvers minimise the same:
scikit-learn's on the host in double precision, and optax's on the devices.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from robust_jax import sharding

# Strengths of the penalty, from strong to weak; held-out images choose.
PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
MAX_STEPS = 1000  # as CLIP's probes
TOLERANCE = 1e-6  # the largest entry of the gradient
MAX_STALLS = 10  # steps in a row in which neither value nor gradient becomes smaller
SMALL = 1 << 22  # numbers in the features, up to which "auto" is scikit-learn


class Fit(NamedTuple):
    """A linear classifier: kernel f[d, k], bias f[k], and whether the solver reached its end."""

    kernel: np.ndarray
    bias: np.ndarray
    converged: bool

    def answers(self, z: np.ndarray) -> np.ndarray:
        """Returns the classes int[n] of features f32[n, d]."""
        return (z @ self.kernel + self.bias).argmax(axis=1)


class Solver(Protocol):
    """Fits the same examples under one penalty after another; each begins where the last ended."""

    def fit(self, penalty: float) -> Fit:
        """Returns the minimum for the penalty l."""


class ScikitLearn:
    """scikit-learn's LogisticRegression, on one core."""

    def __init__(self, z: np.ndarray, labels: np.ndarray, num_classes: int):
        """Takes features f32[n, d] and labels int[n], among which every class must be."""
        from sklearn.linear_model import LogisticRegression

        if len(np.unique(labels)) < num_classes:
            raise ValueError(
                f"scikit-learn fits the classes that it sees; got {len(np.unique(labels))} of "
                f"{num_classes}; number the classes of these examples, or use the solver 'jax'"
            )
        self._z, self._labels = np.asarray(z, np.float64), labels
        self._two = num_classes == 2
        self._model = LogisticRegression(tol=TOLERANCE, max_iter=MAX_STEPS, warm_start=True)

    def fit(self, penalty: float) -> Fit:
        """Returns the minimum for the penalty l."""
        from sklearn.exceptions import ConvergenceWarning
        from threadpoolctl import threadpool_limits

        # Of two classes it fits the difference w of the columns, which are -w/2 and w/2 here: its
        # penalty counts w^2, ours the half of it.
        c = (2 if self._two else 1) / (penalty * len(self._labels))
        # Its many small products take a hundred times as long where threads must wait for a core.
        with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._model.set_params(C=c).fit(self._z, self._labels)
        converged = not any(issubclass(one.category, ConvergenceWarning) for one in caught)
        kernel, bias = self._model.coef_.T, self._model.intercept_
        if self._two:
            kernel, bias = kernel * [[-0.5, 0.5]], bias * [-0.5, 0.5]
        return Fit(kernel.astype(np.float32), bias.astype(np.float32), converged)


class FullBatch:
    """`optax.lbfgs` on all examples at once, which lie split over the devices of a mesh."""

    def __init__(
        self, z: np.ndarray, labels: np.ndarray, num_classes: int, mesh: Mesh | None = None
    ):
        """Takes features f32[n, d] and labels int[n]; the default is one device."""
        mesh = sharding.make_mesh(jax.local_devices()[:1]) if mesh is None else mesh
        count = len(labels)
        fill = -count % mesh.size
        examples = {
            "z": np.pad(np.asarray(z, np.float32), ((0, fill), (0, 0))),
            "label": np.pad(np.asarray(labels, np.int32), (0, fill)),
            "weight": np.pad(np.full(count, 1 / count, np.float32), (0, fill)),
        }
        self._examples = sharding.shard_batch(examples, mesh)
        shapes = {"kernel": (z.shape[1], num_classes), "bias": (num_classes,)}
        start = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        self._weights = sharding.place(start, mesh)

    def fit(self, penalty: float) -> Fit:
        """Returns the minimum for the penalty l."""
        limits = jnp.float32(penalty), jnp.int32(MAX_STEPS)
        self._weights, steps = _minimise(self._weights, self._examples, *limits)
        found = jax.device_get(self._weights)
        return Fit(found["kernel"], found["bias"], bool(steps < MAX_STEPS))


SOLVERS: dict[str, Callable[..., Solver]] = {"sklearn": ScikitLearn, "jax": FullBatch}


def choose_solver(name: str, z: np.ndarray) -> str:
    """Returns a key of `SOLVERS`; "auto" is scikit-learn for features of up to 2^22 numbers.

    Raises:
      ValueError: for an unknown name.
    """
    if name == "auto":
        return "sklearn" if z.size <= SMALL else "jax"
    if name not in SOLVERS:
        raise ValueError(f"unknown solver; got {name!r}; use auto or one of {', '.join(SOLVERS)}")
    return name


def fit(
    z: np.ndarray,
    labels: np.ndarray,
    held_out: tuple[np.ndarray, np.ndarray],
    num_classes: int,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Fits the classifier of a student that is about to be tuned.

    The penalty l of `PENALTIES` weighs sum_ij E[z_i^2] W_ij^2 here; the held-out images choose it.
    The second moments make it what dropout on the features costs (Wager et al. 2013): the student
    is about to be tuned, and asked, under dropout, to which a weight on a large mean with little
    spread matters.

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
    solver = FullBatch(z / size, labels, num_classes)
    best: tuple[float, float, Fit] | None = None
    for penalty in PENALTIES:
        found = solver.fit(penalty)
        folded = found._replace(kernel=found.kernel / size[:, None])
        accuracy = float(np.mean(folded.answers(held_out[0]) == held_out[1]))
        if best is None or accuracy > best[0]:
            best = accuracy, penalty, folded
    assert best is not None  # there are penalties
    head = {"kernel": best[2].kernel, "bias": best[2].bias}
    return head, {"held_out_accuracy": best[0], "penalty": best[1]}


@functools.partial(jax.jit, donate_argnums=0)
def _minimise(
    weights: Any, examples: dict[str, jax.Array], penalty: jax.Array, max_steps: jax.Array
) -> tuple[Any, jax.Array]:
    """Returns the weights at the minimum and the steps that it took."""

    def loss(weights: Any) -> jax.Array:
        logits = examples["z"] @ weights["kernel"] + weights["bias"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, examples["label"])
        squares = jnp.sum(jnp.square(weights["kernel"]))
        return jnp.sum(examples["weight"] * losses) + penalty / 2 * squares

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: Any) -> Any:
        weights, state, count, _, lowest, flattest, stalls = carry
        value, grad = value_and_grad(weights, state=state)
        updates, state = optimizer.update(
            grad, state, weights, value=value, grad=grad, value_fn=loss
        )
        steepest = optax.tree.norm(grad, ord=jnp.inf)
        # Near the minimum the gradient still tells what is lost in the rounding of the value.
        better = (value < lowest) | (steepest < flattest)
        stalls = jnp.where(better, 0, stalls + 1)
        least = jnp.minimum(lowest, value), jnp.minimum(flattest, steepest)
        weights = optax.apply_updates(weights, updates)
        return weights, state, count + 1, steepest, *least, stalls

    def unfinished(carry: Any) -> jax.Array:
        _, _, count, steepest, *_, stalls = carry
        return (count < max_steps) & (steepest > TOLERANCE) & (stalls < MAX_STALLS)

    far = jnp.float32(jnp.inf)
    start = (weights, optimizer.init(weights), jnp.int32(0), far, far, far, 0)
    weights, _, count, *_ = jax.lax.while_loop(unfinished, step, start)
    return weights, count
