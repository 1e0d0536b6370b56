import numpy as np
import pytest
from PIL import Image
from sequence_photos import photos

from robust_jax.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt
from robust_jax.corruptions import __main__ as sheet
from robust_jax.corruptions.sequences import EXTRA_SEQUENCES, SEQUENCES, perturb


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs the command on a picture of 40x60; returns the rows of every sheet, by its file."""
    source = tmp_path / "in.png"
    Image.fromarray(photos(1, 60)[0][:40]).save(source)
    drawn = {}
    monkeypatch.setattr(sheet.contact_sheet, "write", lambda rows, path: drawn.update({path: rows}))

    def run(*options):
        monkeypatch.setattr("sys.argv", ["corruptions", "--image", str(source), *options])
        sheet.main()
        return drawn

    return run


def test_rows_of_both_sheets(command):
    drawn = command("--contact_sheet=c.png", "--sequences=s.png", "--size=32")
    assert set(drawn) == {"c.png", "s.png"}
    assert [name for name, _, _ in drawn["c.png"]] == [*CORRUPTIONS, *EXTRA_CORRUPTIONS]
    clean = drawn["c.png"][0][1][:1]
    for name, images, captions in drawn["c.png"]:
        assert captions == ["clean", *(f"severity {i}" for i in range(1, 6))]
        np.testing.assert_array_equal(images[:1], clean)
        np.testing.assert_array_equal(images[3:4], corrupt(clean, name, 3, ids=[0]))
    assert [name for name, _, _ in drawn["s.png"]] == [*SEQUENCES, *EXTRA_SEQUENCES]
    for name, images, captions in drawn["s.png"]:
        frames = perturb(clean, name, ids=[0])[0]
        assert images.shape == (7, 32, 32, 3)
        np.testing.assert_array_equal(images[[0, 6]], frames[[0, -1]])
        assert captions[0] == f"frame 1 of {len(frames)}"
        assert captions[6] == f"frame {len(frames)} of {len(frames)}"


def test_sequences_of_imagenets_size_come_from_beyond_the_crop(command):
    drawn = command("--sequences=s.png", "--size=98")
    assert set(drawn) == {"s.png"}
    moved = {name: images for name, images, _ in drawn["s.png"]}["translate"]
    assert moved.shape == (7, 98, 98, 3)
    assert moved[0, :, -1].max() > 0 and moved[-1, :, 0].max() > 0  # nothing black moves in


def test_command_writes_a_png(command, tmp_path, monkeypatch):
    rows = command("--contact_sheet=c.png", "--size=16")["c.png"]
    monkeypatch.undo()
    sheet.contact_sheet.write(rows[:3], str(tmp_path / "out.png"))
    pixels = np.asarray(Image.open(tmp_path / "out.png").convert("RGB"))
    assert pixels.shape[1] > 600 and pixels.shape[0] > 300
    assert (pixels == 255).all(-1).mean() < 0.5  # the images fill it


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to write; give --contact_sheet OUT.png or --sequences OUT.png"),
        (["--size=x", "--sequences=s.png"], "invalid int value: 'x'"),
    ],
)
def test_mistakes_of_the_command(command, capsys, options, message):
    with pytest.raises(SystemExit):
        command(*options)
    assert message in capsys.readouterr().err


def test_images_too_small_to_corrupt_are_refused(command):
    with pytest.raises(ValueError, match="at least 8 px; got 4x4"):
        command("--contact_sheet=c.png", "--size=4")
