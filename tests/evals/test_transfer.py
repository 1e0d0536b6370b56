import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from robust_jax import config as config_lib
from robust_jax import models, sharding
from robust_jax.data import sources
from robust_jax.evals import metrics, transfer
from robust_jax.evals.classification import EvalSet
from robust_jax.method import probe
from robust_jax.method.adapted import Adapted

CENTRES = np.random.default_rng(0).normal(size=(5, 16))


def blobs(count, seed, spread=1.5):
    """Features of five classes called 1, 3, 5, 7, 9; the larger a feature, the less it says."""
    rng = np.random.default_rng(seed)
    which = np.arange(count) % 5
    noise = np.linspace(0.3, 3, 16) * rng.normal(size=(count, 16))
    z = 40 + 7 * (CENTRES[which] + spread * noise)
    return z.astype(np.float32), 2 * which + 1


def run(train, test, solver="sklearn", seed=0):
    options = {"seed": seed, "solver": solver, "mesh": sharding.make_mesh(), "name": "probe"}
    return transfer.linear_probe(train, test, **options)


def test_the_held_out_choice_is_refitted_on_all_training_images():
    train, (z, _) = blobs(150, 1), blobs(2000, 2)
    answers, facts = run(train, z)
    mean, spread = np.float64(train[0]).mean(), np.float64(train[0]).std()
    # An exhaustive search among the powers that can be tried, by Newton's method.
    held = transfer.held_out(train[1], seed=0)
    scaled = (train[0] - mean) / spread
    right = {}
    for power in np.arange(-6, 4.01, 0.125):
        model = LogisticRegression(C=10**power, solver="newton-cg", tol=1e-8)
        right[power] = model.fit(scaled[~held], train[1][~held]).score(scaled[held], train[1][held])
    chosen = np.log10(facts["C"])
    assert facts["held_out_accuracy"] == pytest.approx(right[round(chosen * 8) / 8])
    assert facts["held_out_accuracy"] >= max(right.values()) - 2 / held.sum()
    assert -6 < chosen < 4  # within the range
    model = LogisticRegression(C=facts["C"], solver="newton-cg", tol=1e-8).fit(scaled, train[1])
    want = model.predict((z - mean) / spread)
    assert np.mean(answers == want) >= 0.999
    assert facts["converged"] and facts["solver"] == "sklearn"


def test_solvers_give_the_same_probe(monkeypatch):
    train, (z, _) = blobs(151, 1), blobs(2000, 2)
    answers, facts = run(train, z)
    others, more = run(train, z, "jax")
    assert facts["C"] == more["C"]
    assert np.mean(answers == others) >= 0.999
    monkeypatch.setattr(probe, "SMALL", 100)
    assert run(train, z[:5], "auto")[1]["solver"] == "jax"


def test_the_test_images_choose_nothing():
    train, (z, _) = blobs(150, 1), blobs(50, 2)
    one, facts = run(train, z)
    other, more = run(train, np.concatenate([z, 1000 * z]))
    assert facts["C"] == more["C"]
    np.testing.assert_array_equal(one, other[:50])


def test_a_fifth_of_each_class_is_held_out():
    labels = np.repeat([0, 1, 2, 3], [50, 10, 2, 1])
    held = transfer.held_out(labels, seed=0)
    assert np.bincount(labels[held], minlength=4).tolist() == [10, 2, 1, 0]
    assert not np.array_equal(held, transfer.held_out(labels, seed=1))
    with pytest.raises(ValueError, match=r"too few training images to choose C; got 3, one of"):
        transfer.held_out(np.arange(3), seed=0)


def test_mean_per_class():
    rng = np.random.default_rng(0)
    labels = rng.choice(5, size=400, p=[0.6, 0.2, 0.1, 0.05, 0.05])
    answers = np.where(rng.random(400) < 0.3 + 0.1 * labels, labels, 0)
    found = transfer.mean_per_class(answers, labels)
    assert found.value == pytest.approx(balanced_accuracy_score(labels, answers))
    assert found.low < found.value < found.high and found.n == 400
    # Of one class it is nearly the interval of the accuracy.
    one = transfer.mean_per_class(answers[labels == 0] % 2, labels[labels == 0])
    want = metrics.accuracy(answers[labels == 0] % 2, labels[labels == 0])
    assert one.low == pytest.approx(want.low, abs=0.02)
    all_right = transfer.mean_per_class(labels, labels)
    assert all_right.value == all_right.high == 1 and 0.8 < all_right.low < 1


@pytest.fixture(scope="module")
def coloured():
    """Images of three colours, which a network learns in a few steps."""
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 3
    images = rng.integers(0, 60, (48, 16, 16, 3), np.uint8)
    images[np.arange(48), :, :, labels] += 120
    return sources.from_arrays(images, labels, ("red", "green", "blue"))


def finetune(coloured, workdir, steps=12, **changes):
    small = {"image_size": 16, "width": 48, "depth": 1, "mlp_dim": 96}
    model = models.build("vit_tiny8", 3, **small)
    variables = jax.device_get(jax.jit(model.init)(jax.random.key(0), model.example_input()))
    section, intervals = config_lib.base().pretrain, config_lib.base().train
    section.update(total_steps=steps, batch_size=16, learning_rate=0.01)
    intervals.update(checkpoint_every_steps=4)
    options = {
        "train_ops": "flip_lr",
        "section": section,
        "intervals": intervals,
        "seed": 0,
        "workdir": workdir,
        "path": "full_finetune/x",
        "mesh": sharding.make_mesh(),
    }
    entry = models.entry("vit_tiny8")
    test = EvalSet(coloured, "")
    return transfer.full_finetune(
        Adapted(model), entry, variables, coloured, test, **(options | changes)
    )


def test_full_finetuning_learns_and_continues(coloured, tmp_path):
    answers, facts = finetune(coloured, tmp_path / "whole")
    assert np.mean(answers == coloured.labels) > 0.9
    assert facts["steps"] == 12 and facts["learning_rate"] == 0.01 and facts["seconds"] > 0
    # A second call finds the last checkpoint and trains no more.
    again, same = finetune(coloured, tmp_path / "whole")
    np.testing.assert_array_equal(again, answers)
    assert same["seconds"] == pytest.approx(facts["seconds"])
