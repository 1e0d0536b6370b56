"""CIFAR-C and CIFAR-P arrays against what was written."""

import numpy as np
import pytest
from benchmark_folders import load

from robust_jax.data.stored import videos

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 32, 32, 3), np.uint8)  # 4 images, 5 severities
FRAMES = RNG.integers(0, 256, (3, 6, 32, 32, 3), np.uint8)
LABELS = np.tile([3, 9, 0, 3], 5)
KINDS = ("cifar10_c", "cifar10_p")
SIZE = {"eval_ops": "decode", "size": 32}


@pytest.fixture
def arrays(tmp_path):
    np.save(tmp_path / "fog.npy", IMAGES)
    np.save(tmp_path / "labels.npy", LABELS)
    for name in ("tilt", "spatter", "gaussian_noise"):
        np.save(tmp_path / f"{name}.npy", FRAMES)
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "names"),
    [("cifar10_c", CIFAR10), ("cifar100_c", tuple(f"c{k:02}" for k in range(100)))],
)
def test_cifar_c_has_one_severity_after_the_other(arrays, kind, names):
    first, third = load(f"{kind}:{arrays}", names, **SIZE)
    assert third.where == {"set": kind, "corruption": "fog", "severity": 3}
    assert third.source.class_names == names and third.ops == "decode"
    for found, start in ((first, 0), (third, 8)):
        assert found.source.labels.tolist() == [3, 9, 0, 3]
        read = np.stack([found.source.read(i) for i in range(4)])
        np.testing.assert_array_equal(read, IMAGES[start : start + 4])
    assert first.source.fingerprint != third.source.fingerprint


def test_the_arrays_are_not_read_whole(arrays, monkeypatch):
    modes, real = [], np.load
    monkeypatch.setattr(np, "load", lambda *a, **k: modes.append(k["mmap_mode"]) or real(*a, **k))
    load(f"cifar10_c:{arrays}", CIFAR10, **SIZE)
    assert set(modes) == {"r"}


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        ("fog", IMAGES[:15], r"fog.npy has the wrong length; got 15 images for 20 labels"),
        ("fog", IMAGES / 255, r"fog.npy has the wrong form; got float64\[20, 32, 32, 3\]; .*u8"),
        ("labels", LABELS[:16], r"labels once a severity; got 16 labels that are not 5 times"),
        ("labels", np.arange(20) % 10, r"got 20 labels that are not 5 times the same"),
        ("labels", LABELS + 0.5, r"labels.npy has the wrong form; got float64\[20\]"),
        ("labels", LABELS + 1, r"labels of cifar10_c fog 1 are out of range; got 1 to 10"),
        ("fog", None, r"lacks the corruption fog.npy; got gaussian_noise, labels, spatter, tilt"),
    ],
)
def test_wrong_arrays_are_told(arrays, file, array, message):
    (arrays / f"{file}.npy").unlink()
    if array is not None:
        np.save(arrays / f"{file}.npy", array)
    with pytest.raises(ValueError, match=message):
        load(f"cifar10_c:{arrays}", CIFAR10, **SIZE)


def test_a_file_that_was_cut_is_told(arrays):
    path = arrays / "fog.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"fog.npy cannot be read whole; got the error"):
        load(f"cifar10_c:{arrays}", CIFAR10, **SIZE)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (CIFAR10[:9], r"cifar10_c needs a classifier of 10 classes; got 9"),
        (sorted(CIFAR10, reverse=True), r"got 'truck' as class 0 of the classifier; it must be 'a"),
    ],
)
def test_other_classes_are_told(arrays, names, message):
    with pytest.raises(ValueError, match=message):
        load(f"cifar10_c:{arrays}", names, **SIZE)
    assert load(f"cifar10_c:{arrays}", [str(k) for k in range(10)], **SIZE)


def test_cifar10_p(arrays, capsys):
    wanted = ("tilt", "gaussian_noise", "snow")
    tilt, noise, snow = load(f"cifar10_p:{arrays}", CIFAR10, **SIZE, perturbations=wanted)
    assert tilt.where == {"set": "cifar10_p", "perturbation": "tilt"}
    assert snow.where["perturbation"] == "spatter"
    assert "spatter stands for snow" in capsys.readouterr().out
    assert len({tilt.fingerprint, noise.fingerprint, snow.fingerprint}) == 3
    assert len(tilt) == 3 and tilt.fingerprint != snow.fingerprint
    (two, _), (one, labels) = tilt.batches(2)
    np.testing.assert_array_equal(np.concatenate([two, one]), FRAMES)
    assert labels.tolist() == [0]


def test_other_files_of_the_same_form_are_other_sets(arrays):
    wanted = {"perturbations": ("tilt",), **SIZE}
    (images, _), (tilt,) = (load(f"{k}:{arrays}", CIFAR10, **wanted) for k in KINDS)
    np.save(arrays / "fog.npy", IMAGES[::-1])
    np.save(arrays / "tilt.npy", FRAMES[[0, 2, 1]])  # the same first sequence
    (others, _), (other,) = (load(f"{k}:{arrays}", CIFAR10, **wanted) for k in KINDS)
    assert images.source.fingerprint != others.source.fingerprint
    assert tilt.fingerprint != other.fingerprint


def test_some_sequences(arrays):
    (tilt,) = load(f"cifar10_p:{arrays}", CIFAR10, **SIZE, perturbations=("tilt",))
    some = tilt.subset(np.array([0, 2]))
    assert len(some) == 2 and some.fingerprint != tilt.fingerprint
    ((frames, _),) = some.batches(8)
    np.testing.assert_array_equal(frames, FRAMES[[0, 2]])


def test_frames_become_as_large_as_the_model_wants(arrays):
    (tilt,) = load(f"cifar10_p:{arrays}", CIFAR10, eval_ops="decode|central_crop(16)", size=16)
    np.testing.assert_array_equal(tilt.read(1), FRAMES[1, :, 8:24, 8:24])
    with pytest.raises(ValueError, match=r"sequence 0 of .*tilt.npy does not fit .* of \[32, 32\]"):
        load(f"cifar10_p:{arrays}", CIFAR10, eval_ops="decode", size=16)


def test_sequences_of_another_form_are_told():
    short = {0: FRAMES[0], 1: FRAMES[1][:4], 2: FRAMES[2] / 255}
    read = videos.checked(short.__getitem__, "sequence {}".format, "", 32)
    with pytest.raises(ValueError, match=r"got 4 frames in sequence 1 and 6 in sequence 0"):
        read(1)
    with pytest.raises(ValueError, match=r"sequence 2 is no sequence of images; got float64"):
        read(2)
