"""Pre-trained weights: `find` tells what a file holds for a model, `load` fills the model with it.

What a file needs of the network (the kind of GELU, the epsilon of its norms) and of the images
(mean, std, interpolation) comes back as a model entry, so that nobody has to know.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

from robust_jax import models
from robust_jax.models import ModelEntry, StagedModel
from robust_jax.weights import loading
from robust_jax.weights.files import WeightFile, read
from robust_jax.weights.layers import RESAMPLE
from robust_jax.weights.loading import Report
from robust_jax.weights.mapping import Format, Tensor

__all__ = [
    "Found",
    "Report",
    "find",
    "format_of",
    "formats",
    "is_absent",
    "is_elsewhere",
    "load_text_tower",
]

PRETRAINED = "pretrained"  # in place of a path: the file inside an installed package


@dataclasses.dataclass(frozen=True)
class Found:
    """A weight file that was recognised.

    Attributes:
      entry: the model's entry with what this file needs of network and images.
      format: name of the file's format.
      file: what was read.
      num_classes: of the classifier in the file; 0 if there is none.
    """

    entry: ModelEntry
    format: str
    file: WeightFile
    num_classes: int

    def load(
        self, model: StagedModel, *, classifier: str = "load"
    ) -> tuple[dict[str, Any], Report]:
        """Returns the variables of a model built from `entry`, f32, on the host.

        Args:
          model: the network, at any image size.
          classifier: "load" the file's, or a "new" one that starts at zero.

        Raises:
          ValueError: for missing, additional or misshaped tensors, listing both sides.
        """
        fmt = format_of(self)
        text = models.build_text(self.entry) if self.entry.text_family else None
        try:
            return loading.load_tensors(
                self.file.tensors, fmt, model, classifier=classifier, text_model=text
            )
        except ValueError as error:
            raise ValueError(f"{self.file.path} as {self.entry.name}: {error}") from error


def is_elsewhere(address: str) -> bool:
    """Whether weights have to be fetched, or are a local file that is not there."""
    return address.startswith(("hf://", "gs://")) or is_absent(address)


def is_absent(address: str) -> bool:
    """Whether an address is that of a local file or directory that is not there."""
    local = "://" not in address and address != PRETRAINED
    return local and not Path(address).expanduser().exists()


def formats(row: ModelEntry) -> dict[str, Format]:
    """The formats in which the weights of a model come."""
    if not row.naming:
        return {}
    known = importlib.import_module(f"robust_jax.weights.{row.naming}").FORMATS
    return {name: known[name] for name in row.weights}


def find(path: str, name: str) -> Found:
    """Reads a file or folder and recognises its format.

    Args:
      path: see `files.read`; "pretrained" for the file of an installed package.
      name: key of `models.MODELS`.

    Raises:
      ValueError: when the file cannot be read, or is not of this model's family.
    """
    native = _native()
    about = native.metadata(path)
    if about.get("format") == native.NAME:
        return _find_native(path, name, native.build(about, 1)[0])
    row = models.entry(name)
    known = formats(row)
    if not known:
        raise ValueError(
            f"there are no weights for this model; got {path!r} for {row.name!r}; train it, or "
            "choose another (python -m robust_jax.models lists what each accepts)"
        )
    if path == PRETRAINED:
        path = _pretrained(row)
    file = read(path)
    # The format whose names the file has most of: each project has its own.
    model = models.build(row, 1)
    renamed = {key: fmt.rename(file.tensors) for key, fmt in known.items()}
    shared = {}
    for key, fmt in known.items():
        names = {tensor.name for tensor in fmt.tensors(model)}
        shared[key] = len(names & renamed[key].keys()) / len(names)
    best = max(shared, key=lambda key: shared[key])
    if shared[best] < 0.5:
        few = ", ".join(sorted(file.tensors)[:6])
        raise ValueError(
            f"these weights are not of this model; got {path!r}, with tensors such as {few}, for "
            f"{row.name!r}; name the model that the file was made for, in one of the formats "
            f"{', '.join(known)}"
        )
    fmt = known[best]
    row = dataclasses.replace(
        row,
        kwargs={**row.kwargs, **fmt.overrides(file.config)},
        text_kwargs={**row.text_kwargs, **fmt.text_overrides(file.config)},
        **_preprocessing(file, best),
    )
    return Found(row, best, file, _num_classes(fmt.tensors(model), renamed[best]))


def _native() -> Any:
    return importlib.import_module("robust_jax.weights.native")  # it imports this package


def format_of(found: Found) -> Format:
    """The format of a recognised file."""
    native = _native()
    own = found.format == native.NAME
    return native.FORMAT if own else formats(found.entry)[found.format]


def _find_native(path: str, name: str, row: ModelEntry) -> Found:
    """Recognises a file that `robust_jax.convert` wrote in our own format."""
    if row.name != name:
        raise ValueError(
            f"these weights are of another model; got {path!r}, of {row.name!r}, for {name!r}; "
            f"use {row.name!r}"
        )
    file = read(path)
    kernel = file.tensors.get(f"{loading.HEAD}kernel")
    return Found(row, _native().NAME, file, 0 if kernel is None else kernel.shape[-1])


def load_text_tower(name: str, path: str) -> tuple[nn.Module, dict[str, Any]]:
    """Builds and fills the text tower of a model.

    Args:
      name: key of `models.MODELS`.
      path: of a file that holds the tower.

    Returns:
      The tower and its variables, f32, on the host.

    Raises:
      ValueError: as `find` and `Found.load`.
    """
    found = find(path, name)
    tower = models.build_text(found.entry)
    variables, _ = loading.load_text(
        found.file.tensors,
        format_of(found),
        tower,
        model=models.build(found.entry, max(1, found.num_classes)),
    )
    return tower, variables


def _num_classes(rows: list[Tensor], tensors: Mapping[str, np.ndarray]) -> int:
    for row in rows:
        if row.path == f"{loading.HEAD}kernel" and row.name in tensors:
            shape = tensors[row.name].shape
            return shape[0] if row.layout == "linear" else shape[-1]
    return 0


def _preprocessing(file: WeightFile, fmt: str) -> dict[str, Any]:
    """What the files beside the weights say of mean, std and interpolation."""
    said: dict[str, Any] = {}
    values = dict(file.preprocessor)
    if fmt == "openai_clip":  # open_clip's
        values = {f"image_{k}": v for k, v in file.config.get("preprocess_cfg", {}).items()}
    for key, field in (("image_mean", "mean"), ("image_std", "std")):
        if key in values:
            said[field] = tuple(float(value) for value in values[key])
    resample = values.get("resample")
    if resample is not None:
        names = {number: name for name, number in RESAMPLE.items()}
        if resample not in names:
            raise ValueError(
                f"the preprocessor resizes in a way that is not supported; got resample={resample} "
                f"in {file.path}; use 2 (bilinear) or 3 (bicubic)"
            )
        said["interpolation"] = names[resample]
    return said


def _pretrained(row: ModelEntry) -> str:
    module = importlib.import_module(f"robust_jax.weights.{row.naming}")
    if not hasattr(module, "pretrained_path"):
        raise ValueError(
            f"no package holds weights of this model; got weights='pretrained' for {row.name!r}; "
            "give a path"
        )
    return module.pretrained_path(row.name)
