"""Stage `cache`: runs trunk and teacher over the augmented set once, where that pays."""

import time
from typing import Any

import jax
import jax.numpy as jnp

from robust_jax import config as config_lib
from robust_jax import costs, hosts, sharding
from robust_jax.checkpoint import parameter_hash
from robust_jax.data.cache import Block, FeatureCache
from robust_jax.data.cache_build import build, in_order
from robust_jax.method import distillation
from robust_jax.method.selection import HEADS
from robust_jax.stages.context import Context


def run(context: Context) -> dict[str, Any]:
    """Builds the cache, or decides to stream; returns the decision and its figures.

    The teacher's part is told apart, for methods that have none. Where the cache is not used, the
    trial that decided costs nothing that a method needs.
    """
    elements, section = context.augmented_set(), context.config.distill
    size = sharding.padded_size(section.batch_size, context.mesh)
    frozen = load_frozen(context)
    programs = _programs(context)
    batches = in_order(elements, size)

    def views(batch: Block) -> dict[str, jax.Array]:
        return sharding.shard_batch({k: batch[k] for k in ("clean", "aug")}, context.mesh)

    trial = batches(0, min(2 * size, len(elements)))
    _, first = next(trial)
    compiled, compiling = {}, {}
    for name, program in programs.items():
        began = time.perf_counter()
        compiled[name] = program.lower(frozen, views(first)).compile()
        compiling[f"compile_{name}"] = time.perf_counter() - began

    def compute(batch: Block) -> tuple[Block, dict[str, float]]:
        placed = views(batch)
        found = jax.device_get(compiled["trunk"](frozen, placed))
        began = time.perf_counter()
        found |= jax.device_get(compiled["teacher"](frozen, placed))
        return {**found, "label": batch["label"]}, {"teacher": time.perf_counter() - began}

    example, _ = compute(first)
    began = time.perf_counter()
    count, second = next(trial, (len(elements), first))  # the set may be one batch
    compute(second)
    per_element = (time.perf_counter() - began) / count / hosts.count()
    steps = config_lib.duration(section, "total", examples=len(elements), label="distill")
    row_bytes = sum(v.nbytes for v in example.values()) / size
    gigabytes = row_bytes * len(elements) / 1e9
    passes = steps * section.batch_size / len(elements)
    use, why = decide(context.config.cache, gigabytes, passes)
    once, streaming = per_element * len(elements), per_element * steps * section.batch_size
    print(
        f"cache: {'built' if use else 'not built'}, {why}: {gigabytes:.3f} GB and about "
        f"{once:.0f} s once, against about {streaming:.0f} s when streaming {passes:.1f} passes"
    )
    if not use:
        nothing = {"seconds": 0.0, "compile_seconds": 0.0, "flops": 0.0}
        return {"used": False, **nothing, "teacher": nothing}
    cache = FeatureCache(context.workdir / "cache", fingerprint(context), len(elements))
    spent = context.workdir / "cache" / "spent.json"
    if hosts.is_first():
        cache.lay_out(example, size)
        if len(cache.finished()) * cache.block < len(elements):
            costs.spend(spent, **compiling)
    hosts.wait("cache: laid out")
    build(cache, batches, compute)
    compiling, took = costs.spent(spent), cache.seconds()
    calls = -(-len(elements) // size)
    flops = {
        name: costs.flops(calls, program, frozen, views(first))
        for name, program in programs.items()
    }
    return {
        "used": True,
        "seconds": took["seconds"],
        "compile_seconds": sum(compiling.values()),
        **costs.added(*flops.values()),
        "teacher": {
            "seconds": took["teacher"],
            "compile_seconds": compiling["compile_teacher"],
            **flops["teacher"],
        },
        "gigabytes": gigabytes,
    }


def _programs(context: Context) -> dict[str, Any]:
    """The jitted functions (frozen, views) -> arrays to store, of the trunk and of the teacher."""
    student, dtype = context.student(HEADS), jnp.dtype(context.config.cache.dtype)
    teacher = (context.teacher_model, context.teacher_entry)

    def trunk(frozen: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        found = distillation.features(student, frozen, batch, None)
        return {k: v.astype(dtype) for k, v in found.items()}

    def ask(frozen: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return distillation.answers(teacher, frozen["teacher"], batch)

    return {"trunk": jax.jit(trunk), "teacher": jax.jit(ask)}


def decide(section: Any, gigabytes: float, passes: float) -> tuple[bool, str]:
    """Returns whether to cache, and why."""
    if section.use != "auto":
        return section.use == "true", f"cache.use={section.use}"
    if gigabytes > section.max_gigabytes:
        return False, f"it would exceed cache.max_gigabytes={section.max_gigabytes}"
    if passes <= 1:
        return False, "training visits no element twice"
    return True, "training visits each element more than once"


def fingerprint(context: Context) -> dict[str, Any]:
    """Returns what determines the content of the cache."""
    return {
        **context.augmented_set().to_json(),
        "student": parameter_hash(context.variables("pretrain")),
        "teacher": parameter_hash(context.variables("teacher")),
        "models": [
            context.config.student.name,
            context.config.student.dtype,
            context.config.method.frozen_dtype,
            context.config.teacher.name,
            context.config.teacher.dtype,
        ],
        "boundary": context.plan.boundary,
        "dtype": context.config.cache.dtype,
    }


def load_frozen(context: Context) -> dict[str, Any]:
    """Returns the frozen arrays of the three-head step."""
    return {"student": context.frozen(), "teacher": context.variables("teacher")}
