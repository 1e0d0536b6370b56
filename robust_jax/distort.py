"""Distorts a folder's images beforehand: `python -m robust_jax.distort SRC DST`.

Writes a copy of every training image by each of DeepAugment's networks and by Noise2Net, as image
folders with a manifest; runs use them with `--config.distort.dir=DST`. The stage `distort` of a run
does the same for the images of the run.
"""

import argparse
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from robust_jax import config as config_lib
from robust_jax import costs, sharding
from robust_jax.augment.batching import keys_of, on_mesh
from robust_jax.augment.noise2net import noise2net_pixels
from robust_jax.checkpoint import parameter_hash
from robust_jax.data import copies as copies_lib
from robust_jax.data.copies import DEEPAUGMENT, KINDS, Copies
from robust_jax.data.order import subset_elements
from robust_jax.data.sources import Source
from robust_jax.deepaugment import published
from robust_jax.deepaugment.cae import CAE
from robust_jax.deepaugment.distort import distort
from robust_jax.deepaugment.edsr import EDSR
from robust_jax.deepaugment.fit import RECIPES, fit
from robust_jax.weights import files

BATCH = 128  # images at a time, about
FIT_IMAGES, FIT_BYTES = 10_000, 512 << 20  # what a small network is trained on, at most
NO_COSTS = {"seconds": 0.0, "compile_seconds": 0.0, "flops": 0.0}

Run = Callable[[Any, jax.Array, jax.Array], jax.Array]  # (params, images, seeds) -> images


class Network(NamedTuple):
    """One of DeepAugment's networks."""

    model: CAE | EDSR
    params: Any
    facts: dict[str, float]  # what its training has cost, and its quality where it was trained


def write(
    source: Source,
    ops: str,
    section: Mapping[str, Any],
    directory: Any,
    *,
    seed: int,
    workdir: Any,
    mesh: Mesh,
    log_every_steps: int,
    checkpoint_every_steps: int,
) -> dict[str, Any]:
    """Makes the networks that the config asks for and the copies of all images of a source.

    Args:
      source: of the images.
      ops: make the images that are distorted, of one size.
      section: `config.distort`.
      directory: of the copies.
      seed: of the training of the networks and of the distortions.
      workdir: of the training of the networks.
      mesh: the devices.
      log_every_steps, checkpoint_every_steps: of the training.

    Returns:
      {"seconds", "compile_seconds", "flops", "KIND_psnr", "KIND_psnr_trivial"}: time and
      operations of training and distorting, earlier calls included; and how well each network
      that was trained restores an image, in dB, beside interpolation.
    """
    names = copies_lib.copy_names(section["networks"], section["copies"])
    where = Copies.of(directory, names, source)
    made: dict[str, tuple[Run, Any, dict[str, Any]]] = {}
    facts: dict[str, float] = {}
    trained = [NO_COSTS]
    for kind in section["networks"]:
        if kind in DEEPAUGMENT:
            network = _network(
                kind,
                section[f"{kind}_weights"],
                lambda: fit_images(source, ops, seed),
                fit_steps=section["fit_steps"],
                mesh=mesh,
                seed=seed,
                workdir=workdir,
                log_every_steps=log_every_steps,
                checkpoint_every_steps=checkpoint_every_steps,
            )
            trained.append(network.facts)
            facts |= {f"{kind}_{k}": v for k, v in network.facts.items() if k not in NO_COSTS}
            made[kind] = _deepaugment(kind, network, section)
        else:
            made[kind] = _noise2net(section["noise2net_max_eps"])
    one = fit_images(source, ops, seed, most=1), np.zeros((1, 2), np.int32)
    calls = section["copies"] * len(source)
    counted = [costs.flops(calls, run, params, *one) for run, params, _ in made.values()]
    size = sharding.padded_size(BATCH, mesh)
    runs: dict[str, Any] = {k: on_mesh(run, mesh, params) for k, (run, params, _) in made.items()}
    compiling = epath.Path(workdir) / "distort" / "compile.json"
    if not _is_finished(where):
        batch, began = [np.repeat(a, size, 0) for a in one], time.perf_counter()
        for kind, run in runs.items():
            compiled = run.func.lower(*run.args, *batch).compile()
            runs[kind] = functools.partial(compiled, *run.args)
        costs.spend(compiling, compile_seconds=time.perf_counter() - began)
    distortions = {kind: (runs[kind], determined) for kind, (_, _, determined) in made.items()}
    took = copies_lib.write(where, source, ops, distortions, seed=seed, batch_size=size)
    copying = {"compile_seconds": 0.0, **costs.spent(compiling), "seconds": took}
    for key in copying:
        facts[key] = copying[key] + sum(found[key] for found in trained)
    return facts | costs.added(*trained, *counted)


def _is_finished(where: Copies) -> bool:
    try:
        copies_lib.read_manifest(where.directory)
    except ValueError:
        return False
    return True


def fit_images(source: Source, ops: str, seed: int, most: int = FIT_IMAGES) -> np.ndarray:
    """Returns at most so many images of a source, at random and decoded: uint8[n, h, w, 3]."""
    from robust_jax.data.pipeline import Elements, ordered_batches

    order = subset_elements(np.arange(len(source)), seed=seed, size=len(source))
    elements = Elements(source.subset(order[:most]), ops, {"image": ""}, seed=seed)
    found: list[np.ndarray] = []
    for batch in ordered_batches(elements, batch_size=BATCH, pad=False):
        found.append(batch["image"])
        if sum(images.nbytes for images in found) >= FIT_BYTES:
            break
    return np.concatenate(found)


def _network(
    kind: str,
    weights: str,
    images: Callable[[], np.ndarray],
    fit_steps: int | None,
    mesh: Mesh,
    **training: Any,
) -> Network:
    if weights:
        model: CAE | EDSR = CAE() if kind == "cae" else EDSR()
        return Network(model, published.load(model, files.read(weights).tensors), NO_COSTS)
    recipe = RECIPES[kind]
    if fit_steps is not None:
        recipe = dataclasses.replace(recipe, total_steps=fit_steps)
    # Its batches are small: over as many devices as divide them.
    some = mesh.devices.ravel()[: math.gcd(recipe.batch_size, mesh.size)]
    params, found = fit(kind, images(), recipe=recipe, mesh=sharding.make_mesh(some), **training)
    print(
        f"distort: {kind} restores images at {found['psnr']:.2f} dB, "
        f"interpolation at {found['psnr_trivial']:.2f} dB"
    )
    facts = {k: found[k] for k in ("psnr", "psnr_trivial", *NO_COSTS) if k in found}
    return Network(recipe.model, params, facts)


def _deepaugment(
    kind: str, network: Network, section: Mapping[str, Any]
) -> tuple[Run, Any, dict[str, Any]]:
    options: dict[str, Any] = {"faithful": section["faithful"]}
    if kind == "edsr":
        options["shrink"] = section["edsr_shrink"]

    def run(params: Any, images: jax.Array, seeds: jax.Array) -> jax.Array:
        return distort(kind, network.model, params, images, seeds, **options)

    weights = parameter_hash(network.params)
    return run, network.params, {"model": repr(network.model), "weights": weights, **options}


def _noise2net(max_eps: float) -> tuple[Run, Any, dict[str, Any]]:
    def run(_: Any, images: jax.Array, seeds: jax.Array) -> jax.Array:
        return noise2net_pixels(images, keys_of(seeds), max_eps=max_eps)

    return run, {}, {"max_eps": max_eps}


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text}; use a whole number of at least 1")
    return int(text)


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the arguments and writes the copies."""
    from robust_jax.data import sources

    sharding.use_all_cores()
    base = config_lib.base()
    parser = argparse.ArgumentParser(prog="python -m robust_jax.distort", description=__doc__)
    parser.add_argument("source", metavar="SRC", help="holds train/CLASS/* and val/CLASS/*")
    parser.add_argument("target", metavar="DST", type=Path, help="where the copies go")
    parser.add_argument("--networks", nargs="+", choices=KINDS, default=list(DEEPAUGMENT))
    parser.add_argument(
        "--copies", type=_positive, default=1, help="of each image, by each network"
    )
    parser.add_argument("--size", type=_positive, default=224, help="sides in pixels")
    for kind, name in (("cae", "model_final.state"), ("edsr", "edsr_baseline_x4-6b446fab.pt")):
        parser.add_argument(
            f"--{kind}_weights",
            default="",
            metavar="FILE",
            help=f"the published {name}; without it a small network is trained on the images",
        )
    parser.add_argument("--fit_steps", type=_positive, help="of that training, of each network")
    parser.add_argument("--edsr_shrink", type=int, default=base.distort.edsr_shrink)
    parser.add_argument("--noise2net_max_eps", type=float, default=base.distort.noise2net_max_eps)
    parser.add_argument("--faithful", action="store_true", help="repeat the published code's bugs")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with base.unlocked():
        base.data.update(source="folder", dir=args.source)
    args.target.mkdir(parents=True, exist_ok=True)
    source = sources.load(base.data, "train", index_dir=args.target / "index")
    facts = write(
        source,
        f"decode|resize_small({args.size}, 'bicubic')|central_crop({args.size})",
        vars(args),
        args.target,
        seed=args.seed,
        workdir=args.target / "networks",
        mesh=sharding.make_mesh(),
        log_every_steps=base.train.log_every_steps,
        checkpoint_every_steps=base.train.checkpoint_every_steps,
    )
    count = len(copies_lib.copy_names(args.networks, args.copies))
    print(f"{count} copies of {len(source):,} images in {facts['seconds']:.0f} s: {args.target}")


if __name__ == "__main__":
    main()
