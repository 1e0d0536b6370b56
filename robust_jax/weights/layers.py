"""The names of the layers that the files of several projects share."""

from collections.abc import Mapping
from typing import Any

from robust_jax.weights.mapping import Tensor

QKV = ("query", "key", "value")
# A counter for averaging without momentum, which no published network uses.
BATCH_NORM_COUNTER = r".*\.num_batches_tracked"
RESAMPLE = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers, in preprocessor_config.json
# Hugging Face's names of activations -> ours.
GELU = {"quick_gelu": "quick", "gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


def block_names(i: int) -> tuple[str, str]:
    """The stages of the i-th Transformer block: attention and MLP."""
    return f"block_{i:02d}_attn", f"block_{i:02d}_mlp"


def activation(config: Mapping[str, Any], family: str) -> dict[str, str]:
    """Returns {"gelu": ours} for the activation that a config.json of Hugging Face names, if any.

    Raises:
      ValueError: when there is no such activation here.
    """
    name = config.get("hidden_act", "gelu")
    if name not in GELU:
        raise ValueError(
            f"{family} has no such activation; got hidden_act={name!r}; "
            f"use one of {', '.join(GELU)}"
        )
    return {"gelu": GELU[name]} if "hidden_act" in config else {}


def norm(ours: str, name: str) -> list[Tensor]:
    """A layer norm, `ours` in our parameters and `name` in the file."""
    return [
        Tensor(f"params/{ours}/scale", f"{name}.weight"),
        Tensor(f"params/{ours}/bias", f"{name}.bias"),
    ]


def dense(ours: str, name: str, kernel: str = "linear", bias: str = "same") -> list[Tensor]:
    """A linear layer with bias; `kernel` and `bias` are their layouts."""
    return [
        Tensor(f"params/{ours}/kernel", f"{name}.weight", kernel),
        Tensor(f"params/{ours}/bias", f"{name}.bias", bias),
    ]


def packed_qkv(attn: str, weight: str, bias: str) -> list[Tensor]:
    """Query, key and value of a block in one tensor each; `bias` "" for none."""
    tensors = []
    for i, part in enumerate(QKV):
        path = f"params/{attn}/{part}"
        tensors.append(Tensor(f"{path}/kernel", weight, "heads_in", (i, 3)))
        if bias:
            tensors.append(Tensor(f"{path}/bias", bias, "heads_bias", (i, 3)))
    return tensors


def conv_bn(conv: str, bn: str, conv_name: str, bn_name: str) -> list[Tensor]:
    """A convolution without bias and the batch norm behind it.

    Args:
      conv: of our convolution, such as "stem/conv".
      bn: of our batch norm.
      conv_name: of the convolution in the file, without ".weight".
      bn_name: of the batch norm in the file.
    """
    return [
        Tensor(f"params/{conv}/kernel", f"{conv_name}.weight", "conv"),
        *norm(bn, bn_name),
        Tensor(f"batch_stats/{bn}/mean", f"{bn_name}.running_mean"),
        Tensor(f"batch_stats/{bn}/var", f"{bn_name}.running_var"),
    ]
