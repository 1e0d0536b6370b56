"""A page to try a finished run: `python -m robust_jax.demo DIR` (needs requirements-demo.txt).

An image is corrupted at a severity, and shown with what the original model and the robust one say,
which head answered and why, and how both fare from severity 0 to 5. Local only, unless --share.
"""

import argparse
import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from robust_jax.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, corrupt
from robust_jax.data.listing import EXTENSIONS
from robust_jax.method.selection import HEADS

if TYPE_CHECKING:
    from robust_jax.classifier import Prediction, RobustClassifier

NONE = "none"
SHOWN = 5  # classes
SIDE = 256  # pixels that a small image is enlarged to
_EXAMPLES = 8
# `selection.score` of the run -> how a head comes to answer.
RULES = {
    "product": "low uncertainty and low divergence win",
    "sum": "low uncertainty and low divergence win",
    "uncertainty": "low uncertainty wins",
    "kl": "low divergence wins",
    "max_logit": "the head with the largest logit wins",
    "gate": "a gate looks at the first stages of the network",
}


@dataclasses.dataclass(frozen=True)
class Look:
    """What the page shows of one image.

    Attributes:
      image: uint8[s, s, 3], as the models see it.
      original: f32[k], probabilities of the model before it was made robust.
      ours: answer for a batch of this image alone.
    """

    image: np.ndarray
    original: np.ndarray
    ours: "Prediction"


def look(classifier: "RobustClassifier", image: np.ndarray, corruption: str, severity: int) -> Look:
    """Corrupts an image and asks both models.

    Args:
      classifier: of the run.
      image: uint8[h, w, 3] of any size.
      corruption: a name of `corruptions`, or "none".
      severity: 0 (the image as it is) to 5.

    Raises:
      ValueError: for an image that is none, or an unknown corruption.
    """
    pixels = classifier.prepare(image, "the image")
    if corruption != NONE and severity:
        pixels = corrupt(pixels[None], corruption, int(severity), ids=[0])[0]
    return Look(pixels, classifier.original(pixels[None])[0], classifier.answer(pixels[None]))


def likely(class_names: Sequence[str], probs: np.ndarray) -> dict[str, float]:
    """Returns the likeliest classes and their probabilities; of k classes at most `SHOWN`."""
    order = np.argsort(-probs, kind="stable")[:SHOWN]
    names = list(class_names)
    # Classes of equal name are told apart by their numbers.
    return {
        names[i] if names.count(names[i]) == 1 else f"{names[i]} ({i})": float(probs[i])
        for i in order
    }


def why(said: "Prediction") -> list[list[str]]:
    """Returns a row for each head: its name and whether it answered, its uncertainty, its KL."""
    rows = []
    for number, head in enumerate(HEADS):
        name = f"{head} (answered)" if number == said.head[0] else head
        kl = f"{said.kl[0, number]:.3g}" if number < said.kl.shape[1] else "reference"
        rows.append([name, f"{said.uncertainty[0, number]:.3g}", kl])
    return rows


def enlarged(image: np.ndarray) -> np.ndarray:
    """Returns an image with each pixel as a square, so that its sides are about `SIDE` or more."""
    times = max(1, SIDE // max(image.shape[:2]))
    return image.repeat(times, axis=0).repeat(times, axis=1)


def sweep(looks: Sequence[Look], corruption: str, class_names: Sequence[str]) -> Figure:
    """Draws how sure both models are of what ours said of the image as it is, by severity.

    Args:
      looks: at severities 0 to 5.
    """
    chosen = int(looks[0].ours.label[0])
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    lines = {
        "original": [one.original[chosen] for one in looks],
        "robust": [one.ours.probs[0, chosen] for one in looks],
    }
    for (name, values), style in zip(lines.items(), ("o--", "s-"), strict=True):
        axes.plot((0, *SEVERITIES), values, style, label=name)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(f"severity of {corruption}")
    axes.set_ylabel("probability")
    name = class_names[chosen].replace("$", r"\$")
    axes.set_title(f"how sure of: {name}", fontsize=10)
    axes.legend()
    return figure


def page(classifier: "RobustClassifier", examples: Sequence[str] = ()) -> Any:
    """Returns the page, gradio.Blocks, of a run.

    Args:
      classifier: of the run.
      examples: paths of images to pick from.
    """
    import gradio as gr

    names = classifier.class_names

    def show(image: np.ndarray | None, corruption: str, severity: int) -> tuple[Any, ...]:
        if image is None:
            return None, None, None, None, None
        try:
            if corruption == NONE:
                found, plot = look(classifier, image, NONE, 0), None
            else:
                looks = [look(classifier, image, corruption, s) for s in (0, *SEVERITIES)]
                found, plot = looks[severity], sweep(looks, corruption, names)
        except ValueError as error:
            raise gr.Error(str(error)) from error
        ours = likely(names, found.ours.probs[0])
        return enlarged(found.image), likely(names, found.original), ours, why(found.ours), plot

    with gr.Blocks(title="robust_jax") as blocks:
        gr.Markdown("# Original and robust model, side by side")
        with gr.Row():
            with gr.Column():
                image = gr.Image(label="image", type="numpy", image_mode="RGB", height=SIDE)
                corruption = gr.Dropdown(
                    [NONE, *CORRUPTIONS, *EXTRA_CORRUPTIONS], value=NONE, label="corruption"
                )
                severity = gr.Slider(0, max(SEVERITIES), value=3, step=1, label="severity")
                if examples:
                    gr.Examples([[path] for path in examples], [image], label="examples")
            with gr.Column():
                seen = gr.Image(label="what the models see", interactive=False, height=SIDE)
                plot = gr.Plot(show_label=False)
        with gr.Row():
            original = gr.Label(label="original model")
            ours = gr.Label(label="robust model")
        heads = gr.Dataframe(
            headers=["head", "uncertainty", "KL"],
            column_widths=["35%", "37%", "28%"],
            wrap=True,
            label=f"why this head: {RULES[classifier.score]}",
            interactive=False,
        )
        inputs, outputs = [image, corruption, severity], [seen, original, ours, heads, plot]
        for changed in inputs:
            changed.change(show, inputs, outputs, show_progress="minimal")
    return blocks


def main(argv: Sequence[str] | None = None) -> int:
    """Serves the page until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m robust_jax.demo", description=__doc__)
    parser.add_argument("workdir", help="the --workdir of a finished run")
    parser.add_argument("--examples", type=Path, help="folder of images to pick from")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--share", action="store_true", help="reachable by everyone, for 72 hours")
    args = parser.parse_args(argv)
    if importlib.util.find_spec("gradio") is None:
        raise ValueError(
            "the demo needs Gradio; got no such package; pip install -r requirements-demo.txt"
        )
    examples: list[str] = []
    if args.examples:
        if not args.examples.is_dir():
            raise ValueError(f"--examples is not a folder; got {args.examples}; give one of images")
        found = sorted(args.examples.rglob("*"))
        examples = [str(path) for path in found if path.suffix.lower() in EXTENSIONS][:_EXAMPLES]
    from robust_jax.classifier import RobustClassifier

    page(RobustClassifier(args.workdir), examples).launch(
        server_name="127.0.0.1", server_port=args.port, share=args.share
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
