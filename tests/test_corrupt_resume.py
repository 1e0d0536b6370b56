"""The -C and the -P of a folder: interruptions, additions, and what is refused."""

import json
import os
import shutil

import numpy as np
import pytest
from image_folders import OPTIONS, command, make_folder, names, read
from PIL import Image

from robust_jax.corruptions import corrupt as corrupt_batch
from robust_jax.evals import benchmarks, written_sets


@pytest.fixture
def source(tmp_path):
    make_folder(tmp_path / "in", lambda i: (16, 16))
    return tmp_path / "in"


def contents(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".index" not in path.parts
    }


def make_old(root):
    for path in root.rglob("*"):
        os.utime(path, (1, 1))


def renewed(root):
    """Files that were written after `make_old`."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)) for path in files if path.stat().st_mtime > 1}


def test_only_what_is_missing_is_made(source, tmp_path, capsys):
    out = tmp_path / "out"
    command(source, out, *OPTIONS)
    whole, gone = contents(out), {"fog/5/cow/1.JPEG", "perturbations/tilt/ant/0.npy"}
    make_old(out)
    for file in gone:
        (out / file).unlink()
    shutil.rmtree(out / "shot_noise" / "1" / "bee")
    gone |= {"shot_noise/1/bee/0.JPEG", "shot_noise/1/bee/1.JPEG"}
    capsys.readouterr()
    command(source, out, *OPTIONS)
    assert "wrote 4 files" in capsys.readouterr().out
    assert renewed(out) == gone and contents(out) == whole
    command(source, out, *OPTIONS)
    assert "wrote 0 files" in capsys.readouterr().out


@pytest.mark.parametrize("after", [0, 5, 40])
def test_an_interruption_is_continued(source, tmp_path, monkeypatch, capsys, after):
    whole, out, saved = tmp_path / "whole", tmp_path / "out", []
    command(source, whole, *OPTIONS)
    save = written_sets._save

    def interrupted(path, values):
        if len(saved) >= after:
            raise KeyboardInterrupt
        saved.append(path)
        save(path, values)

    monkeypatch.setattr(written_sets, "_save", interrupted)
    assert command(source, out, *OPTIONS) == 130
    assert "the same command goes on" in capsys.readouterr().err
    if after < 36:  # corrupted images; no part of them can be taken for the whole
        with pytest.raises(ValueError, match="lacks the corruption fog"):
            load = {"class_names": ("ant", "bee", "cow"), "eval_ops": "decode", "size": 16}
            benchmarks.load(f"folder_c:{out}", corruptions=("fog",), **load)
    monkeypatch.setattr(written_sets, "_save", save)
    make_old(out)
    command(source, out, *OPTIONS)
    assert contents(out) == contents(whole)
    assert f"wrote {45 - len(saved)} files" in capsys.readouterr().out
    assert len(renewed(out)) == 45 - len(saved) and not (out / ".unfinished").exists()


def test_more_may_be_added(source, tmp_path):
    out = tmp_path / "out"
    command(source, out, "--corruption", "fog", "--severity", "1")
    make_old(out)
    command(source, out, "--corruption", "--perturbation", "tilt")
    command(source, out, "--corruption", "fog", "snow", "--severity", "2")
    places = {file.rpartition("/")[0].rpartition("/")[0] for file in renewed(out)}
    assert places == {"fog/2", "snow/2", "perturbations/tilt"}


def test_unreadable_images_are_told_or_left_out(source, tmp_path):
    (source / "ant" / "1.png").write_bytes(b"no image")
    out, fog = tmp_path / "out", ["--corruption", "fog", "--severity", "3", "--png"]
    with pytest.raises(ValueError, match=r"1 images of .*in cannot be read; got ant/1.png"):
        command(source, out, *fog)
    command(source, out, *fog, "--max_bad_images", "1")
    files = [file for file in names(source, ".png") if file != "ant/1.png"]
    assert len(list(out.glob("fog/3/*/*"))) == 8
    originals = [next((source / file).parent.glob(file[4:-3] + "*")) for file in files]
    images = np.stack([np.asarray(Image.open(path)) for path in originals])
    expected = corrupt_batch(images, "fog", 3, ids=np.arange(8))
    np.testing.assert_array_equal(read(out / "fog" / "3", files), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "1"], r"got seed 0 there and 1 here for '.*out'; repeat those, or"),
        (["--png"], r"other settings; got png False there and True here"),
        (["--size", "12"], r"got size None there and 12 here, resize None there and 12 here"),
    ],
)
def test_other_settings_are_refused(source, tmp_path, options, message):
    command(source, tmp_path / "out", "--corruption", "fog", "--severity", "1")
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        command(source, tmp_path / "out", "--corruption", "snow", *options)
    assert contents(tmp_path / "out") == before


def test_other_images_are_refused(source, tmp_path):
    command(source, tmp_path / "out", "--corruption", "fog", "--severity", "1")
    (source / "bee" / "0.jpg").unlink()
    with pytest.raises(ValueError, match=r"of other images .* got images 9 there and 8 here, sour"):
        command(source, tmp_path / "out", "--corruption", "fog", "--severity", "1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corruption", "frog"], r"unknown corruption; got 'frog'; .*did you mean 'fog'\?"),
        (["--perturbation", "tlit"], r"unknown sequence; got 'tlit'; .*did you mean 'tilt'\?"),
        (["--severity", "0", "3"], r"severities must be whole numbers from 1 to 5; got \[0, 3\]"),
        (["--corruption"], r"nothing to make; got no corruption and no perturbation"),
        (["--size", "7"], r"--size is too small; got 7; use 8 or more"),
        (["--size", "32", "--resize", "31"], r"--resize is below --size; got 31 and 32"),
        (["--resize", "32"], r"--resize needs --size; got 32 alone"),
        (["--seed", "-1"], r"--seed is negative; got -1"),
    ],
)
def test_wrong_options_are_told(source, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        command(source, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_wrong_directories_are_told(source, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "manifest.json").write_text(json.dumps({"made_from": {}}))
    shutil.copytree(source, tmp_path / "data" / "val")
    shutil.copytree(source, tmp_path / "data" / "train")
    out = tmp_path / "out"
    cases = [
        (tmp_path / "none", out, r"SRC is not a directory; got '.*none'; give a folder with CLA"),
        (tmp_path / "file", out, r"SRC is not a directory; got '.*file'"),
        (tmp_path / "empty", out, r"empty has no class directories; got none"),
        (tmp_path / "data", out, r"SRC holds splits, not classes; .* example '.*data/val'"),
        (source / "ant", out, r"ant has no class directories"),
        (source, tmp_path / "file", r"DST is a file; got '.*file'"),
        (source, tmp_path / "full", r"DST holds other files; got thesis.txt in '.*full'"),
        (source, tmp_path / "foreign", r"made by another program; got manifest.json with made_fr"),
        (source, source / "c", r"SRC and DST must not lie in each other"),
        (source, tmp_path, r"SRC and DST must not lie in each other"),
        (source, source, r"SRC and DST must not lie in each other"),
    ]
    for where, target, message in cases:
        with pytest.raises(ValueError, match=message):
            command(where, target, "--corruption", "fog")


def test_a_class_may_be_called_train(tmp_path):
    make_folder(tmp_path / "in", lambda i: (16, 16))
    (tmp_path / "in" / "ant").rename(tmp_path / "in" / "train")
    command(tmp_path / "in", tmp_path / "out", "--corruption", "fog", "--severity", "1")
    assert len(list(tmp_path.glob("out/fog/1/train/*.JPEG"))) == 3


def test_wrong_images_are_told(tmp_path):
    make_folder(tmp_path / "sizes", lambda i: (16, 16 + i // 6))
    make_folder(tmp_path / "tiny", lambda i: (16, 7))
    make_folder(tmp_path / "twice", lambda i: (16, 16))
    shutil.copy(tmp_path / "twice" / "cow" / "0.jpg", tmp_path / "twice" / "cow" / "0.png")
    cases = {
        "sizes": r"differ in size; got 16x16 px of ant/0.jpg and 17x16 of cow/1.png; .*--size 224",
        "tiny": r"sides of at least 8 px; got 7x16 px in .*tiny; .*--size 32",
        "twice": r"two images have one name; got cow/0.jpg and cow/0.png in .*; rename one",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message):
            command(tmp_path / name, tmp_path / "out" / name, "--corruption", "fog")
    for name in ("sizes", "tiny"):
        command(tmp_path / name, tmp_path / "out" / name, "--size", "12", "--corruption", "fog")
