"""Lists the models: `python -m robust_jax.models [--json]`, one line a model."""

import argparse
import json
from typing import Any

from robust_jax.models import MODELS, ModelEntry, stage_parameter_counts, text_parameter_count


def describe(row: ModelEntry) -> dict[str, Any]:
    """What the list says of a model.

    `params_image` leaves the classifier out; `params_total` has the text tower, or else a
    classifier of 1000 classes.
    """
    counts = stage_parameter_counts(row.name)
    image = sum(counts.values()) - counts["head"]
    return {
        "name": row.name,
        "params_image": image,
        "params_total": image + (text_parameter_count(row.name) or counts["head"]),
        "input_size": row.input_size,
        "mean": list(row.mean),
        "std": list(row.std),
        "interpolation": row.interpolation,
        "weights": list(row.weights),
    }


def main() -> None:
    """Prints the list, aligned or as JSON lines."""
    parser = argparse.ArgumentParser(prog="python -m robust_jax.models", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    as_json = parser.parse_args().json
    layout = "{:<20} {:>12} {:>12} {:>5}  {:<21} {:<21} {:<13} {}"
    if not as_json:
        titles = ("params_image", "params_total", "input", "mean", "std", "interpolation")
        print(layout.format("name", *titles, "weights accepted"))
    for row in MODELS.values():
        values = describe(row)
        if as_json:
            print(json.dumps(values), flush=True)
            continue
        for key in ("mean", "std"):
            values[key] = ",".join(str(value) for value in values[key])
        for key in ("params_image", "params_total"):
            values[key] = f"{values[key]:,}"
        values["weights"] = ", ".join(values["weights"]) or "(trained from scratch)"
        print(layout.format(*values.values()), flush=True)


if __name__ == "__main__":
    main()
