import numpy as np
from PIL import Image
from pillow_ops import photo

from robust_jax.augment import __main__ as sheet
from robust_jax.augment.augmix_ops import OPS, OVERLAPPING_OPS
from robust_jax.contact_sheet import photographs


def test_contact_sheet(tmp_path, monkeypatch):
    source, out = tmp_path / "in.png", tmp_path / "out.png"
    Image.fromarray(photo(24, 32)).save(source)
    shown = []
    rows = sheet.rows
    monkeypatch.setattr(sheet, "rows", lambda *args: shown.extend(rows(*args)) or shown)
    options = [f"--contact_sheet={out}", f"--image={source}", "--size=16", "--seeds=2"]
    monkeypatch.setattr("sys.argv", ["augment", *options])
    sheet.main()
    with Image.open(out) as written:
        assert written.height > written.width > 100
    names = [name.split("\n")[0] for name, _, _ in shown]
    assert names == ["original", *2 * (OPS + OVERLAPPING_OPS), "AugMix", "AugMix", "Noise2Net"]
    original = shown[0][1]
    for _, images, captions in shown:
        assert images.shape == (2, 16, 16, 3)
        assert len(captions) == 2
    changed = {
        name
        for name, (_, images, _) in zip(names, shown, strict=True)
        if (images != original).any()
    }
    assert changed >= {"equalize", "posterize", "shear_x", "color", "AugMix", "Noise2Net"}


def test_the_picture_by_default_is_a_photograph():
    images = photographs([], 64)
    assert images.shape == (1, 64, 64, 3)
    assert images.dtype == np.uint8
    assert images.std() > 30
