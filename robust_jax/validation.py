"""Checks a config before any data or device is touched."""

import math
from collections.abc import Sequence
from typing import Any

import ml_collections

from robust_jax import config_types
from robust_jax.config import (
    GATE_FOLDS,
    STAGES,
    TRAINED_SECTIONS,
    calibrating_section,
    duration,
    flatten,
    nearest,
    tolerated_faults,
)
from robust_jax.data import copies, overlap
from robust_jax.data.mixture import Mixture

# Rows that a run can have beside `original` and those of `ours`.
BASELINES = (
    "teacher",
    "teacher_clean",
    "apt",
    "ours_no_kd",
    "full_finetune",
    "lp_ft",
    "wise_ft",
)

# Allowed values of the keys that select by string.
CHOICES: dict[str, tuple[Any, ...]] = {
    "data.source": ("digits", "folder", "tfds", "arrays"),
    "student.classifier": ("probe", "finetune", "load", "zero_shot"),
    "teacher.loss": ("cross_entropy", "augmix_jsd"),
    "finetune.loss": ("cross_entropy", "augmix_jsd"),
    "method.share": ("tail", "none"),
    "method.frozen_dtype": ("float32", "bfloat16"),
    "method.kd.weighting": ("none", "teacher_entropy"),
    "cache.use": ("auto", "true", "false"),
    "cache.dtype": ("bfloat16", "float32"),
    "distort.edsr_shrink": (1, 2, 4),
    "selection.uncertainty": ("mutual_information", "variance", "predictive_entropy"),
    "selection.score": ("product", "sum", "uncertainty", "kl", "max_logit", "gate"),
    "selection.direction": ("combined_to_head", "head_to_combined"),
    "selection.candidates": ("clean_unclean", "all"),
}
HEADS = ("clean", "unclean", "combined")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("cosine", "step", "constant")


def validate(config: ml_collections.ConfigDict, base: ml_collections.ConfigDict) -> None:
    """Checks every key and value that can be checked without data or devices.

    Raises:
      ValueError: what is wrong, the value found, and what to do.
    """
    flat, known = flatten(config), flatten(base)
    for key in flat:
        if key not in known:
            raise ValueError(
                f"unknown config key; got {key!r}; see configs/base.py for every key"
                + nearest(key, known)
            )
    for key in known:
        if key not in flat:
            raise ValueError(f"config key missing; got no {key!r}; start from configs/base.py")
    config_types.check(flat, known)
    for key, choices in CHOICES.items():
        _check_choice(key, flat[key], choices)
    for section in TRAINED_SECTIONS:
        _check_choice(f"{section}.optimizer", flat[f"{section}.optimizer"], OPTIMIZERS)
        _check_choice(f"{section}.schedule", flat[f"{section}.schedule"], SCHEDULES)
        _check_range(f"{section}.batch_size", flat[f"{section}.batch_size"], 1)
        _check_range(f"{section}.learning_rate", flat[f"{section}.learning_rate"], 0.0, above=True)
        _check_range(f"{section}.weight_decay", flat[f"{section}.weight_decay"], 0.0)
        _check_range(f"{section}.clip_norm", flat[f"{section}.clip_norm"], 0.0)
        _check_range(f"{section}.accum_steps", flat[f"{section}.accum_steps"], 1)
        _check_range(f"{section}.warmup_percent", flat[f"{section}.warmup_percent"], 0.0, 100.0)
        # Only the data tells how long an epoch is; here it is long, to find the other mistakes.
        duration(config[section], "total", examples=10**15, label=section)
    for stage in config.stages:
        _check_choice("stages", stage, STAGES)
    for method in config.baselines.methods:
        _check_choice("baselines.methods", method, BASELINES)
    methods = tuple(config.baselines.methods)
    if "wise_ft" in methods and "full_finetune" not in methods:
        raise ValueError(
            f"wise_ft interpolates full_finetune; got baselines.methods={methods}; add "
            "'full_finetune'"
        )
    for head in config.method.kd.heads:
        _check_choice("method.kd.heads", head, HEADS)
    _check_range("seed", flat["seed"], 0, 2**31 - 1)
    _check_range("student_seed", flat["student_seed"], 0, 2**31 - 1)
    _check_range("augmented.fraction", flat["augmented.fraction"], 0.0, 1.0, above=True)
    _check_range("method.kd.weight", flat["method.kd.weight"], 0.0, 1.0)
    _check_range("method.kd.clean_weight", flat["method.kd.clean_weight"], 0.0, 1.0)
    _check_range("method.kd.temperature", flat["method.kd.temperature"], 0.0, above=True)
    _check_range("method.kd.clean_anchor", flat["method.kd.clean_anchor"], 0.0)
    _check_range("method.dropout", flat["method.dropout"], 0.0, 0.9)
    _check_range("method.heads_share", flat["method.heads_share"], 0.0, 1.0, above=True)
    _check_range("teacher.jsd_weight", flat["teacher.jsd_weight"], 0.0)
    _check_range("finetune.jsd_weight", flat["finetune.jsd_weight"], 0.0)
    _check_range("cache.max_gigabytes", flat["cache.max_gigabytes"], 0.0)
    for key in ("train.cache_on_device_gigabytes", "train.cache_in_memory_gigabytes"):
        _check_range(key, flat[key], 0.0)
    _check_range("data.max_bad_images", flat["data.max_bad_images"], 0)
    for key in (
        "augmented.replicas",
        "selection.num_samples",
        "selection.gate_stages",
        "evaluate.batch_size",
        "evaluate.max_images",
        "evaluate.max_sequences",
        "train.log_every_steps",
        "train.checkpoint_every_steps",
        "train.fsdp",
    ):
        _check_range(key, flat[key], 1)
    _check_range("data.calibration_images", flat["data.calibration_images"], GATE_FOLDS)
    if flat["data.image_size"] != 0:  # the student's own
        _check_range("data.image_size", flat["data.image_size"], 8)  # corruptions take no less
    tolerated_faults(flat["train.on_nan"])
    _check_selection(config.selection)
    _check_start(config.student)
    _check_augmentation(config)


def _check_selection(selection: ml_collections.ConfigDict) -> None:
    """Checks that the options of the choice between heads belong together."""
    _check_range("selection.keep_clean", selection.keep_clean, 0.0, 1.0)
    if selection.score == "gate" and selection.candidates != "clean_unclean":
        raise ValueError(
            f"a gate tells clean from shifted only; got selection.candidates="
            f"{selection.candidates}; use clean_unclean, or another selection.score"
        )
    if selection.keep_clean and not selection.calibrate and selection.score != "gate":
        raise ValueError(
            f"selection.keep_clean sets a threshold; got {selection.keep_clean} with "
            "selection.calibrate=False; calibrate, or use 0"
        )


def _check_start(student: ml_collections.ConfigDict) -> None:
    """Checks that the keys which say where the student comes from belong together."""
    if not student.weights and student.classifier != "probe":
        raise ValueError(
            f"student.classifier={student.classifier} needs pre-trained weights; got "
            "student.weights=''; give a path, or leave student.classifier alone"
        )
    if (student.classifier == "zero_shot") != bool(student.zero_shot_head):
        raise ValueError(
            f"student.zero_shot_head and student.classifier=zero_shot need each other; got "
            f"zero_shot_head={student.zero_shot_head!r} and classifier={student.classifier!r}; "
            "build a head with `python -m robust_jax.zero_shot` and set both"
        )


def _check_augmentation(config: ml_collections.ConfigDict) -> None:
    """Checks the ops of training, the distorted copies, and the mixtures that draw from them."""
    for key in ("train_ops", "augment_ops"):
        overlap.check(config.data[key], config.data.allowed_overlap, f"data.{key}")
    section = config.distort
    for kind in section.networks:
        _check_choice("distort.networks", kind, copies.KINDS)
    if len(set(section.networks)) < len(section.networks):
        raise ValueError(
            f"distort.networks names a network twice; got {section.networks}; name each once, and "
            "set distort.copies"
        )
    _check_range("distort.copies", section.copies, 1)
    _check_range("distort.fit_steps", section.fit_steps, 1)
    _check_range("distort.noise2net_max_eps", section.noise2net_max_eps, 0.0, above=True)
    _check_range("teacher.ema_decay", config.teacher.ema_decay, 0.0, 0.99999)
    names = copies.copy_names(section.networks, section.copies)
    for name in dict.fromkeys(("augmented", "teacher", calibrating_section(config))):
        try:
            Mixture(config[name].mixture.to_dict(), names)
        except ValueError as error:
            raise ValueError(f"{name}.mixture: {error}") from error


def _check_choice(key: str, value: Any, choices: Sequence[Any]) -> None:
    if value not in choices:
        raise ValueError(
            f"{key} has an unknown value; got {value!r}; use one of {list(choices)}"
            + nearest(str(value), map(str, choices))
        )


def _check_range(
    key: str, value: float | None, low: float, high: float = math.inf, above: bool = False
) -> None:
    """Checks low <= value <= high, or low < value <= high, of a key that is not left out."""
    if value is None:
        return
    if not low <= value <= high or (above and value == low):
        least = f"above {low}" if above else f"of at least {low}"
        most = "" if high == math.inf else f" and at most {high}"
        raise ValueError(f"{key} is out of range; got {value}; use a value {least}{most}")
