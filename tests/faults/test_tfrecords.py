"""Damaged files of TFDS sets: the set is told of as damaged, never read in part."""

import shutil

import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds

from robust_jax.data import sources
from robust_jax.data.images import decode_image

COUNT = 12


class Blocks(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Noise; TFDS knows the set by its files alone, as one of a user."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        features = {"image": image, "label": tfds.features.ClassLabel(names=["even", "odd"])}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(COUNT), "test": self._generate_examples(4)}

    def _generate_examples(self, count):
        for i in range(count):
            image = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
            yield i, {"image": image, "label": i % 2}


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def prepared(request, tmp_path_factory):
    """A whole set, and its format."""
    directory = tmp_path_factory.mktemp(request.param)
    with tfds.core.registered.skip_registration():
        builder = type("NoiseBlocks", (Blocks,), {"__module__": __name__})
    builder(data_dir=directory).download_and_prepare(file_format=request.param)
    return directory, request.param


@pytest.fixture
def damaged(prepared, tmp_path):
    """A copy of the set, to be damaged."""
    shutil.copytree(prepared[0], tmp_path / "set")
    return tmp_path / "set"


def read(directory, **options):
    """Every image and label of train."""
    keys = {"name": "noise_blocks", "train_split": "train", "val_split": "test", "classes": ()}
    data = ml_collections.ConfigDict(keys | {"source": "tfds", "dir": str(directory)})
    source = sources.load(data, "train", **options)
    return [decode_image(source.read(i)) for i in range(len(source))], source.labels.tolist()


def shard(directory):
    (found,) = directory.rglob("*train*")
    return found


def cut(share):
    return lambda data: data[: int(share * len(data))]


def flip(share):
    def flipped(data):
        used = len(data.rstrip(b"\0"))  # an array_record is filled up with zeros
        number = int(share * 8 * used)
        return (
            data[: number // 8]
            + bytes([data[number // 8] ^ 1 << number % 8])
            + data[number // 8 + 1 :]
        )

    return flipped


def first_record(data):
    return data[: int.from_bytes(data[:8], "little") + 16]


# Of the shard of train.
FAULTS = {
    **{f"cut to {share:.0%}": cut(share) for share in (0, 0.03, 0.25, 0.5, 0.75, 0.97)},
    "cut after a record": first_record,
    "HTML in its place": lambda data: b"<html>404</html>" * 50,
    "zeros in its place": lambda data: bytes(len(data)),
    "missing": None,
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_damaged_shard_is_told(damaged, name):
    file, fault = shard(damaged), FAULTS[name]
    if fault is first_record and "tfrecord" not in file.name:
        pytest.skip("records of the other format are not one behind the other")
    if fault is None:
        file.unlink()
    else:
        file.write_bytes(fault(file.read_bytes()))
    with pytest.raises(ValueError, match=r"noise_blocks/1.0.0 is damaged; got the error .*; remo"):
        read(damaged)


def test_a_flipped_bit_changes_no_pixel_and_no_label(prepared, damaged):
    images, labels = read(prepared[0])
    file, told = shard(damaged), 0
    whole, shares = file.read_bytes(), np.random.default_rng(0).random(30)
    for share in shares:
        file.write_bytes(flip(share)(whole))
        try:
            found, numbers = read(damaged)
        except ValueError as error:
            assert "is damaged" in str(error) and "{{" not in str(error)
            told += 1
        else:
            assert numbers == labels
            np.testing.assert_array_equal(found, images)
    # All of a TFRecord is under its checksums; of an array_record of this size the most is padding.
    assert told == 30 if prepared[1] == "tfrecord" else told > 0


# Of the files that describe the set.
DESCRIPTIONS = {
    f"{name} {how}": (name, change)
    for name in ("dataset_info.json", "features.json")
    for how, change in {
        "missing": None,
        "cut": cut(0.5),
        "empty": cut(0),
        "of another kind": lambda data: b"[1, 2]",
    }.items()
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_damaged_description_is_told(damaged, name):
    described, change = DESCRIPTIONS[name]
    (file,) = damaged.rglob(described)
    if change is None:
        file.unlink()
    else:
        file.write_bytes(change(file.read_bytes()))
    message = r"(description of noise_blocks is damaged|no such dataset|is not whole); got"
    with pytest.raises(ValueError, match=message):
        read(damaged)


def test_a_damaged_index_of_labels_is_made_again(prepared, tmp_path, capsys):
    if prepared[1] == "tfrecord":
        pytest.skip("its labels are read with the images")
    expected = read(prepared[0], index_dir=tmp_path)[1]
    (stored,) = tmp_path.iterdir()
    whole = stored.read_bytes()
    changed = whole.replace(b"0,", b"1,", 1)
    for damage in (b"", whole[:40], changed):
        stored.write_bytes(damage)
        capsys.readouterr()
        assert read(prepared[0], index_dir=tmp_path)[1] == expected
        assert "is damaged: it is made again" in capsys.readouterr().out
        assert stored.read_bytes() == whole
