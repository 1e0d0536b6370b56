"""Distorted copies: a call that was interrupted is continued, bit for bit."""

import json

import pytest
from made import COPIES, DISTORTIONS, N, classified, files, invert, write

from robust_jax.data import copies as copies_lib
from robust_jax.data.copies import Copies, check, read_manifest


class Interruption(Exception):
    pass


def counting(calls, stop=None):
    def run(images, seeds):
        if len(calls) == stop:
            raise Interruption
        calls.append(seeds[:, 1].tolist())
        return invert(images, seeds)

    return {"cae": (run, {"weights": "i"}), "noise2net": DISTORTIONS["noise2net"]}


def test_an_interrupted_call_is_continued(tmp_path):
    source, first, second = classified(), [], []
    write(tmp_path / "whole", source)
    with pytest.raises(Interruption):  # in the third batch, between its two copies
        write(tmp_path / "parts", source, distortions=counting(first, stop=5))
    assert json.loads((tmp_path / "parts" / "done.json").read_text())["records"] == 12
    copies = Copies.of(tmp_path / "parts", COPIES, source)
    for use in (lambda: read_manifest(copies.directory), lambda: check(copies, source)):
        with pytest.raises(ValueError, match=r"no finished copies in this .*; got 12 records in"):
            use()
    write(tmp_path / "parts", source, distortions=counting(second))
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert first[:4:2] == [list(range(6)), list(range(6, 12))]
    assert second[::2] == [list(range(12, 18)), [18, 19, 20, 21, 22, 22]]
    check(copies, source)


def test_finished_copies_are_not_made_again(tmp_path):
    source, calls = classified(), []
    write(tmp_path, source)
    before = files(tmp_path)
    (tmp_path / COPIES[0] / "ant" / "00000000.jpg").unlink()  # is not looked for
    write(tmp_path, source, distortions=counting(calls))
    assert calls == []
    assert len(files(tmp_path)) == len(before) - 1


def test_the_time_of_earlier_calls_counts(tmp_path):
    source = classified()
    write(tmp_path, source)
    path = tmp_path / "done.json"
    path.write_text(json.dumps({"records": 18, "seconds": 1000.0}))
    took = copies_lib.write(
        Copies.of(tmp_path, COPIES, source), source, "", DISTORTIONS, seed=3, batch_size=6
    )
    assert 1000 < took < 1100
    assert json.loads(path.read_text()) == {"records": N, "seconds": took}
