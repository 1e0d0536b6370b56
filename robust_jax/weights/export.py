"""Weights out: a network under the names of any of its formats, or under our own."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robust_jax import models, weights, writers
from robust_jax.models import StagedModel
from robust_jax.weights import files, huggingface, loading, locate, native, vit
from robust_jax.weights.layers import BATCH_NORM_COUNTER
from robust_jax.weights.mapping import Format, Tensor
from robust_jax.weights.network import Network

PREFERRED = ("huggingface", "timm")  # the formats to choose before others
MODEL_FILE = "model.safetensors"
MEAN = ".running_mean"
NOT_SAID = ("parent", "name", "dtype", "num_classes")  # fields that no reader needs to be told


def formats(network: Network) -> dict[str, Format]:
    """The formats that have names for a network, our own last."""
    row = network.entry
    # A ViT that was trained here is a ViT to everyone.
    known = weights.formats(row) or (vit.FORMATS if row.family == "vit" else {})
    order = [n for n in PREFERRED if n in known] + [n for n in known if n not in PREFERRED]
    found = {name: known[name] for name in order if _names(known[name], network.model)}
    return {**found, native.NAME: native.FORMAT}


def _names(fmt: Format, model: StagedModel) -> list[Tensor]:
    try:
        return fmt.tensors(model)
    except ValueError:  # a variant for which the project has no names
        return []


def choose(network: Network, name: str | None = None) -> str:
    """Returns the format `name`, or the first one, with a place for all of the network.

    Raises:
      ValueError: when the network does not come in this format, or it has no place for a part.
    """
    known = formats(network)
    whole = [key for key, fmt in known.items() if not _lacks(fmt, network)]
    if name is None:
        return whole[0]
    if name not in known:
        raise ValueError(
            f"this network does not come in the format; got {name!r} for {network.entry.name!r}; "
            f"use one of {', '.join(known)}"
        )
    if name not in whole:
        raise ValueError(
            f"the format has no place for the {_lacks(known[name], network)}; got {name!r} for "
            f"{network.entry.name!r}; use one of {', '.join(whole)}"
        )
    return name


def _lacks(fmt: Format, network: Network) -> str:
    rows = fmt.tensors(network.model)
    if network.has_classifier and not any(row.path.startswith(loading.HEAD) for row in rows):
        return "classifier"
    return "text tower" if network.text and fmt.text is None else ""


def classifier_name(network: Network, name: str) -> str:
    """What files of a format call the kernel of a classifier; "" if they have none."""
    fmt = formats(network).get(name, native.FORMAT)
    rows = [row.name for row in fmt.tensors(network.model) if row.path == f"{loading.HEAD}kernel"]
    return rows[0] if rows else ""


def to_tensors(network: Network, name: str) -> dict[str, np.ndarray]:
    """Returns the tensors of a file in a format of `formats`."""
    fmt = formats(network)[name]
    if not network.has_classifier:
        rows = [row for row in fmt.tensors(network.model) if not row.path.startswith(loading.HEAD)]
        fmt = dataclasses.replace(fmt, tensors=lambda model: rows)
    tensors = loading.to_tensors(network.variables, fmt, network.model)
    if network.text:
        tower, variables = network.text
        tensors |= loading.to_tensors(variables, fmt, tower, text=True)
    if BATCH_NORM_COUNTER in fmt.ignored:  # torch misses them
        stems = [n.removesuffix(MEAN) for n in tensors if n.endswith(MEAN)]
        tensors |= {f"{stem}.num_batches_tracked": np.zeros((), np.int64) for stem in stems}
    return tensors


def config(network: Network, name: str) -> dict[str, Any]:
    """Returns the config.json that belongs to files of a format; {} for none."""
    if name != "huggingface":
        return {}
    labels: tuple[str, ...] = ()
    if network.has_classifier:
        count = network.variables["params"]["head"]["kernel"].shape[-1]
        labels = network.class_names or tuple(f"LABEL_{i}" for i in range(count))
    return huggingface.config(network.model, network.text[0] if network.text else None, labels)


def write(
    directory: Path,
    network: Network,
    name: str,
    tensors: Mapping[str, np.ndarray] | None = None,
    config_json: Mapping[str, Any] | None = None,
) -> list[str]:
    """Writes model.safetensors, preprocessor_config.json and, for transformers, config.json.

    Args:
      directory: where to write.
      network: what to write.
      name: of the format.
      tensors: what the file holds; `to_tensors` if None.
      config_json: what config.json holds; `config` if None.

    Returns:
      The fields of the network that a reader of these files takes to be others, a line for each.
    """
    tensors = to_tensors(network, name) if tensors is None else tensors
    said = config(network, name) if config_json is None else config_json
    about = {"format": "pt"}  # the layout of the tensors, which transformers asks for
    if name == native.NAME:
        about = native.describe(network.entry, network.model, network.class_names)
    files.write_safetensors(directory / MODEL_FILE, tensors, about)
    preprocessor = huggingface.preprocessor(network.entry, network.model.image_size)
    writers.write_json(directory / locate.PREPROCESSOR, preprocessor)
    if said:
        writers.write_json(directory / locate.CONFIG, said)
    return [] if name == native.NAME else _unsaid(network, formats(network)[name], said)


def _unsaid(network: Network, fmt: Format, config: Mapping[str, Any]) -> list[str]:
    """Compares the network with the one that a reader of the files builds."""
    row = network.entry
    base = models.MODELS.get(row.name, row)
    read = dataclasses.replace(
        row,
        kwargs={**base.kwargs, **fmt.overrides(config)},
        text_kwargs={**base.text_kwargs, **fmt.text_overrides(config)},
    )
    size, head = network.model.image_size, network.model.head
    pairs: list[tuple[Any, Any]] = [
        (network.model, models.build(read, 1, image_size=size, head=head))
    ]
    if network.text:
        pairs.append((network.text[0], models.build_text(read)))
    return [
        f"{field.name}={getattr(ours, field.name)!r}, read as {getattr(theirs, field.name)!r}"
        for ours, theirs in pairs
        for field in dataclasses.fields(ours)
        if field.name not in NOT_SAID and getattr(ours, field.name) != getattr(theirs, field.name)
    ]
