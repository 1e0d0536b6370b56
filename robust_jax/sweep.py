"""Sweeps: several runs, each with several seeds, in one workdir, that end in one table.

`python -m robust_jax.main` runs a config whose `sweep.title` is set as a sweep. From the rows it
leaves, the table is made again by `python -m robust_jax.sweep RESULTS --config FILE --out DIR`.
"""

import argparse
import copy
import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from etils import epath

from robust_jax import config as config_lib
from robust_jax import stages, validation, writers
from robust_jax.report import sweep_page, sweep_table
from robust_jax.stages import before_after, results, transfer_rows

Row = dict[str, Any]
COSTS = ("tuned_params", "total_params", "train_seconds", "compile_seconds", "train_flops")
_OWN = {"title": "", "note": ""} | dict.fromkeys(
    ("runs", "transfer", "columns", "cells", "figures"), ()
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
    for seed in section.seeds:
        for name, changes in section.runs:
            one = copy.deepcopy(config)
            changes = dict(changes)
            if unknown := [key for key in changes if key not in config_lib.flatten(config)]:
                raise ValueError(
                    f"run {name!r} changes an unknown key; got {unknown[0]!r}; see configs/base.py"
                    + config_lib.nearest(unknown[0], config_lib.flatten(config))
                )
            try:
                one.update_from_flattened_dict(changes)
            except TypeError as error:
                raise ValueError(
                    f"run {name!r} changes a key to another type; got {changes} ({error}); see "
                    "configs/base.py"
                ) from error
            one.seed = seed
            one.sweep.update(_OWN)
            one.sweep.seeds = (seed,)
            found.append(Run(name, seed, one.lock()))
    return found


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


def run(
    config: ml_collections.ConfigDict,
    workdir: epath.PathLike,
    execute: Callable[..., None],
    *,
    shard: str = "",
    rerun: Sequence[str] = (),
    dry_run: bool = False,
) -> None:
    """Runs a sweep, or a part of it, from where it stopped; the last part makes the table.

    Args:
      config: with a `sweep` section.
      workdir: the same for all parts.
      execute: `main.run`, for each run.
      shard: "i/n" for one part of n.
      rerun: stages to run again in every run of the part, with what depends on them.
      dry_run: only print the plan of every run.

    Raises:
      ValueError: for a bad config of any of the runs, before the first one is begun.
    """
    workdir, runs = epath.Path(workdir), expand(config)
    for one in runs:
        validation.validate(one.config, config_lib.base())
    mine = shard_of(runs, shard)
    print(f"sweep: {config.sweep.title}: {len(runs)} runs, {len(mine)} of them here")
    if dry_run:
        for one in runs[: len(config.sweep.runs)]:
            print(f"\nrun {one.name}, seeds {', '.join(map(str, config.sweep.seeds))}")
            execute(one.config, workdir, dry_run=True)
        return
    for one in mine:
        for name in rerun:
            stages.clear(one.directory(workdir), name)
    began = time.monotonic()
    for number, one in enumerate(mine):
        left = (time.monotonic() - began) / max(number, 1) * (len(mine) - number)
        guess = f", about {left / 60:.0f} min left" if number else ""
        print(f"\nrun {number + 1} of {len(mine)}: {one.name}, seed {one.seed}{guess}")
        others = [other.directory(workdir) for other in runs if other.seed == one.seed]
        own = one.directory(workdir)
        execute(one.config, own, shared=workdir, others=[o for o in others if o != own])
        if config.sweep.transfer:
            _transfer(config, one, own)
        jax.clear_caches()  # of a hundred networks otherwise
    waiting = [one for one in runs if not _is_finished(config, one.directory(workdir))]
    if waiting:
        print(
            f"\n{len(runs) - len(waiting)} of {len(runs)} runs are finished; the table is made "
            f"with the last; next: {waiting[0].name}, seed {waiting[0].seed}"
        )
        return
    rows = [row for one in runs for row in _rows(one, one.directory(workdir))]
    results.write(workdir, rows)
    report(config, rows, workdir / "report")


def report(
    config: ml_collections.ConfigDict, rows: Iterable[Row], directory: epath.PathLike
) -> None:
    """Writes and prints the table, the figures and the page of a sweep, from its rows alone.

    Args:
      config: of the sweep.
      rows: of the sweep's results.jsonl.
      directory: where they go.
    """
    rows = list(rows)
    found = entries(rows)
    counts = sorted({row["n"] for row in rows if row["set"] == "clean"})
    data = config.data
    where = {"folder": data.dir, "tfds": data.name, "arrays": data.file}.get(data.source, "")
    facts = {
        "Dataset": epath.Path(where).name if where else data.source,
        "Test images": " to ".join(f"{n:,}" for n in dict.fromkeys(counts[:1] + counts[-1:])),
        "Seeds": ", ".join(map(str, sorted({seed for _, seed in found}))),
        "Runs": f"{len(found)}",
    }
    links = [
        (f"{name}, seed {seed}", f"../runs/{name}/seed_{seed}/report/index.html")
        for name, seed in found
    ]
    section = config.sweep.to_dict()
    page = sweep_page.write(epath.Path(directory), section, found, facts, links)
    print(f"\n{config.sweep.title}\n{sweep_table.text(section, found)}\nreport: {page}")


def entries(rows: Iterable[Row]) -> dict[tuple[str, int], dict[str, dict[str, Any]]]:
    """Returns (run, seed) -> method -> what summary.json says of it, its costs and transfers.

    Args:
      rows: of the sweep's results.jsonl.
    """
    grouped: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row["run"], row["seed"]), []).append(row)
    found = {}
    for key, group in grouped.items():
        measured = [row for row in group if row["set"] not in ("cost", "transfer")]
        methods = results.method_summaries(measured)
        for row in group:
            entry = methods.setdefault(row["method"], {})
            if row["set"] == "cost":
                entry[row["metric"]] = row["value"]
            elif row["set"] == "transfer":
                entry.setdefault("transfer", {})[row["dataset"]] = row["value"]
        found[key] = methods
    return found


def _transfer(config: ml_collections.ConfigDict, one: Run, directory: epath.Path) -> None:
    """A linear probe on every dataset of the sweep: before, after, and fully fine-tuned."""
    sections, base = {}, config_lib.base()
    for name, changes in config.sweep.transfer:
        sections[name] = copy.deepcopy(one.config.data)
        sections[name].update(dict(changes))
    views = {key: one.config.data[key] for key in ("train_ops", "eval_ops")}
    transfers = transfer_rows.Transfers(
        before_after.of_run(directory, "combined", views),
        Path(directory / "transfer"),
        seed=one.seed,
        solver="auto",
        batch_size=one.config.evaluate.batch_size,
        tuning=base.pretrain,
        intervals=one.config.train,
    )
    print(transfer_rows.format_table(transfers.run(sections, ["linear_probe"])))


def _is_finished(config: ml_collections.ConfigDict, directory: epath.Path) -> bool:
    if not stages.is_done(directory, "report"):
        return False
    rows = (writers.read_json(directory / "transfer" / "transfer.json") or {}).get("rows", [])
    return {name for name, _ in config.sweep.transfer} <= {row["dataset"] for row in rows}


def _rows(one: Run, directory: epath.Path) -> list[Row]:
    """What a run measured: its own rows, what its methods cost, and its transfers."""
    where = {"run": one.name, "seed": one.seed}
    lines = (directory / "results.jsonl").read_text().splitlines()
    rows = [{**json.loads(line), **where} for line in lines]
    for method, entry in writers.read_json(directory / "summary.json")["methods"].items():
        for metric in (metric for metric in COSTS if metric in entry):
            cost = {"method": method, "metric": metric, "set": "cost", "value": entry[metric]}
            rows.append({**cost, "n": 1, **where})
    transfers = writers.read_json(directory / "transfer" / "transfer.json") or {"rows": []}
    for row in transfers["rows"]:
        shown = {key: row[key] for key in ("method", "dataset", "protocol")}
        rows.append({**shown, "metric": "accuracy", "set": "transfer", **row["accuracy"], **where})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the arguments and makes the table again."""
    parser = argparse.ArgumentParser(prog="python -m robust_jax.sweep", description=__doc__)
    parser.add_argument("results", metavar="RESULTS", help="results.jsonl of a sweep")
    parser.add_argument("--config", required=True, help="configs/X.py[:arg] of the sweep")
    parser.add_argument("--out", required=True, metavar="DIR", help="where table and page go")
    args = parser.parse_args(argv)
    path, config = epath.Path(args.results), config_lib.load(args.config)
    if not config.sweep.title or not path.is_file():
        raise ValueError(
            f"not the results of a sweep; got {args.results!r} and {args.config!r}; give the "
            "results.jsonl in a sweep's workdir, and its config"
        )
    sweep_table.validate(config.sweep)
    report(config, map(json.loads, path.read_text().splitlines()), args.out)


if __name__ == "__main__":
    main()
