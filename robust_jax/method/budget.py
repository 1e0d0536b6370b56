"""The budget resolver: which tensors are tuned, where the trunk ends, how wide the additions are.

The rule is ours (the paper gives totals only, Table 5 of its supplement): heads take a fifth, real
tensors are freed from the end while they fit, and a residual bottleneck takes the remainder.
"""

import dataclasses
import math
from typing import Any

import flax.traverse_util
import numpy as np

# Table 5 of the paper's supplement, millions of tuned parameters, by the names of our zoo.
PAPER_TUNED = {
    "resnet101": 2.1,
    "resnet152": 2.6,
    "vit_small_legacy48m": 2.3,
    "vit_b16": 3.1,
    "clip_rn50": 3.9,
    "clip_rn101": 4.1,
    "clip_vit_b16": 4.3,
    "clip_vit_l14_336": 5.6,
    "lit_b16b": 4.4,
}
SHARES = ("tail", "none")
NUM_HEADS = 3
MIN_HEAD_RANK = 8


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is tuned.

    Attributes:
      boundary: first stage of the tail.
      freed: slash-joined paths of the model's own tensors that are tuned.
      head_rank: r of the bottlenecks d -> r -> C that the heads add to the classifier's logits, or
        d -> r -> d that they add to the feature where the classifier compares cosines: then
        nothing that is tuned knows the classes.
      adapter_width: w of the residual bottleneck d -> w -> d on the feature; 0 means none.
      head_params: parameters of all three heads.
      shared_params: parameters of the freed tensors and the adapter, one copy.
      copies: how many copies of the shared part are tuned (1, or one for each head).
      total_params: parameters of the original model.
      budget: what was asked for.
    """

    boundary: str
    freed: tuple[str, ...]
    head_rank: int
    adapter_width: int
    head_params: int
    shared_params: int
    copies: int
    total_params: int
    budget: int

    @property
    def tuned_params(self) -> int:
        """All tuned parameters of the three-head student."""
        return self.head_params + self.copies * self.shared_params

    def tuned_with_heads(self, num_heads: int) -> int:
        """Tuned parameters of a student with another number of heads, of the same widths."""
        copies = num_heads if self.copies > 1 else 1
        return self.head_params * num_heads // NUM_HEADS + copies * self.shared_params


def target(text: str, model_name: str, total: int) -> int:
    """Returns the budget in parameters.

    Args:
      text: "paper" (Table 5), "auto" (1.65 ln(T / 1e6) - 4.04 million from T = 24 million on,
        a fit to Table 5 that is within 8 % of each row; 0.047 T below), a count, or a fraction.
      model_name: a name of the zoo.
      total: T, parameters of the model.
    """
    if not _is_size(total):
        raise ValueError(f"a model has parameters; got {total!r:.40} of {model_name!r}; count them")
    if text == "paper":
        if model_name not in PAPER_TUNED:
            raise ValueError(
                f"the paper's Table 5 has no budget for this student; got {model_name!r}; "
                f"use 'auto', a count or a fraction (Table 5 has {sorted(PAPER_TUNED)})"
            )
        return round(PAPER_TUNED[model_name] * 1e6)
    if text == "auto":
        small = total < 24e6
        return round(0.047 * total if small else (1.65 * math.log(total / 1e6) - 4.04) * 1e6)
    try:
        value = float(text)
    except (TypeError, ValueError, OverflowError):
        value = float("nan")
    if not 0 < value < total:
        raise ValueError(
            f"method.tuned_params must be 'paper', 'auto', a count below the model's {total} "
            f"parameters or a fraction below 1; got {text!r}; use for example 0.05"
        )
    return round(value * total if value < 1 else value)


def resolve(
    model: Any, params: Any, budget: int, *, num_classes: int, heads_share: float, share: str
) -> Plan:
    """Spends a budget on heads, the model's last tensors and an adapter.

    Args:
      model: a staged model (`stage_names`, `freeable`, `feature_width`, `head`).
      params: its parameters, arrays or shapes.
      budget: parameters to tune.
      heads_share: part of the budget for the three heads.
      share: "tail" (one tuned tail) or "none" (each head owns a copy of it).

    Raises:
      ValueError: when the budget does not even pay for heads of rank 8, or an argument cannot be.
    """
    if not _is_size(budget) or not _is_size(num_classes):
        raise ValueError(
            f"a budget is spent on parameters for classes; got {budget!r:.40} parameters and "
            f"{num_classes!r:.40} classes; use whole numbers above 0"
        )
    if not isinstance(heads_share, int | float) or not 0 < heads_share <= 1:
        raise ValueError(
            f"method.heads_share is a part of the budget; got {heads_share!r:.40}; use a number "
            "above 0 and at most 1"
        )
    if share not in SHARES:
        raise ValueError(f"unknown share; got {share!r:.40}; use one of {', '.join(SHARES)}")
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    size = {path: math.prod(leaf.shape) for path, leaf in flat.items()}
    total, d, copies = sum(size.values()), model.feature_width, 1 if share == "tail" else NUM_HEADS

    added = head_features(model, num_classes)
    rank = round((heads_share * budget / NUM_HEADS - added) / (d + 1 + added))
    rank = max(MIN_HEAD_RANK, rank)
    head_params = NUM_HEADS * (rank * (d + 1 + added) + added)
    rest = (budget - head_params) // copies
    if rest < 0:
        raise ValueError(
            f"the budget is too small for three heads; got {budget} parameters, and heads of rank "
            f"{rank} for {num_classes} classes need {head_params}; raise method.tuned_params"
        )
    freed: list[str] = []
    for group in model.freeable():
        paths = [p for p in size if any(p == g or p.startswith(g + "/") for g in group)]
        cost = sum(size[p] for p in paths)
        if cost > rest:
            break
        freed += paths
        rest -= cost
    width = max(0, (rest - 3 * d) // (2 * d + 1))
    adapter = 3 * d + width * (2 * d + 1) if width else 0
    stages = model.stage_names
    boundary = min((p.split("/")[0] for p in freed), key=stages.index, default="head")
    return Plan(
        boundary=boundary,
        freed=tuple(freed),
        head_rank=rank,
        adapter_width=width,
        head_params=head_params,
        shared_params=sum(size[p] for p in freed) + adapter,
        copies=copies,
        total_params=total,
        budget=budget,
    )


def _is_size(value: Any) -> bool:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and 0 < value < 2**53


def head_features(model: Any, num_classes: int) -> int:
    """Returns what a head's bottleneck adds to: the logits, or the feature before a cosine."""
    return model.feature_width if model.head == "cosine" else num_classes


def format_table(plan: Plan, model: Any, params: Any) -> str:
    """Returns the table stage, tensor, parameters, state; trunk stages take one line each."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    cut = model.stage_names.index(plan.boundary)
    rows: list[tuple[str, str, int, str]] = []
    for position, stage in enumerate(model.stage_names):
        inside = {p: v for p, v in flat.items() if p.split("/")[0] == stage}
        if position < cut:
            rows.append(
                (stage, "(all)", sum(int(np.prod(v.shape)) for v in inside.values()), "frozen")
            )
            continue
        for path, leaf in inside.items():
            kind = "tuned" if path in plan.freed else "frozen"
            rows.append((stage, path.partition("/")[2], int(np.prod(leaf.shape)), kind))
    times = f" x {plan.copies}" if plan.copies > 1 else ""
    adapter = plan.shared_params - sum(int(np.prod(flat[p].shape)) for p in plan.freed)
    rows.append(
        ("(adapter)", f"residual bottleneck, width {plan.adapter_width}{times}", adapter, "tuned")
    )
    rows.append(("(heads)", f"3 bottlenecks, rank {plan.head_rank}", plan.head_params, "tuned"))
    lines = [f"{'stage':<18} {'tensor':<34} {'parameters':>12}  state"]
    lines += [f"{s:<18} {t:<34} {n:>12,}  {k}" for s, t, n, k in rows]
    lines.append(
        f"tuned {plan.tuned_params:,} of {plan.total_params:,} "
        f"({100 * plan.tuned_params / plan.total_params:.2f} %; budget {plan.budget:,}); "
        f"the trunk ends before stage {plan.boundary!r}"
    )
    return "\n".join(lines)
