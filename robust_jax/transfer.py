"""Transfer to other datasets, before and after robustifying: `python -m robust_jax.transfer`.

MODEL is the workdir of a finished run, or weights (a file, a directory, hf://OWNER/NAME,
"pretrained") with --model, of which there is a before only. --data names datasets as KIND:WHERE.
An interrupted command continues, and rows that are finished stay.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import ml_collections

from robust_jax import config as config_lib

KINDS = {"folder": "dir", "tfds": "name", "arrays": "file", "digits": None}
# TFDS sets whose training part is, by custom, more than the split "train".
TRAIN_SPLITS = dict.fromkeys(("oxford_flowers102", "sun397", "dtd"), "train+validation")
PROTOCOLS = ("linear_probe", "full_finetune")


def data_section(spec: str, options: argparse.Namespace) -> ml_collections.ConfigDict:
    """Returns `config.data` for "KIND:WHERE".

    Raises:
      ValueError: for another kind.
    """
    kind, _, where = spec.partition(":")
    if kind not in KINDS or bool(where) != bool(KINDS[kind]):
        raise ValueError(
            f"no such dataset; got {spec!r}; give folder:DIR, tfds:NAME, arrays:FILE or digits"
            + config_lib.nearest(kind, KINDS)
        )
    data = config_lib.base().data
    data.source, data.max_bad_images = kind, options.max_bad_images
    if key := KINDS[kind]:
        data[key] = where
    if kind == "tfds":
        name = where.replace(":", "/").partition("/")[0]
        data.dir = options.data_dir
        data.train_split = options.train_split or TRAIN_SPLITS.get(name, data.train_split)
        data.val_split = options.test_split or data.val_split
    return data


def training_section(options: argparse.Namespace) -> ml_collections.ConfigDict:
    """Returns the section, as `config.pretrain`, of full fine-tuning."""
    section = config_lib.base().pretrain
    section.total_epochs, section.batch_size = options.epochs, options.batch_size
    section.optimizer, section.learning_rate = options.optimizer, options.learning_rate
    section.weight_decay = options.weight_decay
    return section


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    found = argparse.ArgumentParser(prog="python -m robust_jax.transfer", description=__doc__)
    add = found.add_argument
    add("network", metavar="MODEL", help="workdir of a run, or weights with --model")
    add("--model", help="the name of the network that the weights are of")
    add("--image_size", type=int, default=0, help="of plain weights (the network's own)")
    add("--data", nargs="+", required=True, metavar="KIND:WHERE", help="folder:DIR, tfds:NAME, ...")
    add("--out", type=Path, required=True, help="where results, features and checkpoints go")
    add("--protocol", nargs="+", choices=PROTOCOLS, default=["linear_probe"])
    add("--head", default="combined", help="whose tail is robustified: combined, clean, unclean")
    beside = ("full_finetune", "lp_ft", "wise_ft", "ours_no_kd")
    add("--beside", nargs="+", default=[], choices=beside, help="baselines of the run, too")
    add("--solver", default="auto", help="of the probe: auto, sklearn or jax (auto, by size)")
    add("--seed", type=int, default=0, help="of what is held out, order and augmentation (0)")
    add("--feature_batch_size", type=int, default=128, help="images at a time (128)")
    add("--data_dir", default="", help="of TFDS (its own)")
    add("--train_split", default="", help="of TFDS (train, or train+validation by custom)")
    add("--test_split", default="", help="of TFDS (test)")
    add("--max_bad_images", type=int, default=0, help="unreadable ones tolerated in a folder (0)")
    tuning = found.add_argument_group("full_finetune")
    add = tuning.add_argument
    add("--epochs", type=float, default=20.0, help="(20)")
    add("--batch_size", type=int, default=64, help="(64)")
    add("--optimizer", choices=("sgd", "adam", "adamw"), default="sgd", help="(sgd)")
    add("--learning_rate", type=float, default=0.01, help="peak; then cosine to 0 (0.01)")
    add("--weight_decay", type=float, default=0.0, help="(0)")
    add("--train_ops", default="", help="training view (that of configs/base.py)")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the arguments, runs the transfers and prints the table."""
    options = parser().parse_args(argv)
    sections = {spec: data_section(spec, options) for spec in options.data}
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from absl import logging

    from robust_jax import sharding

    logging.set_verbosity(logging.WARNING)  # Orbax tells a screenful about every file
    sharding.use_all_cores()
    import jax

    from robust_jax.stages import before_after, transfer_rows

    jax.config.update("jax_compilation_cache_dir", str(options.out / "xla_cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    base = config_lib.base()
    views = {"train_ops": options.train_ops or base.data.train_ops, "eval_ops": base.data.eval_ops}
    if options.model:
        networks = before_after.of_weights(
            options.network,
            options.model,
            views,
            out=options.out,
            image_size=options.image_size,
        )
    else:
        networks = before_after.of_run(options.network, options.head, views, options.beside)
    transfers = transfer_rows.Transfers(
        networks,
        options.out,
        seed=options.seed,
        solver=options.solver,
        batch_size=options.feature_batch_size,
        tuning=training_section(options),
        intervals=base.train,
    )
    print(transfer_rows.format_table(transfers.run(sections, options.protocol)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
