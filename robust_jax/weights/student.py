"""A robust student as files: one head as a network, and everything that was tuned."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.traverse_util

from robust_jax.method.student import Student
from robust_jax.weights import export, huggingface, loading, native
from robust_jax.weights.mapping import Format
from robust_jax.weights.network import Network

HEADS_FILE = "heads.safetensors"


def write(
    directory: Path,
    student: Student,
    frozen: Mapping[str, Any],
    tuned: Mapping[str, Any],
    *,
    head: str,
    class_names: Sequence[str],
    form: str | None = None,
) -> tuple[Network, str, list[str]]:
    """Writes the network of one head in model.safetensors, and heads.safetensors.

    In transformers' names, custom code beside the weights makes the network answer as the head
    does without dropout. Other formats have no names for the adapter and the head's bottleneck:
    there the network is the tuned one under the original classifier.

    Args:
      directory: where to write.
      student: with all of its heads.
      frozen: variables of the original network, on the host.
      tuned: of the student, on the host.
      head: one of the student's heads.
      class_names: of the classifier.
      form: the format; the first of the network's if None.

    Returns:
      What was written, its format, and what its readers will not know (see `export.write`).

    Raises:
      ValueError: when the network does not come in this format.
    """
    shared = tuned["shared"] if student.share == "tail" else tuned["shared"][head]
    names = tuple(class_names)
    variables = _placed(frozen, shared["tail"])
    network = Network(student.entry, student.model, variables, class_names=names)
    form = form or next(iter(export.formats(network)))
    classifier = export.classifier_name(network, form)
    if not classifier:  # heads.safetensors has it
        network = network.without_classifier()
    form = export.choose(network, form)
    tensors, config = export.to_tensors(network, form), export.config(network, form)
    custom = form == "huggingface" and network.has_classifier
    if custom:
        parts = {"head": tuned["heads"][head]}
        if student.plan.adapter_width:
            parts["adapter"] = shared["adapter"]
        rows = huggingface.student_tensors(classifier.removesuffix(".weight"), student.plan)
        fmt = Format(tensors=lambda model: rows)
        tensors |= loading.to_tensors({"params": parts}, fmt, student.model)
        config = huggingface.student_config(config, head, student.plan, student.rate)
    unsaid = export.write(directory, network, form, tensors, config)
    if custom:
        shutil.copyfile(huggingface.CODE, directory / f"{huggingface.MODULE}.py")
    native.Heads(
        tuned=tuned,
        classifier=frozen["params"]["head"],
        entry=student.entry,
        plan=student.plan,
        share=student.share,
        rate=student.rate,
        image_size=student.model.image_size,
        class_names=names,
    ).save(directory / HEADS_FILE)
    return network, form, unsaid


def _placed(variables: Mapping[str, Any], tail: Mapping[str, Any]) -> dict[str, Any]:
    """Puts the tuned tail in the place of the original tensors."""
    flat = flax.traverse_util.flatten_dict(variables["params"])
    flat |= flax.traverse_util.flatten_dict(tail)
    return {**variables, "params": flax.traverse_util.unflatten_dict(flat)}
