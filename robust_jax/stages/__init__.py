"""The stages of a run: their order, what each depends on, and which of them are finished."""

import dataclasses
import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from etils import epath

from robust_jax import config as config_lib
from robust_jax import disk, hosts, memory, writers
from robust_jax.stages import knobs


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
    "pretrain": Stage(("seed", "data", "student", "pretrain"), (), ("pretrain", "tb/pretrain")),
    "distort": Stage(("seed", "data", "distort"), (), ("distort", "tb/distort")),
    "teacher": Stage(("seed", "data", "teacher"), ("distort",), ("teacher", "tb/teacher")),
    "cache": Stage(
        (
            "augmented",
            "cache",
            # What decides where the trunk ends.
            "method.tuned_params",
            "method.heads_share",
            "method.share",
            "method.frozen_dtype",
        ),
        ("pretrain", "teacher"),
        ("cache",),
    ),
    "distill": Stage(("method", "distill"), ("cache",), ("distill", "tb/distill")),
    "baselines": Stage(
        ("method", "distill", "finetune", "baselines"), ("cache",), ("baselines", "tb/baselines")
    ),
    "evaluate": Stage(
        ("evaluate", "selection"), ("distill", "baselines"), ("evaluate", "results.jsonl")
    ),
    "report": Stage((), ("evaluate",), ("report", "summary.json")),
}

# Stages whose seed is `config.student_seed`.
_OF_STUDENT = ("pretrain", "distort")


def dependants(name: str) -> list[str]:
    """Returns `name` and every stage that reads its result, directly or not, in order."""
    found = [name]
    for other, stage in STAGES.items():
        if any(need in found for need in stage.needs):
            found.append(other)
    return found


def ancestors(name: str) -> list[str]:
    """Returns every stage whose result a stage reads, directly or not, in order."""
    return [other for other in STAGES if other != name and name in dependants(other)]


def clear(workdir: epath.Path, name: str) -> None:
    """Removes the results of a stage and of everything that depends on it.

    Markers go first, the last stage's before the others': however far this gets, no stage counts
    as done on top of results that are gone.
    """
    stages = dependants(name)
    for stage in reversed(stages):
        _remove(_marker(workdir, stage))
    for stage in stages:
        for output in STAGES[stage].outputs:
            _remove(workdir / output)


def adopt(
    workdir: epath.Path,
    config: ml_collections.ConfigDict,
    resolved: Mapping[str, Any],
    others: Sequence[epath.Path],
) -> None:
    """Takes over finished stages of other runs that were begun with the same config and data.

    What a stage read, directly or not, must be here, too: a stage is taken only from a run whose
    results before it are those that this run has. Files are linked, or copied where they cannot
    be; the report speaks of one run alone, and is not taken.

    Args:
      resolved: see `Context.resolved`.
    """
    for name, stage in STAGES.items():
        if name == "report" or name not in config.stages or _marker(workdir, name).exists():
            continue
        wanted = _determinants(name, config, resolved)
        for other in others:
            marker = _read(other, name)
            if marker is None or not marker["done"] or marker["config"] != wanted:
                continue
            # Times are part of the results: equal ones are of the same execution.
            if any(_read(workdir, need) != _read(other, need) for need in ancestors(name)):
                continue
            for output in stage.outputs:
                _remove(workdir / output)
                _link(other / output, workdir / output)
            writers.write_json(_marker(workdir, name), marker)
            print(f"stage {name}: that of {other}")
            break


def _read(workdir: epath.Path, name: str) -> Any:
    return writers.read_json(_marker(workdir, name))


def _link(source: epath.Path, target: epath.Path) -> None:
    if source.is_dir():
        for path in source.iterdir():
            _link(path, target / path.name)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # remote, or on another disk
            source.copy(target)


def _remove(path: epath.Path) -> None:
    if path.is_dir():
        path.rmtree()
    elif path.exists():
        path.unlink()


def check(
    workdir: epath.Path,
    config: ml_collections.ConfigDict,
    resolved: Mapping[str, Any],
    rerun: Sequence[str] = (),
) -> None:
    """Compares what every stage of a workdir was begun with, this time's or not.

    A key that is newer than the workdir had its default then.

    Args:
      resolved: see `Context.resolved`.
      rerun: stages that are about to be cleared, with their dependants: those may differ.

    Raises:
      ValueError: when a stage began under another config or on other data, naming the keys, or
        when a stage of the config reads the result of one that is neither done nor to be run.
    """
    cleared = {stage for name in rerun for stage in dependants(name)}
    for name in config.stages:
        for need in STAGES[name].needs:
            if need not in config.stages and (need in cleared or not is_done(workdir, need)):
                raise ValueError(
                    f"stage {name!r} needs the result of {need!r}; got stages="
                    f"{tuple(config.stages)} and no such result in {workdir}; add {need!r} to "
                    "config.stages"
                )
    defaults = config_lib.flatten(config_lib.base())
    for name in STAGES:
        marker = _read(workdir, name)
        if marker is None or name in cleared:
            continue
        wanted = _determinants(name, config, resolved)
        found = wanted | {k: v for k, v in defaults.items() if k in wanted} | marker["config"]
        changed = config_lib.differing(found, wanted)
        if changed:
            lines = ", ".join(f"{k}: {found.get(k)!r} -> {wanted.get(k)!r}" for k in changed)
            raise ValueError(
                f"stage {name!r} in {workdir} ran with another config; got {lines}; restore the "
                f"value, use another workdir, or add --rerun={name} to run it and what depends on "
                "it again"
            )


def is_done(workdir: epath.Path, name: str) -> bool:
    """Tells whether a stage is finished."""
    marker = _read(workdir, name)
    return marker is not None and marker["done"]


def run(name: str, context: Any) -> None:
    """Runs one stage: marks it as begun, then as finished with what it reports.

    Every host calls this.
    """
    config = context.config
    path = _marker(context.workdir, name)
    marker = {"config": _determinants(name, config, context.resolved)}
    if hosts.is_first():
        if not path.exists():  # what an interrupted clearing left is of another config
            for output in STAGES[name].outputs:
                _remove(context.workdir / output)
        writers.write_json(path, {**marker, "done": False})
    hosts.wait(f"{name}: begun")
    module = importlib.import_module(f"robust_jax.stages.{name}")
    with (
        disk.writing(context.workdir, f"results of stage {name}"),
        memory.explained(f"stage {name}", context.network_bytes(), knobs.of_stage(config, name)),
    ):
        result = module.run(context)
    hosts.wait(f"{name}: done")
    if hosts.is_first():
        writers.write_json(path, {**marker, "done": True, "result": result or {}})
    hosts.wait(f"{name}: marked")


def _marker(workdir: epath.Path, name: str) -> epath.Path:
    return workdir / "stages" / f"{name}.json"


def _determinants(
    name: str, config: ml_collections.ConfigDict, resolved: Mapping[str, Any]
) -> dict[str, Any]:
    found = config_lib.subset(config, STAGES[name].keys)
    if name in _OF_STUDENT:
        found["seed"] = config_lib.student_seed(config)
    # Rematerialising changes no result: it may be turned on where memory ran out.
    return {k: v for k, v in found.items() if not k.endswith(".remat")} | dict(resolved)


def result(workdir: epath.Path, name: str) -> dict[str, Any]:
    """Returns what a finished stage reported.

    Raises:
      ValueError: when it has not finished.
    """
    marker = _read(workdir, name)
    if marker is None or not marker["done"]:
        raise ValueError(
            f"stage {name!r} has not finished in {workdir}; add it to config.stages and run again"
        )
    return marker["result"]
