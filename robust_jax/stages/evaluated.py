"""What is evaluated without training: the methods of a finished run, or a network alone."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from robust_jax import config as config_lib
from robust_jax import models, sharding, stages
from robust_jax.checkpoint import parameter_hash
from robust_jax.evals.classification import Function
from robust_jax.evals.subsets import Subset, imagenet_wnids
from robust_jax.stages import answers
from robust_jax.stages.networks import Networks, fill_in
from robust_jax.weights import network
from robust_jax.zero_shot.head import ZeroShotHead


class Evaluated(NamedTuple):
    """What is evaluated.

    Attributes:
      function_of: subset of the classes -> function of arrays and a batch.
      arrays: of the functions.
      version: which arrays these are.
      class_names: of the classifier.
      image_size: side of the images.
      eval_ops: bring photographs to that size.
      perturbation_ops: bring them to what sequences are made of.
    """

    function_of: Callable[[Subset | None], Function]
    arrays: Any
    version: str
    class_names: tuple[str, ...]
    image_size: int
    eval_ops: str
    perturbation_ops: str


def of_run(workdir: str) -> Evaluated:
    """Returns the methods of a finished run, calibrated as its stage `evaluate` left them."""
    networks = Networks.restore(workdir)
    networks.mesh = sharding.make_mesh()  # batches are large
    stages.result(networks.workdir, "evaluate")  # an error where it has not finished
    arrays = answers.load_arrays(networks)
    arrays["calibration"] = answers.load_calibrations(networks, arrays)
    chosen = config_lib.digest(config_lib.subset(networks.config, ("seed", "method", "selection")))
    return Evaluated(
        functools.partial(answers.answers, networks, arrays),
        arrays,
        parameter_hash(arrays) + chosen,
        networks.class_names,
        networks.image_size,
        networks.photograph_ops,
        networks.ops("evaluate.perturbation_ops"),
    )


def of_weights(path: str, name: str | None, zero_shot_head: str = "") -> Evaluated:
    """Returns a network alone, as the method `original`.

    Args:
      path: of the weights, see `weights.files.read`.
      name: key of `models.MODELS`; files of our own say it themselves.
      zero_shot_head: file of a classifier that `python -m robust_jax.zero_shot` made.

    Raises:
      ValueError: when there is no classifier, or its classes are not known.
    """
    found = network.read(path, name)
    model, variables, class_names = found.model, dict(found.variables), found.class_names
    if zero_shot_head:
        head = ZeroShotHead.load(zero_shot_head)
        if len(head.kernel) != model.feature_width:
            raise ValueError(
                f"the zero-shot head does not fit; got {list(head.kernel.shape)} in "
                f"{zero_shot_head} for {model.feature_width} features; build it with this model's "
                "text tower"
            )
        class_names = head.class_names
        model = models.build(
            found.entry, len(class_names), image_size=model.image_size, head="cosine"
        )
        variables["params"] = {**variables["params"], "head": {"kernel": jnp.asarray(head.kernel)}}
    elif not found.has_classifier:
        raise ValueError(
            f"these weights have no classifier; got {path!r}; give --zero_shot_head, or train one "
            "with `python -m robust_jax.main`"
        )
    if not class_names and model.num_classes == len(imagenet_wnids()):
        class_names = imagenet_wnids()
    class_names = class_names or tuple(map(str, range(model.num_classes)))
    base, size = config_lib.base(), model.image_size
    return Evaluated(
        functools.partial(answers.plain_answers, model, found.entry),
        variables,
        parameter_hash(variables),
        class_names,
        size,
        fill_in(base.data.eval_ops, found.entry, size),
        fill_in(base.evaluate.perturbation_ops, found.entry, size),
    )
