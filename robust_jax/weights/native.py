"""Our own files: safetensors under the paths of our arrays, which say what they are for."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.traverse_util
import numpy as np
import safetensors

from robust_jax import models
from robust_jax.method.budget import Plan
from robust_jax.models import ModelEntry, StagedModel
from robust_jax.weights import files, locate
from robust_jax.weights.mapping import Format, Tensor

NAME = "robust_jax"
VERSION = "1"
TEXT = "text/"  # before the paths of a text tower


def _tensors(model: StagedModel) -> list[Tensor]:
    return [Tensor(path, path) for path in _paths(model)]


def _text(tower: nn.Module) -> list[Tensor]:
    return [Tensor(path, f"{TEXT}{path}") for path in _paths(tower)]


def _paths(module: nn.Module) -> list[str]:
    return list(flax.traverse_util.flatten_dict(models.shapes(module), sep="/"))


FORMAT = Format(tensors=_tensors, text=_text)


def describe(
    entry: ModelEntry, model: StagedModel, class_names: Sequence[str] = ()
) -> dict[str, str]:
    """Returns the text from which `build` makes the network again, and its classes."""
    return {
        "format": NAME,
        "version": VERSION,
        "model": entry.name,
        "entry": json.dumps(models.entry_to_json(entry), sort_keys=True),
        "image_size": str(model.image_size),
        "head": model.head,
        "class_names": json.dumps(list(class_names)),
    }


def build(about: Mapping[str, str], num_classes: int) -> tuple[ModelEntry, StagedModel]:
    """Returns the entry and the network that `describe` described."""
    if about["version"] != VERSION:
        raise ValueError(
            f"a file of another version; got {about['version']!r}; read it with the robust_jax "
            f"that wrote it (this one knows {VERSION!r})"
        )
    entry = models.entry_from_json(json.loads(about["entry"]))
    size = int(about["image_size"])
    return entry, models.build(entry, num_classes, image_size=size, head=about["head"])


def metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Returns the text stored in a local safetensors file, or in a directory's; else {}."""
    found = Path(path).expanduser()
    file = locate.main_file(found) if found.is_dir() else found
    if file is None or file.suffix != ".safetensors" or not file.is_file():
        return {}
    try:
        with safetensors.safe_open(file, "np") as opened:
            return dict(opened.metadata() or {})
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"cannot read this safetensors file ({error}); got {str(file)!r}; it is cut off or "
            "something else; make it again"
        ) from error


@dataclasses.dataclass(frozen=True)
class Heads:
    """What a student adds to its original network.

    Attributes:
      tuned: see `Student`.
      classifier: of the original network: "kernel" f32[d, k] and, if it is linear, "bias" f32[k].
      entry: of the original network.
      plan: what is tuned.
      share: "tail" or "none", see `Student`.
      rate: of dropout.
      image_size: side of the images.
      class_names: the k classes.
    """

    tuned: Mapping[str, Any]
    classifier: Mapping[str, np.ndarray]
    entry: ModelEntry
    plan: Plan
    share: str
    rate: float
    image_size: int
    class_names: tuple[str, ...]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a safetensors file: shared/..., heads/..., classifier/..."""
        tensors = flax.traverse_util.flatten_dict(
            {**self.tuned, "classifier": self.classifier}, sep="/"
        )
        about = {
            "entry": models.entry_to_json(self.entry),
            "plan": dataclasses.asdict(self.plan),
            "share": self.share,
            "rate": self.rate,
            "image_size": self.image_size,
            "class_names": self.class_names,
        }
        files.write_safetensors(
            path,
            {name: np.asarray(tensor) for name, tensor in tensors.items()},
            {"format": f"{NAME}_heads", "version": VERSION, "about": json.dumps(about)},
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Heads":
        """Reads what `save` wrote, bit by bit the same.

        Raises:
          ValueError: when it is something else, or of another version.
        """
        about = metadata(path)
        if (about.get("format"), about.get("version")) != (f"{NAME}_heads", VERSION):
            raise ValueError(
                f"no heads of a student that this version knows; got {str(path)!r} of format "
                f"{about.get('format')!r}; make it with `python -m robust_jax.convert`"
            )
        tree = flax.traverse_util.unflatten_dict(files.read(path).tensors, sep="/")
        said = json.loads(about["about"])
        shared = tree.get("shared", {})
        # An empty tail leaves no trace in the file.
        copies = [""] if said["share"] == "tail" else tree["heads"]
        for copy in copies:
            (shared.setdefault(copy, {}) if copy else shared).setdefault("tail", {})
        plan = Plan(**{**said["plan"], "freed": tuple(said["plan"]["freed"])})
        return cls(
            tuned={"shared": shared, "heads": tree["heads"]},
            classifier=tree["classifier"],
            entry=models.entry_from_json(said["entry"]),
            plan=plan,
            share=said["share"],
            rate=said["rate"],
            image_size=said["image_size"],
            class_names=tuple(said["class_names"]),
        )
