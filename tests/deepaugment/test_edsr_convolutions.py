import numpy as np
import pytest
from edsr_results import FOURTHS, THIRDS, C, blocks, results
from scipy import signal


def convolution_matrix(w):
    """The matrix of kernel taps [9 i] -> one new input channel [9 o], for w f32[o, i, 3, 3]."""
    columns = []
    for i, r, s in np.ndindex(w.shape[1], 3, 3):
        tap = np.zeros((3, 3))
        tap[r, s] = 1
        columns.append([signal.correlate2d(w[o, i], tap, "same") for o in range(len(w))])
    return np.asarray(columns).reshape(len(columns), -1).T


def recovered(w, w2):
    """The kernel [new input, i, 3, 3] that was convolved with w, by solving for it."""
    matrix = convolution_matrix(w.astype(np.float64))
    flat = w2.swapaxes(0, 1).reshape(w.shape[1], -1).T
    found, *_ = np.linalg.lstsq(matrix, flat.astype(np.float64), rcond=None)
    assert np.linalg.cond(matrix) < 1e3
    np.testing.assert_allclose(matrix @ found, flat, atol=1e-3)
    return found.T.reshape(w.shape[1], w.shape[1], 3, 3)


def solvable(rows, convolution):
    """The rows whose kernel can be told from the result: a square system, not always well posed."""
    kept = [r for r in rows if np.linalg.cond(convolution_matrix(r[1][convolution])) < 1e3]
    assert kept
    return kept


@pytest.mark.parametrize("faithful", [True, False])
def test_convolve_shifts(faithful):
    rows = results("convolve_shifts", faithful)
    assert blocks(rows) == FOURTHS
    places = set()
    for _, w, w2, b, b2 in solvable(rows, 0):
        np.testing.assert_array_equal(w[1], w2[1])
        np.testing.assert_array_equal(b, b2)
        taps = np.round(recovered(w[0], w2[0]), 2)
        places |= {(*place[2:], taps[tuple(place)]) for place in np.argwhere(taps)}
        if faithful:  # one shift of each input, the same for all
            np.testing.assert_array_equal(taps, np.broadcast_to(taps[:1], taps.shape))
            np.testing.assert_array_equal(np.abs(taps).sum((2, 3)), 1)
        else:
            np.testing.assert_array_equal(np.abs(taps).sum((2, 3)), np.eye(C))
    assert {place[:2] for place in places} == set(np.ndindex(3, 3))
    assert {place[2] for place in places} == {-1, 1}


@pytest.mark.parametrize("faithful", [True, False])
def test_convolve_noise(faithful):
    rows = results("convolve_noise", faithful)
    assert blocks(rows) == THIRDS
    spreads = []
    for _, w, w2, *_ in solvable(rows, 0):
        noise = 6 * recovered(w[0], w2[0])
        np.testing.assert_array_equal(w[1], w2[1])
        spreads.append(np.ptp(noise))  # 2 u
        low = -1 if faithful else -spreads[-1] / 2
        assert abs(noise.min() - low) < 0.1
    assert 2.05 > max(spreads) > 1.5 > 0.5 > min(spreads)


def test_convolve_dirichlet():
    rows, squares, largest = results("convolve_dirichlet"), [], set()
    assert blocks(rows) == FOURTHS
    for _, w, w2, *_ in solvable(rows, 1):
        taps = recovered(w[1], w2[1])
        np.testing.assert_array_equal(w[0], w2[0])
        assert taps.min() > -1e-2
        np.testing.assert_allclose(taps.sum((2, 3)), 1, atol=1e-2)
        squares.append((taps**2).sum((2, 3)))
        largest |= set(taps.reshape(-1, 9).argmax(1))
    # The sum of squares is (a + 1) / (9 a + 1) on average.
    np.testing.assert_allclose(np.mean(squares), 1.1 / 1.9, rtol=0.1)
    assert len(largest) == 9
