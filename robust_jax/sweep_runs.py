"""The runs that a sweep's config stands for, their parts, and the files that they need."""

import copy
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from etils import epath

from robust_jax import config as config_lib
from robust_jax import weights
from robust_jax.report import sweep_table

# Config keys that name files.
_PATHS = (
    "student.weights",
    "teacher.weights",
    "distort.cae_weights",
    "distort.edsr_weights",
    "student.zero_shot_head",
    "distort.dir",
)
# Keys that say where things are, or how they are computed, and not what.
_PLACES = (
    *_PATHS,
    "data.dir",
    "data.verify",
    "data.max_bad_images",
    "evaluate.batch_size",
    "evaluate.sets",
    "cache",
    "train",
    "seed",
    "sweep.seeds",
)


class Run(NamedTuple):
    """One run of a sweep: a name, a seed, and the config of an ordinary run."""

    name: str
    seed: int
    config: ml_collections.ConfigDict

    def directory(self, workdir: epath.Path) -> epath.Path:
        """Its own workdir."""
        return workdir / "runs" / self.name / f"seed_{self.seed}"


def expand(config: ml_collections.ConfigDict) -> list[Run]:
    """Returns the runs of a sweep, those of the first seed first.

    Raises:
      ValueError: for an unknown key, a value of another type, or a name that is no file name.
    """
    section, found = config.sweep, []
    names = [name for name, _ in section.runs]
    if not names or not section.seeds:
        raise ValueError(
            f"a sweep needs runs and seeds; got runs {names} and seeds {section.seeds}; set both"
        )
    if len(set(names)) < len(names) or len(set(section.seeds)) < len(section.seeds):
        raise ValueError(
            f"a sweep has the same run twice; got runs {names} and seeds {section.seeds}; name "
            "each once"
        )
    for name in names:
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise ValueError(
                f"a run's name names its directory; got {name!r}; use letters, digits, _ . + -"
            )
    sweep_table.validate(section)
    ordinary = config_lib.base().sweep
    for seed in section.seeds:
        for name, changes in section.runs:
            one = copy.deepcopy(config)
            _change(one, changes, f"run {name!r}")
            one.seed = seed
            one.sweep.update(ordinary)
            one.sweep.seeds = (seed,)
            found.append(Run(name, seed, one.lock()))
    return found


def _change(section: ml_collections.ConfigDict, changes: Iterable[Any], label: str) -> None:
    changes, known = dict(changes), config_lib.flatten(section)
    if unknown := [key for key in changes if key not in known]:
        raise ValueError(
            f"{label} changes an unknown key; got {unknown[0]!r}; see configs/base.py"
            + config_lib.nearest(unknown[0], known)
        )
    try:
        section.update_from_flattened_dict(changes)
    except TypeError as error:
        raise ValueError(
            f"{label} changes a key to another type; got {changes} ({error}); see configs/base.py"
        ) from error


def shard_of(runs: Sequence[Run], shard: str) -> list[Run]:
    """Returns the part "i/n" of the runs, i from 0; all of them for "".

    Parts are contiguous, so that runs which share their first stages stay together.

    Raises:
      ValueError: for anything else.
    """
    if not shard:
        return list(runs)
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not found or int(found[1]) >= int(found[2]):
        raise ValueError(f"no such shard; got {shard!r}; write i/n with i from 0 to n - 1")
    part, count = int(found[1]), int(found[2])
    return [runs[i] for i in np.array_split(np.arange(len(runs)), count)[part]]


def transfer_sections(
    config: ml_collections.ConfigDict,
) -> dict[str, ml_collections.ConfigDict]:
    """Returns `config.data` of every dataset that a sweep transfers to, by name.

    Raises:
      ValueError: for an unknown key or a value of another type.
    """
    found = {}
    for name, changes in config.sweep.transfer:
        found[name] = copy.deepcopy(config.data)
        _change(found[name], changes, f"transfer {name!r}")
    return found


def absent_files(runs: Iterable[Run], transfers: Iterable[ml_collections.ConfigDict]) -> list[str]:
    """Returns the local paths that the runs and transfers need and that are not there.

    Args:
      runs: of a sweep.
      transfers: of `transfer_sections`.
    """
    needed: dict[str, None] = {}
    for one in runs:
        flat = config_lib.flatten(one.config)
        needed |= dict.fromkeys([*(flat[key] for key in _PATHS), _data_path(one.config.data)])
        for spec in one.config.evaluate.sets:
            kind, _, path = spec.rpartition("=")[2].partition(":")
            needed |= {} if kind == "tfds" else {path: None}
    needed |= dict.fromkeys(map(_data_path, transfers))
    return [path for path in needed if path and weights.is_absent(path)]


def _data_path(data: ml_collections.ConfigDict) -> str:
    return {"folder": data.dir, "arrays": data.file}.get(data.source, "")


def without_paper(
    config: ml_collections.ConfigDict, changed: Iterable[str]
) -> ml_collections.ConfigDict:
    """Returns a sweep without the paper's numbers where its setting is no longer the paper's.

    Args:
      config: of the sweep.
      changed: keys of the config that were changed.
    """
    setting = [k for k in changed if not any(k == p or k.startswith(p + ".") for p in _PLACES)]
    if not setting or all(cell[5] is None for cell in config.sweep.cells):
        return config
    print(f"the paper's numbers are left out: {', '.join(setting)} changed the setting")
    found = copy.deepcopy(config)
    found.sweep.cells = tuple((*cell[:5], None) for cell in config.sweep.cells)
    return found
