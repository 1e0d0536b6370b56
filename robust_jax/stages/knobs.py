"""What makes a stage need less memory: config keys, the cheapest first."""

from collections.abc import Mapping

import ml_collections

# Stages that train nothing by a section of their own, and the key of their batches.
_BATCHES = {"cache": "distill.batch_size", "evaluate": "evaluate.batch_size"}


def of_training(config: ml_collections.ConfigDict, section: str, devices: int) -> tuple[str, ...]:
    """Returns what a training may change.

    Args:
      config: of the run.
      section: of the config, which describes the training.
      devices: how many there are.
    """
    chosen = config[section]
    network = "teacher" if section == "teacher" else "student"
    parts = next((n for n in (2, 4, 8, 16) if n > chosen.accum_steps), 2 * chosen.accum_steps)
    return _given(
        {
            f"{section}.accum_steps={parts} (the same steps, but for batch norm and dropout)": True,
            f"{section}.remat=true (the same steps in more time)": not chosen.remat,
            "train.cache_on_device_gigabytes=0 (the cache in memory)": section == "distill",
            "method.frozen_dtype=bfloat16": section == "distill"
            and config.method.frozen_dtype == "float32",
            f"{network}.dtype=bfloat16": config[network].dtype == "float32",
            f"train.fsdp={devices}": config.train.fsdp < devices,
            f"{section}.batch_size={max(1, chosen.batch_size // 2)}": chosen.batch_size > 1,
            "a smaller data.image_size, or a smaller model": True,
        }
    )


def of_stage(config: ml_collections.ConfigDict, stage: str) -> tuple[str, ...]:
    """Returns what a stage may change; training within it knows better."""
    if stage not in _BATCHES:
        return ()
    section, key = _BATCHES[stage].split(".")
    return _given(
        {
            f"{_BATCHES[stage]}={max(1, config[section][key] // 2)}": config[section][key] > 1,
            "evaluate.max_images=1000 (all answers are kept in memory)": stage == "evaluate",
            "method.frozen_dtype=bfloat16": config.method.frozen_dtype == "float32",
            "student.dtype=bfloat16": config.student.dtype == "float32",
        }
    )


def _given(applies: Mapping[str, bool]) -> tuple[str, ...]:
    return tuple(
        knob if knob.startswith("a ") else f"--config.{knob}"
        for knob, yes in applies.items()
        if yes
    )
