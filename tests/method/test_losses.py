"""Losses against scipy, golden numbers and the formula of the sum over heads."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics

from robust_jax.method import losses
from robust_jax.method.selection import HEADS
from robust_jax.method.uncertainty import mutual_information

KD = {
    "weight": 0.3,
    "temperature": 2.0,
    "weighting": "teacher_entropy",
    "heads": ("unclean", "combined"),
    "clean_anchor": 0.0,
}


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(0, 2, shape).astype(np.float32)


LABELS = np.array([0, 3, 1, 2, 2, 0])


def softmax(logits):
    return scipy.special.softmax(np.asarray(logits, np.float64), axis=-1)


def numpy_head_loss(logits, teacher, weight, tau, weighting):
    ce = -np.log(softmax(logits)[np.arange(6), LABELS])
    divergence = scipy.stats.entropy(softmax(teacher / tau), softmax(logits / tau), axis=-1)
    sure = 1 - scipy.stats.entropy(softmax(teacher), axis=-1, base=4)
    sure = sure if weighting == "teacher_entropy" else 1.0
    return (1 - weight) * ce + weight * sure * tau**2 * divergence


def test_cross_entropy_equals_sklearn():
    logits = normal(0, 6, 4)
    got = losses.cross_entropy(logits, LABELS)
    assert got.shape == (6,)
    assert got.mean() == pytest.approx(sklearn.metrics.log_loss(LABELS, softmax(logits)), rel=1e-5)


def test_distillation():
    teacher, logits = normal(0, 6, 4), normal(1, 6, 4)
    expected = 9 * scipy.stats.entropy(softmax(teacher / 3), softmax(logits / 3), axis=-1)
    np.testing.assert_allclose(losses.distillation(logits, teacher, 3.0), expected, rtol=1e-4)
    np.testing.assert_allclose(losses.distillation(teacher + 5, teacher, 3.0), 0, atol=1e-5)


def test_distillation_gradient_is_tau_times_the_difference_of_softmaxes():
    teacher, logits = normal(0, 6, 4), normal(1, 6, 4)
    for tau in (1.0, 4.0):
        grad = jax.grad(lambda x, tau=tau: losses.distillation(x, teacher, tau).sum())(logits)
        np.testing.assert_allclose(
            grad, tau * (softmax(logits / tau) - softmax(teacher / tau)), atol=1e-5
        )


def test_jensen_shannon_golden_and_identity_with_mutual_information():
    probs = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]], np.float32)
    views = [jnp.log(p)[None] for p in probs]
    got = losses.jensen_shannon(views)
    np.testing.assert_allclose(got, [0.2734123], atol=1e-6)
    np.testing.assert_allclose(12 * got, [3.2809479], atol=1e-5)
    np.testing.assert_allclose(got, mutual_information(probs[:, None]), atol=1e-6)
    views = list(normal(2, 3, 6, 4))
    np.testing.assert_allclose(
        losses.jensen_shannon(views), mutual_information(softmax(np.stack(views))), atol=1e-5
    )
    np.testing.assert_allclose(losses.jensen_shannon([views[0]] * 3), 0, atol=1e-6)


def test_jensen_shannon_gradient():
    views = normal(2, 3, 6, 4)
    probs = softmax(views)
    # d/dl_v of mean_v KL(p_v || M) = p_v * (g - E_p[g]) / V with g = log p_v - log M.
    g = np.log(probs) - np.log(probs.mean(axis=0))
    expected = probs * (g - (probs * g).sum(axis=-1, keepdims=True)) / 3
    grad = jax.grad(lambda x: losses.jensen_shannon(list(x)).sum())(views)
    np.testing.assert_allclose(grad, expected, atol=1e-6)


def test_teacher_weight_ends_and_middle():
    logits = np.array([[0, 0, 0, 0], [200, 0, 0, 0], [0, 0, -200, -200]], np.float32)
    np.testing.assert_allclose(
        losses.teacher_weight(logits, "teacher_entropy"), [0, 1, 0.5], atol=1e-6
    )
    np.testing.assert_array_equal(losses.teacher_weight(logits, "none"), 1)


@pytest.mark.parametrize("weighting", losses.TEACHER_WEIGHTINGS)
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_head_loss(weight, weighting):
    logits, teacher = normal(0, 6, 4), normal(1, 6, 4)
    got = losses.head_loss(
        logits, LABELS, teacher, weight=weight, temperature=2.0, weighting=weighting
    )
    expected = numpy_head_loss(logits, teacher, weight, 2.0, weighting)
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_no_weight_does_not_touch_the_teacher():
    logits = normal(0, 6, 4)
    for teacher in (None, np.full((6, 4), np.nan, np.float32)):
        got = losses.head_loss(
            logits, LABELS, teacher, weight=0.0, temperature=2.0, weighting="none"
        )
        np.testing.assert_array_equal(got, losses.cross_entropy(logits, LABELS))


def test_losses_are_float32_for_bfloat16_logits():
    logits = jnp.asarray(normal(0, 6, 4), jnp.bfloat16)
    got = losses.head_loss(logits, LABELS, logits, weight=0.5, temperature=1.0, weighting="none")
    assert got.dtype == jnp.float32


def three_heads(seed):
    return dict(zip(losses.HEAD_DOMAINS, normal(seed, 3, 6, 4), strict=True))


def test_three_head_loss_is_the_sum_of_its_terms():
    clean, aug, (t_clean, t_aug, original) = three_heads(0), three_heads(1), normal(2, 3, 6, 4)
    kd = ml_collections.ConfigDict(KD | {"clean_anchor": 0.7})
    loss, metrics = jax.jit(
        lambda *logits: losses.three_head_loss(*logits[:2], LABELS, *logits[2:4], kd, logits[4])
    )(clean, aug, t_clean, t_aug, original)
    taught = 0.3, 2.0, "teacher_entropy"
    terms = {
        "clean_clean": numpy_head_loss(clean["clean"], t_clean, 0, 1, "none").mean(),
        "unclean_aug": numpy_head_loss(aug["unclean"], t_aug, *taught).mean(),
        "combined_clean": numpy_head_loss(clean["combined"], t_clean, *taught).mean(),
        "combined_aug": numpy_head_loss(aug["combined"], t_aug, *taught).mean(),
    }
    anchors = {
        head: scipy.stats.entropy(softmax(original), softmax(clean[head]), axis=-1).mean()
        for head in ("clean", "combined")
    }
    expected = sum(terms.values()) + 0.7 * sum(anchors.values())
    assert loss == pytest.approx(expected, rel=1e-4) and metrics["loss"] == loss
    for name, term in terms.items():
        head, domain = name.split("_")
        assert metrics[f"loss_{name}"] == pytest.approx(term, rel=1e-4)
        logits = clean if domain == "clean" else aug
        right = (logits[head].argmax(-1) == LABELS).mean()
        assert metrics[f"accuracy_{name}"] == pytest.approx(right)
    for head, term in anchors.items():
        assert metrics[f"anchor_{head}"] == pytest.approx(term, rel=1e-4)
    assert set(metrics) == {"loss", "anchor_clean", "anchor_combined"} | {
        f"{kind}_{name}" for kind in ("loss", "accuracy") for name in terms
    }


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, (0.0, 0.3, 0.3)),
        ({"heads": HEADS}, (0.3, 0.3, 0.3)),
        ({"heads": HEADS, "clean_weight": 0.8}, (0.8, 0.3, 0.3)),
        ({"heads": HEADS, "clean_weight": 0.0, "weight": 1}, (0.0, 1.0, 1.0)),
        ({"clean_weight": 0.8}, (0.0, 0.3, 0.3)),
    ],
)
def test_each_head_has_its_mixture_of_labels_and_teacher(change, expected):
    kd = KD | change
    assert tuple(losses.head_weight(kd, head) for head in HEADS) == expected
    clean, aug, (t_clean, t_aug) = three_heads(0), three_heads(1), normal(2, 2, 6, 4)
    _, metrics = losses.three_head_loss(clean, aug, LABELS, t_clean, t_aug, kd)
    rest = kd["temperature"], kd["weighting"]
    terms = {
        "clean_clean": numpy_head_loss(clean["clean"], t_clean, expected[0], *rest),
        "combined_aug": numpy_head_loss(aug["combined"], t_aug, expected[2], *rest),
    }
    for name, term in terms.items():
        assert metrics[f"loss_{name}"] == pytest.approx(term.mean(), rel=1e-4)


def test_clean_head_has_no_gradient_from_augmented_images():
    clean, aug = three_heads(0), three_heads(1)
    grads = jax.grad(
        lambda logits: losses.three_head_loss(*logits, LABELS, None, None, KD | {"weight": 0.0})[0]
    )((clean, aug))
    nonzero = [{head for head, g in part.items() if np.any(g)} for part in grads]
    assert nonzero == [{"clean", "combined"}, {"unclean", "combined"}]


def test_a_single_head_trains_alone():
    aug = {"unclean": normal(0, 6, 4)}
    loss, metrics = losses.three_head_loss({}, aug, LABELS, None, None, KD | {"heads": ()})
    assert loss == pytest.approx(losses.cross_entropy(aug["unclean"], LABELS).mean())
    assert set(metrics) == {"loss", "loss_unclean_aug", "accuracy_unclean_aug"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": 1.5}, r"kd.weight .* got 1.5; use a number in \[0, 1\]"),
        ({"temperature": 0}, "kd.temperature .* got 0"),
        ({"weighting": "entropy"}, "got 'entropy'; choose from none, teacher_entropy"),
        ({"heads": ("dirty",)}, r"unknown heads; got \['dirty'\]; choose from clean, unclean"),
        ({"clean_anchor": 1.0}, "kd.clean_anchor=1.0 needs the original"),
    ],
)
def test_promised_errors_of_options(change, message):
    teacher = normal(2, 6, 4)
    with pytest.raises(ValueError, match=message):
        losses.three_head_loss(
            three_heads(0), three_heads(1), LABELS, teacher, teacher, KD | change
        )


def test_promised_errors_of_logits():
    heads = three_heads(0)
    with pytest.raises(ValueError, match=r"got None with kd.weight=0.3; train a teacher"):
        losses.three_head_loss(heads, heads, LABELS, None, None, KD)
    with pytest.raises(
        ValueError, match=r"combined head learns from clean and aug .* on aug images"
    ):
        losses.three_head_loss(heads, {"unclean": heads["clean"]}, LABELS, None, None, KD)
    with pytest.raises(ValueError, match="nothing to train"):
        losses.three_head_loss({}, {}, LABELS, None, None, KD)
