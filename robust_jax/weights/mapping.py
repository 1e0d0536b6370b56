"""Where each of our arrays lies in a file of some format: one list that reads and writes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = Any  # a numpy array, or a tracer where only shapes are wanted


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an array of ours is stored.

    Attributes:
      store: our array to the file's.
      restore: the file's array to ours, whose shape is given.
    """

    store: Callable[[Array], Array]
    restore: Callable[[Array, tuple[int, ...]], Array]


def _reshaped(a: Array, shape: tuple[int, ...]) -> Array:
    return a.reshape(shape)


LAYOUTS: dict[str, Layout] = {
    "same": Layout(lambda a: a, lambda a, shape: a),
    "linear": Layout(lambda a: a.T, lambda a, shape: a.T),  # [in, out] -> [out, in]
    "conv": Layout(  # HWIO -> OIHW
        lambda a: a.transpose(3, 2, 0, 1), lambda a, shape: a.transpose(2, 3, 1, 0)
    ),
    "heads_in": Layout(  # [d, h, c] -> [h * c, d]
        lambda a: a.reshape(len(a), -1).T, lambda a, shape: a.T.reshape(shape)
    ),
    "heads_bias": Layout(lambda a: a.reshape(-1), _reshaped),  # [h, c] -> [h * c]
    "heads_out": Layout(  # [h, c, d] -> [d, h * c]
        lambda a: a.reshape(-1, a.shape[-1]).T, lambda a, shape: a.T.reshape(shape)
    ),
    "drop1": Layout(lambda a: a[0], lambda a, shape: a[None]),  # [1, ...] -> [...]
    "drop2": Layout(lambda a: a[0, 0], lambda a, shape: a[None, None]),  # [1, 1, d] -> [d]
    "scalar1": Layout(lambda a: a.reshape(1), lambda a, shape: a.reshape(())),  # [] -> [1]
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One of our arrays and where it lies in a file.

    Attributes:
      path: in our variables, such as "params/block_00_attn/query/kernel".
      name: in the file.
      layout: key of `LAYOUTS`.
      part: (i, n): ours is the i-th of n equal parts along the first axis of the file's tensor.
      resize: key of `resize.RESIZES`, for an array that depends on the size of the input.
    """

    path: str
    name: str
    layout: str = "same"
    part: tuple[int, int] = (0, 1)
    resize: str = ""


@dataclasses.dataclass(frozen=True)
class Format:
    """How the files of one project name the tensors of one family.

    Attributes:
      tensors: the list for an image network, its classifier (`params/head/...`) included where the
        files have one.
      text: the list for the text tower.
      ignored: full-match regular expressions of names that hold nothing to load.
      rename: brings other spellings of the same tensors to the names of the list.
      overrides: fields of our image network that these weights need, by the file's `config.json`.
      text_overrides: the same for the text tower.
    """

    tensors: Callable[[Any], list[Tensor]]
    text: Callable[[Any], list[Tensor]] | None = None
    ignored: tuple[str, ...] = ()
    rename: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]] = dict
    overrides: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda config: {}
    text_overrides: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda config: {}
