import numpy as np
import pytest
from PIL import Image

from robust_jax.report import LABELS, plots


def check(path):
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape[1] == 1280
    assert pixels.std() > 5  # something is drawn
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_accuracy_by_corruption(tmp_path):
    curves = {"ours": {"fog": 0.5, "shot_noise": 0.4, "odd_one": 0.3}, "apt": {"fog": 0.6}}
    plots.accuracy_by_corruption(curves, tmp_path / "a.png")
    check(tmp_path / "a.png")


def test_accuracy_by_severity(tmp_path):
    plots.accuracy_by_severity({"ours": {0: 0.9, 3: 0.5}, "apt": {3: 0.5}}, tmp_path / "a.png")
    check(tmp_path / "a.png")


@pytest.mark.parametrize("draw", [plots.clean_against_corrupted, plots.accuracy_against_seconds])
def test_scatter_with_all_methods_at_one_place(draw, tmp_path):
    draw({method: (0.5, 0.5) for method in (*LABELS, "un$known_{")}, tmp_path / "a.png")
    check(tmp_path / "a.png")


@pytest.mark.parametrize("threshold", [0.2, -40.0, 1e6])
def test_routing_histogram(threshold, arrays, tmp_path):
    routing = arrays["routing"]
    args = routing["clean"], routing["shifted"], threshold
    plots.routing_histogram(*args, tmp_path / "a.png")
    check(tmp_path / "a.png")


def test_routing_scores_that_are_all_equal(tmp_path):
    plots.routing_histogram(np.zeros(5), np.zeros(3), 0.0, tmp_path / "a.png")
    check(tmp_path / "a.png")


@pytest.mark.parametrize("clean", [np.array([np.nan, 1.0]), np.array([])])
def test_routing_scores_that_are_no_numbers_are_refused(clean, tmp_path):
    with pytest.raises(ValueError, match="routing scores must be finite and not empty"):
        plots.routing_histogram(clean, np.ones(3), 0.5, tmp_path / "a.png")


def test_example_grid_shows_the_pixels(arrays, tmp_path):
    examples = arrays["examples"]
    examples["images"][:] = [250, 0, 250]
    plots.example_grid(examples, ["$zero$", "a very long name " * 9], tmp_path / "a.png")
    check(tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert (pixels == [250, 0, 250]).all(-1).mean() > 0.1


def test_examples_of_unequal_length_are_refused(arrays, tmp_path):
    examples = arrays["examples"] | {"ours": np.array([1])}
    with pytest.raises(ValueError, match="zip"):
        plots.example_grid(examples, ["zero", "one"], tmp_path / "a.png")


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        plots.clean_against_corrupted({"ours": (0.9, 0.7)}, tmp_path / name)
    for kind in (".png", ".pdf"):
        first, second = (tmp_path / f"{name}{kind}" for name in "ab")
        assert first.read_bytes() == second.read_bytes()
