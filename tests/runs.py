"""How tests start, copy and read runs, and the images they are given."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image

from configs import folder, quickstart
from robust_jax import main
from robust_jax.method.selection import HEADS
from robust_jax.stages.networks import Networks

ROOT = Path(__file__).parents[1]
CLASSES = tuple("0123456789")
FOLDERS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay")


def command(workdir, *options, config="configs/quickstart.py:runlocal"):
    """The command line of a run."""
    program = [sys.executable, "-m", "robust_jax.main"]
    return [*program, f"--config={config}", f"--workdir={workdir}", *options]


def quick_config(**changes):
    """The config of `quickstart` and changes such as distill__total_steps=3."""
    c = quickstart.get_config("runlocal")
    c.update_from_flattened_dict({key.replace("__", "."): v for key, v in changes.items()})
    return c


def folder_config(root, **changes):
    """The config of `folder` for the images in `root`, and changes."""
    c = folder.get_config("runlocal")
    c.data.dir = str(root)
    c.update_from_flattened_dict({key.replace("__", "."): v for key, v in changes.items()})
    return c


def run(config, workdir, **options):
    """Runs in this process, with the programs that the workdir has compiled."""
    compilation_cache.reset_cache()  # JAX would go on using the directory of an earlier run
    main.run(config, workdir, **options)


def copy_run(workdir, target, *, without=()):
    """Copies a finished run, without the results of some stages."""
    shutil.copytree(workdir, target, ignore=shutil.ignore_patterns("checkpoints", "report"))
    for stage in without:
        shutil.rmtree(target / stage, ignore_errors=True)
        (target / "stages" / f"{stage}.json").unlink()
    return target


def resolved(workdir):
    """What the stages of a workdir were begun with beside the config."""
    marker = json.loads((Path(workdir) / "stages" / "pretrain.json").read_text())
    known = ("resolved.", "data.fingerprint")
    return {key: value for key, value in marker["config"].items() if key.startswith(known)}


def networks(workdir, config=None):
    """The networks of a run of `quickstart`, with its arrays."""
    return Networks(config or quick_config(), workdir, CLASSES)


def tuned(workdir, config=None):
    """The tuned parameters of `ours`."""
    return networks(workdir, config).tuned("distill/ours", HEADS)


def make_folder(root, train=4, val=4, formats=("jpg", "png", "webp", "bmp")):
    """Writes images of ten classes, of changing sizes, each in one of four formats."""
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for name in FOLDERS:
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (24 + i, 40 - i, 3), np.uint8)
                path = root / part / name / f"{i}.{formats[i % len(formats)]}"
                Image.fromarray(pixels).save(path)
    return root
