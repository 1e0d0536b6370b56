"""How benchmarks are named, which classifiers they fit, and plain folders."""

import pytest
from benchmark_folders import class_folders, load

from robust_jax.evals import benchmarks, subsets

WNIDS = subsets.imagenet_wnids()
NUMBERS = tuple(str(k) for k in range(1000))
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("imagenetc:/x", r"unknown kind of benchmark; got 'imagenetc:/x'; .*mean 'imagenet_c'"),
        ("/data/imagenet", r"unknown kind of benchmark; got '/data/imagenet'; give KIND:PATH"),
        ("imagenet_v2", r"imagenet_v2 needs a place; got 'imagenet_v2'; give imagenet_v2:PATH"),
        ("imagenet_v2:/none", r"not at this place; got '/none', which is not a directory"),
        ("cifar10_c:/none", r"cifar10_c needs a classifier of 10 classes; got 1000"),
    ],
)
def test_wrong_specs_are_told(spec, message):
    with pytest.raises(ValueError, match=message):
        load(spec, WNIDS)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (WNIDS[:999], r"needs a classifier of ImageNet's 1000 classes; got 999 classes"),
        (WNIDS[::-1], rf"got '{WNIDS[999]}' as class 0 of the classifier; it must be '{WNIDS[0]}'"),
        (sorted(NUMBERS), r"got '10' as class 2 of the classifier; it must be '2'"),
    ],
)
def test_other_classes_are_told(names, message, tmp_path):
    kinds = ["imagenet_c", "imagenet_v2", "imagenet_a", "objectnet", "imagenet_p"]
    for kind in kinds:
        with pytest.raises(ValueError, match=f"{kind} .*{message}"):
            load(f"{kind}:{tmp_path}", names)


@pytest.mark.parametrize("name", ["clean", "corruption", "a/b", "", "two words"])
def test_names_that_cannot_be(name, tmp_path):
    with pytest.raises(ValueError, match=rf"cannot be a benchmark's name; got '{name}'"):
        load(f"{name}=folder:{tmp_path}", ("cat", "dog"))


def test_benchmarks_are_called_differently(tmp_path, capsys):
    class_folders(tmp_path, ("cat", "dog"))
    options = {"class_names": ("cat", "dog"), "eval_ops": "decode|resize(8)", "size": 8}
    specs = [f"folder:{tmp_path}", f"again=folder:{tmp_path}"]
    found = benchmarks.load_all(specs, **options)
    assert [one.where for one in found] == [{"set": "folder"}, {"set": "again"}]
    assert "benchmark again: 2 images in 1 sets" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"two benchmarks are both called folder; got 'folder:.*"):
        benchmarks.load_all([specs[0], *specs], **options)


def test_classes_in_words_are_taken_to_be_in_order(tmp_path, capsys):
    ids = subsets.imagenet_a().table[:, 0]
    class_folders(tmp_path, [WNIDS[i] for i in ids])
    words = [f"thing {k}" for k in range(1000)]
    (found,) = load(f"imagenet_a:{tmp_path}", words)
    assert "classes are taken to be in ImageNet's order" in capsys.readouterr().out
    assert found.source.class_names == subsets.imagenet_a().class_names


@pytest.mark.parametrize(
    ("folders", "names", "labels"),
    [
        (("dog", "cat"), ("cow", "cat", "dog"), [1, 2]),
        (("2", "0"), ("cow", "cat", "dog"), [0, 2]),
        (("10", "2"), tuple(str(k) for k in range(11)), [2, 10]),
        ((WNIDS[7], WNIDS[3]), tuple(f"thing {k}" for k in range(1000)), [3, 7]),
        (("12", "3"), WNIDS, [3, 12]),
    ],
)
def test_a_folder_names_classes_in_one_of_three_ways(tmp_path, capsys, folders, names, labels):
    class_folders(tmp_path, folders)
    (found,) = load(f"photos=folder:{tmp_path}", names)
    assert found.where == {"set": "photos"} and found.source.class_names == names
    assert found.source.labels.tolist() == labels
    absent = f"{len(names) - 2} of the classifier's classes are absent"
    assert absent in capsys.readouterr().out


def test_a_folder_of_unknown_classes_is_told(tmp_path):
    class_folders(tmp_path, ("cats", "dog"))
    with pytest.raises(ValueError, match=r"lacks; got cats \(1 of 2\); .*mean 'cat'"):
        load(f"folder:{tmp_path}", ("cat", "dog"))
    (tmp_path / "sub=1").mkdir()
    class_folders(tmp_path / "sub=1", ("cat", "dog"))
    (found,) = load(f"folder:{tmp_path}/sub=1", ("cat", "dog"))
    assert found.where == {"set": "folder"}
