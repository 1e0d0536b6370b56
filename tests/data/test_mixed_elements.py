"""Elements whose augmented views are drawn: from the image or a distorted copy, with ops or not."""

import json

import numpy as np
import pytest
from made import (
    AUGMENT,
    COPIES,
    N,
    assert_same,
    elements,
    encode,
    join,
    of,
    pixels,
    smooth_images,
    train,
    write,
)

from robust_jax.data import sources
from robust_jax.data.copies import Copies
from robust_jax.data.mixture import RECORD, Mixture
from robust_jax.data.pipeline import ordered_batches

WEIGHTS = {"clean": 1, "augment_ops": 1, "deepaugment": 1, "noise2net": 1, "chained": 1}
MIXTURE = Mixture(WEIGHTS, COPIES)
SOURCES = {
    "arrays": (sources.from_arrays(smooth_images(), np.arange(N) % 2, ("a", "b")), ""),
    "encoded": (of(*(encode(image) for image in smooth_images())), "decode"),
}
MODES = [{}, {"replicas": 3, "fraction": 0.4}]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Keyword arguments of elements by kind of source: source, ops and copies."""
    return {
        kind: {
            "source": source,
            "ops": ops,
            "copies": write(tmp_path_factory.mktemp(kind), source, ops=ops),
        }
        for kind, (source, ops) in SOURCES.items()
    }


def mixed(made, ops="", **kwargs):
    """Elements with drawn views; `ops` come after decoding."""
    defaults = {"views": {"clean": ""}, "drawn": {"aug": AUGMENT}, "mixture": MIXTURE}
    return elements(**{**made, "ops": ops_of(made["ops"], ops), **defaults, **kwargs})


def from_copy(made, copy):
    """The source with a copy in the place of the images."""
    data = [made["copies"].read(i, copy) for i in range(N)]
    if not made["ops"]:
        data = [pixels(image) for image in data]
    return of(*data)


def ops_of(*parts):
    return "|".join(filter(None, parts))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", SOURCES)
def test_drawn_views_are_what_the_draw_says(made, kind, mode):
    """Against pipelines without a mixture, one for the images and one for each copy."""
    crop, views = "random_crop(8, pad=2)", {"clean": "", "aug": AUGMENT}
    found = join(train(mixed(made[kind], crop, **mode), num_steps=20))
    expected = {}
    for copy in range(RECORD, len(COPIES)):
        source = made[kind]["source"] if copy == RECORD else from_copy(made[kind], copy)
        plain = elements(source, ops_of(made[kind]["ops"], crop), views, **mode)
        expected[copy] = join(train(plain, num_steps=20))
    positions = np.arange(120)
    _, seeds = mixed(made[kind], **mode).address(found["element"].astype(int), positions)
    if not mode:
        np.testing.assert_array_equal(seeds, np.stack([np.full(120, 5), positions], 1))
    copies, follow = MIXTURE.draw(seeds)
    if not mode:  # all that there is
        assert len(set(zip(copies.tolist(), follow.tolist(), strict=True))) == 2 + 2 + 2 + 2
    for i, (copy, ops) in enumerate(zip(copies, follow, strict=True)):
        rows = expected[int(copy)]
        assert rows["id"][i] == found["id"][i]
        wanted = rows["aug" if ops else "clean"][i]
        np.testing.assert_array_equal(found["aug"][i], wanted, err_msg=f"{copy} {ops}")
        np.testing.assert_array_equal(found["clean"][i], expected[RECORD]["clean"][i])


@pytest.mark.parametrize("kind", SOURCES)
def test_drawn_views_by_hand(made, kind):
    found = join(train(mixed(made[kind], drawn={"aug": "flip_lr", "base": ""}), num_steps=20))
    seeds = np.stack([np.full(120, 5), np.arange(120)], 1).astype(np.int32)
    mirrored = []
    for i, (copy, follow) in enumerate(zip(*MIXTURE.draw(seeds), strict=True)):
        record = int(found["id"][i])
        image = smooth_images()[record]
        np.testing.assert_array_equal(found["clean"][i], image)
        drawn = image if copy == RECORD else pixels(made[kind]["copies"].read(record, int(copy)))
        np.testing.assert_array_equal(found["base"][i], drawn)
        if not follow or (found["aug"][i] == drawn).all():
            np.testing.assert_array_equal(found["aug"][i], drawn)
        else:
            np.testing.assert_array_equal(found["aug"][i], drawn[:, ::-1])
        mirrored += [(found["aug"][i] != drawn).any()] if follow else []
    assert 0.2 < np.mean(mirrored) < 0.8


def test_the_copies_of_a_subset_are_of_its_records(made):
    chosen = np.array([20, 3, 11, 8])
    part = made["encoded"] | {
        "source": made["encoded"]["source"].subset(chosen),
        "copies": made["encoded"]["copies"].subset(chosen),
    }
    only = Mixture({"deepaugment": 1}, COPIES)
    found = join(list(ordered_batches(mixed(part, mixture=only), batch_size=4)))
    np.testing.assert_array_equal(found["clean"], smooth_images()[chosen])
    assert np.abs(found["aug"].astype(int) - (255 - smooth_images()[chosen])).max() <= 6


def test_copies_may_have_another_size_than_the_images(tmp_path):
    source = of(*(encode(image) for image in smooth_images(6, (20, 18))))
    copies = write(tmp_path, source, names=COPIES[:1], ops="decode|central_crop(12)")
    only = Mixture({"deepaugment": 1}, COPIES[:1])
    for views in ({}, {"clean": ""}):
        part = elements(
            source,
            "decode|central_crop(8)",
            views,
            drawn={"aug": ""},
            mixture=only,
            copies=copies,
        )
        (found,) = ordered_batches(part, batch_size=6)
        for i in range(6):
            np.testing.assert_array_equal(found["aug"][i], pixels(copies.read(i, 0))[2:10, 2:10])


@pytest.mark.parametrize("kind", SOURCES)
def test_views_of_the_image_do_not_feel_the_mixture(made, kind):
    views = {"clean": "", "other": AUGMENT}
    with_it = join(train(mixed(made[kind], "flip_lr", views=views)))
    plain = made[kind]
    without = join(train(elements(plain["source"], ops_of(plain["ops"], "flip_lr"), views)))
    for key in without:
        np.testing.assert_array_equal(with_it[key], without[key])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", SOURCES)
def test_drawn_views_alone_are_those_beside_the_image(made, kind, mode):
    """Then copies are read in the place of images."""
    drawn = {"image": "", "aug1": AUGMENT, "aug2": AUGMENT}
    beside = join(train(mixed(made[kind], "flip_lr", drawn=drawn, **mode)))
    alone = join(train(mixed(made[kind], "flip_lr", drawn=drawn, views={}, **mode)))
    assert alone.keys() == beside.keys() - {"clean"}
    for key in alone:
        np.testing.assert_array_equal(alone[key], beside[key])
    assert (alone["aug1"] != alone["aug2"]).any()


def test_images_are_not_read_where_none_is_shown(made):
    read = []
    source = made["encoded"]["source"]
    noting = of(*range(N))
    object.__setattr__(noting, "read", lambda i: read.append(i) or source.read(i))
    only = Mixture({"noise2net": 1}, COPIES)
    part = made["encoded"] | {"source": noting}
    train(mixed(part, views={}, mixture=only), num_steps=2)
    assert set(read) == {0}  # to see of which form the images are
    train(mixed(part, mixture=only), num_steps=2)
    assert len(set(read)) > 6


@pytest.mark.parametrize("views", [{"clean": ""}, {}])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", SOURCES)
def test_a_restart_and_two_hosts_give_the_same_batches(made, kind, mode, views):
    part = mixed(made[kind], views=views, **mode)
    whole = train(part)
    assert_same(whole[5:], train(part, start_step=5))
    parts = [train(part, process_index=i, process_count=2) for i in range(2)]
    assert_same(whole, [join(pair) for pair in zip(*parts, strict=True)])


def test_the_fixed_set_is_fixed(made):
    part = mixed(made["arrays"], replicas=3)
    rows = join(list(ordered_batches(part, batch_size=7, pad=False)))
    visits = join(train(part, num_steps=30))
    for key in ("id", "label", "clean", "aug"):
        np.testing.assert_array_equal(visits[key], rows[key][visits["element"]])


def test_fresh_draws_are_fresh(made):
    rows = join(train(mixed(made["arrays"], drawn={"aug": ""}), num_steps=60))
    versions = {rows["aug"][i].tobytes() for i in np.flatnonzero(rows["id"] == 0)}
    assert len(versions) >= 3


def test_no_mixture_is_the_ops_always(made):
    plain = {"mixture": None, "copies": None}
    left = train(mixed(made["arrays"] | plain, mixture=None))
    right = train(mixed(made["arrays"] | plain, mixture=Mixture({"augment_ops": 2})))
    assert_same(left, right)
    assert_same(left, train(elements(made["arrays"]["source"])))


def test_a_missing_copy_is_told(tmp_path, made):
    source = made["arrays"]["source"]
    copies = write(tmp_path, source)
    (tmp_path / "cae_0" / copies.files[4]).unlink()
    only = Mixture({"deepaugment": 1}, COPIES[:1])
    for views in ({}, {"clean": ""}):
        with pytest.raises(ValueError, match=r"copy is missing; got no file .*/00000004.jpg; run"):
            train(mixed({"source": source, "ops": "", "copies": copies}, mixture=only, views=views))


def test_wrong_copies_are_told(made):
    part, message = made["arrays"], "draws distorted copies of each of the 23 records; got {}; pass"
    with pytest.raises(ValueError, match=message.format("none")):
        mixed(part | {"copies": None})
    with pytest.raises(ValueError, match=message.format(5)):
        mixed(part | {"copies": part["copies"].subset(range(5))})
    # Where no view is drawn, or none from a copy, they are not needed.
    mixed(part | {"copies": None}, drawn={})
    mixed(part | {"copies": None}, mixture=Mixture({"clean": 1, "augment_ops": 1}, COPIES))


def test_to_json_tells_what_determines_the_pixels(made, tmp_path):
    part = made["arrays"]
    reseeded = write(tmp_path, part["source"], seed=9)
    variants = [
        mixed(part),
        mixed(part, mixture=Mixture(WEIGHTS | {"clean": 2}, COPIES)),
        mixed(part, mixture=Mixture({"clean": 1}, COPIES)),
        mixed(part, mixture=None),
        mixed(part, drawn={"aug": "flip_lr"}),
        mixed(part, views={"clean": "", "aug": AUGMENT}, drawn={}),
        mixed(part | {"copies": reseeded}),
    ]
    found = [json.dumps(variant.to_json(), sort_keys=True) for variant in variants]
    assert len(set(found)) == len(found)
    told = variants[0].to_json()
    assert told["mixture"] == MIXTURE.to_json()
    assert told["copies"] == part["copies"].fingerprint
    nowhere = Copies.of(tmp_path / "nowhere", COPIES, part["source"])
    assert "copies" not in mixed(part | {"copies": nowhere}, mixture=None).to_json()
