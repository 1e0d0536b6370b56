import ml_collections
import numpy as np
import pytest
from sklearn.datasets import load_digits

from robust_jax import config as config_lib
from robust_jax.data import sources


def config(**keys):
    return ml_collections.ConfigDict({"source": "digits", "file": "", "classes": ()} | keys)


def test_digits_are_the_fixed_stratified_split():
    train, val = (sources.load(config(source="digits"), split) for split in ("train", "val"))
    assert (len(train), len(val)) == (1437, 360)
    assert train.class_names == tuple("0123456789")
    grey, labels = load_digits(return_X_y=True)
    share = np.bincount(val.labels) / np.bincount(labels)
    assert (abs(share - 360 / 1797) < 0.01).all()
    image = train.read(0)
    assert image.dtype == np.uint8
    assert image.shape == (32, 32, 3)
    # Averaging every 4x4 block gives back the digit, but for the clipped overshoot of bicubic.
    found = []
    for source in (train, val):
        for i in range(len(source)):
            small = source.read(i)[..., 0].reshape(8, 4, 8, 4).mean((1, 3))
            found.append(small.ravel())
    order = [np.abs(grey * (255 / 16) - small).sum(1).argmin() for small in found]
    assert len(set(order)) > 1790  # the splits together have each digit once
    np.testing.assert_array_equal(labels[order], np.r_[train.labels, val.labels])


def test_from_arrays_and_subset():
    pixels = np.arange(5 * 2 * 3 * 3, dtype=np.uint8).reshape(5, 2, 3, 3)
    source = sources.from_arrays(pixels, np.array([0, 1, 2, 1, 0]), ["a", "b", "c"])
    part = source.subset([4, 1]).subset([1])
    assert part.labels.tolist() == [1]
    assert part.labels.dtype == np.int32
    np.testing.assert_array_equal(part.read(0), pixels[1])
    marks = {source.fingerprint, part.fingerprint, source.subset([1]).fingerprint}
    assert len(marks) == 3
    other = pixels.copy()
    other[0, 0, 0, 0] += 1
    again = [sources.from_arrays(p, source.labels, "abc").fingerprint for p in (pixels, other)]
    assert again[0] == source.fingerprint != again[1]
    for bad in ([5], [-1], []):
        with pytest.raises(ValueError, match=r"no such subset of arrays; .* from 0 to 4"):
            source.subset(bad)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4), np.uint8), [0, 1], r"images of arrays .*got uint8\[2, 4, 4\]"),
        (np.zeros((2, 4, 4, 3)), [0, 1], r"got float64.*give uint8\[n, h, w, 3\]"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0.0, 1.0], r"labels of arrays .*got float64"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 1, 1], r"labels of arrays .*\[3\].* 2 images"),
        (np.zeros((2, 4, 4, 3), np.uint8), [-1, 1], r"out of range; got -1 to 1 for 2 classes"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 0], r"one class only"),
    ],
)
def test_wrong_arrays_are_told(images, labels, message):
    with pytest.raises(ValueError, match=message):
        sources.from_arrays(images, np.array(labels))


def test_labels_that_wrap_are_out_of_range():
    with pytest.raises(ValueError, match=r"labels of arrays are out of range"):
        sources.from_arrays(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 2**32]), ["a", "b"])


def npz(path, **changes):
    arrays = {
        "train_images": np.zeros((3, 4, 4, 3), np.uint8),
        "train_labels": np.array([0, 1, 1]),
        "val_images": np.ones((2, 4, 4, 3), np.uint8),
        "val_labels": np.array([2, 0]),
    }
    np.savez(path, **{key: v for key, v in (arrays | changes).items() if v is not None})
    return config(source="arrays", file=str(path))


def test_npz(tmp_path):
    data = npz(tmp_path / "a.npz")
    train, val = sources.load(data, "train"), sources.load(data, "val")
    assert train.class_names == val.class_names == ("0", "1", "2")
    assert val.read(1).max() == 1
    named = npz(tmp_path / "b.npz", class_names=np.array(["x", "y", "z"]))
    assert sources.load(named, "val").class_names == ("x", "y", "z")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_labels": None}, r"it lacks val_labels, it has train_images"),
        ({"train_images": np.zeros((3, 4, 4, 1), np.uint8)}, r"got uint8\[3, 4, 4, 1\]"),
        ({"train_labels": np.array([0, 1, None])}, r"Object arrays cannot be loaded.*no object"),
        ({"class_names": np.array(["x"])}, r"one class only"),
        ({"class_names": np.array(["x", "y"]), "train_labels": np.array([0, 1, 2])}, r"range"),
    ],
)
def test_wrong_npz_is_told(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        sources.load(npz(tmp_path / "a.npz", **changes), "train")


def test_no_npz_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"data.file is not a file; got '.*none.npz'"):
        sources.load(config(source="arrays", file=str(tmp_path / "none.npz")), "train")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match=r"cannot use data.file .*save it with np.savez"):
        sources.load(config(source="arrays", file=str(tmp_path / "text.npz")), "train")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"cannot use data.file \(it holds one array"):
        sources.load(config(source="arrays", file=str(tmp_path / "one.npy")), "train")


def test_unknown_source_and_split_are_told():
    with pytest.raises(ValueError, match=r"got 'foldr'; did you mean 'folder'\? use one of digits"):
        sources.load(config(source="foldr"), "train")
    with pytest.raises(ValueError, match=r"unknown split; got 'test'; use one of train, val"):
        sources.load(config(source="digits"), "test")


def test_some_of_the_classes():
    data = config_lib.base().data
    whole = sources.load(data, "val")
    data.classes = ("7", "2")
    some = sources.load(data, "val")
    assert some.class_names == ("7", "2")
    kept = np.flatnonzero(np.isin(whole.labels, (2, 7)))
    assert len(some) == len(kept) > 50
    np.testing.assert_array_equal(some.labels, np.where(whole.labels[kept] == 7, 0, 1))
    for i in (0, len(some) - 1):
        np.testing.assert_array_equal(some.read(i), whole.read(kept[i]))
    data.classes = ("2", "7")
    assert len({whole.fingerprint, some.fingerprint, sources.load(data, "val").fingerprint}) == 3
    for wrong, message in ((("2", "x"), "lacks; got 'x'"), (("2", "2"), "class twice")):
        data.classes = wrong
        with pytest.raises(ValueError, match=message):
            sources.load(data, "val")
