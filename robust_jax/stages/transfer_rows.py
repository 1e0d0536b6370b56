"""Runs the transfers of a command: datasets by protocols by networks, one row each."""

import dataclasses
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from robust_jax import config as config_lib
from robust_jax import sharding, writers
from robust_jax.data import sources
from robust_jax.data.sources import Source
from robust_jax.evals import metrics, transfer
from robust_jax.evals.classification import EvalSet
from robust_jax.evals.features import extract
from robust_jax.method import probe
from robust_jax.report import label
from robust_jax.report.terminal import aligned
from robust_jax.stages.before_after import AFTER, BEFORE, BeforeAfter

Row = dict[str, Any]
SHARED = ("dataset", "protocol", "seed")  # what the rows of before and after have in common
METRICS = {"accuracy": "accuracy", "mean_per_class": "mean per class"}


@dataclasses.dataclass(frozen=True)
class Transfers:
    """What every transfer of a command has in common.

    Attributes:
      networks: that are transferred.
      out: directory of transfer.json, of what every row answers, of features and checkpoints.
      seed: of all that is random.
      solver: of the probe.
      batch_size: of the features.
      tuning: the section of full fine-tuning, as `config.pretrain`.
      intervals: of its logs and checkpoints, as `config.train`.
    """

    networks: BeforeAfter
    out: Path
    seed: int
    solver: str
    batch_size: int
    tuning: ml_collections.ConfigDict
    intervals: ml_collections.ConfigDict

    def run(
        self, datasets: Mapping[str, ml_collections.ConfigDict], protocols: Sequence[str]
    ) -> dict[str, Any]:
        """Returns the content of transfer.json; the rows that it holds already stay.

        Args:
          datasets: name -> `config.data`.
          protocols: linear_probe, full_finetune.

        Raises:
          ValueError: for bad data, or when the directory holds rows of other networks.
        """
        content = self._begin()
        probe.choose_solver(self.solver, np.empty(0))
        if "full_finetune" in protocols:
            sharding.check_batch_size(self.tuning.batch_size, sharding.make_mesh(), "--batch_size")
        index = self.out / "data"
        # All of them first: a mistake in the last must not wait for the others.
        loaded = {
            name: (
                sources.load(data, "train", index_dir=index),
                sources.load(data, "val", index_dir=index),
            )
            for name, data in datasets.items()
        }
        for name, (train, test) in loaded.items():
            print(f"{name}: {len(train):,} training and {len(test):,} test images")
            for protocol in protocols:
                for method in self.networks.networks:
                    row: Row = {"dataset": name, "method": method, "protocol": protocol}
                    row |= {"seed": self.seed, "key": self._key(row, train, test)}
                    if any(other["key"] == row["key"] for other in content["rows"]):
                        print(f"{name}, {protocol}, {method}: done before")
                        continue
                    act = self._probe if protocol == "linear_probe" else self._finetune
                    answers, facts = act(row, train, test)
                    self._finish(content, row | facts, answers, test.labels)
        return content

    def _begin(self) -> dict[str, Any]:
        content = writers.read_json(self.out / "transfer.json")
        fingerprint = self.networks.fingerprint
        if content is None:
            return {"network": fingerprint, "origin": self.networks.origin, "rows": []}
        if content["network"] != fingerprint:
            raise ValueError(
                f"{self.out} holds transfers of other networks; got {self.networks.origin}, there "
                f"are {content['origin']}; use another --out"
            )
        return content

    def _key(self, row: Row, train: Source, test: Source) -> str:
        """Returns a hash of everything that determines a row."""
        if row["protocol"] == "linear_probe":
            settings = {"solver": self.solver}
        else:
            settings = config_lib.flatten(self.tuning) | {"ops": self.networks.ops["train_ops"]}
        parts = [row["method"], row["protocol"], self.seed, settings, train.fingerprint]
        parts += [test.fingerprint, self.networks.ops["eval_ops"], self.networks.fingerprint]
        return config_lib.digest(parts)

    def _probe(self, row: Row, train: Source, test: Source) -> tuple[np.ndarray, Row]:
        method, name = row["method"], f"{row['dataset']} {row['method']}"
        return transfer.linear_probe(
            (self._features(train)[method], train.labels),
            self._features(test)[method],
            seed=self.seed,
            solver=self.solver,
            mesh=sharding.make_mesh(),
            name=f"probe {name}",
        )

    def _features(self, source: Source) -> dict[str, np.ndarray]:
        """Returns the features of both networks, f32[n, d] each, computed once."""
        networks, ops = self.networks, self.networks.ops["eval_ops"]
        digest = config_lib.digest([networks.fingerprint, source.fingerprint, ops])
        return extract(
            networks.features,
            networks.variables,
            source,
            ops,
            outputs=tuple(networks.networks),
            directory=self.out / "features" / digest,
            weights=networks.fingerprint,
            batch_size=self.batch_size,
            mesh=sharding.make_mesh(),
            name=f"features of {source.name}",
        )

    def _finetune(self, row: Row, train: Source, test: Source) -> tuple[np.ndarray, Row]:
        networks, method = self.networks, row["method"]
        name = re.sub(r"\W+", "_", row["dataset"]).strip("_")
        return transfer.full_finetune(
            networks.with_classes(method, len(train.class_names)),
            networks.entry,
            networks.variables[method],
            train,
            EvalSet(test, networks.ops["eval_ops"]),
            train_ops=networks.ops["train_ops"],
            section=self.tuning,
            intervals=self.intervals,
            seed=self.seed,
            workdir=self.out,
            path=f"full_finetune/{name}-{method}-{row['key'][:8]}",
            mesh=sharding.make_mesh(),
        )

    def _finish(
        self, content: dict[str, Any], row: Row, answers: np.ndarray, labels: np.ndarray
    ) -> None:
        row |= {
            "accuracy": metrics.accuracy(answers, labels)._asdict(),
            "mean_per_class": transfer.mean_per_class(answers, labels)._asdict(),
        }
        stored = {"answers": answers.astype(np.int32), "labels": labels}
        writers.write_arrays(self._answers(row), stored)
        which = (*SHARED, "method")
        same = [r for r in content["rows"] if all(r[key] == row[key] for key in which)]
        content["rows"] = [r for r in content["rows"] if r not in same] + [row]
        content["differences"] = self._differences(content["rows"])
        writers.write_json(self.out / "transfer.json", content)
        for other in same:
            self._answers(other).unlink(missing_ok=True)
        # The row is what counts; the checkpoints of a large network fill disks.
        for path in (self.out / "full_finetune").glob(f"*-{row['key'][:8]}"):
            shutil.rmtree(path)

    def _answers(self, row: Row) -> Path:
        return self.out / "answers" / f"{row['key']}.npz"

    def _differences(self, rows: list[Row]) -> list[Row]:
        """Returns after minus before; both answer the same images, so the interval is paired."""
        found = []
        for both in together(rows):
            if {BEFORE, AFTER} <= both.keys():
                paths = [self._answers(both[method]) for method in (BEFORE, AFTER)]
                arrays = [writers.read_arrays(path) for path in paths]
                right = [np.float64(a["answers"] == a["labels"]) for a in arrays]
                one = {key: both[BEFORE][key] for key in SHARED}
                found.append(one | metrics.mean(right[1] - right[0])._asdict())
        return found


def together(rows: list[Row]) -> list[dict[str, Row]]:
    """Returns the rows of each dataset, protocol and seed by method, in order."""
    found: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in SHARED), {})[row["method"]] = row
    return list(found.values())


def format_table(content: Mapping[str, Any]) -> str:
    """Returns the table before, after, after minus before, in percent with 95 % intervals.

    Other networks have columns beside them.
    """
    names = dict.fromkeys(row["method"] for row in content["rows"])
    shown = {BEFORE: "before", AFTER: "after"}
    shown |= {name: label(name) for name in names if name not in shown}
    grid = [["dataset", "protocol", "metric", *shown.values(), "difference"]]
    differences = {tuple(d[key] for key in SHARED): d for d in content.get("differences", [])}
    for rows in together(content["rows"]):
        first = next(iter(rows.values()))
        for metric, called in METRICS.items():
            known = {method: rows[method][metric] for method in shown if method in rows}
            change = "-"
            if {BEFORE, AFTER} <= known.keys():
                change = f"{100 * (known[AFTER]['value'] - known[BEFORE]['value']):+.1f}"
                if metric == "accuracy":
                    paired = differences[tuple(first[key] for key in SHARED)]
                    change += _interval(paired, "+")
            found = [known.get(method) for method in shown]
            cells = [f"{100 * e['value']:.1f}{_interval(e)}" if e else "-" for e in found]
            protocol = first["protocol"] + (f", seed {first['seed']}" if first["seed"] else "")
            grid.append([first["dataset"], protocol, called, *cells, change])
    return aligned(grid, names=len(grid[0]))


def _interval(estimate: Mapping[str, Any], sign: str = "") -> str:
    return f" [{100 * estimate['low']:{sign}.1f}, {100 * estimate['high']:{sign}.1f}]"
