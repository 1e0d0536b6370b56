"""One head of a robust student, in PyTorch: a network of transformers with a tuned classifier.

This file lies beside exported weights, whose config.json names its classes:
`AutoModelForImageClassification.from_pretrained(DIRECTORY, trust_remote_code=True)`.
"""

from typing import Any

import torch
from torch import nn
from transformers import (
    ResNetForImageClassification,
    SwinForImageClassification,
    ViTForImageClassification,
)

NORM_EPS = 1e-6  # Flax's


class Bottleneck(nn.Module):
    """d -> rank -> features with the erf GELU between; dropout acts on the hidden units."""

    def __init__(self, width: int, rank: int, features: int, rate: float):
        super().__init__()
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, features)
        self.dropout = nn.Dropout(rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [b, d] to [b, features]."""
        return self.up(self.dropout(nn.functional.gelu(self.down(x))))


class Adapter(nn.Module):
    """A residual bottleneck on the feature: x + up(gelu(down(norm(x))))."""

    def __init__(self, width: int, rank: int, rate: float):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.bottleneck = Bottleneck(width, rank, width, rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [b, d] to [b, d]."""
        return x + self.bottleneck(self.norm(x))


class RobustClassifier(nn.Linear):
    """The original classifier, whose tensors keep their names, and what the head adds to it."""

    def __init__(self, width: int, config: Any):
        super().__init__(width, config.num_labels)
        rate = config.head_dropout
        self.adapter = Adapter(width, config.adapter_width, rate) if config.adapter_width else None
        self.dropout = nn.Dropout(rate)
        self.head = Bottleneck(width, config.head_rank, config.num_labels, rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps the pooled feature [b, d] to logits [b, k]."""
        x = self.dropout(x if self.adapter is None else self.adapter(x))
        return super().forward(x) + self.head(x)


class RobustViTForImageClassification(ViTForImageClassification):
    """A ViT with a head of the student."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.classifier = RobustClassifier(config.hidden_size, config)
        self.post_init()


class RobustResNetForImageClassification(ResNetForImageClassification):
    """A ResNet with a head of the student."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.classifier[1] = RobustClassifier(config.hidden_sizes[-1], config)
        self.post_init()


class RobustSwinForImageClassification(SwinForImageClassification):
    """A Swin Transformer with a head of the student."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.classifier = RobustClassifier(self.swin.num_features, config)
        self.post_init()
