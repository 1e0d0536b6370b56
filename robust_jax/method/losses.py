"""The losses of training: cross-entropy, distillation, consistency, and their sum over heads.

All are per example, f32[b], in float32 whatever the logits are, and natural logarithms.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

# Which images teach which head.
HEAD_DOMAINS = {"clean": ("clean",), "unclean": ("aug",), "combined": ("clean", "aug")}
TEACHER_WEIGHTINGS = ("none", "teacher_entropy")


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Negative log-likelihood of the labels: [b, k], int[b] -> f32[b]."""
    true_class = jnp.take_along_axis(_log_softmax(logits), labels[:, None], axis=-1)
    return -true_class[:, 0]


def distillation(
    logits: jax.Array, teacher_logits: jax.Array, temperature: float = 1.0
) -> jax.Array:
    """τ²·KL(softmax(t/τ) || softmax(l/τ)) (Hinton et al. 2015): [b, k], [b, k] -> f32[b].

    The factor τ² keeps the size of the gradient the same for every τ.
    """
    teacher = _log_softmax(teacher_logits, temperature)
    student = _log_softmax(logits, temperature)
    return temperature**2 * jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)


def jensen_shannon(logits: Sequence[jax.Array]) -> jax.Array:
    """Jensen-Shannon divergence of the predictions (AugMix, Hendrycks et al. 2020, equation 3).

    Args:
      logits: views of the same images, each [b, k]; AugMix has a clean and two augmented ones and
        multiplies by 12. The mixture is clipped to [1e-7, 1] as there.

    Returns:
      f32[b], in [0, log(number of views)].
    """
    log_probs = jnp.stack([_log_softmax(view) for view in logits])
    probs = jnp.exp(log_probs)
    log_mixture = jnp.log(jnp.clip(jnp.mean(probs, axis=0), 1e-7, 1.0))
    return jnp.mean(jnp.sum(probs * (log_probs - log_mixture), axis=-1), axis=0)


def teacher_weight(teacher_logits: jax.Array, kind: str) -> jax.Array:
    """How much the teacher counts on each example: [b, k] -> f32[b], in [0, 1].

    Args:
      teacher_logits: [b, k].
      kind: `none` is 1; `teacher_entropy` is 1 - H(softmax(t)) / log k, at temperature 1: a sure
        teacher counts fully, one that knows nothing not at all.
    """
    if kind not in TEACHER_WEIGHTINGS:
        raise ValueError(
            f"unknown kd.weighting; got {kind!r}; choose from {', '.join(TEACHER_WEIGHTINGS)}"
        )
    if kind == "none":
        return jnp.ones(teacher_logits.shape[0], jnp.float32)
    log_probs = _log_softmax(teacher_logits)
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    return jnp.clip(1.0 - entropy / jnp.log(teacher_logits.shape[-1]), 0.0, 1.0)


def head_loss(
    logits: jax.Array,
    labels: jax.Array,
    teacher_logits: jax.Array | None,
    *,
    weight: float,
    temperature: float,
    weighting: str,
) -> jax.Array:
    """(1-λ)·CE(l, y) + λ·w(t)·τ²·KL(softmax(t/τ) || softmax(l/τ)) of one head.

    Args:
      logits: [b, k].
      labels: int[b].
      teacher_logits: [b, k]; not touched, and may be None, when `weight` is 0.
      weight: λ, in [0, 1].
      temperature: τ, positive.
      weighting: w, see `teacher_weight`.

    Returns:
      f32[b].
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"kd.weight mixes two losses; got {weight}; use a number in [0, 1]")
    if weight == 0:
        return cross_entropy(logits, labels)
    if teacher_logits is None:
        raise ValueError(
            f"distillation needs the teacher's logits; got None with kd.weight={weight}; "
            "train a teacher, or set kd.weight=0"
        )
    if temperature <= 0:
        raise ValueError(f"kd.temperature divides logits; got {temperature}; use more than 0")
    taught = teacher_weight(teacher_logits, weighting) * distillation(
        logits, teacher_logits, temperature
    )
    return (1 - weight) * cross_entropy(logits, labels) + weight * taught


def head_weight(kd: Mapping[str, Any], head: str) -> float:
    """Returns λ of a head, 0 for one that the teacher does not teach.

    The clean head can have its own (ours): on clean images labels and a robust teacher, who is no
    better there than its student, are worth another mixture than on shifted ones.

    Args:
      kd: `weight`, `clean_weight` (None or left out: the same) and `heads`.
      head: a key of `HEAD_DOMAINS`.
    """
    if head not in kd["heads"]:
        return 0.0
    own = kd.get("clean_weight") if head == "clean" else None
    return float(kd["weight"] if own is None else own)


def three_head_loss(
    logits_clean: Mapping[str, jax.Array],
    logits_aug: Mapping[str, jax.Array],
    labels: jax.Array,
    teacher_clean: jax.Array | None,
    teacher_aug: jax.Array | None,
    kd: Mapping[str, Any],
    original_clean: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The sum of the heads' losses, each on the images of its `HEAD_DOMAINS`.

    `L = Σ_{clean, combined} ℓ_k(x_clean) + Σ_{unclean, combined} ℓ_k(x_aug)`, over the heads that
    are present in either mapping; logits of a head on images that do not teach it are not used.

    Args:
      logits_clean, logits_aug: head -> [b, k], on the clean and on the augmented images.
      labels: int[b], of both.
      teacher_clean, teacher_aug: [b, k]; None when nothing is taught.
      kd: `weight` and `clean_weight`, which give λ (see `head_weight`), `temperature` τ,
        `weighting`, `heads` (the heads that are taught; the others use cross-entropy only) and
        `clean_anchor` (the weight of KL(original || head) on clean images, for the clean and the
        combined head; 0 is off).
      original_clean: [b, k] logits of the untouched model; only for `clean_anchor`.

    Returns:
      The loss f32[], a mean over b, and f32[] metrics: `loss`, `loss_HEAD_DOMAIN`,
      `accuracy_HEAD_DOMAIN`, and `anchor_HEAD` (unweighted) when it is on.
    """
    logits = {"clean": logits_clean, "aug": logits_aug}
    teachers = {"clean": teacher_clean, "aug": teacher_aug}
    heads = _check_heads(logits, kd["heads"])
    if kd["clean_anchor"] and original_clean is None:
        raise ValueError(
            f"kd.clean_anchor={kd['clean_anchor']} needs the original model's logits on clean "
            "images; got None; pass original_clean, or set kd.clean_anchor=0"
        )
    total = jnp.zeros((), jnp.float32)
    metrics = {}
    for head in heads:
        for domain in HEAD_DOMAINS[head]:
            head_logits = logits[domain][head]
            loss = jnp.mean(
                head_loss(
                    head_logits,
                    labels,
                    teachers[domain],
                    weight=head_weight(kd, head),
                    temperature=kd["temperature"],
                    weighting=kd["weighting"],
                )
            )
            metrics[f"loss_{head}_{domain}"] = loss
            metrics[f"accuracy_{head}_{domain}"] = jnp.mean(head_logits.argmax(-1) == labels)
            total += loss
            if domain == "clean" and kd["clean_anchor"] and original_clean is not None:
                anchor = jnp.mean(distillation(head_logits, original_clean))
                metrics[f"anchor_{head}"] = anchor
                total += kd["clean_anchor"] * anchor
    return total, {"loss": total, **metrics}


def _check_heads(
    logits: Mapping[str, Mapping[str, jax.Array]], taught: Sequence[str]
) -> tuple[str, ...]:
    present = set().union(*logits.values())
    if unknown := sorted((present | set(taught)) - set(HEAD_DOMAINS)):
        raise ValueError(f"unknown heads; got {unknown}; choose from {', '.join(HEAD_DOMAINS)}")
    heads = tuple(head for head in HEAD_DOMAINS if head in present)
    for head in heads:
        for domain in HEAD_DOMAINS[head]:
            if head not in logits[domain]:
                raise ValueError(
                    f"the {head} head learns from {' and '.join(HEAD_DOMAINS[head])} images; got "
                    f"no logits of it on {domain} images; run it on them"
                )
    if not heads:
        raise ValueError("nothing to train; got logits of no head; pass at least one")
    return heads


def _log_softmax(logits: jax.Array, temperature: float = 1.0) -> jax.Array:
    return jax.nn.log_softmax(logits.astype(jnp.float32) / temperature, axis=-1)
