"""Position embeddings in another grid, against torch, scipy and what must hold of any resize."""

import numpy as np
import pytest
import scipy.ndimage

from robust_jax.weights.resize import RESIZES

SIZES = [(7, 10), (37, 16), (14, 24), (4, 3), (5, 1), (1, 4)]
TORCH = {
    "torch_bicubic": {"mode": "bicubic", "align_corners": False},
    "antialias_bicubic": {"mode": "bicubic", "align_corners": False, "antialias": True},
    "corner_linear": {"mode": "bilinear", "align_corners": True},
}


def table(side, num_cls=1, width=6):
    rng = np.random.default_rng(side)
    return rng.standard_normal((1, side**2 + num_cls, width)).astype(np.float32)


def shape(side, num_cls=1, width=6):
    return 1, side**2 + num_cls, width


@pytest.mark.parametrize("name", RESIZES)
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_equals_torch(name, old, new):
    torch = pytest.importorskip("torch")
    whole = table(old)
    cells = torch.tensor(whole[:, 1:]).double()  # In f32 its coordinates are rough.
    cells = cells.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    cells = torch.nn.functional.interpolate(cells, (new, new), **TORCH[name])
    want = cells.permute(0, 2, 3, 1).reshape(1, new * new, -1).numpy()
    got = RESIZES[name](whole, shape(new))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[:, 1:], want, atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [(7, 10), (14, 6)])
def test_corner_linear_is_the_zoom_of_scipy(old, new):
    whole = table(old, num_cls=0)
    want = scipy.ndimage.zoom(whole.reshape(old, old, -1), (new / old, new / old, 1), order=1)
    got = RESIZES["corner_linear"](whole, shape(new, 0))
    np.testing.assert_array_equal(got, want.reshape(1, new * new, -1))


@pytest.mark.parametrize("name", RESIZES)
@pytest.mark.parametrize("num_cls", [0, 1])
def test_holds_of_every_resize(name, num_cls):
    resize = RESIZES[name]
    whole = table(5, num_cls)
    np.testing.assert_allclose(resize(whole, shape(5, num_cls)), whole, atol=1e-6)
    for new in (2, 4, 9):
        got = resize(whole, shape(new, num_cls))
        assert got.shape == shape(new, num_cls)
        np.testing.assert_array_equal(got[:, :num_cls], whole[:, :num_cls])
        constant = resize(np.full_like(whole, 1.5), shape(new, num_cls))
        np.testing.assert_allclose(constant, 1.5, atol=1e-6)
        # Rows and columns are treated alike, and in their order.
        turned = whole.copy()
        cells = whole[:, num_cls:].reshape(1, 5, 5, -1)
        turned[:, num_cls:] = cells.transpose(0, 2, 1, 3).reshape(1, 25, -1)
        again = resize(turned, shape(new, num_cls))[:, num_cls:].reshape(1, new, new, -1)
        cells = got[:, num_cls:].reshape(1, new, new, -1)
        np.testing.assert_allclose(again.transpose(0, 2, 1, 3), cells, atol=1e-6)


def test_corners_stay_where_corner_linear_puts_them():
    whole = table(6, num_cls=0).reshape(6, 6, -1)
    got = RESIZES["corner_linear"](whole.reshape(1, 36, -1), shape(11, 0)).reshape(11, 11, -1)
    np.testing.assert_allclose(got[::2, ::2], whole, atol=1e-6)
    between = (whole[:-1] + whole[1:]) / 2
    np.testing.assert_allclose(got[1::2, ::2], between, atol=1e-6)


def test_a_cubic_reproduces_a_ramp_inside_the_grid():
    # Keys' kernel with a = -0.5 is exact for quadratics; a = -0.75 is not even for lines.
    ramp = np.tile(np.arange(8, dtype=np.float32), (8, 1)).reshape(1, 64, 1)
    centres = (np.arange(16) + 0.5) / 2 - 0.5
    inside = slice(4, -4)
    sharp = RESIZES["antialias_bicubic"](ramp, shape(16, 0, 1)).reshape(16, 16)
    np.testing.assert_allclose(sharp[:, inside], np.tile(centres[inside], (16, 1)), atol=1e-5)
    torchs = RESIZES["torch_bicubic"](ramp, shape(16, 0, 1)).reshape(16, 16)
    assert 0.01 < np.abs(torchs[:, inside] - centres[inside]).max() < 0.1


@pytest.mark.parametrize("name", RESIZES)
@pytest.mark.parametrize(("old", "new"), [(11, 17), (16, 12), (17, 16), (16, 17)])
def test_tables_that_are_no_square_grid_are_refused(name, old, new):
    with pytest.raises(ValueError, match=r"square grid.*; got \[1, \d+, 4\].*use a square image"):
        RESIZES[name](np.zeros((1, old, 4), np.float32), (1, new, 4))
