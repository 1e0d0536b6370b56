"""Image files that are damaged, of another format or of a rare form: decoded, or told of.

Whatever the check of a folder lets pass, the input pipeline decodes, too.
"""

import ml_collections
import numpy as np
import pytest
from image_files import JPEG, NO_IMAGES, PIXELS, PNG, RGB, SHOWN, encode, png

from robust_jax.data import sources
from robust_jax.data.images import decode_image, is_plain_jpeg
from robust_jax.data.pipeline import Elements, ordered_batches
from robust_jax.data.reading import to_pixels


@pytest.mark.parametrize("name", SHOWN)
def test_rare_forms_are_shown_as_a_viewer_shows_them(name):
    data, expected = SHOWN[name]
    expected = PIXELS if expected is None else expected
    exact = not data.startswith(b"\xff\xd8")
    found = decode_image(data)
    assert found.shape == expected.shape and found.dtype == np.uint8
    assert abs(found.astype(int) - expected).max() <= (0 if exact else 6)
    source = sources.Source("one", ("a", "b"), np.zeros(1, np.int32), lambda i: data, "")
    (batch,) = ordered_batches(Elements(source, "decode", {"image": ""}, 0), batch_size=1)
    np.testing.assert_array_equal(batch["image"][0], found)


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_is_told(name):
    data, reason = NO_IMAGES[name]
    with pytest.raises(ValueError, match=rf"cannot decode the image; got {len(data)} b") as told:
        decode_image(data)
    assert reason in str(told.value)
    assert len(str(told.value)) < 400
    assert not is_plain_jpeg(data) or "JPEG" in name


def test_no_flipped_bit_of_a_png_changes_a_pixel():
    rng, refused = np.random.default_rng(0), 0
    for number in rng.choice(8 * len(PNG), 200, replace=False):
        data = bytearray(PNG)
        data[number // 8] ^= 1 << number % 8
        try:
            np.testing.assert_array_equal(decode_image(bytes(data)), PIXELS)
        except ValueError:
            refused += 1
    assert refused > 150


def hurt(data, rng):
    """A JPEG with flipped bits, with a piece cut out, or with noise put in."""
    data, how = bytearray(data), rng.integers(3)
    if how == 0:
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    else:
        at = rng.integers(2, len(data) - 2)
        end = min(at + rng.integers(1, 200), len(data) - 2)
        data[at : end if how == 1 else at] = b"" if how == 1 else rng.bytes(20)
    return bytes(data)


@pytest.mark.parametrize("count", [300, pytest.param(6000, marks=pytest.mark.slow)])
def test_what_the_check_lets_pass_the_pipeline_reads(count):
    forms = [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 1}]
    whole = [encode(RGB, "JPEG", **form) for form in forms]
    rng, passed, refused = np.random.default_rng(0), 0, 0
    for number in range(count):
        data = hurt(whole[number % len(whole)], rng)
        try:
            expected = decode_image(data)
        except ValueError:
            refused += 1
            continue
        if is_plain_jpeg(data):
            passed += 1
            found = to_pixels(data, (0, 0, 0), encoded=True).numpy()
            assert found.shape == expected.shape
            # Where scans of a progressive JPEG are lost, the two smooth a little differently.
            assert abs(found.astype(int) - expected).max() <= 3
    assert passed > count / 5 and refused > count / 5


@pytest.mark.parametrize("marker", [0xE7, 0xE9, 0xEC, 0xFE])
def test_a_segment_longer_than_the_file_near_its_end_is_passed_over_alike(marker):
    data = JPEG[:-8] + bytes([0xFF, marker, 0xBD, 0xD0]) + JPEG[-6:]
    assert is_plain_jpeg(data)
    expected = decode_image(data)
    np.testing.assert_array_equal(to_pixels(data, (0, 0, 0), encoded=True).numpy(), expected)


def config(root, **keys):
    given = {"source": "folder", "dir": str(root), "classes": (), "max_bad_images": 0}
    return ml_collections.ConfigDict(given | {"verify": True} | keys)


BAD = {
    "html.jpg": NO_IMAGES["HTML renamed"][0],
    "zero.jpg": b"",
    "bomb.png": png(60_000, 60_000, 8, 2, bytes(100)),
}


@pytest.fixture
def folder(tmp_path):
    for part in ("train", "val"):
        for name in ("ant", "bee"):
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "good.png").write_bytes(PNG)
    for name, data in BAD.items():
        (tmp_path / "train" / "bee" / name).write_bytes(data)
    return tmp_path


def test_a_folder_names_bad_images_and_says_why(folder, capsys):
    message = (
        r"3 images of .*train cannot be read; got bee/bomb.png, bee/html.jpg, bee/zero.jpg; .*"
        r"max_bad_images=3 .*because the image is too large; got 60000x60000 px"
    )
    with pytest.raises(ValueError, match=message):
        sources.load(config(folder), "train")
    source = sources.load(config(folder, max_bad_images=3), "train")
    assert source.files == ("ant/good.png", "bee/good.png")
    assert "left out 3 images that cannot be read: bee/bomb.png" in capsys.readouterr().out


@pytest.mark.parametrize("bad", BAD)
def test_without_a_check_a_bad_image_is_named_when_it_is_read(folder, bad):
    source = sources.load(config(folder, verify=False), "train")
    number = source.files.index(f"bee/{bad}")
    elements = Elements(source.subset([0, number]), "decode", {"image": ""}, 0)
    with pytest.raises(
        ValueError, match=rf"record 1 \(bee/{bad}\) of source '.*': (cannot|the im)"
    ):
        list(ordered_batches(elements, batch_size=2))


def test_a_damaged_index_is_made_again(folder, tmp_path, capsys):
    data, index = config(folder, max_bad_images=3), tmp_path / "index"
    first = sources.load(data, "train", index_dir=index)
    (stored,) = index.iterdir()
    whole = stored.read_bytes()
    for damaged in (b"", whole[:30], whole.replace(b"html", b"hxml"), b"[]", b"\xff" * 9):
        stored.write_bytes(damaged)
        assert sources.load(data, "train", index_dir=index).bad_images == first.bad_images
        assert f"{stored} is damaged" in capsys.readouterr().out
        assert stored.read_bytes() == whole
