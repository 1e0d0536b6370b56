import io
import json
import shutil

import ml_collections
import numpy as np
import pytest
from PIL import Image

from robust_jax.data import folder, sources


def config(**keys):
    return ml_collections.ConfigDict(
        {"source": "folder", "dir": "", "classes": (), "max_bad_images": 0, "verify": True} | keys
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
    ((name, reason),) = json.loads(stored.read_text())["value"]
    assert name == "cat/0.png" and reason.startswith("cannot decode the image; got 1 bytes")
    with monkeypatch.context() as patch:
        patch.setattr(folder, "decode_image", lambda data: pytest.fail("decoded again"))
        again = sources.load(data, "train", index_dir=str(index))
        assert again.bad_images == first.bad_images
        with pytest.raises(ValueError, match="1 images"):
            sources.load(config(dir=str(images)), "train", index_dir=index)
    save(images / "train" / "cat" / "0.png", 3)  # changed, so checked again
    assert sources.load(data, "train", index_dir=index).bad_images == ()
