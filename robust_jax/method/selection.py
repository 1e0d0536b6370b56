"""Which head answers: MC-dropout statistics of three heads, their scores, and the choice.

Pure functions of logits; nothing here knows a model. The paper's supplementary (section 1.1) says
that an MC-dropout uncertainty and a KL divergence together choose between the clean and the unclean
head; the measure, the direction of the KL and how the two are combined are named options here.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from robust_jax.method.uncertainty import UNCERTAINTIES, kl

if TYPE_CHECKING:
    from robust_jax.method.calibration import Calibration

HEADS = ("clean", "unclean", "combined")
CLEAN, UNCLEAN, COMBINED = range(3)

# Both factors of a score are sums of float32 terms of order one: below this they are rounding, and
# rounding must give a tie, not a choice.
_ROUNDING = 1e-7


def mc_logits(
    tail_fn: Callable[[Any, jax.Array], Mapping[str, jax.Array]],
    z: Any,
    key: jax.Array,
    num_samples: int,
    chunk: int | None = None,
) -> jax.Array:
    """Draws MC-dropout samples of the logits of all heads.

    Sample s uses one key for every head and every example, so `tail_fn` must draw its masks without
    the batch axis (`[d]`, broadcast over b). Each example still sees independent masks over s, and
    its answer depends on neither batch size, batch neighbours nor sharding.

    Args:
      tail_fn: `(z, key) -> {head: [b, k]}` for every head of `HEADS`, with dropout from `key`.
      z: the boundary activation, an array or a tree, passed on as it is.
      key: a PRNG key; the same key gives the same answer.
      num_samples: s, at least 1.
      chunk: samples computed at once (the rest in sequence, to save memory); None is all.

    Returns:
      f32[h, s, b, k], heads in the order of `HEADS`.
    """
    if num_samples < 1:
        raise ValueError(f"MC dropout needs samples; got num_samples={num_samples}; use 1 or more")

    def sample(sample_key: jax.Array) -> jax.Array:
        logits = tail_fn(z, sample_key)
        if missing := [head for head in HEADS if head not in logits]:
            raise ValueError(f"the tail has no logits for {missing}; got {sorted(logits)}")
        return jnp.stack([logits[head].astype(jnp.float32) for head in HEADS])

    keys = jax.random.split(key, num_samples)
    if chunk is None:
        return jax.vmap(sample, out_axes=1)(keys)
    return jnp.moveaxis(jax.lax.map(sample, keys, batch_size=chunk), 0, 1)


_CHOICES = {
    "uncertainty": tuple(UNCERTAINTIES),
    "score": ("product", "sum", "uncertainty", "kl", "max_logit", "gate"),
    "direction": ("combined_to_head", "head_to_combined"),
    "candidates": ("clean_unclean", "all"),
}


@dataclasses.dataclass(frozen=True)
class SelectionConfig:
    """The options of the choice between heads; hashable, so it can be a static argument.

    Attributes:
      uncertainty: U, a key of `UNCERTAINTIES`.
      score: `product` U·D; `sum` U+D; `uncertainty` U ("w/o KLD"); `kl` D ("w/o U_mc");
        `max_logit` the larger maximum of the mean logits wins; `gate` a fitted classifier (ours).
      direction: D is KL(combined || head) or KL(head || combined).
      candidates: `clean_unclean`, or `all`, where the combined head may answer too (ours). Its D to
        itself would be 0 and always win, so D is then taken to the mean of the three heads.
      keep_clean: the share of clean images that a calibrated threshold leaves to the clean head;
        0 is the threshold that is right most often (ours).
    """

    uncertainty: str = "mutual_information"
    score: str = "product"
    direction: str = "combined_to_head"
    candidates: str = "clean_unclean"
    keep_clean: float = 0.0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"unknown selection option {name}; got {getattr(self, name)!r}; "
                    f"choose from {', '.join(choices)}"
                )
        if self.score == "gate" and self.candidates != "clean_unclean":
            raise ValueError(
                f"a gate tells clean from shifted only; got candidates={self.candidates!r}; "
                "use candidates='clean_unclean' with score='gate'"
            )
        if not 0 <= self.keep_clean <= 1:
            raise ValueError(
                f"keep_clean is a share; got {self.keep_clean}; use a number from 0 to 1"
            )


def divergence(probs: jax.Array, config: SelectionConfig) -> jax.Array:
    """D of every candidate: f32[h, s, b, k] -> f32[c, b], c = 2, or 3 with candidates `all`."""
    heads = jnp.mean(probs, axis=1)
    if config.candidates == "all":
        reference = jnp.mean(heads, axis=0)
    else:
        reference, heads = heads[COMBINED], heads[:COMBINED]
    return kl(reference, heads) if config.direction == "combined_to_head" else kl(heads, reference)


def scores(logits: jax.Array, config: SelectionConfig) -> jax.Array:
    """Score of every candidate; the smallest answers.

    Scores are logarithms, except for `max_logit`: their difference is then the log-ratio that the
    threshold and AUROC see, and its scale does not depend on that of U and D.

    Args: logits: f32[h, s, b, k], already divided by the temperatures.
    Returns: f32[c, b], c = 2, or 3 with candidates `all`.
    """
    if config.score == "gate":
        raise ValueError("a gate needs fitted weights; got score='gate'; call predict instead")
    probs = jax.nn.softmax(logits, axis=-1)
    u = UNCERTAINTIES[config.uncertainty](probs)
    return _combine(logits, u, divergence(probs, config), config)


def _combine(logits: jax.Array, u: jax.Array, d: jax.Array, config: SelectionConfig) -> jax.Array:
    u = u[: d.shape[0]]
    if config.score == "max_logit":
        return -jnp.max(jnp.mean(logits[: d.shape[0]], axis=1), axis=-1)
    if config.score == "product":
        return _log(u) + _log(d)
    return _log({"sum": u + d, "uncertainty": u, "kl": d}[config.score])


def _log(x: jax.Array) -> jax.Array:
    return jnp.log(jnp.maximum(x, _ROUNDING))


def select(scores: jax.Array, threshold: jax.typing.ArrayLike = 0.0) -> jax.Array:
    """Index into `HEADS` of the smallest score; a tie goes to clean.

    Args:
      scores: f32[c, b].
      threshold: unclean answers only where it beats clean by more than this.

    Returns:
      int32[b].
    """
    handicap = jnp.zeros(scores.shape[0]).at[UNCLEAN].set(threshold)
    return jnp.argmin(scores + handicap[:, None], axis=0).astype(jnp.int32)


def routing_score(scores: jax.Array) -> jax.Array:
    """How much rather unclean than clean: f32[c, b] -> f32[b], higher for likely shifted."""
    return scores[CLEAN] - scores[UNCLEAN]


def predict(
    logits: jax.Array,
    config: SelectionConfig,
    calibration: "Calibration | None" = None,
    statistics: jax.Array | None = None,
    restrict: Callable[[jax.Array], jax.Array] | None = None,
) -> dict[str, jax.Array]:
    """Chooses a head for every example and answers with its mean probabilities.

    Args:
      logits: f32[h, s, b, k] of `mc_logits`.
      config: the options; static under jit.
      calibration: temperatures, threshold and gate fitted for `config`; None is 1 and 0.
      statistics: f32[b, f] of `Student.observe`; only the gate reads them.
      restrict: logits [..., k] -> [..., m] of the classes that may be answered. All k choose the
        head, for which the calibration was fitted.

    Returns:
      label int32[b], probs f32[b, k or m] and head int32[b] of the chosen head; head_probs
      f32[h, b, k or m] of every head; uncertainty f32[h, b], kl f32[c, b] and routing_score f32[b]
      as in `scores`.
    """
    threshold: jax.typing.ArrayLike = 0.0
    if calibration is not None:
        if calibration.config != config:
            raise ValueError(
                f"the calibration is for other options; got {config}; fit one for it, "
                f"or use {calibration.config}"
            )
        temperatures = jnp.stack([jnp.asarray(calibration.temperatures[head]) for head in HEADS])
        logits = logits / temperatures.astype(jnp.float32)[:, None, None, None]
        threshold = calibration.threshold
    probs = jax.nn.softmax(logits, axis=-1)
    uncertainty = UNCERTAINTIES[config.uncertainty](probs)
    kl_to_reference = divergence(probs, config)
    if config.score == "gate":
        if calibration is None or calibration.gate is None or statistics is None:
            missing = "statistics" if statistics is None else "fitted gate"
            raise ValueError(
                f"score='gate' needs a gate and statistics; got no {missing}; fit one with "
                "calibrate(..., statistics_clean=, statistics_shifted=) and pass those of images"
            )
        fitted, given = jnp.shape(calibration.gate.mean), statistics.shape[1:]
        if fitted != given:
            raise ValueError(
                f"the gate was fitted on other statistics; got {given} for {fitted}; run the stage "
                "evaluate again with --rerun=evaluate"
            )
        shifted = calibration.gate(statistics)
        candidate_scores = jnp.stack([shifted, jnp.zeros_like(shifted)])
    else:
        candidate_scores = _combine(logits, uncertainty, kl_to_reference, config)
    head = select(candidate_scores, threshold)
    answers = probs if restrict is None else jax.nn.softmax(restrict(logits), axis=-1)
    means = jnp.mean(answers, axis=1)
    chosen = jnp.take_along_axis(means, head[None, :, None], axis=0)[0]
    return {
        "label": jnp.argmax(chosen, axis=-1).astype(jnp.int32),
        "probs": chosen,
        "head": head,
        "head_probs": means,
        "uncertainty": uncertainty,
        "kl": kl_to_reference,
        "routing_score": routing_score(candidate_scores),
    }
