"""A network with its arrays, and everything that a weight file holds read as one."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import numpy as np

from robust_jax import models, weights
from robust_jax.models import ModelEntry, StagedModel
from robust_jax.weights import loading, native
from robust_jax.weights.layers import BATCH_NORM_COUNTER as COUNTER
from robust_jax.weights.mapping import Format


@dataclasses.dataclass(frozen=True)
class Network:
    """A network and its arrays, on the host.

    Attributes:
      entry: its preprocessing, and the fields it was built with.
      model: the image network.
      variables: its arrays; without params["head"] where it has no classifier.
      text: the text tower and its arrays, if there is one.
      class_names: of the classifier, where they are known.
      left: names in its file that are not of the network, batch norm's counters aside.
    """

    entry: ModelEntry
    model: StagedModel
    variables: Mapping[str, Any]
    text: tuple[nn.Module, Mapping[str, Any]] | None = None
    class_names: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def has_classifier(self) -> bool:
        """Whether there are arrays of a classifier."""
        return "head" in self.variables["params"]

    def without_classifier(self) -> "Network":
        """Returns the same network without the arrays of its classifier."""
        params = {name: v for name, v in self.variables["params"].items() if name != "head"}
        return dataclasses.replace(self, variables={**self.variables, "params": params})


def read(path: str, name: str | None = None) -> Network:
    """Reads everything that a weight file holds, at the image size that it was made for.

    Args:
      path: see `files.read`.
      name: key of `models.MODELS`; files of our own say it themselves.

    Raises:
      ValueError: when the file cannot be read, or is not of this model.
    """
    about = native.metadata(path)
    own = about.get("format") == native.NAME
    if own and name not in (None, about.get("model")):
        raise ValueError(
            f"the file is of another model; got {path!r} of {about.get('model')!r} for {name!r}; "
            "leave --model out"
        )
    if not own and name is None:
        raise ValueError(
            f"weights do not say of which model they are; got {path!r}; name it with --model "
            "(python -m robust_jax.models lists them)"
        )
    found = weights.find(path, name or about.get("model", ""))
    fmt, count = weights.format_of(found), max(1, found.num_classes)
    tensors = fmt.rename(found.file.tensors)
    if own:
        _, model = native.build(about, count)
        classes = native.classes(about)
    else:
        model = models.build(found.entry, count)
        model = models.build(found.entry, count, image_size=_native_size(model, fmt, tensors))
        labels = found.file.config.get("id2label", {})
        said = tuple(str(labels[i]) for i in sorted(labels, key=int))
        classes = said if len(said) == found.num_classes else ()
    variables, _ = found.load(model, classifier="load" if found.num_classes else "new")
    taken = {row.name for row in fmt.tensors(model)}
    text = None
    if fmt.text is not None and found.entry.text_family:
        tower = models.build_text(found.entry)
        names = {row.name for row in fmt.text(tower)}
        if names & tensors.keys():
            text = tower, loading.load_text(found.file.tensors, fmt, tower, model=model)[0]
            taken |= names
    left = tuple(n for n in sorted(tensors.keys() - taken) if not re.fullmatch(COUNTER, n))
    network = Network(found.entry, model, variables, text, classes, left)
    return network if found.num_classes else network.without_classifier()


def _native_size(model: StagedModel, fmt: Format, tensors: Mapping[str, np.ndarray]) -> int:
    """Returns the side of the images to which the positions in a file belong."""
    rows = [row for row in fmt.tensors(model) if row.resize and row.name in tensors]
    for row in rows:  # one, where there are positions
        shape = flax.traverse_util.flatten_dict(models.shapes(model), sep="/")[row.path].shape
        stored, ours = tensors[row.name].size // shape[-1], shape[-2]
        for cls in (1, 0):
            old, new = math.isqrt(max(0, stored - cls)), math.isqrt(ours - cls)
            if old**2 + cls == stored and new**2 + cls == ours:
                return model.image_size * old // new
    return model.image_size
