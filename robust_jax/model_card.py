"""What is told of an exported run: model.json for programs, README.md (a model card) for people."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

import robust_jax
from robust_jax import config as config_lib
from robust_jax.method.selection import HEADS
from robust_jax.report import percent
from robust_jax.report.columns import BENCHMARK_COLUMNS, MAIN_COLUMNS, OTHER_COLUMNS, Column
from robust_jax.report.columns import present as present_columns
from robust_jax.report.tables import benchmark_table, method_table, wilson
from robust_jax.stages.answering import Answering

VERSION = 1  # of model.json
OUTPUTS = {
    "label": "int32[b], an index into class_names",
    "probs": "f32[b, {classes}], mean over the dropout samples of the head that answered",
    "head": "int32[b], an index into heads: which one answered",
    "head_probs": "f32[b, {heads}, {classes}], that mean for each head",
    "uncertainty": "f32[b, {heads}], of each head",
    "kl": "f32[b, {candidates}], of each head that may answer",
}
# By the beginning of a model's name, as docs/models.md has it.
USUAL_LICENCES = {
    "vit_": "Apache-2.0",
    "dinov2_": "Apache-2.0",
    "resnet": "BSD-3-Clause, Apache-2.0",
    "efficientnet_": "Apache-2.0",
    "swin_": "MIT",
    "unicl_": "MIT",
    "clip_rn": "MIT",
    "clip_vit_": "MIT; LAION's vary",
    "lit_": "Apache-2.0",
}
_FOLDERS = re.compile(r"(^|:)/(?!/)(?:[^/]*/)*(?=[^/])")  # of PATH and KIND:PATH, not of gs://...
_LOADING = """\
```python
import jax.export
import numpy as np

with open("model.stablehlo", "rb") as file:
    exported = jax.export.deserialize(bytearray(file.read()))
images = np.zeros((4, {side}, {side}, 3), np.uint8)
answer = exported.call(images{key})
print(answer["label"], answer["probs"].max(axis=1), answer["head"])
```"""


def about(
    answering: Answering, rng: str, platforms: Sequence[str], versions: Mapping[str, str]
) -> dict[str, Any]:
    """Returns what model.json says.

    Args:
      answering: what was exported.
      rng: "fixed" or "passed".
      platforms: of the program.
      versions: of what the run was made with.
    """
    networks, names = answering.networks, list(answering.class_names)
    candidates = 3 if answering.selection.candidates == "all" else 2
    sizes = {"classes": len(names), "heads": len(HEADS), "candidates": candidates}
    side, ops = networks.image_size, networks.photograph_ops
    key = jax.random.key_data(answering.key).tolist()
    return {
        "format": VERSION,
        "class_names": names,
        "image_size": side,
        "inputs": {"images": f"uint8[b, {side}, {side}, 3], RGB, b of any size from 1"}
        | ({"key": f"uint32[{len(key)}]"} if rng == "passed" else {}),
        "outputs": {name: text.format(**sizes) for name, text in OUTPUTS.items()},
        "heads": list(HEADS),
        "rng": rng,
        "key": key,
        "preprocessing": {
            "ops": ops,
            "text": f"Decode to RGB, bring to {side} x {side} by these ops (docs/export.md of "
            "robust_jax), and leave the pixels uint8: normalisation is part of the program.",
        },
        "platforms": list(platforms),
        "versions": {
            "run": dict(versions),
            "export": {"robust_jax": robust_jax.__version__, "jax": jax.__version__},
        },
    }


def card(
    answering: Answering,
    said: Mapping[str, Any],
    summary: Mapping[str, Any],
    *,
    pretrain: Mapping[str, Any],
    form: str,
    unsaid: Sequence[str],
) -> str:
    """Returns the model card, Markdown with the metadata that model hubs read.

    Args:
      answering: what was exported.
      said: of `about`.
      summary: the run's summary.json.
      pretrain: what the stage reported.
      form: the format of model.safetensors.
      unsaid: what readers of this format do not know of the network.
    """
    networks, data = answering.networks, summary["dataset"]
    config, side = networks.config, said["image_size"]
    key = f", np.array({said['key']}, np.uint32)" if said["rng"] == "passed" else ""
    parts = [
        "---\npipeline_tag: image-classification\ntags:\n- robustness\n- jax\n- stablehlo\n---",
        f"# {networks.student_entry.name}, made robust on {data['name']}",
        f"A classifier of {len(said['class_names'])} classes from {side} x {side} pixels, made by "
        f'robust_jax {robust_jax.__version__} after "Efficiently Robustify Pre-Trained Models" '
        "(ICCV 2023): a frozen network with a tuned tail and three heads (clean, unclean, "
        "combined), of which Monte-Carlo dropout chooses one for each image.",
        "## Use\nNeeds `jax` and `flatbuffers`, nothing else.",
        _LOADING.format(side=side, key=key),
        f"`model.json` holds the class names and what goes in and comes out. Preprocessing: "
        f"`{said['preprocessing']['ops']}`. {said['preprocessing']['text']}",
        "## Files\n" + _table(_files(form, unsaid), ("file", "holds")),
        "## Data and seeds\n"
        f"Trained on {data['name']} ({data['train_images']:,} images; others, held out, calibrated "
        f"the choice between the heads), evaluated on {data['eval_images']:,}. Seed "
        f"{config.seed}, from which every random number derives. The teacher is "
        f"{networks.teacher_entry.name}. Licence and consent of the data are not known here.",
        "## Accuracy\n"
        + _metrics([("method", "label")], method_table(summary), (*MAIN_COLUMNS, *OTHER_COLUMNS)),
        _measured(config, summary),
    ]
    if rows := benchmark_table(summary):
        names = [("benchmark", "set"), ("method", "label")]
        parts.append(_metrics(names, rows, BENCHMARK_COLUMNS))
    parts += [
        "## Source weights and licence\n" + _sources(answering, pretrain),
        "## Intended use and limits\n" + _limits(config, summary),
        "## Config\nKeys that differ from the defaults of robust_jax; paths without their folders."
        "\n\n" + _table(_changes(answering), ("key", "value")),
    ]
    return "\n\n".join(parts) + "\n"


def _files(form: str, unsaid: Sequence[str]) -> list[tuple[str, str]]:
    lost = f"; the format does not say {', '.join(unsaid)}" if unsaid else ""
    return [
        ("`model.stablehlo`", "the program, weights and the choice between heads inside"),
        ("`model.json`", "class names, sizes, preprocessing, versions"),
        (
            "`model.safetensors`",
            f"the network of the combined head, without dropout, in the format {form}{lost}",
        ),
        ("`heads.safetensors`", "all that was tuned, and the classifier"),
        ("`*config.json`, `*.py`, if any", "what readers of that format want beside it"),
        ("`SHA256SUMS`", "for `sha256sum -c SHA256SUMS`"),
    ]


def _measured(config: Any, summary: Mapping[str, Any]) -> str:
    said = ["This model is the row *ours*, of one run with one seed."]
    count, clean = summary["dataset"]["eval_images"], summary["methods"]["ours"]["clean_accuracy"]
    low, high = map(percent, wilson(clean, count))
    said.append(f"95 % interval of its clean accuracy, from {count:,} images: {low} to {high}.")
    if config.evaluate.corruptions:
        names = ", ".join(config.evaluate.corruptions).replace("all", "the 15 of ImageNet-C")
        severities = ", ".join(map(str, config.evaluate.severities))
        said.append(f"*Corrupted* is the mean over {names} at severities {severities}.")
    return " ".join(said)


def _limits(config: Any, summary: Mapping[str, Any]) -> str:
    ours = summary["methods"]["ours"]
    pair = [percent(ours[k]) for k in ("f_correct_clean", "f_correct_shift") if k in ours]
    calibrated = "are calibrated on held-out images of the training data, and mean less elsewhere"
    lines = [
        "For images of the classes above that may be noisy, blurred, badly lit, compressed or in "
        "another style. An image of none of the classes is answered as one of them.",
        "Robustness was measured on synthetic corruptions and on the benchmarks above, if any. "
        "Other shifts may cost more.",
        "Which head answers is a guess about the image: F_correct % on clean and on shifted images "
        f"was {' and '.join(pair)}; a rule that ignores the image has two that add up to 100.",
        "`probs`, `uncertainty` and `kl` "
        + (calibrated if config.selection.calibrate else "are not calibrated")
        + ".",
        "Not evaluated for fairness, adversarial images, or use where an error harms people.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _sources(answering: Answering, pretrain: Mapping[str, Any]) -> str:
    config, networks = answering.networks.config, answering.networks
    lines = []
    for section, entry in (
        ("student", networks.student_entry),
        ("teacher", networks.teacher_entry),
    ):
        weights = config[section].weights
        if not weights:
            lines.append(f"- {section} {entry.name}: trained from scratch on the data above.")
            continue
        usual = next((v for k, v in USUAL_LICENCES.items() if entry.name.startswith(k)), "")
        form = pretrain.get("weights_format", "") if section == "student" else ""
        lines.append(
            f"- {section} {entry.name}: weights `{_shown(weights)}`"
            + (f" (format {form}). " if form else ". ")
            + "Their licence is that of their publisher"
            + (f", usually {usual}" if usual else "")
            + "; check it before you pass this model on."
        )
    if config.student.zero_shot_head:
        head = _shown(config.student.zero_shot_head)
        lines.append(f"- classifier: derived from texts, by the text tower, in `{head}`.")
    return "\n".join(lines)


def _changes(answering: Answering) -> list[tuple[str, str]]:
    flat, base = (
        config_lib.flatten(config) for config in (answering.networks.config, config_lib.base())
    )
    changed = config_lib.differing(flat, base)
    return [(f"`{name}`", f"`{_shown(flat.get(name))}`") for name in changed]


def _shown(value: Any) -> Any:
    """A config value without the folders of the machine that it was written on."""
    if isinstance(value, list):
        return [_shown(part) for part in value]
    return _FOLDERS.sub(r"\1", value) if isinstance(value, str) else value


def _metrics(
    names: Sequence[tuple[str, str]], rows: list[dict[str, Any]], columns: Iterable[Column]
) -> str:
    shown = present_columns(columns, rows)
    lines = [[*(row[k] for _, k in names), *(c.cell(row) for c in shown)] for row in rows]
    return _table(lines, [*(heading for heading, _ in names), *(c.heading for c in shown)])


def _table(rows: Iterable[Sequence[str]], headings: Sequence[str]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
