"""Flips along sequences of a made-up classifier, by hand."""

import itertools

import jax
import numpy as np
import pytest

from robust_jax.corruptions.sequences import SEQUENCES, perturb
from robust_jax.data.sources import from_arrays
from robust_jax.evals.classification import EvalSet
from robust_jax.evals.perturbation import flip_probabilities, labels
from robust_jax.evals.perturbation import names as sequence_names
from robust_jax.sharding import make_mesh


def grey(*levels):
    return np.stack([np.full((8, 8, 3), level, np.uint8) for level in levels])


def bright(images):
    """Class 1 if the image is lighter than 128 on average, of two classes."""
    light = images.mean((1, 2, 3)) - 128
    return np.stack([-light, light], 1).astype(np.float32)


def bins(images):
    """The class of 10 levels is ranked first, then its neighbours in order of distance."""
    level = images.mean((1, 2, 3))[:, None] / 10
    return -np.abs(level - np.arange(26) - 0.4)


def test_flip_probability_of_brightness_by_hand():
    # 31 frames of ±0.225 of the range in steps of 3.825 levels: the image of 120 crosses 128 once,
    # that of 20 (at most 77) never.
    found = flip_probabilities(bright, grey(120, 20), ["brightness"], seed=0, batch_size=2)
    assert found == {"brightness": {"flip_probability": pytest.approx((1 / 30 + 0) / 2)}}


def test_top5_distance_against_the_definition():
    images = grey(120, 100)
    found = flip_probabilities(bins, images, ["brightness"], seed=0, batch_size=1)["brightness"]
    distances = []
    for sequence in perturb(images, "brightness", ids=[0, 1]):
        order = np.argsort(-bins(sequence), axis=1, kind="stable")
        distances.append(
            np.mean(
                [
                    sum(abs(i - min(list(after).index(before[i]), 5)) for i in range(5))
                    for before, after in itertools.pairwise(order)
                ]
            )
        )
    assert found["top5_distance"] == pytest.approx(np.mean(distances))
    assert 0 < found["top5_distance"] < 15


@pytest.mark.parametrize(("name", "expected"), [("shot_noise", 1 / 3), ("brightness", 5 / 12)])
def test_noise_is_compared_with_the_first_frame(name, expected, monkeypatch):
    # Against frame 1: 2, 0 and 2 of 4 differ; against the frame before: 2, 0 and 3.
    levels = [[0, 200, 200, 0, 0], [0] * 5, [200, 0, 200, 200, 0]]
    frames = np.stack([grey(*sequence) for sequence in levels])
    monkeypatch.setattr(
        "robust_jax.corruptions.sequences.perturb", lambda images, name, **_: frames[: len(images)]
    )
    found = flip_probabilities(bright, grey(0, 0, 0), [name], seed=0, batch_size=3)
    assert found[name]["flip_probability"] == pytest.approx(expected)


def test_does_not_depend_on_the_batch_size():
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    weights = np.random.default_rng(1).normal(size=(16 * 16 * 3, 200))
    sizes = []

    def answer(frames):
        sizes.append(len(frames))
        return frames.reshape(len(frames), -1) @ weights

    names = ["gaussian_noise", "motion_blur", "translate"]
    whole = flip_probabilities(answer, images, names, seed=3, batch_size=8)
    assert set(sizes) == {5} and len(sizes) == 31 + 21 + 16
    parts = flip_probabilities(answer, images, names, seed=3, batch_size=2)
    assert set(sizes) == {5, 2, 1}
    for name in names:
        assert parts[name] == pytest.approx(whole[name])
        assert 0 < whole[name]["flip_probability"] < 1
    other = flip_probabilities(answer, images, names, seed=4, batch_size=8)
    assert other["gaussian_noise"] != whole["gaussian_noise"]
    assert other["translate"] == whole["translate"]


def test_a_constant_answer_never_flips():
    def answer(frames):
        return np.tile(np.arange(6.0), (len(frames), 1))

    found = flip_probabilities(answer, grey(120), batch_size=1)
    assert tuple(found) == SEQUENCES
    assert all(m == {"flip_probability": 0, "top5_distance": 0} for m in found.values())


def test_frames_are_cropped():
    def answer(frames):
        assert frames.shape[1:] == (8, 8, 3)
        return bright(frames)

    flip_probabilities(answer, np.zeros((1, 12, 12, 3), np.uint8), ["rotate"], crop=8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"perturbations": ["snoww"]}, "did you mean 'snow'"),
        ({"images": grey(1)[:0]}, "got 0 images"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"logits_of": lambda frames: np.zeros(len(frames))}, "one row of logits an image"),
        ({"logits_of": lambda frames: np.full((len(frames), 3), np.nan)}, "must be finite"),
    ],
)
def test_mistakes(change, message):
    given = {
        "logits_of": bright,
        "images": grey(1),
        "perturbations": ["translate"],
        "batch_size": 1,
    } | change
    with pytest.raises(ValueError, match=message):
        flip_probabilities(**given)


def test_labels_along_sequences_of_a_set():
    """Every frame of every image once, in order, for any batch size."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (37, 12, 12, 3), np.uint8)
    source = from_arrays(images, np.zeros(37, np.int32), ["a", "b"])

    @jax.jit
    def function(arrays, batch):
        level = batch.astype(np.float32).mean((1, 2, 3))
        return {"one/label": (level > arrays).astype(np.int32), "one/head": level}

    for batch_size in (8, 100):
        found = labels(
            function,
            np.float32(127),
            EvalSet(source, ""),
            "brightness",
            batch_size=batch_size,
            mesh=make_mesh(),
            seed=0,
        )
        assert set(found) == {"one/label"}
        frames = perturb(images, "brightness", ids=np.arange(37), seed=0)
        expected = frames.mean((2, 3, 4), dtype=np.float32) > 127
        assert np.mean(found["one/label"] == expected) > 0.999  # a mean may lie on the edge
    with pytest.raises(ValueError, match="unknown sequences in evaluate"):
        sequence_names(("brightnes",))
    assert sequence_names(("all",)) == SEQUENCES
