"""Programs that gpu.py measures: a student in bf16 on random weights, and what they compute."""

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import optax
import students

from robust_jax.method import distillation
from robust_jax.method.frozen import cast_frozen
from robust_jax.method.selection import SelectionConfig, mc_logits, predict
from robust_jax.method.student import Student
from robust_jax.models import normalise
from robust_jax.models.vit import ViT
from robust_jax.state import TrainState

NUM_CLASSES, SAMPLES = 1000, 10
# Names that the model table does not have -> (its nearest, what differs).
VARIED: dict[str, tuple[str, dict[str, Any]]] = {"vit_l14": ("vit_l16", {"patch_size": 14})}

Program = tuple[Callable[..., Any], tuple[Any, ...]]  # a function and its arguments


def flops(model: ViT, stop: str | None = None) -> float:
    """Operations of the matrix products of one image, 2mnk each, up to a stage.

    Norms, activations and softmax are left out, so that this is what a matrix unit has to do.
    """
    d, patches = model.width, (model.image_size // model.patch_size) ** 2
    total, tokens = 0, patches + (model.pool == "cls")
    for name in model.stage_slice(None, stop):
        if name == "embed":
            total += 2 * patches * 3 * model.patch_size**2 * d
        elif name.endswith("_attn"):
            last = model.pool == "cls" and name == f"block_{model.depth - 1:02d}_attn"
            asking = 1 if last else tokens
            total += 4 * d * d * (asking + tokens) + 4 * asking * tokens * d
            tokens = asking
        elif name.endswith("_mlp"):
            total += 4 * tokens * d * model.mlp_dim
        elif name == "proj":
            total += 2 * d * model.feature_width
        elif name == "head":
            total += 2 * model.feature_width * model.num_classes
    return float(total)


@dataclasses.dataclass(frozen=True)
class Case:
    """A student with three heads, its frozen arrays in bf16, and one tail."""

    student: Student
    frozen: Any
    tuned: Any

    @classmethod
    def make(cls, name: str) -> "Case":
        """Builds a ViT of the model table, or of `VARIED`, with random weights."""
        base, changes = VARIED.get(name, (name, {}))
        student, variables = students.build(base, NUM_CLASSES, dtype="bfloat16", **changes)
        frozen = cast_frozen(variables, "bfloat16")
        return cls(student, frozen, student.init(jax.random.key(1), frozen))

    def images(self, *shape: int) -> jax.Array:
        """Random uint8[*shape, h, w, 3]."""
        side = self.student.model.image_size
        return jax.random.bits(jax.random.key(2), (*shape, side, side, 3), jnp.uint8)

    def trunk(self, batch: int) -> Program:
        return self.student.trunk, (self.frozen, self.images(batch))

    def forward(self, batch: int) -> Program:
        """The original model's logits of images."""

        def run(frozen: Any, images: jax.Array) -> jax.Array:
            return self.student.original(frozen, self.student.trunk(frozen, images))

        return run, (self.frozen, self.images(batch))

    def selection(self, batch: int) -> Program:
        """An answer to images: trunk, MC samples of three heads, the choice."""

        def run(frozen: Any, tuned: Any, images: jax.Array) -> dict[str, jax.Array]:
            def tail(z: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
                return self.student.tail(frozen, tuned, z, key, shared_masks=True)

            z = self.student.trunk(frozen, images)
            return predict(mc_logits(tail, z, jax.random.key(0), SAMPLES), SelectionConfig())

        return run, (self.frozen, self.tuned, self.images(batch))

    def steps(self, batch: int, cached: int, scanned: int) -> dict[str, Program]:
        """Training steps on `batch` images, which are half as many pairs of views.

        Args:
          batch: even.
          cached: elements of the cache.
          scanned: steps of the program "cached, scan", which finds its rows in the whole cache.
        """
        model, entry = self.student.model, self.student.entry
        optimizer, frozen = optax.adam(1e-3), {"student": self.frozen}
        step = distillation.make_step(self.student, optimizer, students.KD, seed=0, teacher=None)
        state = TrainState.create(self.tuned, optimizer)
        images = self.images(2, batch // 2)
        views = {"clean": images[0], "aug": images[1]}
        labels = jax.random.randint(jax.random.key(3), (cached,), 0, NUM_CLASSES)
        rows = jax.random.randint(jax.random.key(4), (scanned, batch // 2), 0, cached)
        z = jax.eval_shape(self.student.trunk, self.frozen, images[0])
        keys = jax.random.split(jax.random.key(5))
        cache = {
            name: jax.random.normal(key, (cached, *z.shape[1:]), z.dtype)
            for name, key in zip(("z_clean", "z_aug"), keys, strict=True)
        } | {"label": labels}

        def full(params: Any, opt_state: Any, images: jax.Array, labels: jax.Array) -> Any:
            def loss(params: Any) -> jax.Array:
                logits: Any = model.apply({"params": params}, normalise(images, entry))
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

            updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        def scan(state: TrainState, frozen: Any, cache: Mapping[str, jax.Array], rows: Any) -> Any:
            def one(state: TrainState, rows: jax.Array) -> tuple[TrainState, Any]:
                return step(state, frozen, {name: part[rows] for name, part in cache.items()})

            return jax.lax.scan(one, state, rows)

        # Master weights in f32, as fine-tuning needs them; activations and products in bf16.
        master = jax.tree.map(lambda p: p.astype(jnp.float32), self.frozen["params"])
        first = {name: part[rows[0]] for name, part in cache.items()}
        both = jnp.tile(first["label"], 2)
        flat = images.reshape(batch, *images.shape[2:])
        return {
            "full": (full, (master, optimizer.init(master), flat, both)),
            "split": (step, (state, frozen, {**views, "label": first["label"]})),
            "cached": (step, (state, frozen, first)),
            "cached, scan": (scan, (state, frozen, cache, rows)),
        }


def matmul(m: int, k: int, n: int) -> Program:
    """A product in bf16 of [m, k] by [k, n], random numbers."""
    a, b = jax.random.split(jax.random.key(0))
    left, right = jax.random.normal(a, (m, k)), jax.random.normal(b, (k, n))
    return jnp.matmul, (left.astype(jnp.bfloat16), right.astype(jnp.bfloat16))


def augmentation(fn: Callable[..., Any], batch: int, size: int) -> Program:
    """A batched augmentation of random uint8[batch, size, size, 3] with a key each."""
    images = jax.random.bits(jax.random.key(6), (batch, size, size, 3), jnp.uint8)
    return fn, (images, jax.random.split(jax.random.key(7), batch))


def compiled(
    programs: Mapping[Any, Program], at_once: int
) -> tuple[dict[Any, Any], dict[Any, float]]:
    """Compiles programs.

    Args:
      programs: by name.
      at_once: how many at the same time; then XLA's trials of its kernels disturb one another.

    Returns:
      Name -> function without arguments, and name -> MiB of memory it needs besides them.
    """

    def one(program: Program) -> Any:
        fn, args = program
        return jax.jit(fn).lower(*args).compile()

    with ThreadPoolExecutor(at_once) as pool:
        found = dict(zip(programs, pool.map(one, programs.values()), strict=True))
    memory = {
        name: ready.memory_analysis().temp_size_in_bytes / 2**20 for name, ready in found.items()
    }
    return {
        name: (lambda ready=ready, args=programs[name][1]: ready(*args))
        for name, ready in found.items()
    }, memory
