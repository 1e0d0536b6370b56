"""`python -m robust_jax.main` that also notes which batches it trains on.

The first argument is the file; a line is "TRAINING STEP HASH", written before the step is taken.
"""

import hashlib
import sys

from robust_jax import main
from robust_jax.stages import context

NOTES = open(sys.argv.pop(1), "a", buffering=1)  # noqa: SIM115
TRAIN = context.train


def noted(step_fn, state, frozen, batches, *, name, **options):
    def noting(start, stop):
        for step, batch in enumerate(batches(start, stop), start + 1):
            found = hashlib.sha256()
            for key in sorted(batch):
                found.update(key.encode() + batch[key].tobytes())
            NOTES.write(f"{name} {step} {found.hexdigest()[:16]}\n")
            yield batch

    return TRAIN(step_fn, state, frozen, noting, name=name, **options)


if __name__ == "__main__":
    context.train = noted
    main.cli()
