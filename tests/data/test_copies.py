"""Distorted copies: how they are written, continued, checked and read."""

import numpy as np
import pytest
from made import (
    COPIES,
    DISTORTIONS,
    N,
    classified,
    encode,
    files,
    images,
    invert,
    of,
    pixels,
    smooth_images,
    write,
)

from robust_jax.data import sources
from robust_jax.data.copies import Copies, check, copy_names, kind_of, read_manifest


def near(data, expected):
    return np.abs(pixels(data).astype(int) - expected).max() <= 6


def test_names():
    assert copy_names(("noise2net", "cae"), 2) == ("cae_0", "cae_1", "noise2net_0", "noise2net_1")
    assert copy_names((), 3) == ()
    assert [kind_of(name) for name in COPIES] == ["cae", "cae", "noise2net", "noise2net"]


def test_a_copy_is_an_image_folder_and_the_manifest_tells_what_made_it(tmp_path):
    source = classified()
    copies = write(tmp_path, source)
    wanted = {
        f"{copy}/{('ant', 'bee', 'cat')[i % 3]}/{i:08d}.jpg" for copy in COPIES for i in range(N)
    }
    assert files(tmp_path).keys() == wanted | {"manifest.json"}
    manifest = read_manifest(copies.directory)
    assert manifest == {
        "made_from": {
            "source": source.fingerprint,
            "records": N,
            "classes": ["ant", "bee", "cat"],
            "ops": "",
            "seed": 3,
            "jpeg": {"quality": 95, "subsampling": 0},
        },
        "copies": {
            **{f"cae_{i}": {"weights": "i"} for i in range(2)},
            **{f"noise2net_{i}": {"max_eps": 0.5} for i in range(2)},
        },
    }
    check(copies, source)


def test_copies_hold_what_was_distorted(tmp_path):
    copies = write(tmp_path, classified())
    shades = np.zeros((N, 2), int)
    for i, image in enumerate(smooth_images()):
        for copy in (0, 1):
            assert near(copies.read(i, copy), 255 - image)
            taken = image.astype(int) - pixels(copies.read(i, copy + 2))
            shades[i, copy] = round(taken.mean())
            assert near(copies.read(i, copy + 2), image - shades[i, copy])
    # Images that follow each other have seeds that do; a copy has its own.
    assert set(np.diff(shades, axis=0).ravel() % 30) == {1}
    assert (shades[:, 0] != shades[:, 1]).all()


def test_ops_make_what_is_distorted(tmp_path):
    data = [encode(image) for image in smooth_images(4, (20, 18))]
    copies = write(tmp_path, of(*data), names=("cae_0",), ops="decode|central_crop(12)")
    for i, image in enumerate(smooth_images(4, (20, 18))):
        assert near(copies.read(i, 0), 255 - image[4:16, 3:15])


def test_seeds_are_of_the_seed_the_copy_and_the_record_only(tmp_path):
    seen = {}

    def note(images, seeds):
        assert seeds.dtype == np.int32
        assert seeds.shape == (len(images), 2)
        seen.setdefault(where, []).append(seeds)
        return images

    made = {"cae": (note, {})}
    for where, options in {
        "first": {},
        "batches": {"batch_size": 9},
        "seed": {"seed": 4},
        "alone": {"names": ("cae_1",)},
    }.items():
        options = {"names": ("cae_0", "cae_1"), "distortions": made, **options}
        write(tmp_path / where, classified(), **options)
    streams = {}
    for where, seeds in seen.items():
        copies = 1 if where == "alone" else 2
        parts = [np.concatenate(seeds[i::copies])[:N] for i in range(copies)]
        for part in parts:
            assert part[:, 1].tolist() == list(range(N))
            assert len(set(part[:, 0])) == 1
            assert part.min() >= 0
        streams[where] = [int(part[0, 0]) for part in parts]
    assert streams["batches"] == streams["first"]
    assert streams["alone"] == streams["first"][1:]
    assert len({*streams["first"], *streams["seed"]}) == 4


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 4}, "made_from.seed"),
        ({"ops": "flip_lr"}, "made_from.ops"),
        ({"source": sources.from_arrays(images(), np.arange(N) % 3)}, "made_from.classes"),
        ({"source": classified().subset(range(N))}, "made_from.source"),
        ({"names": COPIES[:3]}, "copies.noise2net_1"),
        ({"names": copy_names(("cae",), 3)}, "copies.cae_2"),
        (
            {"distortions": {**DISTORTIONS, "noise2net": (invert, {"max_eps": 0.6})}},
            "copies.noise2net_0",
        ),
    ],
)
@pytest.mark.parametrize("done", [True, False])
def test_a_directory_of_other_copies_is_refused(tmp_path, changes, key, done):
    write(tmp_path, classified())
    if not done:
        (tmp_path / "done.json").unlink()
    before = {f: f.read_bytes() for f in tmp_path.rglob("*.j*")}
    message = rf"made in another way; got another {key} in .*; give an empty directory, or remove"
    with pytest.raises(ValueError, match=message):
        write(tmp_path, **({"source": classified()} | changes))
    assert {f: f.read_bytes() for f in tmp_path.rglob("*.j*")} == before


def test_no_copies_at_all_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"no finished copies .*; got 0 records in .*to its end"):
        check(Copies.of(tmp_path, COPIES, classified()), classified())


def test_copies_of_other_images_or_too_few_are_told(tmp_path):
    source = classified()
    write(tmp_path, source, names=COPIES[:2])
    other = sources.from_arrays(images(), np.arange(N) % 3, ("ant", "bee", "cat"), "others")
    message = rf"other images; got {source.fingerprint} in .* and {other.fingerprint} for others; m"
    with pytest.raises(ValueError, match=message):
        check(Copies.of(tmp_path, COPIES[:2], other), other)
    message = r"copies are missing; got \['cae_0', 'cae_1'\] in .*, without noise2net_0, noise2net_"
    with pytest.raises(ValueError, match=message):
        check(Copies.of(tmp_path, COPIES, source), source)
    check(Copies.of(tmp_path, COPIES[1:2], source), source)  # a part of them may be used


def test_a_missing_file_is_told(tmp_path):
    copies = write(tmp_path, classified())
    (tmp_path / "cae_1" / "bee" / "00000004.jpg").unlink()
    copies.read(4, 0)
    message = r"copy is missing; got no file .*cae_1/bee/00000004.jpg; .*--rerun=distort"
    with pytest.raises(ValueError, match=message):
        copies.read(4, 1)


@pytest.mark.parametrize(
    "bad", ["a/b", "<script>", "..", ".", "", "a\\b", "a\nb", "Ant", "-x", "x" * 300, "con:"]
)
def test_classes_whose_names_are_no_folder_names_are_numbered(tmp_path, bad):
    copies = write(tmp_path, classified(6, ("ant", bad, "cat")), names=("cae_0",))
    assert copies.files[:3] == ("0/00000000.jpg", "1/00000001.jpg", "2/00000002.jpg")
    assert sorted(folder.name for folder in (tmp_path / "cae_0").iterdir()) == ["0", "1", "2"]
    assert near(copies.read(4, 0), 255 - smooth_images(6)[4])
    assert read_manifest(copies.directory)["made_from"]["classes"] == ["ant", bad, "cat"]


def test_other_names_are_kept():
    names = ("Crane (bird)", "jack-o'-lantern", "0, with 1.5 + é_")
    copies = Copies.of("where", ("cae_0",), classified(3, names))
    assert copies.files == tuple(f"{name}/{i:08d}.jpg" for i, name in enumerate(names))


def test_copies_of_a_subset_are_of_its_records(tmp_path):
    source, chosen = classified(), np.array([20, 3, 11])
    part, copies = source.subset(chosen), write(tmp_path, source).subset(chosen)
    assert len(copies.files) == len(part)
    for i in range(3):
        assert near(copies.read(i, 1), 255 - part.read(i))
    again = copies.subset([2, 0])
    assert near(again.read(0, 0), 255 - source.read(11))
    assert near(again.read(1, 0), 255 - source.read(20))


def test_the_fingerprint_is_of_what_made_the_copies_and_of_the_records(tmp_path):
    source = classified()
    first = write(tmp_path / "first", source)
    # Another place, batches and time change nothing.
    again = write(tmp_path / "again", source, batch_size=9)
    assert again.fingerprint == first.fingerprint
    different = [
        write(tmp_path / "seed", source, seed=4),
        write(tmp_path / "ops", source, ops="flip_lr"),
        write(tmp_path / "source", classified(N, ("ant", "bee", "cow"))),
        write(
            tmp_path / "network",
            source,
            distortions={**DISTORTIONS, "cae": (invert, {"weights": "other"})},
        ),
        first.subset(range(5)),
        first.subset(range(1, 6)),
        Copies.of(first.directory, COPIES[:2], source),
        Copies.of(first.directory, COPIES[::-1], source),
    ]
    assert len({copies.fingerprint for copies in [first, *different]}) == 1 + len(different)
    # Copies that are there but not used do not count.
    few = write(tmp_path / "few", source, names=COPIES[:2])
    assert few.fingerprint == Copies.of(first.directory, COPIES[:2], source).fingerprint


def test_the_fingerprint_of_unfinished_copies_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no finished copies"):
        _ = Copies.of(tmp_path, COPIES, classified()).fingerprint
