"""The gate: a logistic classifier of clean against shifted images (ours)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robust_jax.config import GATE_FOLDS

_REGULARISATION = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Gate:
    """A logistic classifier of clean against shifted, on standardised inputs.

    Attributes: mean, scale, weights: f32[f]; bias: f32[].
    """

    mean: Any
    scale: Any
    weights: Any
    bias: Any

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Log-odds of being shifted: f32[b, f] -> f32[b]."""
        return (inputs - self.mean) / self.scale @ jnp.asarray(self.weights) + self.bias


def fit_gate(
    statistics_clean: np.ndarray, statistics_shifted: np.ndarray, seed: int = 0
) -> tuple[Gate, np.ndarray]:
    """A logistic classifier of clean against shifted, both counting the same.

    The strength of its L2 penalty is chosen by cross-validation over folds drawn from `seed`: the
    inputs are often more than the images.

    Args: statistics_clean, statistics_shifted: f32[b, f] of `Student.observe`.

    Returns:
      The gate, and log-odds f64[b] of the clean images, each by a gate that has not seen it: those
      of its own training images are too low.
    """
    # Slow to import, and only fits need it.
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict, cross_val_score

    clean, shifted = (np.asarray(s, np.float64) for s in (statistics_clean, statistics_shifted))
    if min(len(clean), len(shifted)) < GATE_FOLDS or clean.shape[1:] != shifted.shape[1:]:
        raise ValueError(
            f"a gate needs {GATE_FOLDS} or more images of each kind with the same statistics; "
            f"got {clean.shape} and {shifted.shape}; hold out more images"
        )
    inputs = np.concatenate([clean, shifted])
    is_shifted = np.repeat([0, 1], [len(clean), len(shifted)])
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    inputs = (inputs - mean) / scale
    folds = StratifiedKFold(GATE_FOLDS, shuffle=True, random_state=seed)

    def classifier(c: float) -> LogisticRegression:
        return LogisticRegression(C=c, class_weight="balanced", max_iter=1000)

    best = max(
        _REGULARISATION,
        key=lambda c: cross_val_score(
            classifier(c), inputs, is_shifted, cv=folds, scoring="roc_auc"
        ).mean(),
    )
    unseen = cross_val_predict(
        classifier(best), inputs, is_shifted, cv=folds, method="decision_function"
    )
    fitted = classifier(best).fit(inputs, is_shifted)
    gate = Gate(*(np.float32(x) for x in (mean, scale, fitted.coef_[0], fitted.intercept_[0])))
    return gate, unseen[: len(clean)]
