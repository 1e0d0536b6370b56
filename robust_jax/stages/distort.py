"""Stage `distort`: copies of the training images through DeepAugment's networks and Noise2Net."""

from typing import Any

from robust_jax import config as config_lib
from robust_jax import distort
from robust_jax.data import copies
from robust_jax.stages.context import Context


def run(context: Context) -> dict[str, Any]:
    """Writes the copies that the config asks for, or checks those that it names."""
    section, found = context.config.distort, context.all_copies
    if not section.networks:
        print("distort: distort.networks names no network, no copies are made")
        return distort.NO_COSTS
    facts: dict[str, Any] = distort.NO_COSTS
    if not section.dir:
        facts = distort.write(
            context.source,
            context.ops("distort.ops"),
            section,
            found.directory,
            seed=config_lib.student_seed(context.config),
            workdir=context.workdir,
            mesh=context.mesh,
            log_every_steps=context.config.train.log_every_steps,
            checkpoint_every_steps=context.config.train.checkpoint_every_steps,
        )
    copies.check(found, context.source)
    return facts
