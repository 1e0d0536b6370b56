"""Sets of TFDS under their published names, made without a network."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from benchmark_folders import load, numbers

from robust_jax.evals import subsets

WNIDS = subsets.imagenet_wnids()
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Labelled(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Pictures of one colour that tell their label."""

    SPLIT, CLASSES, USED, FEATURES = "test", {"names": list(WNIDS)}, (0, 1, 999), {}
    SHAPE = (None, None, 3)

    def _info(self):
        image = tfds.features.Image(shape=self.SHAPE, encoding_format="png")
        features = {"image": image, "label": tfds.features.ClassLabel(**self.CLASSES)}
        features |= dict.fromkeys(self.FEATURES, tfds.features.Text())
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {self.SPLIT: self._generate_examples()}

    def _generate_examples(self):
        for i, label in enumerate(self.USED):
            image = np.full((32, 32, 3), (*divmod(label, 256), 0), np.uint8)
            texts = dict.fromkeys(self.FEATURES, str(i))
            yield i, {"image": image, "label": label, **texts}


def prepare(directory, name, version, config="", **attributes):
    """Prepares a tiny set that TFDS takes for the published one."""
    configs = [tfds.core.BuilderConfig(name=config, version=version)] if config else []
    attributes |= {
        "name": name,
        "VERSION": tfds.core.Version(version),
        "BUILDER_CONFIGS": configs,
        "__module__": __name__,
    }
    with tfds.core.registered.skip_registration():
        builder = type("Made", (Labelled,), attributes)
    made = builder(data_dir=directory, **({"config": config} if config else {}))
    made.download_and_prepare(file_format="array_record")


CIFAR = {"CLASSES": {"num_classes": 10}, "SHAPE": (32, 32, 3), "USED": (4, 0, 9)}


@pytest.mark.parametrize("subset", [subsets.imagenet_a, subsets.imagenet_r])
def test_imagenet_a_and_r_count_in_their_subset(tmp_path, subset):
    subset, version = subset(), "0.1.0" if subset is subsets.imagenet_a else "0.2.0"
    ids = [int(i) for i in subset.table[[3, 0, 199], 0]]
    prepare(tmp_path, subset.name, version, USED=ids, FEATURES=("file_name",))
    (found,) = load(f"tfds:{subset.name}", WNIDS, data_dir=str(tmp_path))
    assert found.where == {"set": subset.name} and found.subset is subset
    assert found.source.class_names == subset.class_names
    read = np.array(numbers(found.source))
    assert sorted(read) == sorted(ids)
    np.testing.assert_array_equal(subset.table[found.source.labels, 0], read)


def test_imagenet_a_with_other_images_is_told(tmp_path):
    prepare(tmp_path, "imagenet_a", "0.1.0", FEATURES=("file_name",))
    with pytest.raises(ValueError, match=r"images of other classes; got n\d{8}; use"):
        load("tfds:imagenet_a", WNIDS, data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="imagenet_a needs a classifier of ImageNet's 1000"):
        load("tfds:imagenet_a", CIFAR10)


def test_cifar10_corrupted_by_our_names(tmp_path):
    for name in ("frosted_glass_blur_1", "frosted_glass_blur_3", "fog_2"):
        prepare(tmp_path, "cifar10_corrupted", "1.0.0", name, **CIFAR)
    options = {"data_dir": str(tmp_path), "corruptions": ("glass_blur",)}
    mild, strong = load("tfds:cifar10_corrupted", CIFAR10, **options)
    where = {"set": "cifar10_corrupted", "corruption": "glass_blur"}
    assert (mild.where, strong.where) == (where | {"severity": 1}, where | {"severity": 3})
    assert sorted(mild.source.labels) == [0, 4, 9]
    assert mild.source.labels.tolist() == numbers(mild.source)
    assert mild.source.class_names == CIFAR10 and mild.ops == "decode|resize(8)"
    (fog,) = load("tfds:cifar10_corrupted/fog_2:test[:2]", CIFAR10, **options)
    assert (fog.where["corruption"], fog.where["severity"], len(fog.source)) == ("fog", 2, 2)
    with pytest.raises(ValueError, match="severities must be whole numbers from 1 to 5"):
        load("tfds:cifar10_corrupted/fog_6", CIFAR10, **options)
    with pytest.raises(ValueError, match="cifar10_corrupted needs the classes in the order"):
        load("tfds:cifar10_corrupted", CIFAR10[::-1], **options)


def test_imagenet2012_corrupted_is_stored_cropped(tmp_path):
    made = {"SPLIT": "validation", "FEATURES": ("file_name",)}
    prepare(tmp_path, "imagenet2012_corrupted", "3.1.0", "fog_1", **made)
    options = {"data_dir": str(tmp_path), "severities": (1,)}
    (found,) = load("tfds:imagenet2012_corrupted", WNIDS, **options)
    assert found.where == {"set": "imagenet2012_corrupted", "corruption": "fog", "severity": 1}
    assert found.source.labels.tolist() == numbers(found.source)
    assert found.ops == "decode|central_crop(224)|resize(8)"


@pytest.mark.parametrize("path", ["imagenet_sketch", "imagenet_v2/matched-frequency"])
def test_other_imagenet_sets(tmp_path, path):
    name, _, config = path.partition("/")
    version = {"imagenet_sketch": "1.0.0", "imagenet_v2": "3.0.0"}[name]
    prepare(tmp_path, name, version, config, FEATURES=("file_name",))
    (found,) = load(f"tfds:{path}", WNIDS, data_dir=str(tmp_path))
    assert found.where == {"set": path.replace("/", "-")} and found.subset is None
    assert found.source.labels.tolist() == numbers(found.source)
    assert sorted(found.source.labels) == [0, 1, 999]


def test_any_labelled_set_is_matched_by_name(tmp_path):
    names = ["dog", "cat"]
    prepare(tmp_path, "pets", "1.0.0", CLASSES={"names": names}, USED=(0, 1, 1))
    (found,) = load("tfds:pets", ("cat", "cow", "dog"), data_dir=str(tmp_path))
    assert found.source.class_names == ("cat", "cow", "dog")
    assert [{0: 2, 1: 0}[n] for n in numbers(found.source)] == found.source.labels.tolist()
    with pytest.raises(ValueError, match=r"pets test has classes that .* lacks; got cat \(1 of 2"):
        load("tfds:pets", ("cats", "cow", "dog"), data_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"no such split; got .*'val'; choose among test"):
        load("tfds:pets:val", ("cat", "cow", "dog"), data_dir=str(tmp_path))
