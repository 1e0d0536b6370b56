"""Benchmarks of class directories: tiny ones in the official layouts, and broken ones."""

import shutil

import numpy as np
import pytest
from benchmark_folders import class_folders, load, numbers, picture

from robust_jax.data.pipeline import Elements, ordered_batches
from robust_jax.evals import subsets

WNIDS = subsets.imagenet_wnids()


def batch(found):
    elements = Elements(found.source, found.ops, {"image": ""}, seed=0)
    return next(iter(ordered_batches(elements, batch_size=4)))


@pytest.fixture(scope="module")
def fog(tmp_path_factory):
    """ImageNet-C of one corruption, as its archives unpack it: below the name of a category."""
    root = tmp_path_factory.mktemp("imagenet_c")
    for severity in ("1", "3"):
        class_folders(root / "weather" / "fog" / severity, WNIDS, sides=(224, 224))
    return root


def test_imagenet_c(fog):
    mild, strong = load(f"imagenet_c:{fog}", WNIDS, size=224)
    assert mild.where == {"set": "imagenet_c", "corruption": "fog", "severity": 1}
    assert strong.where["severity"] == 3
    assert mild.source.labels.tolist() == numbers(mild.source) == list(range(1000))
    assert mild.ops == "decode|central_crop(224)" and mild.subset is mild.corrupt is None
    (small,) = load(f"imagenet_c:{fog}", WNIDS, severities=(1,), size=32)
    assert batch(small)["image"].shape == (4, 32, 32, 3)


def test_imagenet_c_of_differing_sizes(fog):
    path = fog / "weather" / "fog" / "3" / WNIDS[2] / "a.JPEG"
    whole = path.read_bytes()
    path.write_bytes(picture(2, (200, 224)))
    (found,) = load(f"imagenet_c:{fog}", WNIDS, size=224, severities=(3,))
    with pytest.raises(ValueError, match=r"image is smaller than central_crop\(224\).*200, 224"):
        batch(found)
    path.write_bytes(whole)


def test_imagenet_c_without_a_class(fog):
    kept = fog / "weather" / "fog" / "3" / WNIDS[7]
    away = kept.rename(fog / "away")
    message = rf"imagenet_c needs 1000 class directories in .*3; got none called {WNIDS[7]}; down"
    with pytest.raises(ValueError, match=message):
        load(f"imagenet_c:{fog}", WNIDS)
    away.rename(kept)


NAMES = ("n02", "n01", "n03")


@pytest.fixture
def tiny(tmp_path):
    for severity in ("1", "3"):
        class_folders(tmp_path / "fog" / severity, NAMES)
    return tmp_path


@pytest.mark.parametrize("kind", ["tiny_imagenet_c", "folder_c"])
def test_corrupted_folders_of_other_classes(tiny, kind):
    first, second = load(f"{kind}:{tiny}", NAMES)
    assert first.where == {"set": kind, "corruption": "fog", "severity": 1}
    assert first.source.labels.tolist() == numbers(second.source) == [1, 0, 2]
    assert first.ops == "decode|resize(8)"


def six(root):
    (root / "fog" / "6").mkdir()


def no_three(root):
    shutil.rmtree(root / "fog" / "3")


def no_class(root):
    shutil.rmtree(root / "fog" / "3" / "n01")


def other_class(root):
    (root / "fog" / "3" / "n04").mkdir()


def no_image(root):
    (root / "fog" / "3" / "n01" / "a.JPEG").unlink()


@pytest.mark.parametrize(
    ("damage", "options", "message"),
    [
        (six, {}, r"severities are 1 to 5; got the directories 6 in .*fog"),
        (no_three, {}, r"fog lacks severity 3; got 1; download it, or leave it out of evaluate.se"),
        (no_class, {}, r"fog/3 lacks classes of the classifier; got none for n01 \(1 in all\)"),
        (other_class, {}, r"fog/3 has classes that the classifier lacks; got n04 \(1 of 4\)"),
        (no_image, {}, r"no readable image in .*3/n01"),
        (None, {"corruptions": ("snow",)}, r"lacks the corruption snow; got the directories fog"),
        (None, {"corruptions": ("foog",)}, r"unknown corruption.*foog"),
        (None, {"severities": (6,)}, r"severities must be whole numbers from 1 to 5; got \[6\]"),
        (None, {"corruptions": ()}, r"tiny_imagenet_c has nothing to read; got no corruptions"),
    ],
)
def test_a_damaged_benchmark_is_told(tiny, damage, options, message):
    if damage:
        damage(tiny)
    with pytest.raises(ValueError, match=message):
        load(f"tiny_imagenet_c:{tiny}", NAMES, **options)


def test_a_part_of_the_classes_is_told(tiny, capsys):
    no_class(tiny)
    _, found = load(f"folder_c:{tiny}", NAMES)
    assert "fog/3: 1 of the classifier's classes are absent, e.g. n01" in capsys.readouterr().out
    assert found.source.labels.tolist() == numbers(found.source) == [0, 2]


def test_images_of_differing_sizes_are_told(tiny):
    (tiny / "fog" / "1" / "n01" / "a.JPEG").write_bytes(picture(1, (4, 5)))
    found, _ = load(f"folder_c:{tiny}", NAMES, eval_ops="decode")
    with pytest.raises(ValueError, match=r"images of a batch differ in size; got \[4,\d,3\]"):
        batch(found)


def test_unreadable_images_are_told(tiny):
    class_folders(tiny / "fog" / "1", NAMES, extension="PNG")
    (tiny / "fog" / "1" / "n01" / "a.JPEG").write_bytes(b"x")
    found, _ = load(f"folder_c:{tiny}", NAMES)
    with pytest.raises(
        ValueError, match=r"record \d \(n01/a.JPEG\) of source 'folder_c .*: cannot decode"
    ):
        batch(found)


def test_imagenet_v2_folders_are_numbers(tmp_path):
    class_folders(tmp_path, [str(number) for number in range(1000)])
    (found,) = load(f"imagenet_v2:{tmp_path}", WNIDS)
    assert found.source.labels.tolist() == numbers(found.source) == list(range(1000))
    assert found.where == {"set": "imagenet_v2"} and found.source.class_names == WNIDS


def test_imagenet_sketch(tmp_path):
    class_folders(tmp_path, WNIDS)
    (found,) = load(f"imagenet_sketch:{tmp_path}", WNIDS)
    assert found.source.labels.tolist() == numbers(found.source) == list(range(1000))


@pytest.mark.parametrize(
    ("kind", "subset"), [("imagenet_a", subsets.imagenet_a), ("imagenet_r", subsets.imagenet_r)]
)
def test_subsets_and_their_clean_counterparts(tmp_path, capsys, kind, subset):
    ids = subset().table[:, 0]
    class_folders(tmp_path / "shift", [WNIDS[i] for i in ids], ids.tolist())
    class_folders(tmp_path / "val", WNIDS)
    (shift,) = load(f"{kind}:{tmp_path}/shift", WNIDS)
    (clean,) = load(f"imagenet_200_{kind[-1]}:{tmp_path}/val", WNIDS)
    assert "800 others are not evaluated" in capsys.readouterr().out
    for found in (shift, clean):
        assert found.subset is subset()
        np.testing.assert_array_equal(found.subset.table[found.source.labels, 0], ids)
        assert numbers(found.source) == ids.tolist()
    with pytest.raises(ValueError, match=rf"{kind} has no such classes.*800 in all"):
        load(f"{kind}:{tmp_path}/val", WNIDS)


def test_objectnet(tmp_path, capsys):
    names = list(subsets.objectnet().class_names)
    class_folders(tmp_path, ["blouse", *names], extension="png", sides=(12, 16))
    (clean,) = load(f"objectnet:{tmp_path}", WNIDS)
    assert "113 class directories; 1 others are not evaluated, e.g. blouse" in (
        capsys.readouterr().out
    )
    assert clean.source.labels.tolist() == list(range(113))
    assert numbers(clean.source) == list(range(1, 114))
    assert clean.ops == "decode|crop_border(2)|decode|resize(8)"
    assert clean.first == "decode|crop_border(2)" and clean.kind == "objectnet"
    assert clean.subset is subsets.objectnet()
    assert batch(clean)["image"].shape == (4, 8, 8, 3)
    mild, strong = load(f"objectnet_c:{tmp_path}", WNIDS)
    assert (mild.corrupt, strong.corrupt) == (("fog", 1), ("fog", 3))
    assert strong.where == {"set": "objectnet_c", "corruption": "fog", "severity": 3}
    assert strong.ops == clean.ops and strong.subset is clean.subset
    shutil.rmtree(tmp_path / "banana")
    with pytest.raises(ValueError, match=r"needs 113 class directories .*none called banana"):
        load(f"objectnet:{tmp_path}", WNIDS)
