import sys

import numpy as np
import pytest
from PIL import Image

from robust_jax.deepaugment import __main__ as command
from robust_jax.deepaugment import contact_sheet


@pytest.mark.parametrize("kind, count", [("cae", 9 + 9), ("edsr", 17 + 7)])
def test_rows_are_all_perturbations_alone_then_some_as_drawn(kind, count):
    rows = contact_sheet.rows(kind)
    assert len(rows) == 1 + count + 4 == len({title for title, *_ in rows})
    assert all("none" in pair for _, *pair in rows[:-4])
    assert all(pair == ["drawn", "drawn"] for _, *pair in rows[-4:])


def test_tiles_cover_a_photo():
    photo = np.arange(64 * 80 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 80, 3)
    found = command.tiles(photo, 32)
    assert len(found) == 3 * 4 and {tile.shape for tile in found} == {(32, 32, 3)}
    np.testing.assert_array_equal(found[-1], photo[32:, 48:])
    assert [tile.shape for tile in command.tiles(photo, 48)] == [(48, 48, 3)]


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no images; got"):
        command.photos(str(tmp_path), 10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cae", "edsr"])
def test_command(kind, tmp_path, monkeypatch, capsys):
    path = tmp_path / "sheet.png"
    options = ["--kind", kind, "--steps", "20", "--size", "16", "--count", "1"]
    monkeypatch.setattr(sys, "argv", ["deepaugment", "--contact_sheet", str(path), *options])
    command.main()
    assert "dB by interpolation" in capsys.readouterr().out
    assert np.asarray(Image.open(path)).std() > 10
