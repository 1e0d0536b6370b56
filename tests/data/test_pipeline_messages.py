import numpy as np
import pytest
from made import AUGMENT, N, elements, encode, images, of

from robust_jax.data import sources
from robust_jax.data.pipeline import Elements, ordered_batches, train_batches


def train(elements, **kwargs):
    defaults = {"batch_size": 6, "start_step": 0, "num_steps": 8}
    return list(train_batches(elements, **(defaults | kwargs)))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 7, "process_count": 2}, r"got batch_size=7 and 2 hosts; .*multiple of 2"),
        ({"batch_size": 0}, r"got batch_size=0"),
        ({"start_step": 9}, r"start_step is not in \[0, num_steps\]; got 9 and 8"),
    ],
)
def test_impossible_batches_are_told(kwargs, message):
    with pytest.raises(ValueError, match=message):
        train(elements(), **kwargs)


@pytest.mark.parametrize("kwargs", [{"start": 3, "stop": 2}, {"stop": N + 1}, {"batch_size": 0}])
def test_impossible_ranges_are_told(kwargs):
    with pytest.raises(ValueError, match=rf"no such batches; .* of {N} elements"):
        ordered_batches(elements(), **({"batch_size": 2} | kwargs))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"views": {}}, r"views name the images.*at least one"),
        ({"views": {"label": ""}}, r"got \['label'\]; .*none of id, element, label, mask"),
        ({"replicas": -1}, r"replicas is negative; got -1"),
        ({"replicas": 1, "fraction": 0.0}, r"fraction is not in \(0, 1\]; got 0.0"),
        ({"replicas": 1, "fraction": 1.5}, r"got 1.5"),
        ({"fraction": 0.5}, r"got fraction=0.5 with replicas=0; set replicas to 1"),
        ({"replicas": 1, "fraction": 0.01}, r"no elements; got 23 records, replicas=1"),
    ],
)
def test_impossible_elements_are_told(kwargs, message):
    with pytest.raises(ValueError, match=message):
        elements(**kwargs)


def test_differing_sizes_are_told_before_the_run():
    made = elements(of(images(1, (8, 9))[0], images(1, (8, 8))[0]), views={"image": ""})
    message = r"differ in size; got \[8,\d,3\] and \[8,\d,3\] .*add resize\(SIZE\)"
    with pytest.raises(ValueError, match=message):
        train_batches(made, batch_size=2, start_step=0, num_steps=1)
    assert len(train(elements(made.source, ops="resize(8)"), num_steps=1)) == 1


def test_sizes_that_differ_later_are_told():
    made = elements(of(*images(39), images(1, (9, 8))[0]), views={"image": ""})
    batches = ordered_batches(made, batch_size=4)
    for _ in range(9):
        next(batches)
    with pytest.raises(ValueError, match=r"differ in size; got \[9,8,3\] and \[8,8,3\]"):
        next(batches)


def test_an_image_smaller_than_a_crop_is_told():
    message = r"image is smaller than random_crop\(13, pad=2\); put resize before it; .*\(12, 12\)"
    with pytest.raises(ValueError, match=message):
        train(elements(views={"image": "random_crop(13, pad=2)"}))


def test_corrupt_and_wrong_records_are_told():
    good = encode(images(1)[0])
    made = Elements(of(good, good[:60]), "decode", {"image": ""}, 0)
    with pytest.raises(ValueError, match=r"record 1 of source 'these': cannot decode the image"):
        list(ordered_batches(made, batch_size=2))
    made = elements(of(images(1)[0], images(1)[0].astype(np.float32)))
    with pytest.raises(ValueError, match=r"record 1 of .* not an image; got float32\[8, 8, 3\]"):
        list(ordered_batches(made, batch_size=2))


def test_encoded_images_without_decode_are_told():
    made = Elements(of(encode(images(1)[0])), "resize(4)", {"image": ""}, 0)
    with pytest.raises(ValueError, match=r"encoded images; got ops='resize\(4\)'; begin the ops"):
        ordered_batches(made, batch_size=1)


def test_unknown_ops_are_told_at_once():
    with pytest.raises(ValueError, match=r"unknown op; got 'flp_lr'; did you mean 'flip_lr'"):
        train_batches(elements(views={"image": "flp_lr"}), batch_size=2, start_step=0, num_steps=1)


def test_errors_of_a_source_arrive_as_they_are():
    def read(i):
        if i:
            raise FileNotFoundError(f"image {i} is gone")
        return images(1)[0]

    source = sources.Source("gone", ("a", "b"), np.array([0, 1], np.int32), read, "")
    with pytest.raises(FileNotFoundError, match="image 1 is gone"):
        list(ordered_batches(elements(source), batch_size=2))


@pytest.mark.parametrize("views", [{"aug": ""}, {"element": ""}])
def test_names_come_once(views):
    with pytest.raises(ValueError, match=r"views name the images of a batch; got .*each once"):
        elements(views=views, drawn={"aug": AUGMENT})
    with pytest.raises(ValueError, match=r"views name the images of a batch; got \[\]; give at"):
        elements(views={}, drawn={})
