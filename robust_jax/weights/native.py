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

from robust_jax import models
from robust_jax.method.budget import Plan
from robust_jax.models import ModelEntry, StagedModel
from robust_jax.weights import beside, files, locate, safetensors_file
from robust_jax.weights.layers import RESAMPLE
from robust_jax.weights.mapping import Format, Tensor

NAME = "robust_jax"
VERSION = "1"
_MAX_SIDE, _MAX_DEPTH = 10_000, 1_000  # of images in pixels, of networks in blocks
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
    """Returns the entry and the network that `describe` described.

    Raises:
      ValueError: when it describes none, or is of another version.
    """
    if about.get("version") != VERSION:
        raise ValueError(
            f"a file of another version; got {about.get('version')!r}; read it with the robust_jax "
            f"that wrote it (this one knows {VERSION!r})"
        )
    try:
        found, size = entry(json.loads(about["entry"])), int(about["image_size"])
        if about["model"] != found.name or not 0 < size <= _MAX_SIDE:
            raise ValueError(f"model {about['model']!r:.80} at image size {size}")
        model = models.build(found, num_classes, image_size=size, head=about["head"])
        models.shapes(model)
    # What a network does with fields that do not fit it depends on the field.
    except Exception as error:
        raise ValueError(
            f"a file that describes no network ({error!r:.200}); got one with "
            f"{', '.join(sorted(about))}; make it again with `python -m robust_jax.convert`"
        ) from error
    return found, model


def classes(about: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the classes in what `describe` described."""
    try:
        return text_list(json.loads(about["class_names"]))
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(
            f"a file without its class names ({error!r:.200}); got one with "
            f"{', '.join(sorted(about))}; make it again with `python -m robust_jax.convert`"
        ) from error


def entry(values: Any) -> ModelEntry:
    """Returns the entry that `models.entry_to_json` wrote, which may come from anybody.

    Raises:
      ValueError: when it is none of a network that this version has.
    """
    try:
        found = models.entry_from_json(values)
        known = {(row.naming, form) for row in models.MODELS.values() for form in row.weights}
        plausible = (
            isinstance(found.name, str)
            and found.family in models.FAMILIES
            and found.text_family in ("", *models.TEXT_FAMILIES)
            and found.naming in {"", *(naming for naming, _ in known)}
            and {(found.naming, form) for form in found.weights} <= known
            and found.interpolation in RESAMPLE
            and all(0 < size <= _MAX_SIDE for size in (found.input_size, found.resize))
            and (found.native_size is None or 0 < found.native_size <= _MAX_SIDE)
            and len(found.mean) == len(found.std) == 3
            and all(beside.is_number(value, -1e3, 1e3) for value in found.mean)
            and all(beside.is_number(value, 1e-6, 1e3) for value in found.std)
            and all(map(_is_field, found.kwargs.items()))
            and all(map(_is_field, found.text_kwargs.items()))
        )
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"no entry of the model table ({error!r:.200}); got {values!r:.80}; write it again"
        ) from error
    if not plausible:
        raise ValueError(
            f"an entry of no network that there is; got {found!r:.400}; write it again"
        )
    return found


def _is_field(item: tuple[str, Any]) -> bool:
    """Whether a field of a network has a size that can be: others would be built without end."""
    name, value = item
    parts = value if isinstance(value, tuple) else (value,)
    most = _MAX_DEPTH if name.startswith("depth") else 10**6
    return len(parts) <= 8 and all(
        part is None or isinstance(part, bool | str) or beside.is_number(part, 0, most)
        for part in parts
    )


def text_list(values: Any) -> tuple[str, ...]:
    """Returns class names as JSON has them; ValueError for anything but a list of text."""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"class names that are no list of text: {values!r:.80}")
    return tuple(values)


def metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Returns the text stored in a local safetensors file, or in a directory's; else {}."""
    found = Path(path).expanduser()
    file = locate.main_file(found) if found.is_dir() else found
    if file is None or file.suffix != ".safetensors" or not file.is_file():
        return {}
    return safetensors_file.metadata(file)


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
        tensors = files.read(path).tensors
        try:
            tree = flax.traverse_util.unflatten_dict(tensors, sep="/")
            said = json.loads(about["about"])
            shared = tree.get("shared", {})
            # An empty tail leaves no trace in the file.
            copies = [""] if said["share"] == "tail" else tree["heads"]
            for copy in copies:
                (shared.setdefault(copy, {}) if copy else shared).setdefault("tail", {})
            plan = Plan(**{**said["plan"], "freed": tuple(said["plan"]["freed"])})
            if not beside.is_size(said["image_size"]) or not beside.is_number(said["rate"], 0, 1):
                raise ValueError(f"images of {said['image_size']!r:.80}, rate {said['rate']!r:.80}")
            return cls(
                tuned={"shared": shared, "heads": tree["heads"]},
                classifier=tree["classifier"],
                entry=entry(said["entry"]),
                plan=plan,
                share=said["share"],
                rate=said["rate"],
                image_size=said["image_size"],
                class_names=text_list(said["class_names"]),
            )
        # What is missing or of another type decides which of them it is.
        except (TypeError, AttributeError, LookupError, ValueError, RecursionError) as error:
            raise ValueError(
                f"damaged heads of a student ({error!r:.200}); got {str(path)!r}; make them again "
                "with `python -m robust_jax.convert`"
            ) from error
