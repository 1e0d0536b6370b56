import io

import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from robust_jax.data import sources


def config(directory, **keys):
    defaults = {"name": "tiny_shapes", "train_split": "train", "val_split": "test", "classes": ()}
    return ml_collections.ConfigDict({"source": "tfds", "dir": str(directory)} | defaults | keys)


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["even", "odd"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(12), "test": self._generate_examples(5)}

    def _generate_examples(self, count):
        for i in range(count):
            image = np.full((4 + i % 3, 5, 3), 10 * i, np.uint8)
            yield i, {"image": image, "label": i % 2}


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_tfds(tmp_path, file_format, capsys):
    TinyShapes(data_dir=tmp_path, file_format=file_format).download_and_prepare()
    data = config(tmp_path)
    capsys.readouterr()
    source = sources.load(data, "train", index_dir=tmp_path / "index")
    told = "stored as TFRecord" in capsys.readouterr().out
    assert told == (file_format == "tfrecord")
    assert source.class_names == ("even", "odd")
    values = [np.asarray(Image.open(io.BytesIO(source.read(i))))[0, 0, 0] for i in range(12)]
    assert sorted(values) == list(range(0, 120, 10))
    assert source.labels.tolist() == [value // 10 % 2 for value in values]
    again = sources.load(data, "train", index_dir=tmp_path / "index")
    np.testing.assert_array_equal(again.labels, source.labels)
    assert again.fingerprint == source.fingerprint
    assert len(sources.load(data, "val")) == 5
    part = config(tmp_path, train_split="train[:4]")
    assert len(sources.load(part, "train")) == 4


def test_wrong_tfds_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"data.name='cifr10'; did you mean 'cifar10'"):
        sources.load(config(tmp_path, name="cifr10"), "train")
    TinyShapes(data_dir=tmp_path, file_format="tfrecord").download_and_prepare()
    data = config(tmp_path, val_split="valid")
    with pytest.raises(ValueError, match=r"got data.val_split='valid'; choose among t"):
        sources.load(data, "val")


def test_a_prepared_set_is_loaded_where_none_may_be_prepared(tmp_path):
    TinyShapes(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    source = sources.load(config(tmp_path), "train", prepare=False)
    assert not source.absent and len(source) == 12


@pytest.mark.parametrize(
    ("name", "part", "count", "classes", "shape"),
    [
        ("imagenet2012", "train", 1_281_167, 1000, (256, 256, 3)),
        ("imagenet2012", "validation[:90%]", 45_000, 1000, (256, 256, 3)),
        ("imagenet2012", "train[:10]+validation", 50_010, 1000, (256, 256, 3)),
        ("cifar100", "test", 10_000, 100, (32, 32, 3)),
        ("oxford_flowers102", "train+validation", 2_040, 102, (256, 256, 3)),
        ("food101", "validation", 25_250, 101, (256, 256, 3)),
    ],
)
def test_an_absent_set_has_its_published_size(tmp_path, name, part, count, classes, shape):
    data = config(tmp_path, name=name, val_split=part)
    source = sources.load(data, "val", prepare=False)
    assert source.absent and source.subset([3, 1]).absent
    assert (source.name, len(source), len(source.class_names)) == (f"{name} {part}", count, classes)
    assert source.read(count - 1).shape == shape and source.read(0).dtype == np.uint8
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "svhn_cropped"}, r"got data.name='svhn_cropped', data.train_split='train' and"),
        ({"train_split": "train[:3shard]"}, r"'train\[:3shard\]' and .*; prepare it first"),
        ({"classes": ("0", "1")}, r"data.classes=\('0', '1'\); prepare it first, with `tfds"),
        ({"train_split": "training"}, r"no such split; got data.train_split='training'; choose am"),
        ({"train_split": "train[:9%"}, r"no such split; got data.train_split='train\[:9%'"),
        ({"train_split": "train[:60000]"}, r"no such split; got data.train_split='train\[:60000"),
        ({"train_split": "train[:0]"}, r"cifar10 train\[:0\] has no images"),
    ],
)
def test_of_an_absent_set_what_is_not_known_is_told(tmp_path, keys, message):
    data = config(tmp_path, **({"name": "cifar10"} | keys))
    with pytest.raises(ValueError, match=message):
        sources.load(data, "train", prepare=False)
