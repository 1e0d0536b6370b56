"""Evaluates a finished run or plain weights, without training: `python -m robust_jax.evaluate`.

MODEL is the workdir of a run, whose methods are all evaluated, or weights (a file, a directory,
hf://OWNER/NAME, "pretrained") with --model. --data gives the images of which the clean accuracy,
the corruptions and the perturbation sequences are made; --sets the benchmarks that are read as they
are stored. Both are KIND:PATH; docs/benchmarks.md lists the kinds.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robust_jax.evals.sets import Choice
    from robust_jax.stages.evaluated import Evaluated

# JAX is imported where it is needed: --help must not wait for it.


def evaluate(
    evaluated: "Evaluated",
    out: str,
    choice: "Choice",
    *,
    data: str | None,
    stored: Sequence[str],
    data_dir: str = "",
    batch_size: int = 250,
) -> dict[str, Any]:
    """Evaluates a model and writes OUT/results.jsonl and OUT/summary.json.

    Args:
      evaluated: of `stages.evaluated`.
      out: where results go; what an interrupted evaluation left there is used.
      choice: what is made of `data`, and read of each benchmark (all, where it names none).
      data: KIND:PATH of images, or None.
      stored: KIND:PATH of each benchmark that is read.
      data_dir: of TFDS.
      batch_size: images at a time.

    Returns:
      The summary: {"methods": as in a run's summary.json, "images": set -> how many,
      "severities": set -> of its corruptions}.

    Raises:
      ValueError: for what does not fit the model or is not there.
    """
    from etils import epath

    from robust_jax import sharding, writers
    from robust_jax.evals import benchmarks, sets
    from robust_jax.evals.robustness import IMAGENET_C_SIZE
    from robust_jax.evals.subsets import imagenet_wnids
    from robust_jax.stages import results

    directory, size = epath.Path(out), evaluated.image_size
    options: dict[str, Any] = dict(
        class_names=evaluated.class_names,
        eval_ops=evaluated.eval_ops,
        size=size,
        corruptions=choice.corruptions or ("all",),
        severities=choice.severities,
        perturbations=choice.perturbations or ("all",),
        data_dir=data_dir,
        index_dir=directory / "data",
    )
    imagenet = evaluated.class_names == imagenet_wnids() and size == IMAGENET_C_SIZE
    found: list[sets.ImageSet | sets.FrameSet] = []
    if data is not None:
        images, *more = benchmarks.load(data, **options)
        if more or isinstance(images, benchmarks.StoredFrames) or "corruption" in images.where:
            raise ValueError(
                f"--data is one set of images as they are; got {data!r}; give corrupted images "
                "and sequences to --sets"
            )
        imagenet &= images.kind in ("folder", "imagenet2012")  # the others are not ImageNet's own
        found += sets.own_sets(
            images.source,
            images.ops,
            "|".join(filter(None, [images.first, evaluated.perturbation_ops])),
            choice,
            size=size,
            subset=images.subset,
        )
    found += sets.stored_sets(benchmarks.load_all(stored, **options), choice)
    measured = sets.measure(
        found,
        evaluated.function_of,
        evaluated.arrays,
        directory / "outputs",
        version=evaluated.version,
        batch_size=batch_size,
        mesh=sharding.make_mesh(),
    )
    rows = results.rows(measured, choice.seed)
    results.write(directory, rows)
    severities: dict[str, set[int]] = {}
    for one in measured:
        if "severity" in one.where:
            severities.setdefault(one.where["set"], set()).add(one.where["severity"])
    summary = {
        "methods": results.method_summaries(rows, imagenet=imagenet),
        "images": {one.where["set"]: len(one.labels) for one in measured},
        "severities": {name: sorted(found) for name, found in severities.items()},
    }
    writers.write_json(directory / "summary.json", summary)
    return summary


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates what the command line names and prints tables."""
    parser = argparse.ArgumentParser(
        prog="python -m robust_jax.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="MODEL", help="the workdir of a finished run, or weights")
    parser.add_argument("--out", required=True, help="directory of the results")
    parser.add_argument("--model", help="of weights: a name of `python -m robust_jax.models`")
    parser.add_argument("--zero_shot_head", default="", help="of weights: npz with a classifier")
    parser.add_argument("--data", metavar="KIND:PATH", help="images to evaluate and to corrupt")
    parser.add_argument(
        "--sets", nargs="+", default=[], metavar="KIND:PATH", help="benchmarks to read"
    )
    parser.add_argument(
        "--corruptions", nargs="*", default=["all"], help="all (the 15), extra (four more) or names"
    )
    parser.add_argument("--severities", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument(
        "--perturbations", nargs="*", default=[], help="all (the ten), extra (four more) or names"
    )
    parser.add_argument("--max_images", type=int, help="of each set, at most")
    parser.add_argument("--max_sequences", type=int, help="of each set, at most")
    parser.add_argument(
        "--jpeg85", action="store_true", help="corrupted images go through JPEG 85, as published"
    )
    parser.add_argument("--data_dir", default="", help="of TensorFlow Datasets")
    parser.add_argument("--batch_size", type=int, default=250, help="images at a time")
    parser.add_argument("--seed", type=int, default=0, help="of corruptions and sequences")
    args = parser.parse_args(argv)
    if args.data is None and not args.sets:
        raise ValueError("nothing to evaluate; got neither --data nor --sets; give one of them")
    for name in ("max_images", "max_sequences", "batch_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be positive; got {value}; leave it out or give 1 up")
    from robust_jax import convert, sharding
    from robust_jax.evals.sets import Choice
    from robust_jax.report import terminal
    from robust_jax.stages import evaluated

    sharding.use_all_cores()
    if convert.is_run(args.source):
        for name in ("model", "zero_shot_head"):
            if getattr(args, name):
                raise ValueError(f"a run knows its networks; got --{name}; leave it out")
        found = evaluated.of_run(args.source)
    else:
        found = evaluated.of_weights(args.source, args.model, args.zero_shot_head)
    choice = Choice(
        args.corruptions,
        args.severities,
        args.perturbations,
        args.max_images,
        args.jpeg85,
        args.seed,
        args.max_sequences,
    )
    summary = evaluate(
        found,
        args.out,
        choice,
        data=args.data,
        stored=args.sets,
        data_dir=args.data_dir,
        batch_size=args.batch_size,
    )
    for said in terminal.evaluation(summary):
        print(f"\n{said}")
    print(f"\nevery measurement with its interval: {args.out}/results.jsonl")
    return 0


if __name__ == "__main__":
    sys.exit(main())
