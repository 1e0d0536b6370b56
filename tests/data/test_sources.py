import io
import json
import shutil

import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from robust_jax.data import folder, sources


def config(**keys):
    return ml_collections.ConfigDict(
        {
            "source": "folder",
            "dir": "",
            "name": "",
            "file": "",
            "train_split": "train",
            "val_split": "test",
            "max_bad_images": 0,
            "verify": True,
        }
        | keys
    )


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 7, 3), value, np.uint8)).save(path)


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "pets"
    for part, count in (("train", 3), ("val", 2)):
        for k, name in enumerate(("cat", "dog")):
            for i in range(count):
                save(root / part / name / f"{i}.{('png', 'JPG', 'webp')[i]}", 50 * k + i)
    return root


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


def test_folder_is_read_in_order(images):
    source = sources.load(config(dir=str(images)), "train")
    assert source.name == "pets train"
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1]
    pixels = [np.asarray(Image.open(io.BytesIO(source.read(i)))) for i in range(6)]
    assert [int(p[0, 0, 0]) for p in pixels] == [0, 1, 2, 50, 51, 52]
    assert len(sources.load(config(dir=str(images)), "val")) == 4


def test_folder_fingerprint_is_the_content(images, tmp_path):
    mark = sources.load(config(dir=str(images)), "train").fingerprint
    shutil.copytree(images, tmp_path / "copy" / "pets", copy_function=shutil.copyfile)
    copy = config(dir=str(tmp_path / "copy" / "pets"))
    assert sources.load(copy, "train").fingerprint == mark
    save(images / "train" / "cat" / "9.png", 9)
    assert sources.load(config(dir=str(images)), "train").fingerprint != mark


def test_integer_classes_are_sorted_as_numbers(tmp_path):
    for name in ("10", "2", "1"):
        for part in ("train", "val"):
            save(tmp_path / part / name / "a.png", int(name))
    source = sources.load(config(dir=str(tmp_path)), "val")
    assert source.class_names == ("1", "2", "10")
    assert source.labels.tolist() == [0, 1, 2]


def test_val_may_lack_a_class(images):
    shutil.rmtree(images / "val" / "cat")
    source = sources.load(config(dir=str(images)), "val")
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [1, 1]


def test_other_files_are_told(images, capsys):
    (images / "train" / "cat" / "notes.txt").write_text("")
    (images / "train" / "cat" / ".hidden.png").write_text("")
    assert len(sources.load(config(dir=str(images)), "train")) == 6
    assert "left out 1 files that are not images, e.g. cat/notes.txt" in capsys.readouterr().out


def break_layout(root, what):
    if what == "val":
        shutil.rmtree(root / "val")
    elif what == "classes":
        shutil.rmtree(root / "train")
        (root / "train").mkdir()
    elif what == "empty":
        shutil.rmtree(root / "train" / "cat")
        (root / "train" / "cat").mkdir()
        (root / "train" / "cat" / "a.txt").write_text("")
    elif what == "foreign":
        (root / "val" / "bird").mkdir()
    elif what == "one":
        for part in ("train", "val"):
            shutil.rmtree(root / part / "cat")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("val", r"pets has no directory val; got train; lay the images out"),
        ("classes", r"train has no class directories; .*train/CLASS/"),
        ("empty", r"no readable image in .*train/cat; got 1 other files; put .jpg"),
        ("foreign", r"val has classes that train lacks; got bird"),
        ("one", r"one class only; got dog"),
    ],
)
def test_wrong_layout_is_told(images, what, message):
    break_layout(images, what)
    with pytest.raises(ValueError, match=message):
        sources.load(config(dir=str(images)), "train")


def test_no_folder_is_told(images):
    for path in ("", str(images / "none")):
        with pytest.raises(ValueError, match=r"data.dir is not a directory; got '"):
            sources.load(config(dir=path), "train")


def test_corrupt_images_are_named_or_left_out(images, capsys):
    for name in ("cat/0.png", "dog/1.JPG"):
        path = images / "train" / name
        path.write_bytes(path.read_bytes()[:40])
    message = r"2 images of .*train cannot be read; got cat/0.png, dog/1.JPG; .*max_bad_images=2"
    for allowed in (0, 1):
        with pytest.raises(ValueError, match=message):
            sources.load(config(dir=str(images), max_bad_images=allowed), "train")
    source = sources.load(config(dir=str(images), max_bad_images=2), "train")
    assert source.bad_images == ("train/cat/0.png", "train/dog/1.JPG")
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert np.asarray(Image.open(io.BytesIO(source.read(2))))[0, 0, 0] == 50
    assert "left out 2 images that cannot be read: cat/0.png" in capsys.readouterr().out
    assert len(sources.load(config(dir=str(images), verify=False), "train")) == 6


def test_many_corrupt_images_are_counted(tmp_path):
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            save(tmp_path / part / name / "ok.png", 0)
    for i in range(7):
        (tmp_path / "train" / "cat" / f"bad{i}.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"7 images .*cat/bad4.jpg, \.\.\.;"):
        sources.load(config(dir=str(tmp_path)), "train")
    (tmp_path / "train" / "cat" / "ok.png").unlink()
    with pytest.raises(ValueError, match=r"no readable image in .*train/cat; got corrupt files"):
        sources.load(config(dir=str(tmp_path), max_bad_images=9), "train")


def test_a_check_is_not_made_twice(images, tmp_path, monkeypatch):
    (images / "train" / "cat" / "0.png").write_bytes(b"x")
    data, index = config(dir=str(images), max_bad_images=1), tmp_path / "index"
    first = sources.load(data, "train", index_dir=index)
    (stored,) = index.iterdir()
    assert json.loads(stored.read_text()) == {"unreadable": ["cat/0.png"]}
    with monkeypatch.context() as patch:
        patch.setattr(folder, "decode_image", lambda data: pytest.fail("decoded again"))
        again = sources.load(data, "train", index_dir=str(index))
        assert again.bad_images == first.bad_images
        with pytest.raises(ValueError, match="1 images"):
            sources.load(config(dir=str(images)), "train", index_dir=index)
    save(images / "train" / "cat" / "0.png", 3)  # changed, so checked again
    assert sources.load(data, "train", index_dir=index).bad_images == ()


def test_unknown_source_and_split_are_told():
    with pytest.raises(ValueError, match=r"got 'foldr'; did you mean 'folder'\? use one of digits"):
        sources.load(config(source="foldr"), "train")
    with pytest.raises(ValueError, match=r"unknown split; got 'test'; use one of train, val"):
        sources.load(config(source="digits"), "test")


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
    data = config(source="tfds", dir=str(tmp_path), name="tiny_shapes")
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
    part = config(source="tfds", dir=str(tmp_path), name="tiny_shapes", train_split="train[:4]")
    assert len(sources.load(part, "train")) == 4


def test_wrong_tfds_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"data.name='cifr10'; did you mean 'cifar10'"):
        sources.load(config(source="tfds", dir=str(tmp_path), name="cifr10"), "train")
    TinyShapes(data_dir=tmp_path, file_format="tfrecord").download_and_prepare()
    data = config(source="tfds", dir=str(tmp_path), name="tiny_shapes", val_split="valid")
    with pytest.raises(ValueError, match=r"got data.val_split='valid'; choose among t"):
        sources.load(data, "val")
