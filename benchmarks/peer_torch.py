"""What PyTorch and transformers need for the same work: partial fine-tuning, and MC dropout.

Both sides have the same weights and the same uint8 images, on the same cores, in one process run,
interleaved: the ratios are what to read, each over the fastest way of the peer. Ours runs as in
`robust_jax.main`: every core is a device with its part of the batch, but for the step on the cache,
which one has alone. Nothing is timed before both sides give the same answers and the same gradient.
`python benchmarks/peer_torch.py [--json FILE] [--model vit_s16] [--batch 16] [--rounds 5]
[--eager]`; --eager leaves torch.compile out, which takes a minute.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import measuring
import numpy as np
import optax
import students
from jax.sharding import Mesh

from robust_jax import sharding
from robust_jax.method import distillation
from robust_jax.method.selection import HEADS, SelectionConfig, mc_logits, predict
from robust_jax.state import TrainState

try:
    import peer_torch_model
    import torch
except ImportError as error:
    raise SystemExit(
        f"the comparison needs PyTorch and transformers; got {type(error).__name__}: {error}; do "
        "`pip install -r requirements-torch.txt`"
    ) from error

NUM_CLASSES, SAMPLES, LEARNING_RATE = 1000, 10, 1e-3
CLOSE = 1e-4  # how far logits may be apart; loss and gradient norm, relative to their size
Program = Callable[[], Any]


class Ours:
    """A student of three heads, its arrays, and a batch of pairs of a clean and another view.

    Attributes:
      mesh: the devices, as many as share the pairs evenly.
      images: uint8[batch, h, w, 3], the clean views before the others.
      labels: int32[batch / 2], of the pairs.
    """

    def __init__(self, name: str, batch: int):
        if batch < 2 or batch % 2:
            raise ValueError(f"a batch holds pairs of views; got batch={batch}; use an even number")
        parts = math.gcd(batch // 2, jax.device_count())
        self.mesh = sharding.make_mesh(jax.devices()[:parts])
        self.student, self.variables = students.build(name, NUM_CLASSES)
        model = self.student.model
        rng = np.random.default_rng(0)
        # Away from step 0, where up-projections of zero would hide all that lies before them.
        self.tuned = jax.tree.map(
            lambda x: x + rng.normal(0, 0.02, x.shape).astype(np.float32),
            self.student.init(jax.random.key(1), self.variables),
        )
        shape = (batch, model.image_size, model.image_size, 3)
        self.images = rng.integers(0, 256, shape, np.uint8)
        self.labels = rng.integers(0, NUM_CLASSES, batch // 2, np.int32)

    def logits(self) -> dict[str, np.ndarray]:
        """Returns what every head says about the images without dropout, f32[batch, k]."""

        @jax.jit
        def answer(variables: Any, tuned: Any, images: jax.Array) -> dict[str, jax.Array]:
            return self.student.tail(variables, tuned, self.student.trunk(variables, images))

        return jax.device_get(answer(self.variables, self.tuned, self.images))

    def steps(self, rate: float = students.RATE) -> tuple[Program, Program]:
        """Returns the step on images and that on their cached features, with a dropout rate.

        Each gives the state after it, and metrics.
        """
        student = dataclasses.replace(self.student, rate=rate)
        optimizer = optax.adam(LEARNING_RATE)
        step = jax.jit(
            distillation.make_step(student, optimizer, students.KD, seed=0, teacher=None)
        )

        def on(mesh: Mesh, batch: dict[str, np.ndarray]) -> Program:
            frozen = {"student": sharding.place(self.variables, mesh)}
            state = sharding.place(TrainState.create(self.tuned, optimizer), mesh)
            placed = sharding.shard_batch(batch, mesh)
            return lambda: step(state, frozen, placed)

        clean, aug = np.split(self.images, 2)
        views, label = {"clean": clean, "aug": aug}, {"label": self.labels}
        frozen = {"student": self.variables}
        cache = jax.jit(lambda views: distillation.features(student, frozen, views, None))
        # As `stages.feed` has it: one device where an image is one vector.
        one = sharding.make_mesh(jax.devices()[:1])
        return on(self.mesh, views | label), on(one, jax.device_get(cache(views)) | label)

    def selection(self) -> Program:
        """Returns prediction: the trunk once, MC samples of the tail, the choice of a head."""

        @jax.jit
        def answer(variables: Any, tuned: Any, images: jax.Array) -> dict[str, jax.Array]:
            def tail(z: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
                return self.student.tail(variables, tuned, z, key, shared_masks=True)

            z = self.student.trunk(variables, images)
            return predict(mc_logits(tail, z, jax.random.key(0), SAMPLES), SelectionConfig())

        variables, tuned = sharding.place((self.variables, self.tuned), self.mesh)
        images = sharding.shard_batch({"images": self.images}, self.mesh)["images"]
        return lambda: answer(variables, tuned, images)


class Torch:
    """The peer with the weights, the images and the labels of our side."""

    def __init__(self, ours: Ours):
        self.peer = peer_torch_model.build(ours.student, ours.variables, ours.tuned)
        self.images = torch.tensor(ours.images)
        self.labels = torch.tensor(ours.labels, dtype=torch.int64)

    def whole_loss(self) -> torch.Tensor:
        """The network called as it is; what is frozen requires no gradient."""
        return peer_torch_model.loss(self.peer(self.images), self.labels)

    def split_loss(self) -> torch.Tensor:
        """The network taken apart: no_grad up to the first freed tensor, then the CLS token."""
        with torch.no_grad():
            z = self.peer.trunk(self.images)
        return peer_torch_model.loss(self.peer.tail(z), self.labels)

    def step(self, loss: Callable[[], torch.Tensor]) -> Program:
        """Returns a training step by one of the losses."""
        parameters = self.peer.tuned()
        optimizer = torch.optim.Adam(parameters, LEARNING_RATE, fused=True)

        def step() -> torch.Tensor:
            self.peer.tuning()
            optimizer.zero_grad()
            value = loss()
            value.backward()
            optimizer.step()
            return value.detach()

        return step

    @torch.inference_mode()
    def mc_whole(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The network in dropout mode, ten times, and the choice of a head."""
        self.peer.train()
        samples = [self._stacked(self.peer(self.images)) for _ in range(SAMPLES)]
        return peer_torch_model.choose(torch.stack(samples, 1))

    @torch.inference_mode()
    def mc_split(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The frozen trunk once, ten samples of the tail in one batch, the choice of a head."""
        self.peer.tuning()
        z = self.peer.trunk(self.images)
        logits = self._stacked(self.peer.tail(z.repeat(SAMPLES, *[1] * (z.ndim - 1))))
        return peer_torch_model.choose(logits.unflatten(1, (SAMPLES, len(z))))

    def _stacked(self, logits: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.stack([logits[head] for head in HEADS])


def check(ours: Ours, theirs: Torch) -> None:
    """Compares both sides without dropout: logits, loss, gradient, and what is tuned.

    Raises:
      ValueError: when they are not the same computation.
    """
    theirs.peer.eval()
    expected = ours.logits()
    with torch.no_grad():
        whole = theirs.peer(theirs.images)
        split = theirs.peer.tail(theirs.peer.trunk(theirs.images))
    for way, found in {"whole": whole, "split": split}.items():
        for head, logits in found.items():
            _same(f"logits of {head} ({way})", expected[head], logits.numpy(), CLOSE)
    _, metrics = ours.steps(rate=0.0)[0]()
    for way, loss in {"whole": theirs.whole_loss, "split": theirs.split_loss}.items():
        parameters = theirs.peer.tuned()
        value = loss()
        norm = torch.nn.utils.get_total_norm(torch.autograd.grad(value, parameters))
        for name, tensor in {"loss": value.detach(), "gradient_norm": norm}.items():
            size = float(metrics[name])
            _same(f"{name} ({way})", metrics[name], tensor.numpy(), CLOSE * max(1.0, size))
    count = sum(parameter.numel() for parameter in theirs.peer.tuned())
    _same("number of tuned parameters", ours.student.plan.tuned_params, count, 0)


def _same(what: str, ours: Any, theirs: Any, most: float) -> None:
    apart = float(np.abs(np.asarray(ours) - np.asarray(theirs)).max())
    if not apart <= most:
        raise ValueError(
            f"the two sides must agree before they are timed; got {what} {apart:.3g} apart, more "
            f"than {most:.3g}; look at the weights, and at the versions of torch and transformers"
        )


def main() -> None:
    """Compares, measures, prints the table and writes the JSON."""
    args = measuring.arguments(__doc__, model="vit_s16", batch=16, rounds=5, eager=False)
    sharding.use_all_cores()
    torch.set_num_threads(measuring.machine()["cores"])
    ours = Ours(args.model, args.batch)
    theirs = Torch(ours)
    check(ours, theirs)
    streaming, cached = ours.steps()
    tuning = {"torch step": theirs.whole_loss, "torch step, split": theirs.split_loss}
    if not args.eager:
        tuning["torch step, compiled"] = torch.compile(theirs.split_loss)
    # The sides do not take turns more often than they must: idle threads of one wait a while.
    programs = {
        "our step on images": streaming,
        "our step on the cache": cached,
        "our selection": ours.selection(),
        **{name: theirs.step(loss) for name, loss in tuning.items()},
        "torch MC dropout": theirs.mc_whole,
        "torch MC dropout, split": theirs.mc_split,
    }
    seconds = measuring.interleaved(programs, args.rounds, {"our step on the cache": 50})
    rows = [
        {"way": name, "ms": 1e3 * took, "images_per_second": args.batch / took}
        for name, took in seconds.items()
    ]
    fastest = min(seconds[name] for name in tuning)
    selecting = seconds["our selection"]
    ratios = {
        "streaming_over_torch": seconds["our step on images"] / fastest,
        "cached_over_torch": seconds["our step on the cache"] / fastest,
        "selection_over_torch": selecting / seconds["torch MC dropout"],
        "selection_over_torch_split": selecting / seconds["torch MC dropout, split"],
    }
    title = f"{args.model}, batch {args.batch}, torch {torch.__version__}"
    measuring.finish(title, rows, ratios, args.json)


if __name__ == "__main__":
    main()
