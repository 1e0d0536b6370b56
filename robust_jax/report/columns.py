"""The columns of tables: which metrics they show, and how."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from robust_jax.report import CATEGORIES, count, flops, percent, seconds


@dataclass(frozen=True)
class Column:
    """One table column: its heading, the metrics it shows (joined by " / ") and their format."""

    heading: str
    keys: tuple[str, ...]
    format: Any

    def cell(self, row: Mapping[str, Any]) -> str:
        """The text of this column in `row`; "-" for what was not measured."""
        shown = ["-" if row.get(key) is None else self.format(row[key]) for key in self.keys]
        return "-" if set(shown) == {"-"} else " / ".join(shown)


MAIN_COLUMNS = (
    Column("clean %", ("clean_accuracy",), percent),
    Column("corrupted %", ("corrupted_accuracy",), percent),
    Column("F_correct % clean / shift", ("f_correct_clean", "f_correct_shift"), percent),
    Column("parameters tuned / total", ("tuned_params", "total_params"), count),
    Column("training s", ("train_seconds",), seconds),
)
_ROBUSTNESS = (
    Column("mean corruption error %", ("mean_corruption_error",), percent),
    Column("mCE %", ("mce",), percent),
    Column("relative mCE %", ("relative_mce",), percent),
    Column("mean flip probability %", ("mean_flip_probability",), percent),
    Column("mFR %", ("mfr",), percent),
    Column("mean T5D", ("mean_top5_distance",), "{:.2f}".format),
)
_ROUTING = Column("routing AUROC", ("routing_auroc",), "{:.3f}".format)
OTHER_COLUMNS = (
    *_ROBUSTNESS,
    Column("NLL clean", ("clean_nll",), "{:.3f}".format),
    Column("ECE % clean", ("clean_ece",), percent),
    Column("Brier clean", ("clean_brier",), "{:.3f}".format),
    Column("AURC % clean", ("clean_aurc",), percent),
    _ROUTING,
    Column("compile s", ("compile_seconds",), seconds),
    Column("training FLOPs", ("train_flops",), flops),
)
# Of a benchmark that was read.
BENCHMARK_COLUMNS = (
    Column("accuracy %", ("accuracy",), percent),
    Column("corrupted %", ("corrupted_accuracy",), percent),
    *_ROBUSTNESS,
    Column("NLL", ("nll",), "{:.3f}".format),
    Column("ECE %", ("ece",), percent),
    Column("F_correct %", ("f_correct",), percent),
    _ROUTING,
)

CATEGORY_COLUMNS = tuple(Column(f"{name} %", (name,), percent) for name in CATEGORIES)


def present(columns: Iterable[Column], rows: list[dict[str, Any]]) -> list[Column]:
    """The columns in which at least one row has a value."""
    return [column for column in columns if any(column.cell(row) != "-" for row in rows)]
