import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from robust_jax.data import registry
from robust_jax.data.images import decode_image, is_plain_jpeg


def apply(ops, image, seed=(1, 2)):
    features = {"image": tf.constant(image)}
    return registry.build(ops)(features, tf.constant(seed, tf.int32))["image"].numpy()


def smooth(height, width):
    """uint8[h, w, 3] with a different gradient in each channel."""
    y, x = np.mgrid[:height, :width]
    channels = 255 * y / height, 255 * x / width, 127 + 120 * np.sin((x + 2 * y) / 9)
    return np.stack(channels, -1).astype(np.uint8)


def encode(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def numbered(height, width):
    """uint8[h, w, 3] whose pixels tell their own place."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, y + x], -1).astype(np.uint8)


RGB = Image.fromarray(smooth(21, 34))


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        (encode(RGB, "PNG"), 0),
        (encode(RGB, "BMP"), 0),
        (encode(RGB, "WEBP", lossless=True), 0),
        (encode(RGB.convert("RGBA"), "PNG"), 0),
        (encode(RGB, "JPEG", quality=98, subsampling=0), 4),
        (encode(RGB, "JPEG", quality=98, subsampling=0, progressive=True), 4),
        (encode(RGB.convert("CMYK"), "JPEG", quality=98), 4),
        (encode(RGB.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), 24),
    ],
)
def test_decode_reads_every_form(data, tolerance):
    image = apply("decode", data)
    assert image.dtype == np.uint8
    assert image.shape == (21, 34, 3)
    assert np.abs(image.astype(int) - np.asarray(RGB)).max() <= tolerance


def test_decode_of_grey_sixteen_bit_and_transparent_palette():
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12
    three = np.repeat(grey[..., None], 3, -1)
    np.testing.assert_array_equal(apply("decode", encode(Image.fromarray(grey), "PNG")), three)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    np.testing.assert_array_equal(apply("decode", encode(deep, "PNG")), three)
    palette = Image.fromarray(three).convert("P")
    data = encode(palette, "PNG", transparency=bytes(range(256)))
    assert apply("decode", data).shape == (4, 5, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_turns_images_upright(orientation):
    # Exif 2.3, tag 0x0112: what a viewer has to do with the stored pixels.
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, 1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(RGB, "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(data), upright[orientation](np.asarray(RGB)))
    assert not is_plain_jpeg(encode(RGB, "JPEG", exif=exif))


def test_decode_leaves_arrays_as_they_are():
    np.testing.assert_array_equal(apply("decode", smooth(5, 6)), smooth(5, 6))


@pytest.mark.parametrize(
    "options",
    [{}, {"subsampling": 2}, {"progressive": True, "quality": 30}, {"subsampling": 0}],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_jpegs_give_the_same_pixels_without_pil(options, mode):
    data = encode(RGB.convert(mode), "JPEG", **options)
    assert is_plain_jpeg(data)
    native = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    np.testing.assert_array_equal(native, decode_image(data))


def test_other_images_are_not_plain_jpegs():
    jpeg = encode(RGB, "JPEG")
    others = [b"", jpeg[:50], jpeg[:-40], encode(RGB, "PNG"), encode(RGB.convert("CMYK"), "JPEG")]
    assert not any(map(is_plain_jpeg, others))


@pytest.mark.parametrize("data", [b"", b"no image", encode(RGB, "JPEG")[:300]])
def test_decode_tells_of_corrupt_data(data):
    with pytest.raises(ValueError, match=rf"cannot decode the image; got {len(data)} bytes"):
        decode_image(data)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(10, 14), (50, 40), (21, 20)])
def test_resize_is_pils(method, size):
    resized = apply(f"resize({size}, {method!r})", np.asarray(RGB))
    reference = RGB.resize(size[::-1], getattr(Image.Resampling, method.upper()))
    assert resized.dtype == np.uint8
    difference = np.abs(resized.astype(int) - np.asarray(reference))
    assert difference.max() <= 2
    assert difference.mean() < 0.2


def test_resize_without_antialias_only_interpolates():
    image = np.zeros((8, 8, 3), np.uint8)
    image[::4] = 200  # between the sampling points of a 2x2 grid
    assert apply("resize(2, antialias=False)", image).max() == 0
    assert apply("resize(2)", image).min() > 20


def test_resize_to_its_own_size_changes_nothing():
    np.testing.assert_array_equal(apply("resize((21, 34))", np.asarray(RGB)), np.asarray(RGB))


@pytest.mark.parametrize("shape", [(21, 34), (34, 21)])
def test_resize_small_keeps_the_aspect_ratio(shape):
    resized = apply("resize_small(14)", smooth(*shape))
    assert resized.shape == ((14, 23, 3) if shape == (21, 34) else (23, 14, 3))


def test_central_crop_is_in_the_middle():
    image = numbered(9, 12)
    np.testing.assert_array_equal(apply("central_crop((5, 6))", image), image[2:7, 3:9])
    np.testing.assert_array_equal(apply("central_crop(9)", image), image[:, 1:10])


def test_crop_border_takes_from_every_side():
    image = numbered(9, 12)
    np.testing.assert_array_equal(apply("crop_border(2)", image), image[2:7, 2:10])
    with pytest.raises(ValueError, match=r"bad arguments .*positive integer.*got crop_border\(0\)"):
        apply("crop_border(0)", image)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"the border of crop_border\(5\)"):
        apply("crop_border(5)", image)


def test_random_crop_cuts_every_place_of_the_padded_image():
    image = numbered(4, 5) + 1
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    crop = registry.build("random_crop(4, pad=2)")
    cut = tf.function(lambda seed: crop({"image": tf.constant(image)}, seed)["image"])
    windows = {padded[y : y + 4, x : x + 4].tobytes(): (y, x) for y in range(5) for x in range(6)}
    places = [windows[cut(tf.constant([3, i])).numpy().tobytes()] for i in range(600)]
    counts = np.array([places.count(place) for place in windows.values()])
    assert (counts > 0).all()
    # 29 degrees of freedom; chi-squared above 59 has probability 0.001.
    assert ((counts - 20) ** 2 / 20).sum() < 59


def test_flip_mirrors_half():
    image = numbered(3, 4)
    flip = registry.build("flip_lr")
    turn = tf.function(lambda seed: flip({"image": tf.constant(image)}, seed)["image"])
    results = [turn(tf.constant([5, i])).numpy() for i in range(400)]
    mirrored = [np.array_equal(result, image[:, ::-1]) for result in results]
    kept = [np.array_equal(result, image) for result in results]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 150 < sum(mirrored) < 250


def test_inception_crop_keeps_to_area_and_ratio():
    y, x = np.mgrid[:200, :200]
    image = np.stack([y, x, 0 * x], -1).astype(np.uint8)  # pixels tell their place
    crop = registry.build("inception_crop((20, 20), area=(0.2, 0.5), ratio=(0.8, 1.25))")
    cut = tf.function(lambda seed: crop({"image": tf.constant(image)}, seed)["image"])
    areas, ratios = [], []
    for i in range(40):
        part = cut(tf.constant([9, i])).numpy().astype(float)
        # Pixel centres of the outermost of 20 cells lie half a cell inside the border.
        height = (part[-1, :, 0].mean() - part[0, :, 0].mean()) / 19 * 20
        width = (part[:, -1, 1].mean() - part[:, 0, 1].mean()) / 19 * 20
        areas.append(height * width / 200**2)
        ratios.append(width / height)
    assert 0.18 < min(areas) < 0.27
    assert 0.42 < max(areas) < 0.53
    assert 0.77 < min(ratios) < 0.95
    assert 1.05 < max(ratios) < 1.3


def test_seeds_decide():
    image = smooth(40, 40)
    for ops in ("random_crop(20)", "inception_crop(20)"):
        np.testing.assert_array_equal(apply(ops, image), apply(ops, image))
        assert not np.array_equal(apply(ops, image), apply(ops, image, seed=(1, 3)))


def test_value_range_and_standardise():
    image = numbered(4, 5) * 20
    unit = image.astype(np.float32) / 255
    np.testing.assert_allclose(apply("value_range(-1, 1)", image), unit * 2 - 1, atol=1e-6)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    scaled = apply(f"standardise({mean}, {std})", image)
    np.testing.assert_allclose(scaled, (unit - mean) / std, atol=1e-6)
    with pytest.raises(ValueError, match=r"standardise takes uint8 images; got float32"):
        apply("value_range(0, 1)|standardise((0, 0, 0), (1, 1, 1))", image)


@pytest.mark.parametrize("ops", ["central_crop(22)", "random_crop((25, 3), pad=1)"])
def test_a_crop_larger_than_the_image_is_told(ops):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image is smaller than \w+_crop\("):
        apply(ops, np.asarray(RGB))
