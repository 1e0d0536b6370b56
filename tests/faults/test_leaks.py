"""Images that are in train and in val: found by their bytes, whatever they are called."""

import dataclasses
import shutil

import ml_collections
import numpy as np
import pytest
from image_folders import CLASSES, make_folder
from PIL import Image

from robust_jax.data import leaks, sources


def config(root):
    given = {"source": "folder", "dir": str(root), "classes": (), "max_bad_images": 0}
    return ml_collections.ConfigDict(given | {"verify": True})


@pytest.fixture
def root(tmp_path):
    """Train and val of noise, 9 images each, none in both; bitmaps, so that all sizes are equal."""
    for number, part in enumerate(("train", "val")):
        make_folder(tmp_path / part, lambda _: (6, 7), suffixes=(".bmp",))
        for file in sorted((tmp_path / part).rglob("*.bmp")):
            pixels = np.asarray(Image.open(file)) + np.uint8(number)
            Image.fromarray(pixels).save(file)
    return tmp_path


def both(root):
    return tuple(sources.load(config(root), part) for part in sources.SPLITS)


def copy(root, train, val):
    shutil.copyfile(root / "train" / train, root / "val" / val)


def test_no_image_is_in_both(root, capsys):
    assert leaks.shared_images(*both(root)) == []
    assert leaks.tell(*both(root)) == 0
    assert capsys.readouterr().out == ""


# What is copied from train to val -> what is found.
COPIES = {
    "under the same name": ([("bee/0.bmp", "bee/0.bmp")],) * 2,
    "under another name": ([("bee/0.bmp", "bee/new.bmp")],) * 2,
    "into another class": ([("bee/0.bmp", "ant/new.bmp")],) * 2,
    "with another ending": ([("bee/0.bmp", "bee/new.JPG")],) * 2,
    "twice": ([("bee/0.bmp", "bee/1.bmp"), ("bee/0.bmp", "cow/0.bmp")],) * 2,
    "hidden, which no one reads": ([("bee/0.bmp", "bee/.new.bmp")], []),
    "that is no image": ([("bee/0.bmp", "bee/new.txt")], []),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_found(root, name):
    copied, expected = COPIES[name]
    for train, val in copied:
        copy(root, train, val)
    assert leaks.shared_images(*both(root)) == expected


def test_of_files_only_those_of_a_common_size_are_read(root):
    Image.new("RGB", (30, 30)).save(root / "val" / "cow" / "large.bmp")
    Image.new("RGB", (40, 40)).save(root / "train" / "cow" / "larger.bmp")
    copy(root, "ant/0.bmp", "bee/1.bmp")
    seen = []

    def watched(source):
        def read(i):
            seen.append(source.files[i])
            return source.read(i)

        return dataclasses.replace(source, read=read)

    assert leaks.shared_images(*map(watched, both(root))) == [("ant/0.bmp", "bee/1.bmp")]
    assert len(seen) == 18 and not any("large" in file for file in seen)


def test_it_is_found_out_once_and_again_where_a_file_changes(root, tmp_path):
    copy(root, "ant/0.bmp", "bee/1.bmp")
    index, (train, val) = tmp_path / "index", both(root)
    found = leaks.shared_images(train, val, index)

    def unread(i):
        pytest.fail("read again")

    sealed = [dataclasses.replace(source, read=unread) for source in (train, val)]
    assert leaks.shared_images(*sealed, index) == found == [("ant/0.bmp", "bee/1.bmp")]
    (stored,) = index.iterdir()
    stored.write_bytes(stored.read_bytes().replace(b"ant/0", b"ant/1"))
    assert leaks.shared_images(train, val, index) == found  # a damaged record is none
    copy(root, "ant/1.bmp", "ant/2.bmp")  # of the same size, under the same name
    assert leaks.shared_images(*both(root), index) == [
        ("ant/1.bmp", "ant/2.bmp"),
        ("ant/0.bmp", "bee/1.bmp"),
    ]


def test_what_is_told(root, capsys):
    assert CLASSES[0] == "ant"
    for number in range(3):
        copy(root, f"ant/{number}.bmp", f"ant/{number}.bmp")
    assert leaks.tell(*both(root)) == 3
    assert capsys.readouterr().out == (
        "data: 3 of 9 images of val are in train, too (train ant/0.bmp = val ant/0.bmp; train "
        "ant/1.bmp = val ant/1.bmp; ...): the evaluation is optimistic\n"
    )
    part = both(root)[1].subset([0, 4])
    assert leaks.shared_images(both(root)[0], part) == [("ant/0.bmp", "ant/0.bmp")]


def test_arrays_are_compared_by_their_pixels():
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), np.uint8)
    train = sources.from_arrays(images[:8], np.arange(8) % 2)
    val = sources.from_arrays(images[[9, 3, 10, 0]], np.arange(4) % 2)
    assert leaks.shared_images(train, val) == [("3", "1"), ("0", "3")]


def test_digits_of_the_quickstart_have_no_leak(capsys):
    data = ml_collections.ConfigDict({"source": "digits", "classes": ()})
    assert leaks.tell(sources.load(data, "train"), sources.load(data, "val")) == 0
    assert capsys.readouterr().out == ""


def test_large_sets_without_files_are_left_out_and_told(monkeypatch, capsys):
    data = [bytes([i]) for i in range(9)]
    labels = np.array([0, 1, 0, 1, 0, 1], np.int32)
    train = sources.Source("t", ("a", "b"), labels, data.__getitem__, "t")
    val = sources.Source("v", ("a", "b"), labels[:3], lambda i: data[i + 5], "v")
    assert leaks.shared_images(train, val) == [("5", "0")]
    monkeypatch.setattr(leaks, "MOST_READ", 8)
    assert leaks.tell(train, val) is None
    assert "6 images of train and 3 of val were not searched" in capsys.readouterr().out
    absent = dataclasses.replace(train, absent=True)
    assert leaks.tell(absent, val) is None
    assert capsys.readouterr().out == ""


def test_a_linked_val_is_all_leak(root):
    shutil.rmtree(root / "val")
    (root / "val").symlink_to("train")  # in the tree, so it is no error
    train, val = both(root)
    assert leaks.shared_images(train, val) == [(file, file) for file in train.files]
