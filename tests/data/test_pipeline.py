import io

import numpy as np
import pytest
from made import AUGMENT, N, arrays, assert_same, elements, encode, images, join, of, train
from PIL import Image

from robust_jax.data.pipeline import Elements, ordered_batches

MODES = [{}, {"replicas": 3}, {"replicas": 3, "fraction": 0.4}]


@pytest.mark.parametrize("mode", MODES)
def test_a_restart_gives_the_same_batches(mode):
    whole = train(elements(**mode), num_steps=40)
    assert len(whole) == 40
    assert_same(whole[37:], train(elements(**mode), num_steps=40, start_step=37))
    assert train(elements(**mode), start_step=8) == []


@pytest.mark.parametrize("mode", MODES)
def test_two_hosts_make_the_batches_of_one(mode):
    whole = train(elements(**mode))
    parts = [train(elements(**mode), process_index=i, process_count=2) for i in range(2)]
    assert parts[0][0]["id"].shape == (3,)
    assert_same(whole, [join(pair) for pair in zip(*parts, strict=True)])


def test_batches_have_the_promised_form():
    (batch,) = train(elements(), num_steps=1)
    assert list(batch) == ["id", "element", "label", "clean", "aug"]
    for key in ("id", "element", "label"):
        assert batch[key].dtype == np.int32
        assert batch[key].shape == (6,)
    for key in ("clean", "aug"):
        assert batch[key].dtype == np.uint8
        assert batch[key].shape == (6, 8, 8, 3)
    np.testing.assert_array_equal(batch["clean"], images()[batch["id"]])
    np.testing.assert_array_equal(batch["label"], batch["id"] % 3)


def test_every_record_comes_once_an_epoch_in_a_new_order():
    ids = join(train(elements(), num_steps=4 * N))["id"][: 24 * N].reshape(24, N)
    for epoch in ids:
        assert sorted(epoch) == list(range(N))
    assert len({tuple(epoch) for epoch in ids}) == 24
    assert abs(ids.mean(0) - (N - 1) / 2).max() < 6  # about 4 standard deviations
    other = join(train(elements(seed=6), num_steps=4))["id"]
    assert not np.array_equal(other, ids[0][:24])


def test_fresh_randomness_is_fresh():
    rows = join(train(elements(), num_steps=40))
    first, second = (np.flatnonzero(rows["id"] == 0)[i] for i in (0, 1))
    np.testing.assert_array_equal(rows["clean"][first], rows["clean"][second])
    versions = {rows["aug"][row].tobytes() for row in np.flatnonzero(rows["id"] == 0)}
    assert len(versions) > 5


def test_a_view_does_not_depend_on_the_other_views():
    alone = join(train(elements(views={"aug": AUGMENT})))
    both = join(train(elements(views={"first": "flip_lr", "aug": AUGMENT, "again": AUGMENT})))
    np.testing.assert_array_equal(alone["aug"], both["aug"])
    assert not np.array_equal(both["aug"], both["again"])


def test_views_start_from_the_same_base_image():
    made = elements(ops=AUGMENT, views={"clean": "", "mirrored": "flip_lr"}, replicas=2)
    rows = join(list(ordered_batches(made, batch_size=46)))
    same = (rows["clean"] == rows["mirrored"]).all((1, 2, 3))
    mirrored = (rows["clean"][:, :, ::-1] == rows["mirrored"]).all((1, 2, 3))
    assert (same | mirrored).all()
    assert same.any()
    assert mirrored.any()
    assert not np.array_equal(rows["clean"], images()[rows["id"]])


@pytest.mark.parametrize("mode", MODES[1:])
def test_the_fixed_set_is_fixed(mode):
    made = elements(**mode)
    rows = join(list(ordered_batches(made, batch_size=7, pad=False)))
    assert rows["element"].tolist() == list(range(len(made)))
    for size in (6, 8):
        visits = join(train(made, batch_size=size, num_steps=40))
        for key in ("id", "label", "clean", "aug"):
            np.testing.assert_array_equal(visits[key], rows[key][visits["element"]])
    pairs = {(i, a.tobytes()) for i, a in zip(rows["id"], rows["aug"], strict=True)}
    assert len(pairs) > 0.9 * len(made)  # replicas differ


def test_every_element_comes_once_an_epoch():
    made = elements(replicas=3, fraction=0.4)
    assert len(made) == 28
    visited = join(train(made, batch_size=28, num_steps=3))["element"].reshape(3, 28)
    for epoch in visited:
        assert sorted(epoch) == list(range(28))


def test_fractions_are_random_nested_subsets_of_the_whole_set():
    def content(fraction):
        made = elements(views={"aug": AUGMENT}, replicas=4, fraction=fraction)
        rows = join(list(ordered_batches(made, batch_size=10, pad=False)))
        assert len(rows["id"]) == round(fraction * 4 * N)
        return [(int(i), a.tobytes()) for i, a in zip(rows["id"], rows["aug"], strict=True)]

    small, large, whole = content(0.25), content(0.5), content(1.0)
    assert small == large[: len(small)]
    assert set(large) < set(whole)
    assert len(set(large)) > 0.9 * len(large)
    assert len({i for i, _ in small}) > 10  # not the replicas of a few images
    assert [i for i, _ in small] != sorted(i for i, _ in small)


def test_evaluation_counts_every_image_once():
    batches = list(ordered_batches(elements(), batch_size=10))
    assert [batch["mask"].shape for batch in batches] == [(10,)] * 3
    rows = join(batches)
    assert rows["mask"].dtype == bool
    assert rows["id"][rows["mask"]].tolist() == list(range(N))
    assert rows["id"][~rows["mask"]].tolist() == [N - 1] * 7
    short = list(ordered_batches(elements(), batch_size=10, pad=False))
    assert [len(batch["id"]) for batch in short] == [10, 10, 3]
    assert join(short)["mask"].all()


def test_ranges_of_elements_join_to_the_whole():
    whole = join(list(ordered_batches(elements(), batch_size=10, pad=False)))
    parts = [(0, 9), (9, 9), (9, 20), (20, None)]
    pieces = [
        batch
        for start, stop in parts
        for batch in ordered_batches(elements(), batch_size=4, start=start, stop=stop, pad=False)
    ]
    assert_same([whole], [join(pieces)])
    (last,) = ordered_batches(elements(), batch_size=4, start=9, stop=10)
    assert last["element"].tolist() == [9] * 4
    assert last["mask"].tolist() == [True, False, False, False]


def test_encoded_images_of_every_form():
    pixels = np.asarray(Image.fromarray(images(1)[0]).resize((20, 16)))
    data = [encode(pixels, form) for form in ("PNG", "BMP", "JPEG")]
    data.append(encode(pixels[..., 0], "JPEG"))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    data.append(file.getvalue())
    made = Elements(of(*data), "decode", {"image": ""}, 0)
    (batch,) = ordered_batches(made, batch_size=5)
    np.testing.assert_array_equal(batch["image"][0], pixels)
    np.testing.assert_array_equal(batch["image"][1], pixels)
    for i in (2, 3):
        plain = Image.open(io.BytesIO(data[i])).convert("RGB")
        np.testing.assert_array_equal(batch["image"][i], np.asarray(plain))
    np.testing.assert_array_equal(batch["image"][4], batch["image"][2][::-1, ::-1])


def test_one_record_is_enough():
    source = arrays(4).subset([2])
    assert join(train(elements(source)))["label"].tolist() == [2] * 48
