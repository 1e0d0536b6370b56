"""Head selection against numpy in float64, golden vectors and invariants."""

import dataclasses
import itertools

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from robust_jax.method import selection
from robust_jax.method.calibration import Calibration, Gate
from robust_jax.method.selection import HEADS, SelectionConfig
from robust_jax.method.uncertainty import kl, mutual_information, predictive_entropy, variance

GOLDEN = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]], np.float32)[None, :, None]
LOGITS = hnp.arrays(np.float32, (3, 4, 5, 6), elements=st.floats(-30, 30, width=32))


def random_logits(seed=0, h=3, s=10, b=7, k=5, scale=2.0):
    return (scale * np.random.default_rng(seed).normal(size=(h, s, b, k))).astype(np.float32)


def test_golden_vector():
    np.testing.assert_allclose(predictive_entropy(GOLDEN), [[1.068145]], atol=1e-6)
    np.testing.assert_allclose(mutual_information(GOLDEN), [[0.273412]], atol=1e-6)
    np.testing.assert_allclose(variance(GOLDEN), [[0.186667]], atol=1e-6)


def test_statistics_equal_scipy():
    probs = np.asarray(jax.nn.softmax(random_logits(), axis=-1), np.float64)
    mean = probs.mean(axis=1)
    entropy = scipy.stats.entropy(mean, axis=-1)
    mi = entropy - scipy.stats.entropy(probs, axis=-1).mean(axis=1)
    np.testing.assert_allclose(predictive_entropy(probs), entropy, atol=1e-5)
    np.testing.assert_allclose(mutual_information(probs), mi, atol=1e-5)
    np.testing.assert_allclose(variance(probs), probs.var(axis=1).sum(axis=-1), atol=1e-6)
    np.testing.assert_allclose(
        kl(mean[2], mean[:2]), scipy.stats.entropy(mean[2], mean[:2], axis=-1), atol=1e-5
    )


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(LOGITS)
def test_bounds(logits):
    probs = jax.nn.softmax(logits, axis=-1)
    mi, pe = mutual_information(probs), predictive_entropy(probs)
    assert (mi >= 0).all() and (mi <= np.log(4) + 1e-5).all() and (mi <= pe + 1e-5).all()
    out = jax.jit(selection.predict, static_argnums=1)(logits, SelectionConfig())
    np.testing.assert_allclose(out["probs"].sum(-1), 1, atol=1e-5)
    assert all(np.isfinite(value).all() for value in out.values())
    assert set(np.unique(out["head"])) <= {0, 1}


def test_no_dropout_has_no_mutual_information():
    probs = jax.nn.softmax(np.repeat(random_logits(s=1), 10, axis=1), axis=-1)
    np.testing.assert_allclose(mutual_information(probs), 0, atol=1e-6)
    np.testing.assert_allclose(variance(probs), 0, atol=1e-6)


def test_underflowed_probabilities_stay_finite():
    logits = np.zeros((3, 2, 1, 4), np.float32)
    logits[:, :, 0, 0] = 500
    logits[1, 1, 0] = [0, 500, 0, 0]
    out = selection.predict(jnp.asarray(logits), SelectionConfig())
    assert all(np.isfinite(value).all() for value in out.values())
    np.testing.assert_allclose(out["uncertainty"][:, 0], [0, np.log(2), 0], atol=1e-5)


SCORES = ("product", "sum", "uncertainty", "kl", "max_logit")
CONFIGS = [
    *(
        SelectionConfig(score=score, candidates=candidates)
        for score, candidates in itertools.product(SCORES, ("clean_unclean", "all"))
    ),
    SelectionConfig("variance"),
    SelectionConfig("predictive_entropy", candidates="all"),
    SelectionConfig(direction="head_to_combined"),
    SelectionConfig(score="kl", direction="head_to_combined", candidates="all"),
]
every_config = pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda c: "-".join(map(str, dataclasses.astuple(c)))
)


@every_config
def test_scores_equal_numpy(config):
    logits = random_logits(1)
    probs = scipy.special.softmax(logits.astype(np.float64), axis=-1)
    mean = probs.mean(axis=1)
    c = 3 if config.candidates == "all" else 2
    pe = scipy.stats.entropy(mean, axis=-1)
    u = {
        "mutual_information": pe - scipy.stats.entropy(probs, axis=-1).mean(axis=1),
        "variance": probs.var(axis=1).sum(axis=-1),
        "predictive_entropy": pe,
    }[config.uncertainty][:c]
    reference = np.broadcast_to(mean.mean(axis=0) if c == 3 else mean[2], mean[:c].shape)
    pair = (reference, mean[:c])
    d = scipy.stats.entropy(
        *(pair if config.direction == "combined_to_head" else pair[::-1]), axis=-1
    )
    expected = {
        "product": np.log(u * d),
        "sum": np.log(u + d),
        "uncertainty": np.log(u),
        "kl": np.log(d),
        "max_logit": -logits[:c].mean(axis=1).max(axis=-1),
    }[config.score]
    got = selection.scores(jnp.asarray(logits), config)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    out = selection.predict(jnp.asarray(logits), config)
    np.testing.assert_array_equal(out["head"], expected.argmin(axis=0))
    np.testing.assert_allclose(
        out["routing_score"], expected[0] - expected[1], rtol=1e-3, atol=1e-3
    )
    chosen = mean[expected.argmin(axis=0), np.arange(7)]
    np.testing.assert_allclose(out["probs"], chosen, atol=1e-6)
    np.testing.assert_array_equal(out["label"], chosen.argmax(axis=-1))
    np.testing.assert_allclose(out["kl"], d, atol=1e-5)


@every_config
def test_identical_heads_answer_clean(config):
    logits = np.repeat(random_logits(h=1), 3, axis=0)
    out = selection.predict(jnp.asarray(logits), config)
    np.testing.assert_array_equal(out["head"], 0)
    np.testing.assert_array_equal(out["routing_score"], 0)


def test_all_lets_combined_answer():
    logits = random_logits(2, b=64)
    logits[2] = logits[2].mean(axis=0)  # a combined head that is certain of itself
    out = selection.predict(jnp.asarray(logits), SelectionConfig(candidates="all"))
    np.testing.assert_array_equal(out["head"], 2)
    assert set(np.unique(selection.predict(jnp.asarray(logits), SelectionConfig())["head"])) <= {
        0,
        1,
    }


def test_threshold_is_a_handicap_of_unclean():
    scores = jnp.array([[1.0, 1.0, 1.0], [0.5, 1.0, 1.5], [9.0, 9.0, 0.0]])
    np.testing.assert_array_equal(selection.select(scores[:2]), [1, 0, 0])
    np.testing.assert_array_equal(selection.select(scores[:2], 0.5), [0, 0, 0])
    np.testing.assert_array_equal(selection.select(scores[:2], -0.75), [1, 1, 1])
    np.testing.assert_array_equal(selection.select(scores), [1, 0, 2])


def test_temperature_divides_the_logits_of_its_head():
    logits = random_logits(3)
    temperatures = {"clean": 2.0, "unclean": 0.5, "combined": 1.5}
    scaled = logits / np.array([2.0, 0.5, 1.5], np.float32)[:, None, None, None]
    got = jax.jit(selection.predict, static_argnums=1)(
        jnp.asarray(logits), SelectionConfig(), Calibration(temperatures, threshold=0.3)
    )
    expected = selection.predict(jnp.asarray(scaled), SelectionConfig())
    np.testing.assert_allclose(
        got["routing_score"], expected["routing_score"], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_array_equal(got["head"], expected["routing_score"] > 0.3)


def tail(z, key, width=16):
    """Three linear heads under one dropout mask, drawn without the batch axis."""
    mask = jax.random.bernoulli(key, 0.75, (width,)) / 0.75
    weights = np.random.default_rng(0).normal(size=(3, width, 4)).astype(np.float32)
    return {head: (z * mask) @ weights[i] for i, head in enumerate(HEADS)}


def test_mc_logits_samples_and_order():
    z = np.random.default_rng(1).normal(size=(5, 16)).astype(np.float32)
    key = jax.random.key(0)
    got = selection.mc_logits(tail, z, key, 6)
    assert got.shape == (3, 6, 5, 4) and got.dtype == jnp.float32
    for s, sample_key in enumerate(jax.random.split(key, 6)):
        expected = tail(z, sample_key)
        for i, head in enumerate(HEADS):
            np.testing.assert_allclose(got[i, s], expected[head], atol=1e-5)
    assert np.ptp(got, axis=1).min() > 0
    np.testing.assert_array_equal(got, selection.mc_logits(tail, z, key, 6))


@pytest.mark.parametrize("chunk", [1, 4])
def test_chunks_do_not_change_the_samples(chunk):
    z = np.ones((2, 16), np.float32)
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        whole = selection.mc_logits(tail, z, key, 6)
        np.testing.assert_allclose(selection.mc_logits(tail, z, key, 6, chunk), whole, atol=1e-5)


def test_answers_do_not_depend_on_batch_or_sharding():
    z = np.random.default_rng(1).normal(size=(8, 16)).astype(np.float32)

    @jax.jit
    def answer(z):
        logits = selection.mc_logits(tail, z, jax.random.key(0), 10)
        return selection.predict(logits, SelectionConfig())

    whole = answer(z)
    alone = [answer(z[i : i + 1]) for i in range(8)]
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    sharded = answer(jax.device_put(z, sharding))
    np.testing.assert_array_equal(whole["head"], np.concatenate([a["head"] for a in alone]))
    np.testing.assert_array_equal(whole["head"], sharded["head"])
    np.testing.assert_allclose(
        whole["probs"], np.concatenate([a["probs"] for a in alone]), atol=1e-5
    )
    np.testing.assert_allclose(whole["probs"], sharded["probs"], atol=1e-5)


def test_a_restriction_changes_the_answer_and_not_the_head():
    logits = random_logits()
    config = selection.SelectionConfig()
    table = np.array([[4, 4], [0, 2]])
    whole = selection.predict(logits, config)
    few = selection.predict(logits, config, restrict=lambda x: x[..., table].max(-1))
    for key in ("head", "routing_score", "uncertainty", "kl"):
        np.testing.assert_array_equal(whole[key], few[key])
    x = np.asarray(logits, np.float64)
    x = np.stack([x[..., 4], np.maximum(x[..., 0], x[..., 2])], -1)
    probs = (np.exp(x) / np.exp(x).sum(-1, keepdims=True)).mean(1)
    expected = probs[np.asarray(few["head"]), np.arange(probs.shape[1])]
    np.testing.assert_allclose(few["probs"], expected, rtol=1e-5)
    np.testing.assert_array_equal(few["label"], expected.argmax(-1))


def test_promised_errors():
    with pytest.raises(ValueError, match=r"uncertainty; got 'entropy'; choose from mutual_info"):
        SelectionConfig(uncertainty="entropy")
    for name in ("score", "direction", "candidates"):
        with pytest.raises(ValueError, match=f"option {name}; got 'x'; choose from"):
            SelectionConfig(**{name: "x"})
    with pytest.raises(ValueError, match="candidates='all'; use candidates='clean_unclean'"):
        SelectionConfig(score="gate", candidates="all")
    with pytest.raises(ValueError, match="num_samples=0"):
        selection.mc_logits(tail, np.ones((1, 16)), jax.random.key(0), 0)
    with pytest.raises(ValueError, match=r"no logits for \['combined'\]"):
        selection.mc_logits(
            lambda z, key: {"clean": z, "unclean": z}, jnp.ones((1, 2)), jax.random.key(0), 2
        )
    logits, gate = jnp.asarray(random_logits()), SelectionConfig(score="gate")
    with pytest.raises(ValueError, match="got no statistics"):
        selection.predict(logits, gate)
    with pytest.raises(ValueError, match="got no fitted gate"):
        selection.predict(logits, gate, statistics=jnp.ones((7, 2)))
    other = Calibration(dict.fromkeys(HEADS, 1.0), gate=Gate(*np.ones((3, 4)), 0.0), config=gate)
    with pytest.raises(ValueError, match=r"fitted on other statistics; got \(2,\) for \(4,\); run"):
        selection.predict(logits, gate, other, jnp.ones((7, 2)))
    with pytest.raises(ValueError, match="call predict"):
        selection.scores(logits, gate)
    ones = Calibration(dict.fromkeys(HEADS, 1.0), config=SelectionConfig(score="kl"))
    with pytest.raises(ValueError, match="calibration is for other options"):
        selection.predict(logits, SelectionConfig(), ones)
