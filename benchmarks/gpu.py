"""What one accelerator does: its peak, the trunk against it, training steps, selection, views.

All of it in bf16 on random weights, images and features; programs that are compared take turns.
The trunk is measured for every model of --models (`vit_l14` is the table's `vit_l16` with patches
of 14 pixels), steps and selection for the first. Rows are printed as soon as they are known.
`python benchmarks/gpu.py [--json FILE] [--models vit_b16 vit_l14] [--batch 64 256 512]
[--rounds 5] [--quick]`, after `PYTHONPATH=.` in a checkout that is not installed; needs neither
TensorFlow nor ml_collections nor clu.
"""

import functools
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import gpu_programs
import jax
import measuring

from robust_jax.augment.augmix import augmix
from robust_jax.augment.noise2net import noise2net_pixels

# (m, k, n): square, and the products of a ViT-B/16's MLP for 256 images.
PRODUCTS = [(8192, 8192, 8192), (16384, 8192, 8192), (50432, 768, 3072)]
STEP_BATCH, CACHED, SCANNED = 256, 50_000, 20
SELECTED = (1, 16, 256)  # images that are answered at once
# (name, side) -> images; AugMix at the severities published for these sizes.
VIEWS = {("augmix", 224): 256, ("augmix", 32): 4096, ("noise2net", 224): 64, ("noise2net", 32): 512}
SEVERITIES = {224: 1, 32: 3}


class Report:
    """Rows and ratios, printed one by one."""

    def __init__(self, rounds: int):
        self.rounds, self.peak = rounds, float("nan")
        self.rows: list[measuring.Row] = []
        self.ratios: dict[str, float] = {}

    def measure(
        self,
        programs: Mapping[str, tuple[gpu_programs.Program, int, float]],
        repeats: Mapping[str, int],
        compiled_at_once: int = 8,
    ) -> dict[str, float]:
        """Times programs in turn and adds a row for each.

        Args:
          programs: name -> (program, its examples, operations or 0 where nobody counted them).
          repeats: name -> calls of one measurement.
          compiled_at_once: see `gpu_programs.compiled`.

        Returns:
          Name -> seconds a call.
        """
        alone = {name: program for name, (program, _, _) in programs.items()}
        ready, memory = gpu_programs.compiled(alone, compiled_at_once)
        seconds = measuring.interleaved(ready, self.rounds, repeats)
        for name, (_, examples, flops) in programs.items():
            tflops = flops / seconds[name] / 1e12
            row = {
                "program": name,
                "examples": examples,
                "ms": 1e3 * seconds[name],
                "examples_per_second": examples / seconds[name],
                "tflop_per_second": tflops if flops else "",
                "temporary_mib": memory[name],
                "device_peak_gib": peak_gib(),
            }
            self.rows.append(row)
            text = (f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
            print("; ".join(text), flush=True)
        return seconds

    def ratio(self, name: str, value: float) -> None:
        self.ratios[name] = value
        print(f"{name}: {value:.4f}", flush=True)


def peak_gib() -> float | str:
    """The most memory that was in use so far, "" where the backend does not tell."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] / 2**30 if "peak_bytes_in_use" in stats else ""


def matmul_peak(report: Report, products: list[tuple[int, int, int]]) -> None:
    """The rate that everything else is compared with: the best product's."""
    programs = {
        f"matmul {m}x{k}x{n}": (gpu_programs.matmul(m, k, n), m, 2.0 * m * k * n)
        for m, k, n in products
    }
    seconds = report.measure(programs, dict.fromkeys(programs, 20), compiled_at_once=1)
    report.peak = max(programs[name][2] / took for name, took in seconds.items()) / 1e12


def trunk(report: Report, name: str, case: gpu_programs.Case, batches: list[int]) -> None:
    """Images to boundary activations."""
    work = gpu_programs.flops(case.student.model, case.student.plan.boundary)
    programs = {f"{name} trunk b{b}": (case.trunk(b), b, b * work) for b in batches}
    repeats = {f"{name} trunk b{b}": max(1, 1024 // b) for b in batches}
    seconds = report.measure(programs, repeats)
    rates = {name: flops / seconds[name] for name, (_, _, flops) in programs.items()}
    report.ratio(f"trunk_mfu_{name}", max(rates.values()) / 1e12 / report.peak)


def steps(
    report: Report, name: str, case: gpu_programs.Case, batch: int, cached: int, scanned: int
) -> None:
    """Full fine-tuning, the tail on images, the tail on its cache."""
    work = 3.0 * batch * gpu_programs.flops(case.student.model)
    programs = {
        f"{name} {step}": (
            program,
            batch * (scanned if step == "cached, scan" else 1),
            work if step == "full" else 0.0,
        )
        for step, program in case.steps(batch, cached, scanned).items()
    }
    repeats = {f"{name} full": 4, f"{name} split": 8, f"{name} cached": 100}
    seconds = report.measure(programs, repeats | {f"{name} cached, scan": 5})
    full = seconds[f"{name} full"]
    report.ratio(f"split_over_full_{name}", seconds[f"{name} split"] / full)
    report.ratio(f"cached_over_full_{name}", seconds[f"{name} cached"] / full)
    scan = seconds[f"{name} cached, scan"] / scanned
    report.ratio(f"cached_scan_over_full_{name}", scan / full)


def selection(report: Report, name: str, case: gpu_programs.Case, batches: tuple[int, ...]) -> None:
    """Ten MC samples of three heads and the choice, against the plain model.

    One image is waited for each time: that is its latency.
    """
    work = gpu_programs.flops(case.student.model)
    programs: dict[str, tuple[gpu_programs.Program, int, float]] = {}
    repeats: dict[str, int] = {}
    for b in batches:
        programs[f"{name} forward b{b}"] = (case.forward(b), b, b * work)
        programs[f"{name} selection b{b}"] = (case.selection(b), b, 0.0)
        calls = 1 if b == 1 else max(4, 512 // b)
        repeats |= {f"{name} forward b{b}": calls, f"{name} selection b{b}": calls}
    seconds = report.measure(programs, repeats)
    for b in batches:
        value = seconds[f"{name} selection b{b}"] / seconds[f"{name} forward b{b}"]
        report.ratio(f"selection_over_forward_b{b}_{name}", value)


def views(report: Report, sizes: Mapping[tuple[str, int], int]) -> None:
    """Batched augmentations."""
    programs = {}
    for (name, size), count in sizes.items():
        fn: Any = noise2net_pixels
        if name == "augmix":
            fn = functools.partial(augmix, severity=SEVERITIES[size])
        program = gpu_programs.augmentation(fn, count, size)
        programs[f"{name} {size} px"] = (program, count, 0.0)
    report.measure(programs, dict.fromkeys(programs, 2))


def main() -> None:
    """Measures section by section, prints the table and writes the JSON."""
    args = measuring.arguments(
        __doc__, models=["vit_b16", "vit_l14"], batch=[64, 256, 512], rounds=5, quick=False
    )
    report, products, sizes = Report(args.rounds), PRODUCTS, dict(VIEWS)
    selected: tuple[int, ...] = SELECTED
    step_batch, cached, scanned = STEP_BATCH, CACHED, SCANNED
    if args.quick:  # only to see it run
        args.models, args.batch, products, selected = ["vit_tiny8"], [2, 4], [(64,) * 3], (1, 16)
        step_batch, cached, scanned, sizes = 4, 16, 2, {(way, 32): 2 for way, _ in VIEWS}
    first = args.models[0]

    @functools.cache
    def case(name: str) -> gpu_programs.Case:
        return gpu_programs.Case.make(name)

    sections: list[Callable[[], None]] = [
        lambda: matmul_peak(report, products),
        lambda: trunk(report, first, case(first), args.batch),
        lambda: steps(report, first, case(first), step_batch, cached, scanned),
        lambda: selection(report, first, case(first), selected),
        *(
            functools.partial(lambda name: trunk(report, name, case(name), args.batch), name)
            for name in args.models[1:]
        ),
        lambda: views(report, sizes),
    ]
    failed = 0
    for section in sections:
        try:
            section()
        except Exception:  # the other sections' figures are worth having
            traceback.print_exc()
            failed += 1
    title = f"bf16 on {jax.devices()[0].device_kind}, best matmul {report.peak:.4g} TFLOP/s"
    measuring.finish(title, report.rows, report.ratios, args.json)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
