"""A robustified network as one network: the tuned tail in place, the adapter before the classifier.

What heads have of their own, their bottlenecks and the dropout, stays behind: it is of the classes
that they were tuned for.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax

from robust_jax.method.heads import Adapter
from robust_jax.method.student import Student


@dataclasses.dataclass(frozen=True)
class Adapted:
    """A staged network and, where there is one, the adapter on its feature.

    Attributes:
      model: the staged network.
      adapter: applied before the stage "head"; its parameters are params["adapter"].
    """

    model: Any
    adapter: Adapter | None = None

    def apply(
        self,
        variables: Mapping[str, Any],
        x: jax.Array,
        *,
        start: str | None = None,
        stop: str | None = None,
        train: bool = False,
        mutable: Any = False,
    ) -> Any:
        """Runs the stages from `start` (inclusive) to `stop` (exclusive), as the network does.

        Args:
          variables: of the network, with the adapter's parameters.
          x: the input of `start`.
          start: the first stage; the network's first if None.
          stop: the stage to stop before; "head" for the feature, after the adapter.
          train: see `StagedModel`.
          mutable: names of the collections that change; False for none.

        Returns:
          The output, and with `mutable` the changed collections beside it.
        """
        run = functools.partial(self.model.apply, variables, train=train)
        if stop not in (None, "head"):  # the adapter lies behind
            return run(x, start=start, stop=stop, mutable=mutable)
        found: Any = run(x, start=start, stop="head", mutable=mutable)
        feature, state = (found, {}) if mutable is False else found
        if self.adapter is not None:
            own = {"params": variables["params"]["adapter"]}
            feature = self.adapter.apply(own, feature)
        if stop is None:
            feature = run(feature, start="head")
        return feature if mutable is False else (feature, state)


def robustified(
    student: Student, frozen: Mapping[str, Any], tuned: Mapping[str, Any], head: str
) -> tuple[Adapted, dict[str, Any]]:
    """Returns the network of one head without its bottleneck, and its variables.

    Args:
      student: with all of its heads.
      frozen: variables of the original network.
      tuned: of the student.
      head: one of the student's, whose tail it is; with share="tail" all heads have the same.
    """
    shared = tuned["shared"] if student.share == "tail" else tuned["shared"][head]
    flat = flax.traverse_util.flatten_dict(frozen["params"])
    params = flax.traverse_util.unflatten_dict(
        flat | flax.traverse_util.flatten_dict(shared["tail"])
    )
    adapter = None
    if "adapter" in shared:
        adapter = Adapter(student.plan.adapter_width, rate=0.0)
        params["adapter"] = shared["adapter"]
    return Adapted(student.model, adapter), {**frozen, "params": params}
