"""The stages of a run: their order, what each depends on, and which of them are finished."""

import dataclasses
import importlib
from typing import Any

import ml_collections
from etils import epath

from robust_jax import config as config_lib
from robust_jax import writers


@dataclasses.dataclass(frozen=True)
class Stage:
    """A step of the run.

    Attributes:
      keys: prefixes of the config keys that determine its result.
      needs: stages whose results it reads.
      outputs: paths in the workdir that it writes.
    """

    keys: tuple[str, ...]
    needs: tuple[str, ...]
    outputs: tuple[str, ...]


STAGES = {
    "pretrain": Stage(("seed", "data", "student", "pretrain"), (), ("pretrain",)),
    "teacher": Stage(("seed", "data", "teacher"), (), ("teacher",)),
    "cache": Stage(("augmented", "cache", "method"), ("pretrain", "teacher"), ("cache",)),
    "distill": Stage(("distill",), ("cache",), ("distill",)),
    "baselines": Stage(("distill", "baselines"), ("cache",), ("baselines",)),
    "evaluate": Stage(
        ("evaluate", "selection"), ("distill", "baselines"), ("evaluate", "results.jsonl")
    ),
    "report": Stage((), ("evaluate",), ("report", "summary.json")),
}


def dependants(name: str) -> list[str]:
    """Returns `name` and every stage that reads its result, directly or not, in order."""
    found = [name]
    for other, stage in STAGES.items():
        if any(need in found for need in stage.needs):
            found.append(other)
    return found


def clear(workdir: epath.Path, name: str) -> None:
    """Removes the results of a stage and of everything that depends on it."""
    for stage in dependants(name):
        for output in (*STAGES[stage].outputs, f"stages/{stage}.json"):
            path = workdir / output
            if path.is_dir():
                path.rmtree()
            elif path.exists():
                path.unlink()


def is_done(
    workdir: epath.Path, name: str, config: ml_collections.ConfigDict, data_fingerprint: str
) -> bool:
    """Tells whether a stage is finished, and marks it as begun if it was not.

    Raises:
      ValueError: when the stage began under another config or on other data; names the keys.
    """
    path = workdir / "stages" / f"{name}.json"
    wanted = config_lib.subset(config, STAGES[name].keys) | {"data.fingerprint": data_fingerprint}
    marker = writers.read_json(path)
    if marker is None:
        writers.write_json(path, {"config": wanted, "done": False})
        return False
    found = marker["config"]
    changed = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    if changed:
        lines = ", ".join(f"{k}: {found.get(k)!r} -> {wanted.get(k)!r}" for k in changed)
        raise ValueError(
            f"stage {name!r} in {workdir} ran with another config; got {lines}; restore the value, "
            f"use another workdir, or add --rerun={name} to run it and what depends on it again"
        )
    return marker["done"]


def run(name: str, context: Any) -> None:
    """Runs one stage and marks it as finished."""
    path = context.workdir / "stages" / f"{name}.json"
    result = importlib.import_module(f"robust_jax.stages.{name}").run(context)
    marker = writers.read_json(path)
    writers.write_json(path, {**marker, "done": True, "result": result or {}})


def result(workdir: epath.Path, name: str) -> dict[str, Any]:
    """Returns what a finished stage reported.

    Raises:
      ValueError: when it has not finished.
    """
    marker = writers.read_json(workdir / "stages" / f"{name}.json")
    if marker is None or not marker["done"]:
        raise ValueError(
            f"stage {name!r} has not finished in {workdir}; add it to config.stages and run again"
        )
    return marker["result"]
