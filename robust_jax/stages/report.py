"""Stage `report`: summary.json, the page, and the table on the terminal."""

import json
from typing import Any

import jax
from etils import epath

from robust_jax import config as config_lib
from robust_jax import stages, writers
from robust_jax.corruptions.constants import benchmark_for
from robust_jax.evals.subsets import imagenet_wnids
from robust_jax.method.selection import HEADS
from robust_jax.report import page, terminal
from robust_jax.stages import results
from robust_jax.stages.answers import TEACHERS
from robust_jax.stages.baselines import TUNED
from robust_jax.stages.context import Context
from robust_jax.stages.routing import ROUTED


def run(context: Context) -> None:
    """Writes summary.json and report/index.html."""
    lines = (context.workdir / "results.jsonl").read_text().splitlines()
    measured = [json.loads(line) for line in lines]
    wnids = context.class_names == imagenet_wnids()
    imagenet = wnids and benchmark_for(context.image_size, context.image_size) == "imagenet"
    methods = results.method_summaries(measured, imagenet=imagenet)
    for method, entry in methods.items():
        entry |= costs(context, method)
    summary = {
        "config": config_lib.flatten(context.config),
        "dataset": {
            "name": context.val.name.removesuffix(" val"),
            "classes": list(context.class_names),
            "train_images": len(context.train),
            "eval_images": next(row["n"] for row in measured if row["set"] == "clean"),
            "bad_images": len(context.train.bad_images) + len(context.val.bad_images),
        },
        "methods": methods,
    }
    writers.write_json(context.workdir / "summary.json", summary)
    page.write(context.workdir)


def show(workdir: epath.Path) -> None:
    """Prints the table of a reported run and where its page is."""
    summary = writers.read_json(workdir / "summary.json")
    print(terminal.methods(summary))
    if benchmarks := terminal.benchmarks(summary):
        print(f"\n{benchmarks}")
    print(f"report: {workdir / 'report' / 'index.html'}")


def costs(context: Context, method: str) -> dict[str, Any]:
    """Returns tuned and total parameters and the seconds of training that a method needs.

    Seconds are those of every stage that the method could not do without, compilation apart:
    for `ours` distorted copies, teacher, cache and distillation. The original model comes trained:
    it has none.
    """
    plan = context.plan
    took = {
        name: stages.result(context.workdir, name)["seconds"]
        for name in ("distort", "teacher", "cache", "distill")
    }
    baselines = stages.result(context.workdir, "baselines")
    teacher, augmented = (
        context.mixture(context.config[name]).needs_copies for name in ("teacher", "augmented")
    )
    if method in TEACHERS:
        params = context.shapes(context.teacher_model)["params"]
        total = sum(leaf.size for leaf in jax.tree.leaves(params))
        if method == "teacher":
            own = took["teacher"] + (took["distort"] if teacher else 0)
        else:
            own = baselines[method]["seconds"]
        return {"tuned_params": total, "total_params": total, "train_seconds": own}
    if method == "original":
        return {"tuned_params": 0, "total_params": plan.total_params}
    trained = ROUTED[method][0] if method in ROUTED else method
    if trained == "ours":
        own, distorted = took["distill"] + took["teacher"], teacher or augmented
    else:
        own, distorted = baselines[trained]["seconds"], augmented
    own += took["distort"] if distorted else 0
    heads = len(TUNED.get(trained, HEADS))
    return {
        "tuned_params": plan.tuned_with_heads(heads),
        "total_params": plan.total_params,
        "train_seconds": own + took["cache"],
    }
