"""The peer of peer_torch.py: a network of transformers, tuned and asked as PyTorch's users do."""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np
import torch
from torch import nn
from transformers import ViTForImageClassification
from transformers.utils import logging

from robust_jax.method.losses import HEAD_DOMAINS
from robust_jax.method.student import Student
from robust_jax.weights import export
from robust_jax.weights.hf_student import Adapter, Bottleneck
from robust_jax.weights.network import Network

# Our modules in a layer of transformers' ViT, as it is in memory.
LAYER = {
    "attn/norm": "layernorm_before",
    "attn/query": "attention.q_proj",
    "attn/key": "attention.k_proj",
    "attn/value": "attention.v_proj",
    "attn/out": "attention.o_proj",
    "mlp/norm": "layernorm_after",
    "mlp/fc1": "mlp.fc1",
    "mlp/fc2": "mlp.fc2",
}
Logits = dict[str, torch.Tensor]


class Peer(nn.Module):
    """The pre-trained network, and on its CLS feature what our student adds to it.

    Only what the plan frees and adds requires gradients. `hidden_dropout_prob` of the network is
    the student's rate: it acts where the network is in training mode.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: ViTForImageClassification, student: Student):
        super().__init__()
        self.network = network.requires_grad_(False)
        self.boundary = student.plan.boundary
        for path in student.plan.freed:
            network.get_parameter(parameter_name(path)).requires_grad_(True)
        width, plan, rate = student.model.feature_width, student.plan, student.rate
        self.adapter = Adapter(width, plan.adapter_width, rate) if plan.adapter_width else None
        self.dropout = nn.Dropout(rate)
        self.heads = nn.ModuleDict(
            {
                head: Bottleneck(width, plan.head_rank, student.num_classes, rate)
                for head in student.heads
            }
        )
        self.register_buffer("mean", 255 * torch.tensor(student.entry.mean)[:, None, None])
        self.register_buffer("std", 255 * torch.tensor(student.entry.std)[:, None, None])

    def tuning(self) -> "Peer":
        """Turns dropout on in what was added, and off in the pre-trained network."""
        self.train()
        self.network.eval()
        return self

    def tuned(self) -> list[nn.Parameter]:
        """The parameters that the optimizer gets."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Normalises uint8[b, h, w, 3] to f32[b, 3, h, w], channels last in memory."""
        return (images.permute(0, 3, 1, 2).float() - self.mean) / self.std

    def forward(self, images: torch.Tensor) -> Logits:
        """Maps uint8[b, h, w, 3] to the logits [b, k] of every head, in one piece."""
        hidden = self.network.vit(self.pixels(images)).last_hidden_state
        return self.answers(hidden[:, 0])

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        """Maps uint8[b, h, w, 3] to the input of the first stage that has something to tune.

        Behind the last attention that is the CLS token alone, [b, d]; before it [b, n, d].
        """
        x, stages = self.pixels(images), self._stages()
        names = list(stages)
        for name in names[: names.index(self.boundary)]:
            x = stages[name](x)
        return x[:, 0] if self.boundary in names[-3:] else x

    def tail(self, z: torch.Tensor) -> Logits:
        """Maps the output of `trunk` to the logits [b, k] of every head."""
        stages = self._stages()
        names = list(stages)
        for name in names[names.index(self.boundary) : -1]:
            z = stages[name](z)
        return self.answers(z if z.ndim == 2 else z[:, 0])

    def answers(self, x: torch.Tensor) -> Logits:
        """Maps the CLS feature [b, d] to the logits [b, k] of every head."""
        x = self.dropout(x if self.adapter is None else self.adapter(x))
        original = self.network.classifier(x)
        return {name: original + head(x) for name, head in self.heads.items()}

    def _stages(self) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
        """The network under our names; the classifier, which `answers` asks, stands for itself."""
        vit = self.network.vit
        stages: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"embed": vit.embeddings}
        for i, layer in enumerate(vit.layers):
            stages[f"block_{i:02d}_attn"] = partial(_attention, layer)
            stages[f"block_{i:02d}_mlp"] = partial(_mlp, layer)
        return {**stages, "norm": vit.layernorm, "head": self.network.classifier}


def _attention(layer: Any, x: torch.Tensor) -> torch.Tensor:
    return x + layer.dropout(layer.attention(layer.layernorm_before(x))[0])


def _mlp(layer: Any, x: torch.Tensor) -> torch.Tensor:
    return x + layer.dropout(layer.mlp(layer.layernorm_after(x)))


def parameter_name(path: str) -> str:
    """Returns what a tensor of our ViT between patches and classifier is called there."""
    module, _, leaf = path.rpartition("/")
    suffix = "bias" if leaf == "bias" else "weight"
    if module == "norm":
        return f"vit.layernorm.{suffix}"
    block, _, part = module.removeprefix("block_").partition("_")
    return f"vit.layers.{int(block)}.{LAYER[part]}.{suffix}"


def build(student: Student, variables: Mapping[str, Any], tuned: Mapping[str, Any]) -> Peer:
    """Returns the peer with the weights of a student.

    Args:
      student: of a ViT with a CLS token and shared tail.
      variables: of the original network.
      tuned: of the student.

    Raises:
      ValueError: when the network is no ViT of transformers.
    """
    flat = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    flat |= flax.traverse_util.flatten_dict(tuned["shared"]["tail"], sep="/")
    params = flax.traverse_util.unflatten_dict(flat, sep="/")
    network = Network(student.entry, student.model, {**variables, "params": params})
    if export.config(network, "huggingface").get("model_type") != "vit":
        raise ValueError(
            f"the peer is a ViTForImageClassification; got {student.entry.name!r}; use a ViT whose "
            "files transformers reads as one, such as vit_s16"
        )
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as directory:
        export.write(Path(directory), network, "huggingface")
        found = ViTForImageClassification.from_pretrained(
            directory, attn_implementation="sdpa", hidden_dropout_prob=student.rate
        )
    peer = Peer(found, student)
    if peer.adapter is not None:
        _fill(peer.adapter, tuned["shared"]["adapter"])
    for head, module in peer.heads.items():
        _fill(module, tuned["heads"][head])
    return peer


def _fill(module: nn.Module, params: Mapping[str, Any]) -> None:
    state = {}
    for path, value in flax.traverse_util.flatten_dict(params, sep=".").items():
        stem, _, leaf = path.rpartition(".")
        array = np.asarray(value)
        name = f"{stem}.bias" if leaf == "bias" else f"{stem}.weight"
        state[name] = torch.tensor(array.T if leaf == "kernel" else array)
    module.load_state_dict(state)


def loss(logits: Logits, labels: torch.Tensor) -> torch.Tensor:
    """The cross-entropies of the heads, each on its images, the clean ones before the augmented.

    Args:
      logits: head -> [2b, k].
      labels: int[b].
    """
    views = {
        head: dict(zip(("clean", "aug"), x.chunk(2), strict=True)) for head, x in logits.items()
    }
    terms = [
        nn.functional.cross_entropy(views[head][domain], labels)
        for head in logits
        for domain in HEAD_DOMAINS[head]
    ]
    return torch.stack(terms).sum()


def choose(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Answers with the head, clean or unclean, whose mutual information times KL is smaller.

    Args:
      logits: [3, s, b, k]: clean, unclean, combined.

    Returns:
      The mean probabilities f32[b, k] and the number int64[b] of that head.
    """
    probs = logits.softmax(-1)
    mean = probs.mean(1)
    entropy = torch.special.entr(mean).sum(-1)
    information = entropy - torch.special.entr(probs).sum(-1).mean(1)
    divergence = (mean[2] * (mean[2].log() - mean[:2].log())).sum(-1)
    head = (information[:2] * divergence).argmin(0)
    return mean[head, torch.arange(len(head))], head
