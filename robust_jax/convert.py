"""Weights in another format, and finished runs as weights: `python -m robust_jax.convert --help`.

SRC is a weight file or a directory of them, or the workdir of a finished run. Of a run, DST gets
the student with one of its heads in model.safetensors and everything that was tuned in
heads.safetensors; under the names of transformers, `AutoModelForImageClassification` opens DST with
trust_remote_code=True and answers as this head does. With --head=original or --head=teacher it gets
the student before the method or the teacher, which need no more than their own stage.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robust_jax.stages.networks import Networks

# JAX is imported where it is needed: --help must not wait for it.
STAGES = ("pretrain", "distill")  # that a student needs
WHOLE = {"original": ("student", "pretrain"), "teacher": ("teacher", "teacher")}  # and its stage


def convert_weights(
    source: str, target: str | os.PathLike[str], model: str | None = None, form: str | None = None
) -> str:
    """Writes weights in another format; f32 arrays stay the same, bit by bit.

    Args:
      source: see `weights.files.read`.
      target: a directory, new or empty.
      model: key of `models.MODELS`; files of our own say it themselves.
      form: the format to write; the first of the model's with a place for everything if None.

    Returns:
      What was written, and what was not, in words.

    Raises:
      ValueError: when the weights cannot be read, or do not fit the model or the format.
    """
    from robust_jax.weights import export, network

    directory = _new_directory(target)
    whole = network.read(source, model)
    form = export.choose(whole, form)
    unsaid = export.write(directory, whole, form)
    said = [f"wrote {directory}: {whole.entry.name} in the format {form}", *_unsaid(unsaid)]
    if whole.left:
        said.append(f"left in {source}: {', '.join(whole.left)}")
    return "\n".join(said)


def convert_run(
    workdir: str | os.PathLike[str],
    target: str | os.PathLike[str],
    head: str = "clean",
    form: str | None = None,
) -> str:
    """Writes the student of a finished run; see `weights.student.write`.

    Args:
      workdir: of the run.
      target: a directory, new or empty.
      head: "clean", "unclean" or "combined"; or "original", the student before the method, or
        "teacher".
      form: the format to write; the first of the model's if None.

    Returns:
      What was written, in words.

    Raises:
      ValueError: when a stage is not finished, or the network does not come in the format.
    """
    import jax

    from robust_jax.method.selection import HEADS
    from robust_jax.weights import export, student
    from robust_jax.weights.network import Network

    if head not in (*HEADS, *WHOLE):
        raise ValueError(f"no such head; got {head!r}; use one of {', '.join((*HEADS, *WHOLE))}")
    directory = _new_directory(target)
    if head in WHOLE:
        name, stage = WHOLE[head]
        networks = _restore(workdir, (stage,))
        model, entry = networks.network(name)
        variables = jax.device_get(networks.variables(stage))
        network = Network(entry, model, variables, class_names=networks.class_names)
        form = export.choose(network, form)
        unsaid = export.write(directory, network, form)
        what = f"{entry.name}, {head}, in the format {form}"
    else:
        networks = _restore(workdir, STAGES)
        arrays = networks.variables("pretrain"), networks.tuned("distill/ours", HEADS)
        frozen, tuned = jax.device_get(arrays)
        network, form, unsaid = student.write(
            directory,
            networks.student(HEADS),
            frozen,
            tuned,
            head=head,
            class_names=networks.class_names,
            form=form,
        )
        what = f"{network.entry.name}, {head}, in the format {form}, and {student.HEADS_FILE}"
    return "\n".join([f"wrote {directory}: {what}", *_unsaid(unsaid)])


def _restore(workdir: str | os.PathLike[str], needed: Sequence[str]) -> "Networks":
    from etils import epath

    from robust_jax import stages
    from robust_jax.stages.networks import Networks

    for stage in needed:
        stages.result(epath.Path(workdir), stage)  # an error where it has not finished
    return Networks.restore(workdir)


def _unsaid(fields: Sequence[str]) -> list[str]:
    return [f"the format does not say {field}" for field in fields]


def _new_directory(target: str | os.PathLike[str]) -> Path:
    path = Path(target).expanduser()
    if "://" in os.fspath(target):
        raise ValueError(f"DST must be local; got {os.fspath(target)!r}; copy it there afterwards")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(
            f"DST exists and is not an empty directory; got {os.fspath(target)!r}; name a new one"
        )
    return path


def is_run(source: str) -> bool:
    """Tells whether a path is the workdir of a run."""
    from etils import epath

    from robust_jax.stages.networks import RUN_FILES

    if source.startswith("hf://"):
        return False
    return all((epath.Path(source) / name).exists() for name in RUN_FILES)


def _weights_or_nothing(source: str) -> None:
    """Raises ValueError where a local SRC holds neither a run nor weights."""
    from robust_jax.weights import locate

    path = Path(source).expanduser()
    weights = "://" in source or path.is_file() or source == "pretrained"
    if not weights and not (path.is_dir() and locate.main_file(path)):
        raise ValueError(
            f"SRC is neither a finished run nor weights; got {source!r}; give the --workdir of "
            "`python -m robust_jax.main`, or a weight file, or a directory of one"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Converts what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m robust_jax.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SRC", help="weights (path, hf://, gs://), or a workdir")
    parser.add_argument("target", metavar="DST", help="a directory, new or empty")
    parser.add_argument("--model", help="of weights: a name of `python -m robust_jax.models`")
    parser.add_argument(
        "--format",
        help="of DST: huggingface, timm, another that the model comes in, or robust_jax, which "
        "keeps everything (the first of these that there is)",
    )
    parser.add_argument(
        "--head", help="of a run: clean, unclean or combined, or original or teacher (clean)"
    )
    args = parser.parse_args(argv)
    if is_run(args.source):
        if args.model:
            raise ValueError(f"a run knows its model; got --model={args.model}; leave it out")
        head = "clean" if args.head is None else args.head
        print(convert_run(args.source, args.target, head, args.format))
        return 0
    _weights_or_nothing(args.source)
    if args.head is not None:
        raise ValueError(f"weights have no heads; got --head={args.head}; leave it out")
    print(convert_weights(args.source, args.target, args.model, args.format))
    return 0


if __name__ == "__main__":
    sys.exit(main())
