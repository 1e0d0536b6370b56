"""Sweeps: several runs, each with several seeds, in one workdir, that end in one table.

`python -m robust_jax.main` runs a config whose `sweep.title` is set as a sweep. From its rows alone
the table is made again by `python -m robust_jax.sweep W/results.jsonl --out DIR`.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
from etils import epath

from robust_jax import config as config_lib
from robust_jax import stages, sweep_runs, validation, writers
from robust_jax.report import sweep_page, sweep_table
from robust_jax.stages import before_after, results, transfer_rows
from robust_jax.sweep_runs import Run

Row = dict[str, Any]
COSTS = ("tuned_params", "total_params", "train_seconds", "compile_seconds", "train_flops")
# Keys that may change between two starts: what is shown, and how many seeds.
_FREE = ("title", "note", "columns", "cells", "figures", "seeds")


def run(
    config: ml_collections.ConfigDict,
    workdir: epath.PathLike,
    execute: Callable[..., None],
    *,
    shard: str = "",
    dry_run: bool = False,
) -> None:
    """Runs a sweep, or a part of it, from where it stopped; the last part makes the table.

    Args:
      config: with a `sweep` section.
      workdir: the same for all parts.
      execute: `main.run`, for each run.
      shard: "i/n" for one part of n.
      dry_run: only print the plan of every run.

    Raises:
      ValueError: for a bad config of any of the runs, files that are missing, or a workdir of
        another sweep, before the first run is begun.
    """
    workdir, runs = epath.Path(workdir), sweep_runs.expand(config)
    for one in runs:
        validation.validate(one.config, config_lib.base())
    mine = sweep_runs.shard_of(runs, shard)
    transfers = sweep_runs.transfer_sections(config)
    print(f"sweep: {config.sweep.title}: {len(runs)} runs, {len(mine)} of them here")
    absent = sweep_runs.absent_files(runs, transfers.values())
    if dry_run:
        for name, changes in config.sweep.transfer:
            print(f"transfer: {name}: {', '.join(f'{k}={v}' for k, v in changes)}")
        if absent:
            print(f"files not on this machine: {', '.join(absent)}")
        for one in runs[: len(config.sweep.runs)]:
            print(f"\nrun {one.name}, seeds {', '.join(map(str, config.sweep.seeds))}")
            execute(one.config, workdir, dry_run=True)
        return
    if absent:
        raise ValueError(
            f"files that the runs need are missing; got none at {', '.join(absent)}; put them "
            "there, or change the config's paths"
        )
    _check_same(config, workdir)
    began = time.monotonic()
    for number, one in enumerate(mine):
        left = (time.monotonic() - began) / max(number, 1) * (len(mine) - number)
        guess = f", about {left / 60:.0f} min left" if number else ""
        print(f"\nrun {number + 1} of {len(mine)}: {one.name}, seed {one.seed}{guess}")
        own = one.directory(workdir)
        others = [other.directory(workdir) for other in runs if other is not one]
        execute(one.config, own, shared=workdir, others=others)
        if transfers:
            _transfer(config, one, own)
        jax.clear_caches()  # of a hundred networks otherwise
    waiting = [one for one in runs if not _is_finished(config, one.directory(workdir))]
    if waiting:
        print(
            f"\n{len(runs) - len(waiting)} of {len(runs)} runs are finished; the table is made "
            f"with the last; next: {waiting[0].name}, seed {waiting[0].seed}"
        )
        return
    rows = [_header(config)]
    rows += [row for one in runs for row in _rows(one, one.directory(workdir))]
    results.write(workdir, rows)
    report(rows, workdir / "results.jsonl", workdir / "report")


def _check_same(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """Keeps the runs of one table under one config, whichever shard begins them."""
    flat = {
        key: value
        for key, value in config_lib.flatten(config).items()
        if key not in {f"sweep.{name}" for name in _FREE}
    }
    wanted = json.loads(json.dumps(flat))
    found = writers.read_json(workdir / "sweep.json")
    if found is None:
        writers.write_json(workdir / "sweep.json", wanted)
    elif changed := config_lib.differing(found, wanted):
        raise ValueError(
            f"{workdir} holds a sweep of another config; got other {', '.join(changed)}; restore "
            "the values, or use another workdir"
        )


def _header(config: ml_collections.ConfigDict) -> Row:
    """The first row of results.jsonl: how the others make a table."""
    data = config.data
    where = {"folder": data.dir, "tfds": data.name, "arrays": data.file}.get(data.source, "")
    section = json.loads(json.dumps(config.sweep.to_dict()))
    return {
        "set": "sweep",
        "dataset": epath.Path(where).name if where else data.source,
        "sweep": {key: section[key] for key in _FREE},
    }


def report(rows: Iterable[Row], path: epath.PathLike, directory: epath.PathLike) -> None:
    """Writes and prints the table, the figures and the page of a sweep, from its rows alone.

    Args:
      rows: of the sweep's results.jsonl, its header first.
      path: of that file; the runs lie beside it.
      directory: where table and page go.

    Raises:
      ValueError: when the rows are not of a sweep.
    """
    header, *rows = rows
    if header.get("set") != "sweep":
        raise ValueError(
            f"these are not the results of a sweep; got {header} as the first row of {path}; give "
            "the results.jsonl of a sweep's workdir"
        )
    section, found = header["sweep"], entries(rows)
    counts = sorted({row["n"] for row in rows if row["set"] == "clean"})
    facts = {
        "Dataset": header["dataset"],
        "Test images": " to ".join(f"{n:,}" for n in dict.fromkeys(counts[:1] + counts[-1:])),
        "Seeds": ", ".join(map(str, sorted({seed for _, seed in found}))),
        "Runs": f"{len(found)}",
    }
    root = epath.Path(path).parent / "runs"
    links = []
    for name, seed in found:
        page = str(root / name / f"seed_{seed}" / "report" / "index.html")
        if "://" not in f"{page}{directory}":
            page = os.path.relpath(page, directory)
        links.append((f"{name}, seed {seed}", page))
    index = sweep_page.write(epath.Path(directory), section, found, facts, links)
    print(f"\n{section['title']}\n{sweep_table.text(section, found)}\nreport: {index}")


def entries(rows: Iterable[Row]) -> dict[tuple[str, int], dict[str, dict[str, Any]]]:
    """Returns (run, seed) -> method -> what summary.json says of it, its costs and transfers.

    Args:
      rows: of the sweep's results.jsonl, without its header.
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


def _transferred(config: ml_collections.ConfigDict) -> list[str]:
    """The methods that the table shows a transfer of."""
    cells = config.sweep.cells
    return list(dict.fromkeys(cell[3] for cell in cells if str(cell[4]).startswith("transfer/")))


def _transfer(config: ml_collections.ConfigDict, one: Run, directory: epath.Path) -> None:
    """A linear probe on every dataset of the sweep."""
    own = (before_after.BEFORE, before_after.AFTER)
    beside = [method for method in _transferred(config) if method not in own]
    views = {key: one.config.data[key] for key in ("train_ops", "eval_ops")}
    transfers = transfer_rows.Transfers(
        before_after.of_run(directory, "combined", views, beside),
        Path(directory / "transfer"),
        seed=one.seed,
        solver="auto",
        batch_size=one.config.evaluate.batch_size,
        tuning=one.config.pretrain,
        intervals=one.config.train,
    )
    sections = sweep_runs.transfer_sections(config)
    print(transfer_rows.format_table(transfers.run(sections, ["linear_probe"])))


def _is_finished(config: ml_collections.ConfigDict, directory: epath.Path) -> bool:
    if not stages.is_done(directory, "report"):
        return False
    rows = (writers.read_json(directory / "transfer" / "transfer.json") or {}).get("rows", [])
    needed = {
        (name, method) for name, _ in config.sweep.transfer for method in _transferred(config)
    }
    return needed <= {(row["dataset"], row["method"]) for row in rows}


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
    parser.add_argument("--out", required=True, metavar="DIR", help="where table and page go")
    args = parser.parse_args(argv)
    path = epath.Path(args.results)
    if not path.is_file():
        raise ValueError(f"no such file; got {args.results!r}; give a sweep's results.jsonl")
    report(map(json.loads, path.read_text().splitlines()), path, args.out)


if __name__ == "__main__":
    main()
