"""Stage `pretrain`: trains the clean student, where no pre-trained weights are given."""

from typing import Any

import jax
import ml_collections

from robust_jax import config as config_lib
from robust_jax import models, optim
from robust_jax.data.pipeline import Elements, train_batches
from robust_jax.evals import classification, metrics
from robust_jax.method import supervised
from robust_jax.stages.context import Context
from robust_jax.state import TrainState


def run(context: Context) -> dict[str, Any]:
    """Trains the student on clean images; returns its accuracy and times."""
    return train_classifier(
        context, "pretrain", context.student_model, context.student_entry, loss="cross_entropy"
    )


def train_classifier(
    context: Context,
    name: str,
    model: models.StagedModel,
    entry: models.ModelEntry,
    *,
    loss: str,
    jsd_weight: float = 0.0,
    augmented_image: bool = False,
) -> dict[str, Any]:
    """Trains all of a model by the config section `name` and stores it in `name/variables`.

    Args:
      loss: a key of `supervised.VIEWS`.
      augmented_image: the first view is augmented too.
    """
    section: ml_collections.ConfigDict = context.config[name]
    augment = context.ops("augment_ops")
    elements = Elements(
        source=context.train,
        ops=context.ops("train_ops"),
        views={
            view: augment if view != "image" or augmented_image else ""
            for view in supervised.VIEWS[loss]
        },
        seed=context.config.seed,
    )
    total = config_lib.duration(section, "total", examples=len(elements), label=name)
    optimizer = optim.make(section, total)
    init = jax.jit(model.init)  # operation by operation it would compile a hundred programs
    variables = dict(init(jax.random.key(context.config.seed), model.example_input()))
    params = variables.pop("params")
    state, times = context.train_steps(
        name,
        supervised.make_step(model, entry, optimizer, loss=loss, jsd_weight=jsd_weight),
        TrainState.create(params, optimizer, variables),
        {},
        lambda start, stop: train_batches(
            elements,
            batch_size=section.batch_size,
            start_step=start,
            num_steps=stop,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ),
        total_steps=total,
        batch_size=section.batch_size,
    )
    trained = {"params": state.params, **state.model_state}
    context.save(f"{name}/variables", trained)

    @jax.jit
    def answer(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
        logits: Any = model.apply(variables, models.normalise(images, entry))
        return {"label": logits.argmax(-1)}

    outputs = classification.evaluate(
        answer,
        trained,
        classification.EvalSet(context.val, context.ops("eval_ops")),
        batch_size=context.config.evaluate.batch_size,
        mesh=context.mesh,
    )
    accuracy = metrics.accuracy(outputs["label"], context.val.labels)
    print(f"{name}: clean accuracy {accuracy.value:.4f} on {accuracy.n} images, {total} steps")
    return {**times, "clean_accuracy": accuracy.value, "steps": total}
