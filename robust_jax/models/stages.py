"""The base of every network: an ordered list of named stages, any slice of which can be run.

A slice is what makes a frozen trunk and a tuned tail out of one network. The parameters of stage S
live under `params[S]` (and `batch_stats[S]`), so a slice is applied with those entries alone. A
stage without parameters has no entry.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

Stage = Callable[[jax.Array], jax.Array]


def check_choice(field: str, value: str, known: Iterable[str]) -> None:
    """Raises ValueError for a value that is not among the known ones."""
    known = tuple(known)
    if value not in known:
        raise ValueError(f"unknown {field}; got {value!r}; use one of {', '.join(known)}")


def grouped_blocks(depths: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Name of each block of a network in groups, in order, to its (group, number), both from 0."""
    return {
        f"stage{group + 1}_block{number}": (group, number)
        for group, depth in enumerate(depths)
        for number in range(depth)
    }


class StagedModel(nn.Module):
    """An image classifier made of stages; subclasses give `stage_names`, `stage`, `freeable`.

    They also give `feature_width`, the d of the pooled feature f32[b, d] that enters
    `feature_stage`; `image_size`, the side of the images the network was built for; and `head`, the
    kind of its classifier (see `classifier`).
    """

    feature_stage: ClassVar[str] = "head"

    if TYPE_CHECKING:  # Linen would make dataclass fields of these, ahead of a subclass's own.

        @property
        def feature_width(self) -> int: ...

        @property
        def image_size(self) -> int: ...

        @property
        def head(self) -> str: ...

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages, first to last."""
        raise NotImplementedError

    def stage(self, name: str, train: bool) -> Stage:
        """Makes one stage; called inside `__call__`, so modules made here must carry `name`."""
        raise NotImplementedError

    def freeable(self) -> tuple[tuple[str, ...], ...]:
        """Groups of parameters in the order in which a tuning budget frees them.

        Returns:
          Groups of path prefixes such as "block_11_mlp/fc2" (ending at a path component), from the
          stage before the head towards the first; together they name each parameter between the
          first stage and the head exactly once.
        """
        raise NotImplementedError

    def example_input(self) -> jax.Array:
        """Zeros f32[1, h, w, 3] to initialise the network with."""
        return jnp.zeros((1, self.image_size, self.image_size, 3), jnp.float32)

    def stage_slice(self, start: str | None = None, stop: str | None = None) -> tuple[str, ...]:
        """The names of the stages from `start` (inclusive) to `stop` (exclusive)."""
        names = self.stage_names
        for bound in (start, stop):
            if bound is not None and bound not in names:
                raise ValueError(f"no such stage; got {bound!r}; use one of {', '.join(names)}")
        first = 0 if start is None else names.index(start)
        last = len(names) if stop is None else names.index(stop)
        if first > last:
            raise ValueError(
                f"a slice must run forwards; got start={start!r} after stop={stop!r}; swap them"
            )
        return names[first:last]

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        start: str | None = None,
        stop: str | None = None,
        train: bool = False,
        remat: bool = False,
    ) -> jax.Array:
        """Runs the stages from `start` (inclusive) to `stop` (exclusive).

        Args:
          x: the input of `start`: normalised images f32[b, h, w, 3] for the first stage.
          start: the first stage to run; the network's first if None.
          stop: the stage to stop before; None runs to the end.
          train: normalise by the statistics of the batch where the network can.
          remat: keep only the stages' inputs for the backward pass, which computes each stage
            again: less memory for about a third more operations; parameters and values are the
            same. XLA for CPUs undoes it where it is not told to disable its pass
            "cse_barrier_expander".

        Returns:
          Logits f32[b, k] at the end, else the input of `stop`.
        """
        for name in self.stage_slice(start, stop):
            if remat:
                x = nn.remat(lambda model, x, name=name: model.stage(name, train)(x))(self, x)
            else:
                x = self.stage(name, train)(x)
        return x
