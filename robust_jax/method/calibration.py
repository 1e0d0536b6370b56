"""Calibration of the choice between heads, fitted on held-out clean and augmented images (ours).

Never fit on test corruptions: what the numbers then measure is the fit. Fits take and give numpy;
`Calibration` is a tree, so a jitted prediction takes it as an ordinary argument.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.special

from robust_jax.method.gate import Gate, fit_gate
from robust_jax.method.selection import HEADS, SelectionConfig, predict

_LOG_TEMPERATURE_BOUNDS = (-3.0, 3.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Calibration:
    """What `selection.predict` needs beyond the logits.

    Attributes:
      temperatures: one positive number per head of `HEADS`; its logits are divided by it.
      threshold: unclean answers where the routing score exceeds it.
      gate: only for `score='gate'`.
      config: the options it was fitted for; a threshold means nothing under others.
    """

    temperatures: dict[str, float]
    threshold: float = 0.0
    gate: Gate | None = None
    config: SelectionConfig = dataclasses.field(
        default=SelectionConfig(), metadata={"static": True}
    )

    def to_json(self) -> str:
        """One JSON object; floats survive the round trip exactly."""
        return json.dumps(
            dataclasses.asdict(self), default=lambda array: np.asarray(array).tolist()
        )

    @classmethod
    def from_json(cls, text: str) -> "Calibration":
        """The calibration that `to_json` wrote.

        Raises:
          ValueError: for anything else.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        try:
            fields = json.loads(text)
            if set(fields) != known or set(fields["temperatures"]) != set(HEADS):
                raise ValueError(
                    f"this is not a calibration; got keys {sorted(fields)}; "
                    f"expected {sorted(known)} with temperatures for {', '.join(HEADS)}"
                )
            temperatures = {name: float(fields["temperatures"][name]) for name in HEADS}
            threshold = float(fields["threshold"])
            gate = fields["gate"]
            if gate is not None:
                gate = Gate(**{name: np.asarray(part, np.float32) for name, part in gate.items()})
            config = SelectionConfig(**fields["config"])
        except (TypeError, AttributeError, LookupError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"this is not a calibration ({error!r:.200}); got {text!r:.80}; fit it again"
            ) from error
        numbers = [*temperatures.values(), threshold, *jax.tree.leaves(gate)]
        if not all(np.isfinite(part).all() for part in numbers) or min(temperatures.values()) <= 0:
            raise ValueError(
                f"a calibration has finite numbers and temperatures above 0; got {text!r:.200}; "
                "fit it again"
            )
        return cls(temperatures=temperatures, threshold=threshold, gate=gate, config=config)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least negative log-likelihood of the mean softmax.

    Searched in [e^-3, e^3]: on separable data the best temperature is 0, and no bound is no answer.

    Args: logits: f32[s, b, k] of one head; labels: int[b].
    """
    logits, labels = np.asarray(logits, np.float32), np.asarray(labels)
    if logits.ndim != 3 or labels.shape != logits.shape[1:2] or labels.size == 0:
        raise ValueError(
            f"a temperature is fitted on logits [s, b, k] and labels [b]; "
            f"got {logits.shape} and {labels.shape}; give at least one image of each"
        )
    true_class = np.arange(labels.size), labels

    def nll(log_temperature: float) -> float:
        log_probs = scipy.special.log_softmax(logits * np.exp(-log_temperature), axis=-1)
        true = log_probs[:, *true_class].astype(np.float64)
        return float(np.log(len(true)) - scipy.special.logsumexp(true, axis=0).mean())

    best = scipy.optimize.minimize_scalar(nll, bounds=_LOG_TEMPERATURE_BOUNDS, method="bounded")
    return float(np.exp(best.x))


def fit_threshold(routing_score_clean: np.ndarray, routing_score_shifted: np.ndarray) -> float:
    """The threshold with the largest mean of both F_correct.

    F_correct only changes at the given scores, so every interval between two of them is tried, and
    the midpoint of the best is returned (the widest of equals; beyond an end, one past it).

    Args: routing_score_clean, routing_score_shifted: f32[b], higher for likely shifted.
    """
    clean, shifted = (
        np.sort(np.asarray(scores, np.float64).ravel())
        for scores in (routing_score_clean, routing_score_shifted)
    )
    if clean.size == 0 or shifted.size == 0:
        raise ValueError(
            f"a threshold needs both kinds of images; got {clean.size} clean and "
            f"{shifted.size} shifted; give at least one of each"
        )
    values = np.unique(np.concatenate([clean, shifted]))
    if not np.isfinite(values).all():
        raise ValueError("routing scores must be finite; got NaN or infinity; check the logits")
    thresholds = np.concatenate(
        [values[:1] - 1.0, (values[:-1] + values[1:]) / 2, values[-1:] + 1.0]
    )
    kept = np.searchsorted(clean, thresholds, side="right")
    caught = shifted.size - np.searchsorted(shifted, thresholds, side="right")
    # Integers, so that equals compare equal.
    gain = kept * shifted.size + caught * clean.size
    width = np.concatenate([[0.0], np.diff(values), [0.0]])
    best = np.flatnonzero(gain == gain.max())
    return float(thresholds[best[np.argmax(width[best])]])


def keeping_threshold(routing_score_clean: np.ndarray, share: float) -> float:
    """The least of the given scores at which `share` of these images or more stay clean.

    Args:
      routing_score_clean: f32[b], higher for likely shifted.
      share: above 0, at most 1.
    """
    scores = np.asarray(routing_score_clean, np.float64).ravel()
    if scores.size == 0 or not np.isfinite(scores).all() or not 0 < share <= 1:
        raise ValueError(
            f"a threshold keeps a share in (0, 1] of finite scores; got share={share} of "
            f"{scores.size} scores; give those of held-out clean images"
        )
    return float(np.quantile(scores, share, method="inverted_cdf"))


def fit_temperatures(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The temperature of every head, fitted on clean and augmented images alike.

    What is calibrated is the heads against each other on what they will meet, not each on its own
    kind.

    Args: logits: f32[h, s, b, k], heads in the order of `HEADS`; labels: int[b].
    """
    return {
        head: fit_temperature(of_head, labels) for head, of_head in zip(HEADS, logits, strict=True)
    }


def calibrate(
    logits_clean: np.ndarray,
    logits_shifted: np.ndarray,
    temperatures: dict[str, float],
    config: SelectionConfig,
    statistics_clean: np.ndarray | None = None,
    statistics_shifted: np.ndarray | None = None,
    seed: int = 0,
) -> Calibration:
    """Fits the gate or the threshold that `config` needs, on top of the temperatures.

    With `config.keep_clean` the threshold is the one that keeps this share of the clean images;
    else the best of both F_correct, and even odds of the gate.

    Args:
      logits_clean, logits_shifted: f32[h, s, b, k].
      temperatures: of `fit_temperatures`.
      config: the options to fit for.
      statistics_clean, statistics_shifted: f32[b, f] of `Student.observe`, for `score='gate'`.
      seed: of the gate's folds.
    """
    if config.score == "gate":
        if statistics_clean is None or statistics_shifted is None:
            raise ValueError(
                "score='gate' is fitted on statistics; got None; pass statistics_clean and "
                "statistics_shifted"
            )
        gate, unseen = fit_gate(statistics_clean, statistics_shifted, seed)
        threshold = keeping_threshold(unseen, config.keep_clean) if config.keep_clean else 0.0
        return Calibration(temperatures, threshold, gate, config)
    unset = Calibration(temperatures, config=config)
    routing = [
        np.asarray(predict(jnp.asarray(logits), config, unset)["routing_score"])
        for logits in (logits_clean, logits_shifted)
    ]
    if config.keep_clean:
        return dataclasses.replace(
            unset, threshold=keeping_threshold(routing[0], config.keep_clean)
        )
    return dataclasses.replace(unset, threshold=fit_threshold(*routing))
