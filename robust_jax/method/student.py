"""The student: a frozen original model, a tuned tail and one to three heads."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp

from robust_jax.method.budget import Plan, head_features
from robust_jax.method.heads import Adapter, Bottleneck, dropout
from robust_jax.models import ModelEntry, normalise


@dataclasses.dataclass(frozen=True)
class Student:
    """How to apply a student; its arrays are two trees, `frozen` and `tuned`.

    `frozen` is the original model's variables, whole and unchanged, f32 or as `frozen.cast_frozen`
    stores them. `tuned`, always f32, is
    {"shared": {"tail": the freed tensors, "adapter": ...}, "heads": {head: bottleneck}};
    with share="none", "shared" holds one such subtree for each head.

    Attributes:
      model: the staged original model.
      entry: its preprocessing.
      plan: what is tuned (see `budget`).
      num_classes: k.
      heads: names of the heads.
      share: "tail" or "none".
      rate: dropout rate.
    """

    model: Any
    entry: ModelEntry
    plan: Plan
    num_classes: int
    heads: tuple[str, ...]
    share: str
    rate: float

    @property
    def _bottleneck(self) -> Bottleneck:
        features = head_features(self.model, self.num_classes)
        return Bottleneck(self.plan.head_rank, features, self.rate)

    @property
    def _adapter(self) -> Adapter:
        return Adapter(self.plan.adapter_width, self.rate)

    def init(self, key: jax.Array, frozen: Mapping[str, Any]) -> dict[str, Any]:
        """Returns `tuned` for step 0, with which every head equals the original model."""
        feature = jnp.zeros((1, self.model.feature_width))
        flat = flax.traverse_util.flatten_dict(frozen["params"], sep="/")
        # Copies: the tuned tree is donated by every step, the frozen one must survive. In f32,
        # however the frozen one is stored: in bf16 small steps would round to nothing.
        tail = flax.traverse_util.unflatten_dict(
            {path: jnp.array(flat[path], jnp.float32, copy=True) for path in self.plan.freed},
            sep="/",
        )
        shared: dict[str, Any] = {"tail": tail}
        if self.plan.adapter_width:
            shared["adapter"] = self._adapter.init(jax.random.fold_in(key, 0), feature)["params"]
        if self.share == "none":
            shared = {head: jax.tree.map(jnp.array, shared) for head in self.heads}
        heads = {
            head: self._bottleneck.init(jax.random.fold_in(key, 1 + i), feature)["params"]
            for i, head in enumerate(self.heads)
        }
        return {"shared": shared, "heads": heads}

    def trunk(self, frozen: Mapping[str, Any], images: jax.Array) -> jax.Array:
        """Returns the boundary activation z of uint8[b, h, w, 3] images."""
        x = normalise(images, self.entry)
        return self.model.apply(frozen, x, stop=self.plan.boundary)

    def observe(
        self, frozen: Mapping[str, Any], images: jax.Array, stages: int
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the boundary activation z, and what the gate sees on the way to it.

        Args:
          images: uint8[b, h, w, 3].
          stages: how many of the network's first stages are looked at; those after the boundary
            are not.

        Returns:
          z [b, ...], and the mean and the standard deviation of every channel over positions, after
          each of these stages: f32[b, f].
        """
        names, boundary = self.model.stage_names, self.plan.boundary
        seen = min(stages, names.index(boundary))
        x, statistics = normalise(images, self.entry), []
        for start, stop in itertools.pairwise(names[: seen + 1]):
            x = self.model.apply(frozen, x, start=start, stop=stop)
            positions = x.astype(jnp.float32).reshape(x.shape[0], -1, x.shape[-1])
            statistics += [positions.mean(1), positions.std(1)]
        z = self.model.apply(frozen, x, start=names[seen], stop=boundary)
        return z, jnp.concatenate(statistics, axis=-1)

    def original(self, frozen: Mapping[str, Any], z: jax.Array) -> jax.Array:
        """Returns the original model's logits f32[b, k] from the boundary activation."""
        return self.model.apply(frozen, z, start=self.plan.boundary).astype(jnp.float32)

    def tail(
        self,
        frozen: Mapping[str, Any],
        tuned: Mapping[str, Any],
        z: jax.Array,
        key: jax.Array | None = None,
        *,
        shared_masks: bool = False,
        remat: bool = False,
    ) -> dict[str, jax.Array]:
        """Returns the logits f32[b, k] of every head.

        Args:
          z: boundary activation, in any float dtype.
          key: PRNG key of the dropout masks, which are the same for every head; None: no dropout.
          shared_masks: see `heads.dropout`.
          remat: compute each stage again in the backward pass, see `StagedModel`.
        """
        keys = [None] * 3 if key is None else [jax.random.fold_in(key, i) for i in range(3)]
        # Never down: at the boundary "head" the activation is more precise than the model.
        z = z.astype(jnp.promote_types(z.dtype, self.model.dtype))

        def feature(shared: Mapping[str, Any]) -> jax.Array:
            variables = {**frozen, "params": _overlay(frozen["params"], shared["tail"])}
            x = self.model.apply(variables, z, start=self.plan.boundary, stop="head", remat=remat)
            if "adapter" in shared:
                x = self._adapter.apply({"params": shared["adapter"]}, x, keys[0], shared_masks)
            return dropout(x, self.rate, keys[1], shared_masks)

        if self.share == "tail":
            common = feature(tuned["shared"])
            features = {head: common for head in self.heads}
        else:
            features = {head: feature(tuned["shared"][head]) for head in self.heads}
        logits = {}
        for head, x in features.items():
            added: Any = self._bottleneck.apply(
                {"params": tuned["heads"][head]}, x, keys[2], shared_masks
            )
            cosine = self.model.head == "cosine"
            found: Any = self.model.apply(frozen, x + added if cosine else x, start="head")
            logits[head] = (found if cosine else found + added).astype(jnp.float32)
        return logits


def _overlay(params: Mapping[str, Any], tail: Mapping[str, Any]) -> dict[str, Any]:
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    flat.update(flax.traverse_util.flatten_dict(tail, sep="/"))
    return flax.traverse_util.unflatten_dict(flat, sep="/")
