"""Batches as a pure function of (seed, step): the same after any restart, on any number of hosts.

A position in the run gives an element, the element a record of the source and a seed; tf.data
decodes and augments the elements in parallel and keeps their order.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from robust_jax.data import registry
from robust_jax.data.elements import Elements
from robust_jax.data.mixture import RECORD
from robust_jax.data.order import train_elements
from robust_jax.data.reading import read_images, to_pixels

tf.config.set_visible_devices([], "GPU")  # TensorFlow would take all of its memory from JAX

Batch = dict[str, np.ndarray]
Locate = Callable[[np.ndarray], dict[str, np.ndarray]]

__all__ = ["Elements", "ordered_batches", "train_batches"]

_CHUNK = 32  # records a Python call; calls are what limits small images
_FIRST = 16  # elements whose sizes are compared before the first batch


def train_batches(
    elements: Elements,
    *,
    batch_size: int,
    start_step: int,
    num_steps: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Yields this host's part of the batches of steps start_step .. num_steps - 1.

    Epochs follow each other without a gap, so every batch is full.

    Args:
      elements: what to train on.
      batch_size: of all hosts together.
      start_step: first step; 0, or where a run resumes.
      num_steps: steps of the whole run.
      process_index: of this host.
      process_count: number of hosts.

    Returns:
      Iterator of {"id": int32[b] record, "element": int32[b], "label": int32[b],
      VIEW: uint8[b, h, w, 3]} with b = batch_size / process_count.
    """
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"the batch does not divide among the hosts; got batch_size={batch_size} and "
            f"{process_count} hosts; make batch_size a positive multiple of {process_count}"
        )
    if not 0 <= start_step <= num_steps:
        raise ValueError(
            f"start_step is not in [0, num_steps]; got {start_step} and {num_steps}; raise "
            "num_steps to continue a finished run"
        )
    local = batch_size // process_count

    def locate(rows: np.ndarray) -> dict[str, np.ndarray]:
        steps, row = np.divmod(rows, local)
        positions = steps * batch_size + process_index * local + row
        visited = train_elements(positions, seed=elements.seed, size=len(elements))
        return {"element": visited, "position": positions, "mask": np.ones(len(rows), bool)}

    batches = _batches(elements, locate, local, start_step * local, num_steps * local)
    return ({key: batch[key] for key in batch if key != "mask"} for batch in batches)


def ordered_batches(
    elements: Elements,
    *,
    batch_size: int,
    start: int = 0,
    stop: int | None = None,
    pad: bool = True,
) -> Iterator[Batch]:
    """Yields elements start .. stop - 1 once each, in order, with `mask` bool[b] true for each.

    Args:
      elements: what to visit; with replicas=0 the seed of an element is that of its first visit
        in this order.
      batch_size: b.
      start: first element.
      stop: one past the last element; None for all.
      pad: fill the last batch by repeating its last element with mask false; else it is shorter.

    Returns:
      Iterator of the dicts of `train_batches` and `mask`.
    """
    stop = len(elements) if stop is None else stop
    if batch_size < 1 or not 0 <= start <= stop <= len(elements):
        raise ValueError(
            f"no such batches; got batch_size={batch_size}, start={start}, stop={stop} of "
            f"{len(elements)} elements; use batch_size >= 1 and 0 <= start <= stop <= elements"
        )
    last = stop - 1

    def locate(rows: np.ndarray) -> dict[str, np.ndarray]:
        visited = np.minimum(rows, last)
        return {"element": visited, "position": visited, "mask": rows <= last}

    end = start + -(-(stop - start) // batch_size) * batch_size if pad else stop
    return _batches(elements, locate, batch_size, start, end)


def _batches(
    elements: Elements, locate: Locate, batch_size: int, start: int, stop: int
) -> Iterator[Batch]:
    """Batches rows start .. stop - 1 of the numbering that `locate` maps to elements."""
    failures: list[Exception] = []
    examples = _examples(elements, locate, start, stop, failures)
    _, views = examples.element_spec
    if not all(view.shape.is_fully_defined() for view in views.values()):
        for first in _numpy(examples.take(_FIRST).batch(_FIRST), failures):
            del first  # made only to find images of differing sizes before the run starts
    options = tf.data.Options()
    # Its thread is sometimes waited for, for seconds, when an iterator is dropped; batches come as
    # fast without it.
    options.autotune.enabled = False
    batches = examples.batch(batch_size).prefetch(tf.data.AUTOTUNE).with_options(options)
    return _numpy(batches, failures)


def _examples(
    elements: Elements, locate: Locate, start: int, stop: int, failures: list[Exception]
) -> tf.data.Dataset:
    """Decoded and augmented examples of rows start .. stop - 1, in order."""
    source = elements.source
    encoded = isinstance(source.read(0), bytes)
    first_op = next(iter(registry.parse(elements.ops)), ("",))[0]
    if encoded and first_op != "decode":
        raise ValueError(
            f"source {source.name!r} holds encoded images; got ops={elements.ops!r}; begin the "
            'ops with "decode"'
        )
    encoded |= elements.from_copies
    # Where nothing shows the record itself, the copy is read in its place.
    both = elements.from_copies and bool(elements.views)
    to_base = registry.build(elements.ops)
    to_view = {
        name: registry.build(ops) for name, ops in {**elements.views, **elements.drawn}.items()
    }

    def fetch(rows: np.ndarray) -> tuple[np.ndarray, ...]:
        try:
            place = locate(rows)
            records, seeds = elements.address(place["element"], place["position"])
            copies, follow = elements.draw(seeds)
            first, second = read_images(elements, records, copies, both)
        except Exception as error:  # tf.data would keep only its text
            failures.append(error)
            raise
        columns = records, place["element"], source.labels[records], place["mask"]
        shapes = [shape for _, shape in first], [shape for _, shape in second]
        numbers = np.column_stack([*columns, seeds, copies != RECORD, follow, *shapes])
        images = [np.array([data for data, _ in part], object) for part in (first, second)]
        return numbers.astype(np.int32), *images

    def fetch_op(rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        numbers, *images = tf.numpy_function(fetch, [rows], (tf.int32, tf.string, tf.string))
        return tf.ensure_shape(numbers, (None, 14)), *(tf.ensure_shape(i, (None,)) for i in images)

    def make(
        numbers: tf.Tensor, first: tf.Tensor, second: tf.Tensor
    ) -> tuple[tf.Tensor, registry.Features]:
        seed, from_copy, follow = numbers[4:6], numbers[6] > 0, numbers[7] > 0

        def base_of(image: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
            return to_base({"image": to_pixels(image, shape, encoded)}, seed)["image"]

        base = drawn = base_of(first, numbers[8:11])
        if both:
            drawn = tf.cond(from_copy, lambda: base_of(second, numbers[11:]), lambda: base)
        views = {}
        for name, fn in to_view.items():
            # By name, so that a view has the same pixels whatever other views there are.
            view_seed = tf.random.experimental.stateless_fold_in(seed, _name_hash(name))
            image = drawn if name in elements.drawn else base

            def view(fn: registry.Op = fn, image: Any = image, seed: Any = view_seed) -> tf.Tensor:
                return fn({"image": image}, seed)["image"]

            always = name not in elements.drawn or elements.always_ops
            views[name] = view() if always else tf.cond(follow, view, lambda image=image: image)
        # One tensor of numbers: tf.data pays for each component of each example.
        return numbers[:4], views

    # Ops say tf.cond themselves: AutoGraph would look for control flow for a second.
    make, fetch_op = map(tf.autograph.experimental.do_not_convert, (make, fetch_op))
    rows = tf.data.Dataset.range(start, stop).batch(_CHUNK)
    fetched = rows.map(fetch_op, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return fetched.unbatch().map(make, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _name_hash(name: str) -> int:
    return zlib.crc32(name.encode()) % 2**31


def _numpy(batches: tf.data.Dataset, failures: list[Exception]) -> Iterator[Batch]:
    """Iterates over NumPy views of the batches and tells failures in the user's terms."""
    iterator = batches.as_numpy_iterator()
    while True:
        try:
            batch = next(iterator, None)
        except tf.errors.OpError as error:
            raise _explain(error, failures) from error
        if batch is None:
            return
        numbers, views = batch
        record, element, label, mask = np.ascontiguousarray(numbers.T)
        yield {"id": record, "element": element, "label": label, "mask": mask > 0} | views


def _explain(error: tf.errors.OpError, failures: list[Exception]) -> Exception:
    for failure in failures:
        if str(failure) in error.message:
            return failure
    size = r".*?(\[\d[\d,]*\])"
    if shapes := re.search(
        f"(?:different shapes|Cannot add tensor to the batch){size}{size}", error.message
    ):
        return ValueError(
            f"the images of a batch differ in size; got {shapes[1]} and {shapes[2]} (height, "
            "width, channels) after the ops; add resize(SIZE) or a crop to the ops"
        )
    if message := re.search(r"assertion failed: \[(.*?)\] \[(.*?)\]", error.message):
        return ValueError(f"{message[1]} = ({', '.join(message[2].split())})")
    return ValueError(
        f"an example could not be made; got the error {error.message}; check the images with "
        "data.verify=true, or the ops"
    )
