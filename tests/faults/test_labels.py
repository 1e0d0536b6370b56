"""Labels that are no labels: told before anything is trained."""

import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds
from benchmark_folders import load as load_benchmark

from robust_jax.data import sources
from robust_jax.data.labels import MAX_CLASSES

ARRAYS = {
    "train_images": np.zeros((4, 4, 4, 3), np.uint8),
    "train_labels": np.array([0, 1, 2, 1]),
    "val_images": np.ones((2, 4, 4, 3), np.uint8),
    "val_labels": np.array([2, 0]),
}


def config(**keys):
    return ml_collections.ConfigDict({"dir": "", "classes": ()} | keys)


def npz(tmp_path, **changes):
    np.savez(tmp_path / "a.npz", **(ARRAYS | changes))
    return config(source="arrays", file=str(tmp_path / "a.npz"))


@pytest.mark.parametrize("kind", ["int8", "uint8", "uint16", "int32", "uint32", "int64", "uint64"])
def test_labels_of_every_integer_type(tmp_path, kind):
    labels = {key: ARRAYS[key].astype(kind) for key in ("train_labels", "val_labels")}
    train = sources.load(npz(tmp_path, **labels), "train")
    assert train.labels.tolist() == [0, 1, 2, 1] and train.labels.dtype == np.int32
    assert train.class_names == ("0", "1", "2")
    named = npz(tmp_path, class_names=np.array([b"a", b"b", b"c"]), **labels)
    assert sources.load(named, "val").class_names == ("a", "b", "c")
    made = sources.from_arrays(ARRAYS["train_images"], labels["train_labels"])
    assert made.fingerprint == sources.from_arrays(ARRAYS["train_images"], train.labels).fingerprint


NAMES = np.array(["a", "b", "c"])
WRONG = {
    "negative": ({"train_labels": np.array([-1, 0, 1, 2])}, r"range; got -1 to 2 for 3 classes"),
    "too large": ({"train_labels": np.array([0, 1, 2, 3])}, r"range; got 0 to 3 for 3 classes"),
    "that wrap in 32 bits": ({"train_labels": np.array([0, 1, 2, 2**32])}, r"got 0 to 4294967296"),
    "that wrap in 64 bits": (
        {"train_labels": np.array([0, 1, 2, 2**63], np.uint64)},
        r"range; got 0 to 9223372036854775808 for 3",
    ),
    "of one byte, too large": (
        {"train_labels": np.array([0, 1, 2, 255], np.uint8)},
        r"range; got 0 to 255 for 3 classes",
    ),
    "numbers with a point": ({"train_labels": np.array([0.0, 1, 2, 1])}, r"wrong form; got float"),
    "not a number": ({"train_labels": np.array([0, 1, 2, np.nan])}, r"wrong form; got float64"),
    "truth values": ({"train_labels": np.array([True, False] * 2)}, r"wrong form; got bool\[4\]"),
    "texts": ({"train_labels": np.array(["a", "b", "a", "b"])}, r"wrong form; got <U1\[4\]"),
    "one-hot": ({"train_labels": np.eye(4, 3, dtype=int)}, r"wrong form; got int64\[4, 3\]"),
    "too few": ({"train_labels": np.array([0, 1, 2])}, r"int64\[3\]; .*each of the 4 images"),
    "none": (
        {"train_labels": np.zeros(0, int), "train_images": np.zeros((0, 4, 4, 3), np.uint8)},
        r"has no images; got 0 labels",
    ),
    "of one class": ({"train_labels": np.full(4, 1)}, r"one class only; got 4 of 'b' and none of"),
    "one class name": ({"class_names": np.array(["a"])}, r"(one class only|range)"),
    "a text for all names": ({"class_names": np.array("abc")}, r"class_names has the shape \[\]"),
    "a table of names": ({"class_names": NAMES[:, None]}, r"class_names has the shape \[3, 1\]"),
    "a name that is not UTF-8": (
        {"class_names": np.array(["a", "b", "\udcff"])},
        r"name of a class is not UTF-8; got '\\udcff'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_labels_of_arrays_are_told(tmp_path, name):
    changes, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        sources.load(npz(tmp_path, **{"class_names": NAMES, **changes}), "train")


WITHOUT_NAMES = {
    "too many classes": (np.array([0, 1, 2, MAX_CLASSES]), r"range; got 1000000, at most 999,999"),
    "as a hash": (np.array([0, 1, 2, 2**62]), r"range; got 4611686018427387904, at most 999,999"),
    "not a number": (np.array([0, 1, 2, np.nan]), r"wrong form; got float64\[4\]"),
    "texts": (np.array(["a", "b", "a", "b"]), r"wrong form; got <U1\[4\]"),
    "negative": (np.array([-1, 0, 1, 2]), r"range; got -1 to 2 for 3 classes"),
    "of one class": (np.full(4, 2), r"images of one class only; got 4 of '2' and none of the oth"),
}


@pytest.mark.parametrize("name", WITHOUT_NAMES)
def test_wrong_labels_without_names_are_told(tmp_path, name):
    labels, message = WITHOUT_NAMES[name]
    with pytest.raises(ValueError, match=message):
        sources.load(npz(tmp_path, train_labels=labels), "train")


def test_a_damaged_npz_is_told(tmp_path):
    data, file = npz(tmp_path), tmp_path / "a.npz"
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    expected = sources.load(data, "train").fingerprint
    cuts = [whole[:size] for size in rng.integers(0, len(whole), 40)]
    flips = []
    for number in rng.choice(8 * len(whole), 160, replace=False):
        flipped = bytearray(whole)
        flipped[number // 8] ^= 1 << number % 8
        flips.append(bytes(flipped))
    told = 0
    for damaged in cuts + flips:
        file.write_bytes(damaged)
        try:
            assert sources.load(data, "train").fingerprint == expected  # it was in no array of ours
        except ValueError as error:
            assert "a.npz" in str(error)
            told += 1
    assert told > 130


class Labelled(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Pictures with given labels."""

    VERSION, LABELS = tfds.core.Version("1.0.0"), ()

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        features = {"image": image, "label": tfds.features.ClassLabel(names=["a", "b", "c"])}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self):
        for number, label in enumerate(self.LABELS):
            yield number, {"image": np.zeros((4, 4, 3), np.uint8), "label": label}


def prepare(directory, labels, file_format):
    attributes = {"name": "labelled_blocks", "LABELS": labels, "__module__": __name__}
    with tfds.core.registered.skip_registration():
        builder = type("LabelledBlocks", (Labelled,), attributes)
    builder(data_dir=directory).download_and_prepare(file_format=file_format)
    keys = {"name": "labelled_blocks", "train_split": "train", "val_split": "test"}
    return config(source="tfds", **keys | {"dir": str(directory)})


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_wrong_labels_of_tfds_are_told(tmp_path, file_format):
    data = prepare(tmp_path / "hidden", (0, -1, 2), file_format)  # TFDS's mark of no label
    with pytest.raises(ValueError, match=r"train are out of range; got -1 to 2 for 3 classes"):
        sources.load(data, "train")
    data = prepare(tmp_path / "one", (1, 1, 1), file_format)
    with pytest.raises(ValueError, match=r"images of one class only; got 3 of 'b' and none of the"):
        sources.load(data, "train")
    assert sources.load(data, "val").labels.tolist() == [1, 1, 1]  # which may be
    data = prepare(tmp_path / "fewer", (0, 1, 2), file_format)
    (names,) = (tmp_path / "fewer").rglob("label.labels.txt")
    names.write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"train are out of range; got 0 to 2 for 2 classes"):
        sources.load(data, "train")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.tile([0, 10], 5), r"cifar10_c fog 2 are out of range; got 0 to 10 for 10 classes"),
        (np.tile([0, 255], 5).astype(np.uint8), r"out of range; got 0 to 255 for 10 classes"),
        (np.tile([0, 2**32], 5), r"out of range; got 0 to 4294967296 for 10 classes"),
        (np.tile([-1, 3], 5), r"out of range; got -1 to 3 for 10 classes"),
    ],
)
def test_wrong_labels_of_cifar_c_are_told(tmp_path, labels, message):
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "fog.npy", np.zeros((10, 32, 32, 3), np.uint8))
    names = tuple(map(str, range(10)))
    with pytest.raises(ValueError, match=message):
        load_benchmark(f"cifar10_c:{tmp_path}", names, corruptions=("fog",), severities=(2,))
