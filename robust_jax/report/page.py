"""The report as one static web page: reads a run's measurements, draws, explains, concludes.

Everything that comes from the run is escaped before it enters the HTML.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from html import escape
from itertools import product
from typing import Any

from etils import epath

from robust_jax.report import columns, plots, read, read_arrays, subject, tables, template

Summary = Mapping[str, Any]
Results = list[dict[str, Any]]

MAIN = ("original", "teacher", "teacher_clean", "apt", "full_finetune", "wise_ft", "lp_ft")
TEXTS = {  # figure -> title, what it shows and how to read it
    "by_corruption": (
        "Accuracy by corruption",
        "A row is a corruption, a marker a method: its mean over the severities. Further right is "
        "better; a long grey line says that the methods differ much.",
    ),
    "by_severity": (
        "Accuracy by severity",
        "The mean over the corruptions at each severity; “clean” is the untouched images. Higher "
        "is better; a line that falls more slowly is a model that loses less.",
    ),
    "clean_corrupted": (
        "Clean against corrupted accuracy",
        "Up and to the right is better on both. A method further up but to the left has paid for "
        "robustness with clean accuracy. Methods whose intervals overlap cannot be ranked.",
    ),
    "seconds": (
        "Corrupted accuracy against training time",
        "Up is more robust, left is cheaper. The time axis is logarithmic: equal steps are equal "
        "factors. Methods without a training time are not shown.",
    ),
    "routing": (
        "Routing between the heads",
        "How the routing score is spread; the outermost bars hold all that lies beyond. The less "
        "the two kinds of image overlap, the better the right head can be told. {right} % of the "
        "clean images are left of the threshold, {caught} % of the shifted ones right of it.",
    ),
    "examples": (
        "Examples",
        "{shown} images with the true class, the answers of the original model and of ours, and "
        "the head that gave ours. A tick is right, a cross is wrong. So few show what the task "
        "looks like; they are no evidence of an advantage.",
    ),
}

DIFFERENCES = """<p class="note">Positive: ours is more accurate. In brackets the 95&nbsp;%
interval (Newcombe); where it holds 0, these images cannot tell the two apart.</p>"""


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def _metric_table(
    rows: list[dict[str, Any]],
    shown: list[columns.Column],
    counts: Mapping[tuple[str, str], int],
) -> str:
    """Rows by columns; accuracies carry their interval and the star of a clear winner."""
    cells = [[escape(row["label"])] for row in rows]
    for column in shown:
        key = column.keys[0]
        source = "clean" if key == "clean_accuracy" else "corruption"
        accuracy = key in ("clean_accuracy", "corrupted_accuracy", *tables.CATEGORIES)
        known = {row["method"]: row[key] for row in rows if key in row}
        values = {m: (value, counts.get((m, source))) for m, value in known.items()}
        best = tables.winner(values) if accuracy else None
        for line, row in zip(cells, rows, strict=True):
            text, n = escape(column.cell(row)), counts.get((row["method"], source))
            if accuracy and key in row and n:
                low, high = tables.wilson(row[key], n)
                text += f"<small>{tables.percent(low)} to {tables.percent(high)}</small>"
            line.append(f"<b>★ {text}</b>" if row["method"] == best else text)
    return template.table(["method", *(column.heading for column in shown)], cells)


def _facts(summary: Summary, results: Results) -> str:
    data, classes = summary["dataset"], summary["dataset"]["classes"]
    timed = sorted(v["train_seconds"] for v in summary["methods"].values() if "train_seconds" in v)
    times = " to ".join(tables.seconds(time) for time in dict.fromkeys(timed[:1] + timed[-1:]))
    seeds = sorted({row["seed"] for row in results if "seed" in row})
    facts = {
        "Dataset": data["name"],
        "Classes": f"{len(classes)}: {', '.join(classes[:12])}{', …' * (len(classes) > 12)}",
        "Training images": f"{data['train_images']:,}",
        "Images evaluated": f"{data['eval_images']:,}, in {len(results):,} measurements",
        "Seeds": ", ".join(map(str, seeds)) or "not recorded",
        "Training": f"{times} s of wall time, by method below" if times else "not timed",
    }
    if shared := data.get("shared_images"):
        facts["In train, too"] = f"{shared:,} of the images of val: the evaluation is optimistic"
    return template.facts(facts)


def _differences(summary: Summary, results: Results) -> str:
    """The subject minus every baseline, with intervals; nothing where there is no comparison."""
    cells: dict[str, list[str]] = {}
    for i, kind in enumerate(("corrupted", "clean")):
        for row in tables.compare(summary, results, kind):
            text = f"{_points(row['difference'])} points"
            if "interval" in row:
                low, high = map(_points, row["interval"])
                text += f" [{low}, {high}]<small>{row['verdict']}</small>"
            cells.setdefault(row["method"], ["-", "-"])[i] = text
    lines = [[escape(tables.label(method)), *pair] for method, pair in cells.items()]
    headings = ["ours minus", "on corrupted images", "on clean images"]
    return template.table(headings, lines) + DIFFERENCES if lines else ""


def _figures(
    root: epath.Path, summary: Summary, results: Results, target: epath.Path
) -> Iterator[tuple[str, str]]:
    """Draws every figure that has data; yields its name and its explanation."""

    def drawn(name: str, draw: Callable[..., None], *data: Any, **numbers: Any) -> tuple[str, str]:
        draw(*data, target / f"{name}.png")
        return name, TEXTS[name][1].format(**numbers)

    methods, ours = summary["methods"], subject(summary)
    main = [m for m in (*MAIN, ours) if m in methods]
    by_corruption = {m: methods[m].get("accuracy_by_corruption", {}) for m in main}
    means = {m: {k: sum(v) / len(v) for k, v in c.items()} for m, c in by_corruption.items() if c}
    if means:
        yield drawn("by_corruption", plots.accuracy_by_corruption, means)
    curves = tables.severity_curves(summary, results)
    if curves := {m: curves[m] for m in main if m in curves}:
        yield drawn("by_severity", plots.accuracy_by_severity, curves)
    robust = {m: v for m, v in methods.items() if "corrupted_accuracy" in v}
    pairs = {m: (v.get("clean_accuracy"), v["corrupted_accuracy"]) for m, v in robust.items()}
    if pairs := {m: pair for m, pair in pairs.items() if pair[0] is not None}:
        yield drawn("clean_corrupted", plots.clean_against_corrupted, pairs)
    timed = {m: (v.get("train_seconds"), v["corrupted_accuracy"]) for m, v in robust.items()}
    if timed := {m: pair for m, pair in timed.items() if pair[0]}:  # a logarithm has no place for 0
        yield drawn("seconds", plots.accuracy_against_seconds, timed)
    if routing := read_arrays(root / "evaluate" / "routing.npz"):
        clean, shifted, threshold = (routing[key] for key in ("clean", "shifted", "threshold"))
        right = tables.percent((clean <= threshold).mean())
        caught = tables.percent((shifted > threshold).mean())
        scores = (clean, shifted, float(threshold))
        yield drawn("routing", plots.routing_histogram, *scores, right=right, caught=caught)
    examples = read_arrays(root / "evaluate" / "examples.npz")
    if examples and len(examples["images"]):
        shown, classes = len(examples["images"]), summary["dataset"]["classes"]
        shown = min(shown, plots.MAX_EXAMPLES)
        yield drawn("examples", plots.example_grid, examples, classes, shown=shown)


def write(workdir: epath.PathLike) -> epath.Path:
    """Draws the figures of a finished run and writes its page, `workdir`/report/index.html.

    Args:
        workdir: holds summary.json, results.jsonl and, after a three-head method, evaluate/*.npz.
    """
    root = epath.Path(workdir)
    summary, results = read(root)
    target = root / "report"
    target.mkdir(parents=True, exist_ok=True)
    for name, kind in product(TEXTS, ("png", "pdf")):  # an earlier report's may be out of date
        (target / f"{name}.{kind}").unlink(missing_ok=True)
    drawn = dict(_figures(root, summary, results, target))
    figures = [
        template.figure(name, title, title, drawn[name])
        for name, (title, _) in TEXTS.items()
        if name in drawn
    ]
    rows, counts = tables.method_table(summary), tables.image_counts(results)
    methods = _metric_table(rows, list(columns.MAIN_COLUMNS), counts)
    if others := columns.present(columns.OTHER_COLUMNS, rows):
        methods += _metric_table(rows, others, counts)
    categories = ""
    if groups := tables.category_table(summary):
        shown = columns.present(columns.CATEGORY_COLUMNS, groups)
        categories = f"<h2>Kinds of corruption</h2>{_metric_table(groups, shown, counts)}"
    if benchmarks := tables.benchmark_table(summary):
        shown = columns.present(columns.BENCHMARK_COLUMNS, benchmarks)
        lines = [
            [f"{escape(row['set'])}<br>{escape(row['label'])}", *(c.cell(row) for c in shown)]
            for row in benchmarks
        ]
        table = template.table(["benchmark", *(column.heading for column in shown)], lines)
        categories += f"<h2>Benchmarks</h2>{table}"
    absent = ", ".join(title.lower() for name, (title, _) in TEXTS.items() if name not in drawn)
    sentences = tables.conclusion(summary, results)
    said = "".join(f"<p>{escape(text).replace(' %', '&nbsp;%')}</p>" for text in sentences)
    body = template.RUN.substitute(
        conclusion=said + _differences(summary, results),
        methods=methods,
        categories=categories,
        figures="".join(figures),
        config=escape(json.dumps(summary["config"], indent=2, ensure_ascii=False)),
        absent=f'<p class="note">Not measured in this run: {absent}.</p>' if absent else "",
    )
    title = f"Robustness report: {escape(summary['dataset']['name'])}"
    page = template.PAGE.substitute(title=title, facts=_facts(summary, results), body=body)
    template.write(target / "index.html", page)
    return target / "index.html"
