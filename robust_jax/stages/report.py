"""Stage `report`: summary.json, the page, and the table on the terminal."""

import json
from typing import Any

import jax
from etils import epath

from robust_jax import config as config_lib
from robust_jax import hosts, stages, writers
from robust_jax.evals.robustness import IMAGENET_C_SIZE
from robust_jax.evals.subsets import imagenet_wnids
from robust_jax.method.selection import HEADS
from robust_jax.report import page, terminal
from robust_jax.stages import results
from robust_jax.stages.answers import WHOLE
from robust_jax.stages.baselines import TUNED
from robust_jax.stages.context import Context
from robust_jax.stages.networks import STORED
from robust_jax.stages.routing import ROUTED

# Of what a stage tells, what is added up, and under which name.
_COSTS = {"seconds": "train_seconds", "compile_seconds": "compile_seconds", "flops": "train_flops"}
# Stages and baselines that a method is the result of, and whose mixture some of them draw from.
_NEEDED = {
    "teacher": ("teacher",),
    "teacher_clean": ("teacher_clean",),
    "full_finetune": ("full_finetune",),
    "lp_ft": ("lp_ft",),
    "wise_ft": ("full_finetune",),  # what is chosen on held-out images is no training
    "apt": ("features", "apt"),
    "ours_no_kd": ("features", "ours_no_kd"),
    "ours": ("teacher", "cache", "distill"),
}
_DRAWS = {"teacher": "teacher"} | dict.fromkeys(("full_finetune", "cache", "features"), "augmented")


def run(context: Context) -> None:
    """Writes summary.json and report/index.html."""
    if not hosts.is_first():
        return
    lines = (context.workdir / "results.jsonl").read_text().splitlines()
    measured = [json.loads(line) for line in lines]
    wnids = context.class_names == imagenet_wnids()
    imagenet = wnids and context.image_size == IMAGENET_C_SIZE
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
            **({} if context.shared_images is None else {"shared_images": context.shared_images}),
        },
        "methods": methods,
    }
    writers.write_json(context.workdir / "summary.json", summary)
    page.write(context.workdir)


def show(workdir: epath.Path) -> dict[str, Any]:
    """Prints the table of a reported run and where its page is; returns its summary."""
    summary = writers.read_json(workdir / "summary.json")
    print(terminal.methods(summary))
    if benchmarks := terminal.benchmarks(summary):
        print(f"\n{benchmarks}")
    print(f"report: {workdir / 'report' / 'index.html'}")
    return summary


def costs(context: Context, method: str) -> dict[str, Any]:
    """Returns tuned and total parameters and what the training that a method needs has cost.

    Seconds and operations are those of all that the method could not do without, distorted copies
    included, compilation apart. The original model comes trained: it has none. What a stage of an
    older version did not tell is absent.
    """
    plan, total = context.plan, context.plan.total_params
    if method == "original":
        return {"tuned_params": 0, "total_params": total}
    trained = ROUTED[method][0] if method in ROUTED else method
    if method in WHOLE:
        network = STORED[WHOLE[method]]
        shapes = context.shapes(context.network(network)[0])["params"]
        tuned = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        total = total if network == "student" else tuned
    else:
        tuned = plan.tuned_with_heads(len(TUNED.get(trained, HEADS)))
    took = {
        name: stages.result(context.workdir, name)
        for name in ("distort", "teacher", "cache", "distill")
    }
    took |= stages.result(context.workdir, "baselines")
    cache = took["cache"]  # without the teacher it is the features alone
    took["features"] = {k: cache[k] - v for k, v in cache.get("teacher", {}).items()}
    needed = _NEEDED[trained]
    mixtures = [context.mixture(context.config[_DRAWS[p]]) for p in needed if p in _DRAWS]
    if any(mixture.needs_copies for mixture in mixtures):
        needed = ("distort", *needed)
    parts = [took[part] for part in needed]
    summed = {
        name: sum(part[key] for part in parts)
        for key, name in _COSTS.items()
        if all(key in part for part in parts)
    }
    return {"tuned_params": tuned, "total_params": total, **summed}
