"""Prediction on files of any name and images of any size, in a bounded memory."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from runs import ROOT

import robust_jax
from robust_jax import predict
from robust_jax.data.images import MAX_RATIO

pytest_plugins = ["finished_run"]


@pytest.fixture(scope="module")
def classifier(finished):
    return robust_jax.load(finished)


@pytest.fixture
def run(finished, classifier, monkeypatch, capsys):
    """The command line on some files; returns its JSON lines."""

    def run_command(*files):
        monkeypatch.setattr(predict, "RobustClassifier", lambda workdir: classifier)
        assert predict.main([str(finished), *files]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run_command


def encode(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


RED = encode(Image.new("RGB", (20, 30), "red"))
NAMES = {
    "a newline": "a\nb.png",
    "a carriage return": "a\rb.png",
    "quotes": "a\"b'c.png",
    "a tag": "<script>alert(1)<script>.png",
    "an escape of a terminal": "\x1b[31ma\x1b]0;title\x07.png",
    "bytes that are no UTF-8": os.fsdecode(b"a\xff\xfeb.png"),
    "a right-to-left mark": "a\u202egnp.exe",
    "spaces": "  a b  .png",
    "placeholders": "%s{0}$HOME`id`.png",
    "a name as long as may be": "a" * 251 + ".png",
    "no letter": "🐜.png",
    "no ending": "image",
    "an address": "http:__example.org_a.png?b=c&d",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_answered_whatever_its_name(run, tmp_path, name):
    path = tmp_path / NAMES[name]
    path.write_bytes(RED)
    (line,) = run(str(path))
    assert line["image"] == str(path)
    assert set(line) == {"image", "label", "class", "prob", "head", "uncertainty", "kl"}


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_file_is_named_in_one_printable_line(run, tmp_path, name):
    path = tmp_path / NAMES[name]
    path.write_bytes(b"<html>")
    with pytest.raises(ValueError, match="cannot decode the image; got 6 bytes") as told:
        run(str(path))
    assert str(told.value).isprintable()


def test_a_leading_dash_is_a_file_after_two_dashes(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-rf.png").write_bytes(RED)
    (tmp_path / "--help").write_bytes(RED)
    assert [line["image"] for line in run("--", "-rf.png", "--help")] == ["-rf.png", "--help"]
    assert len(run("./-rf.png")) == 1
    with pytest.raises(SystemExit):
        run("-rf.png")


@pytest.fixture
def fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    return str(tmp_path / "fifo.png")


@pytest.mark.parametrize(
    "path",
    ["a" * 300, "a/" * 3000 + "b.png", "gone.png", "/dev/null", "/dev/zero", "a\0b", ""],
)
def test_what_is_no_file_is_told(run, path):
    with pytest.raises(
        ValueError, match=r"no such image file or folder; got .*; give a path"
    ) as told:
        run(path)
    assert len(str(told.value)) < 500 and str(told.value).isprintable()


def test_a_pipe_is_not_waited_for(run, fifo):
    with pytest.raises(
        ValueError, match=r"no such image file or folder; got .*fifo.png; give a path"
    ):
        run(fifo)


SIDES = [(1, 1), (1, 2), (2, 1), (1, MAX_RATIO), (MAX_RATIO, 1), (3, 700), (2500, 10), (1000, 700)]


@pytest.mark.parametrize(("width", "height"), SIDES)
def test_images_of_any_size_are_answered(classifier, width, height):
    image = Image.new("RGB", (width, height), "red")
    said = classifier.predict([encode(image), np.asarray(image)])
    np.testing.assert_array_equal(said.probs[0], said.probs[1])
    np.testing.assert_allclose(said.probs.sum(1), 1, rtol=1e-5)


def view(height, width):
    """An array of this form that takes no memory."""
    return np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (height, width, 3))


REFUSED = {
    "no row": (view(0, 5), "has no pixels; got 5x0 px"),
    "no column": (view(5, 0), "has no pixels; got 0x5 px"),
    "1x100000": (view(100_000, 1), "too long for its width; got 1x100000 px"),
    "100000x1 as a PNG": (
        encode(Image.new("L", (100_000, 1))),
        "too long for its width; got 100000x1 px",
    ),
    "more than 100 megapixels": (view(10_001, 10_000), "too large; got 10000x10001 px, 100.0 meg"),
    "a gigapixel": (view(32_000, 32_000), "too large; got 32000x32000 px, 1024.0 megapixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_sizes_beyond_the_limits_are_refused(classifier, name):
    image, message = REFUSED[name]
    with pytest.raises(ValueError, match=rf"image 1: the image .*{message}"):
        classifier.predict([np.zeros((4, 4, 3), np.uint8), image])


CHECK = """
import re, sys
from pathlib import Path
from robust_jax import predict
def peak():  # not getrusage, which tells of the process that started this one, too
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1])
load = predict.RobustClassifier
def loaded(workdir):
    global before
    found = load(workdir)
    found.predict([Path(sys.argv[2]).read_bytes()])  # a small one, which compiles
    before = peak()
    return found
predict.RobustClassifier = loaded
predict.main(sys.argv[1:])
print((peak() - before) // 1024, file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "sides", "form"),
    [(6, (10_000, 10_000), "JPEG"), (1, (100_000, 1000), "PNG"), (40, (4000, 3000), "JPEG")],
)
def test_large_images_are_in_memory_one_at_a_time(finished, tmp_path, count, sides, form):
    (tmp_path / "small.png").write_bytes(RED)
    large = tmp_path / f"large.{form}"
    Image.new("RGB", sides, "red").save(large)
    command = [sys.executable, "-c", CHECK, str(finished), str(tmp_path / "small.png")]
    found = subprocess.run([*command, *[str(large)] * count], cwd=ROOT, capture_output=True)
    assert found.returncode == 0, found.stderr.decode()
    assert len(found.stdout.splitlines()) == count + 1
    assert 20 < int(found.stderr.split()[-1]) < 1500  # MiB; six of 100 megapixels alone are 1800
