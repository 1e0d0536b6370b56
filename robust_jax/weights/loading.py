"""Fills a network from the tensors of a file, and the other way round; nothing goes unnoticed."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np

from robust_jax import models
from robust_jax.models import StagedModel
from robust_jax.weights.mapping import LAYOUTS, Format, Tensor
from robust_jax.weights.resize import RESIZES

HEAD = "params/head/"
SHOWN = 12  # names in a message


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of every tensor of the file and of every array of the network.

    Attributes:
      loaded: paths of our arrays that were read.
      resized: of these, the ones that were resized, with both shapes.
      initialised: paths that the file was not asked for and that keep their initial values.
      left: names of the file's tensors that this network does not need.
    """

    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    initialised: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"loaded {len(self.loaded)} arrays"]
        if self.resized:
            lines.append("resized " + ", ".join(self.resized))
        if self.initialised:
            lines.append("newly initialised: " + ", ".join(self.initialised))
        if self.left:
            lines.append(f"left in the file ({len(self.left)}): {_some(self.left)}")
        return "\n".join(lines)


def load_tensors(
    tensors: Mapping[str, np.ndarray],
    fmt: Format,
    model: StagedModel,
    *,
    classifier: str = "load",
    text_model: nn.Module | None = None,
) -> tuple[dict[str, Any], Report]:
    """Returns the variables of an image network, f32, on the host.

    Args:
      tensors: of a file, by name.
      fmt: the file's format.
      model: the network to fill.
      classifier: "load" takes the file's; "new" starts one at zero, and leaves the file's.
      text_model: the text tower that the file may hold beside the image network.

    Raises:
      ValueError: for missing, additional or misshaped tensors, listing both sides.
    """
    found = fmt.rename(tensors)
    rows = fmt.tensors(model)
    head = [row for row in rows if row.path.startswith(HEAD)]
    if classifier == "load" and not head:
        raise ValueError(
            "these weights hold no classifier; got a request to load it; start a new one "
            "(student.classifier=probe), or a zero-shot one from its text tower"
        )
    if classifier == "new":
        rows = [row for row in rows if row not in head]
    allowed = {row.name for row in head}
    if fmt.text is not None and text_model is not None:
        allowed |= {row.name for row in fmt.text(text_model)}
    shapes = _flat(models.shapes(model))
    skipped = {path for path in shapes if classifier == "new" and path.startswith(HEAD)}
    arrays, report = _fill(found, rows, shapes, fmt, allowed, skipped)
    for path in skipped:
        arrays[path] = np.zeros(shapes[path].shape, np.float32)
    return _unflat(arrays), report


def load_text(
    tensors: Mapping[str, np.ndarray],
    fmt: Format,
    text_model: nn.Module,
    *,
    model: StagedModel | None = None,
) -> tuple[dict[str, Any], Report]:
    """Returns the variables of a text tower.

    Args:
      tensors: of a file, by name.
      fmt: the file's format.
      text_model: the tower to fill.
      model: the image network that the file may hold beside it.

    Raises:
      ValueError: as `load_tensors`.
    """
    if fmt.text is None:
        raise ValueError("files of this format hold no text tower; got a request to load one")
    found, rows = fmt.rename(tensors), fmt.text(text_model)
    shapes = _flat(models.shapes(text_model))
    allowed = set() if model is None else {row.name for row in fmt.tensors(model)}
    arrays, report = _fill(found, rows, shapes, fmt, allowed)
    return _unflat(arrays), report


def to_tensors(
    variables: Mapping[str, Any], fmt: Format, model: Any, *, text: bool = False
) -> dict[str, np.ndarray]:
    """Returns the tensors of a file that holds these variables, by name."""
    rows = (fmt.text if text and fmt.text is not None else fmt.tensors)(model)
    flat = {path: np.asarray(value) for path, value in _flat(variables).items()}
    missing = sorted(set(flat) - {row.path for row in rows})
    if missing:
        raise ValueError(f"the format has no place for some arrays; got {_some(missing)}")
    parts: dict[str, dict[int, np.ndarray]] = {}
    for row in rows:
        parts.setdefault(row.name, {})[row.part[0]] = LAYOUTS[row.layout].store(flat[row.path])
    return {
        name: np.asarray(
            found[0] if len(found) == 1 else np.concatenate([found[i] for i in range(len(found))]),
            order="C",
        )
        for name, found in parts.items()
    }


def _fill(
    found: Mapping[str, np.ndarray],
    rows: Iterable[Tensor],
    shapes: Mapping[str, Any],
    fmt: Format,
    allowed: set[str],
    skipped: Iterable[str] = (),
) -> tuple[dict[str, np.ndarray], Report]:
    rows = list(rows)
    wanted = {row.name for row in rows}
    missing = sorted(wanted - found.keys())
    left = sorted(name for name in found.keys() - wanted if not _ignored(name, fmt))
    extra = [name for name in left if name not in allowed]
    if missing or extra:
        raise ValueError(
            f"the weights do not fit the network; got {len(missing)} missing tensors "
            f"({_some(missing)}) and {len(extra)} additional ones ({_some(extra)}); name the "
            "model that the file was made for"
        )
    arrays: dict[str, np.ndarray] = {}
    resized, wrong = [], []
    for row in rows:
        if row.path not in shapes:
            raise ValueError(f"the format names an array the network lacks; got {row.path}")
        shape, layout = shapes[row.path].shape, LAYOUTS[row.layout]
        tensor, (index, count) = found[row.name], row.part
        stored = jax.eval_shape(layout.store, shapes[row.path]).shape
        expected = (stored[0] * count, *stored[1:]) if count > 1 else stored
        if row.resize and tensor.ndim == len(expected):
            value = layout.restore(np.asarray(tensor, np.float32), shape)
            if value.shape != shape:
                resized.append(f"{row.path} {list(value.shape)} -> {list(shape)}")
                value = RESIZES[row.resize](value, shape)
            if value.shape != shape:
                wrong.append(f"{row.name} is {list(tensor.shape)}, for {list(shape)}")
                continue
        elif tensor.shape != expected:
            wrong.append(f"{row.name} is {list(tensor.shape)}, not {list(expected)}")
            continue
        else:
            size = len(tensor) // count if count > 1 else 0
            piece = tensor[index * size : (index + 1) * size] if count > 1 else tensor
            value = layout.restore(np.asarray(piece, np.float32), shape)
        arrays[row.path] = np.array(value, order="C")  # a copy: the file's tensors may be a view
    if wrong:
        raise ValueError(
            f"{len(wrong)} tensors have another shape than the network; got {_some(wrong)}; name "
            "the model that the file was made for, or its number of classes"
        )
    initialised = sorted(set(shapes) - set(arrays))
    unexpected = sorted(set(initialised) - set(skipped))
    if unexpected:
        raise ValueError(f"the format leaves arrays of the network out; got {_some(unexpected)}")
    return arrays, Report(tuple(arrays), tuple(resized), tuple(initialised), tuple(left))


def _ignored(name: str, fmt: Format) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in fmt.ignored)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "none"


def _flat(variables: Mapping[str, Any]) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(variables, sep="/")


def _unflat(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return flax.traverse_util.unflatten_dict(dict(arrays), sep="/")
