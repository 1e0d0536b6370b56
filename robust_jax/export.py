"""A finished run as files that need no robust_jax: `python -m robust_jax.export DIR OUT`.

OUT gets model.stablehlo, one program from pixels to answers with the weights inside, which JAX runs
alone; model.json, what a program that calls it wants to know; the weights as safetensors; and
README.md, a model card. See docs/export.md.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robust_jax.stages.answering import Answering

# JAX is imported where it is needed: --help must not wait for it.
NEEDED = ("pretrain", "distill", "evaluate", "report")  # stages of a finished run
PLATFORMS = ("cpu", "cuda", "tpu")
RNGS = ("fixed", "passed")
HEAD = "combined"  # of the network in model.safetensors: it has learned from both kinds of images
PROGRAM, ABOUT, CARD, SUMS = "model.stablehlo", "model.json", "README.md", "SHA256SUMS"


def export_run(
    workdir: str | os.PathLike[str], target: str | os.PathLike[str], rng: str = "fixed"
) -> str:
    """Writes the program, the weights and the model card of a finished run.

    Args:
      workdir: of the run.
      target: a local directory: new, empty, or an earlier export as it was written, which is
        replaced.
      rng: "fixed": the dropout samples are those of the run, and the answers its predictor's;
        "passed": the program takes a key uint32[2] after the images.

    Returns:
      What was written, in words.

    Raises:
      ValueError: when the run is not finished, or the directory holds something else.
    """
    import jax

    from robust_jax import disk, model_card, stages, writers
    from robust_jax.method.selection import HEADS
    from robust_jax.stages.answering import Answering
    from robust_jax.weights import student

    if rng not in RNGS:
        raise ValueError(f"no such rng; got {rng!r}; use one of {', '.join(RNGS)}")
    out = _destination(target)
    run = _finished(workdir)
    summary = writers.read_json(run / "summary.json")
    if summary is None:
        raise ValueError(f"no summary.json; got {run}; run the stage 'report' with --rerun=report")
    answering = Answering.restore(run)
    networks, (_, tuned, _) = answering.networks, answering.arrays
    with _beside(out) as made, disk.writing(out.parent, out.name):
        (made / PROGRAM).write_bytes(program(answering, rng))
        frozen, tuned = jax.device_get((networks.variables("pretrain"), tuned))
        _, form, unsaid = student.write(
            made,
            networks.student(HEADS),
            frozen,
            tuned,
            head=HEAD,
            class_names=answering.class_names,
        )
        versions = writers.read_json(run / "versions.json") or {}
        about = model_card.about(answering, rng, PLATFORMS, versions)
        writers.write_json(made / ABOUT, about)
        text = model_card.card(
            answering,
            about,
            summary,
            pretrain=stages.result(run, "pretrain"),
            form=form,
            unsaid=unsaid,
        )
        writers.write_text(made / CARD, text)
        names = sorted(path.name for path in made.iterdir())
        sums = "".join(f"{_sha256(made / name)}  {name}\n" for name in names)
        writers.write_text(made / SUMS, sums)
    size = (out / PROGRAM).stat().st_size / 1e6
    said = f"{PROGRAM} ({size:,.1f} MB, for {', '.join(PLATFORMS)}, rng {rng})"
    return f"wrote {target}: {said}, {', '.join(name for name in names if name != PROGRAM)}"


def program(answering: "Answering", rng: str) -> bytearray:
    """Returns uint8[b, s, s, 3] -> answers as a serialized `jax.export.Exported`, b of any size.

    Args:
      answering: of the run; its arrays become constants.
      rng: see `export_run`.

    Raises:
      ValueError: when JAX runs on an accelerator.
    """
    import jax
    import numpy as np
    from jax import export

    if jax.default_backend() != "cpu":
        # What attention is made of depends on the device: cuDNN's is for its own GPU alone.
        raise ValueError(
            f"programs for all platforms are made on the CPU; got {jax.default_backend()!r}; use "
            "`python -m robust_jax.export`, or set JAX_PLATFORMS=cpu before JAX starts"
        )

    def answer(images: jax.Array, *passed: jax.Array) -> dict[str, jax.Array]:
        key = answering.key
        if passed:
            key = jax.random.wrap_key_data(passed[0], impl=jax.random.key_impl(key))
        arrays = answering.arrays
        return answering.choose(arrays, answering.observe(arrays, images), key)

    (b,) = export.symbolic_shape("b")
    side = answering.networks.image_size
    specs = [jax.ShapeDtypeStruct((b, side, side, 3), np.uint8)]
    if rng == "passed":
        data = jax.eval_shape(jax.random.key_data, answering.key)
        specs.append(jax.ShapeDtypeStruct(data.shape, data.dtype))
    with _without_locations():
        return export.export(jax.jit(answer), platforms=PLATFORMS)(*specs).serialize()


@contextlib.contextmanager
def _without_locations() -> Iterator[None]:
    """Keeps the paths of this machine's source files out of programs."""
    import jax

    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _finished(workdir: str | os.PathLike[str]) -> Any:
    """Returns the path of a run; ValueError where it is none, or not finished."""
    from etils import epath

    from robust_jax import convert, stages

    if not convert.is_run(os.fspath(workdir)):
        raise ValueError(
            f"no run in this directory; got {os.fspath(workdir)}; give the --workdir of a finished "
            "`python -m robust_jax.main`"
        )
    for stage in NEEDED:
        stages.result(epath.Path(workdir), stage)  # an error where it has not finished
    return epath.Path(workdir)


def _destination(target: str | os.PathLike[str]) -> Path:
    """Returns OUT; ValueError where something would be lost."""
    if "://" in os.fspath(target):
        raise ValueError(f"OUT must be local; got {os.fspath(target)!r}; copy it there afterwards")
    path = Path(target).expanduser().resolve()
    if path.is_dir():
        if changed := _changed(path):
            raise ValueError(
                f"OUT holds something that is no export as it was written ({changed}); got "
                f"{os.fspath(target)!r}; name a new directory"
            )
    elif path.exists():
        raise ValueError(f"OUT is no directory; got {os.fspath(target)!r}; name a new one")
    return path


def _changed(path: Path) -> str:
    """Returns the name of a file that an export did not write like this; "" if there is none."""
    found = sorted(entry.name for entry in path.iterdir())
    if SUMS not in found:
        return found[0] if found else ""
    lines = (path / SUMS).read_text(errors="replace").splitlines()
    sums = {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}
    for name in sorted({*found, *sums} - {SUMS}):
        file = path / name
        if name not in sums or not file.is_file() or _sha256(file) != sums[name]:
            return name
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """Gives a new directory that takes the place of `out` when all has been written."""
    made = out.with_name(f"{out.name}.{uuid.uuid4().hex}.tmp")
    old = made.with_suffix(".old")
    made.mkdir(parents=True)
    try:
        yield made
        if out.exists():
            out.rename(old)
        made.rename(out)
    finally:
        for left in (made, old):
            shutil.rmtree(left, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Exports the run that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m robust_jax.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workdir", metavar="DIR", help="the --workdir of a finished run")
    parser.add_argument("target", metavar="OUT", help="a directory: new, empty, or exported before")
    parser.add_argument(
        "--rng",
        default="fixed",
        help="fixed: the run's own dropout samples; passed: the program takes a key uint32[2] "
        "after the images (fixed)",
    )
    args = parser.parse_args(argv)
    print(export_run(args.workdir, args.target, args.rng))
    return 0


if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"  # see `program`; an accelerator would be of no use
    sys.exit(main())
