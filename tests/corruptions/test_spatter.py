"""The spatter sequence against OpenCV, step by step."""

import numpy as np
import pytest
from scipy import ndimage

from robust_jax.corruptions import spatter
from robust_jax.corruptions.sequences import perturb

cv2 = pytest.importorskip("cv2")


def waters(b, side):
    """u8[b, side, side] thresholded smooth noise, as wet as that of the sequences."""
    noise = np.random.default_rng(0).normal(0.6, 0.265, (b, side, side))
    layers = ndimage.gaussian_filter(noise, (0, 1.75, 1.75), mode="nearest")
    layers[layers < 0.7] = 0
    return (255 * layers).astype(np.uint8)


@pytest.mark.parametrize("side", [32, 64])
def test_relief_is_that_of_opencv(side):
    layers = waters(8, side)
    # No edge at all.
    layers[7] = 0
    edges = spatter.edges(layers)
    distances = spatter.distance(edges)
    reliefs = spatter.relief(layers)
    for i, layer in enumerate(layers):
        canny = cv2.Canny(layer, 50, 150)
        np.testing.assert_array_equal(edges[i], canny > 0)
        distance = np.minimum(cv2.distanceTransform(255 - canny, cv2.DIST_L2, 5), 20)
        np.testing.assert_allclose(distances[i], distance, atol=1e-3)
        depth = cv2.equalizeHist(cv2.blur(distance, (3, 3)).astype(np.uint8))
        kernel = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
        relief = cv2.blur(cv2.filter2D(depth, cv2.CV_8U, kernel), (3, 3))
        np.testing.assert_array_equal(reliefs[i], relief)
    assert edges.any((1, 2)).sum() >= 5 and not edges[7].any()


def test_drops_are_turquoise_and_run_down():
    added = perturb(np.zeros((2, 32, 32, 3), np.uint8), "spatter", ids=[3, 5]).astype(int)
    assert added[0, 0].max() == int(0.6 * 238)
    np.testing.assert_array_equal(added[..., 1], added[..., 2])
    wet = added[..., 1] > 20
    assert np.abs(added[..., 0][wet] / added[..., 1][wet] - 175 / 238).max() < 0.06


@pytest.mark.parametrize("flow", [(0.2, 0.8), (0.05, 0.1, 0.15, 0.7)])
def test_water_flows_as_in_numpy(flow):
    seen = []

    def watch(layers):
        seen.append(layers.copy())
        return np.ones(layers.shape, np.float32)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spatter, "relief", watch)
        rngs = [np.random.default_rng(1)]
        images = np.zeros((1, 32, 32, 3), np.uint8)
        list(spatter.spatters(images, rngs, range(4), (0.6, 0.265, 1.75, 0.7, flow)))
    assert seen[0].any()
    columns = seen[0][0] / 255
    for layers in seen[1:]:
        columns = np.apply_along_axis(lambda c: np.convolve(c, flow, "same"), 0, columns)
        # The first layer was seen in whole levels.
        np.testing.assert_allclose(layers[0], 255 * columns, atol=2)


def test_no_drop_leaves_the_image_alone():
    images = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    dry = (0.1, 0.01, 1.75, 0.7, (0.2, 0.8))
    for frame in spatter.spatters(images, [np.random.default_rng(0)], range(3), dry):
        np.testing.assert_array_equal(frame, images)
