"""Symbolic links in folders of data: none leads out of the folder that the user named."""

import os
import shutil

import ml_collections
import numpy as np
import pytest
from benchmark_folders import class_folders, load
from PIL import Image

from robust_jax import corrupt
from robust_jax.data import sources
from robust_jax.data.stored import videos

NAMES = ("ant", "bee")
SECRET = "secret.png"


def config(root):
    given = {"source": "folder", "dir": str(root), "classes": (), "max_bad_images": 9}
    return ml_collections.ConfigDict(given | {"verify": True})


@pytest.fixture
def root(tmp_path):
    """A folder of images; beside it lies one that is not the user's to show."""
    for part in ("train", "val"):
        class_folders(tmp_path / "data" / part, NAMES)
    (tmp_path / "outside" / "train" / "ant").mkdir(parents=True)
    (tmp_path / "outside" / "train" / "bee").mkdir()
    for name in NAMES:
        Image.new("RGB", (8, 8)).save(tmp_path / "outside" / "train" / name / SECRET)
    return tmp_path / "data"


def replace(path, target):
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


# What is replaced by a link -> where it leads; OUT is the folder beside.
OUT = "OUT"
LINKS = {
    "an image": ("train/bee/a.JPEG", f"{OUT}/train/bee/{SECRET}"),
    "an image, relative": ("train/bee/a.JPEG", f"../../../outside/train/bee/{SECRET}"),
    "an image of val": ("val/bee/a.JPEG", f"{OUT}/train/bee/{SECRET}"),
    "a class": ("train/bee", f"{OUT}/train/bee"),
    "another class": ("train/cow", f"{OUT}/train/bee"),
    "a split": ("train", f"{OUT}/train"),
    "the other split": ("val", f"{OUT}/train"),
    "what is no image": ("train/bee/notes.txt", "/etc/hostname"),
    "a class, the root of all": ("train/cow", "/"),
    "a sibling of like name": ("train/cow", f"{OUT}/../data2"),
}


@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_leads_out_is_refused(root, name):
    place, target = LINKS[name]
    (root.parent / "data2").mkdir()
    replace(root / place, target.replace(OUT, str(root.parent / "outside")))
    with pytest.raises(ValueError, match=rf"a link leads out of .*data; got .*{place} -> /.*copy"):
        for part in sources.SPLITS:
            sources.load(config(root), part)


def test_a_chain_of_links_that_leads_out_is_refused(root):
    (root / "hop").symlink_to(root.parent / "outside")
    replace(root / "train" / "bee", root / "hop" / "train" / "bee")
    with pytest.raises(ValueError, match=r"leads out of .*train/bee -> /.*outside/train/bee; "):
        sources.load(config(root), "train")


NOWHERE = {
    "an image": ("train/bee/b.png", "gone.png"),
    "an image in a loop": ("train/bee/b.png", "b.png"),
    "a class": ("train/cow", "gone"),
}


@pytest.mark.parametrize("name", NOWHERE)
def test_a_link_to_nowhere_is_no_image_left_out_in_silence(root, name):
    place, target = NOWHERE[name]
    (root / place).symlink_to(target)
    with pytest.raises(ValueError, match=rf"a link leads nowhere; got .*{place} -> .*; remove it"):
        sources.load(config(root), "train")


def test_links_in_the_folder_and_the_folder_itself_are_followed(root):
    expected = sources.load(config(root), "train")
    link = root.parent / "link"
    link.symlink_to(root)
    os.rename(root / "train" / "ant", root / "moved")
    (root / "train" / "ant").symlink_to("../moved")
    os.rename(root / "moved" / "a.JPEG", root / "a.JPEG")
    (root / "moved" / "a.JPEG").symlink_to(root / "a.JPEG")
    (root / "train" / ".hidden").symlink_to("/")  # which no one reads
    for place in (root, link):
        found = sources.load(config(place), "train")
        assert found.files == expected.files and found.read(0) == expected.read(0)


BENCHMARKS = {
    "an image": ("fog/1/bee/a.JPEG", f"{OUT}/train/bee/{SECRET}"),
    "a class": ("fog/1/bee", f"{OUT}/train/bee"),
    "a severity": ("fog/1", f"{OUT}/train"),
    "a corruption": ("fog", OUT),
    "a category": ("weather", OUT),
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_lead_nowhere_else(tmp_path, root, name):
    place, target = BENCHMARKS[name]
    outside = root.parent / "outside"
    os.rename(outside / "train", outside / "1")
    (outside / "train").symlink_to("1")
    (outside / "fog").symlink_to(".")
    benchmark = tmp_path / "bench"
    if name != "a category":
        class_folders(benchmark / "fog" / "1", NAMES)
    benchmark.mkdir(exist_ok=True)
    replace(benchmark / place, target.replace(OUT, str(outside)))
    with pytest.raises(ValueError, match=rf"a link leads out of .*bench; got .*bench/{place}"):
        load(f"folder_c:{benchmark}", NAMES, corruptions=("fog",), severities=(1,))


@pytest.mark.parametrize("place", ["a.JPEG", "."])
def test_a_folder_as_a_benchmark_leads_nowhere_else(tmp_path, root, place):
    class_folders(tmp_path / "bench", NAMES)
    replace(tmp_path / "bench" / "bee" / place, root.parent / "outside" / "train" / "bee")
    with pytest.raises(ValueError, match=r"a link leads out of .*bench; got .*bench/bee"):
        load(f"folder:{tmp_path / 'bench'}", NAMES)


@pytest.mark.parametrize("name", ["labels", "fog"])
def test_arrays_of_benchmarks_lead_nowhere_else(tmp_path, name):
    bench, outside = tmp_path / "bench", tmp_path / "outside"
    bench.mkdir()
    outside.mkdir()
    np.save(bench / "labels.npy", np.tile([0, 1], 5))
    np.save(bench / "fog.npy", np.zeros((10, 32, 32, 3), np.uint8))
    options = {"corruptions": ("fog",), "severities": (2,)}
    names = tuple(map(str, range(10)))
    assert len(load(f"cifar10_c:{bench}", names, **options)[0]) == 2
    os.rename(bench / f"{name}.npy", outside / f"{name}.npy")
    (bench / f"{name}.npy").symlink_to(outside / f"{name}.npy")
    with pytest.raises(ValueError, match=rf"a link leads out of .*bench; got .*{name}.npy -> "):
        load(f"cifar10_c:{bench}", names, **options)


@pytest.mark.parametrize("place", ["tilt", "tilt/bee", "tilt/bee/a.npy"])
def test_sequences_lead_nowhere_else(tmp_path, place):
    bench, frames = tmp_path / "bench", np.zeros((3, 16, 16, 3), np.uint8)
    for name in NAMES:
        (bench / "tilt" / name).mkdir(parents=True)
        np.save(bench / "tilt" / name / "a.npy", frames)
    options = {"perturbations": ("tilt",), "size": 16}
    assert len(load(f"folder_p:{bench}", NAMES, **options)[0]) == 2
    outside = tmp_path / "outside"
    os.rename(bench / place, outside)
    (bench / place).symlink_to(outside)
    with pytest.raises(ValueError, match=rf"a link leads out of .*bench; got .*{place} -> "):
        load(f"folder_p:{bench}", NAMES, **options)


def test_damaged_sequences_are_told(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 16, 16, 3), np.uint8))
    whole = (tmp_path / "a.npy").read_bytes()
    huge = whole.replace(b"(3, 16, 16, 3), }" + b" " * 9, b"(3, 99999999, 9999999, 3), }"[:26])
    pickled = tmp_path / "b.npy"
    np.save(pickled, np.array([None]), allow_pickle=True)
    cases = {"cut": whole[:200], "zero bytes": b"", "no array": b"<html>", "a pickle": None}
    for name, data in (cases | {"a huge header": huge}).items():
        if data is not None:
            (tmp_path / "a.npy").write_bytes(data)
        path = tmp_path / ("a.npy" if data is not None else "b.npy")
        with pytest.raises(ValueError, match=r"[ab].npy cannot be read whole; got the error"):
            videos.read_sequence(path)
            pytest.fail(name)


def test_the_corrupt_command_follows_no_link_out(tmp_path, root):
    replace(root / "train" / "bee", root.parent / "outside" / "train" / "bee")
    with pytest.raises(ValueError, match=r"a link leads out of .*train; got .*train/bee -> "):
        corrupt.main([str(root / "train"), str(tmp_path / "made"), "--corruption", "fog"])
