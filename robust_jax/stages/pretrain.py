"""Stage `pretrain`: the clean student, from pre-trained weights or trained here."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from robust_jax import config as config_lib
from robust_jax import models, optim, weights
from robust_jax.data.pipeline import Elements, train_batches
from robust_jax.evals import classification, metrics
from robust_jax.method import supervised
from robust_jax.stages import probe
from robust_jax.stages.cache import parameter_hash
from robust_jax.stages.context import Context
from robust_jax.state import TrainState
from robust_jax.zero_shot.head import ZeroShotHead


def run(context: Context) -> dict[str, Any]:
    """Makes the student; returns its clean accuracy and times."""
    student = context.config.student
    model, entry = context.student_model, context.student_entry
    if not student.weights or student.classifier == "finetune":
        return train_classifier(
            context, "pretrain", model, entry, loss="cross_entropy", start=student.weights
        )
    variables, facts = load_weights(
        context, "student", "load" if student.classifier == "load" else "new"
    )
    if student.classifier == "zero_shot":
        variables["params"]["head"] = {"kernel": zero_shot_kernel(context)}
    elif student.classifier == "probe":
        facts |= probe.run(context, variables, facts["weights_hash"])
    variables = jax.tree.map(jnp.asarray, variables)
    return {**facts, **_finish(context, "pretrain", model, entry, variables)}


def load_weights(
    context: Context, name: str, classifier: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fills the student or the teacher from its `weights`, and says what was loaded.

    Args:
      context: of the run.
      name: "student" or "teacher".
      classifier: "load" the file's or a "new" one.

    Returns:
      The variables, on the host; and which weights they are.

    Raises:
      ValueError: when the file does not fit the network, or its classifier the data.
    """
    section = context.config[name]
    model = context.student_model if name == "student" else context.teacher_model
    found, count = weights.find(section.weights, section.name), len(context.class_names)
    if classifier == "load" and found.num_classes != count:
        raise ValueError(
            f"the classifier of the weights is of other classes; got {found.num_classes} in "
            f"{section.weights} and {count} in the data; use student.classifier=probe"
        )
    variables, report = found.load(model, classifier=classifier)
    print(f"{name}: {section.weights} ({found.format}): {report}")
    digest = parameter_hash(found.file.tensors)
    return variables, {"weights_format": found.format, "weights_hash": digest}


def zero_shot_kernel(context: Context) -> Any:
    """Returns the classifier of `student.zero_shot_head`, f32[d, k].

    Raises:
      ValueError: when it is of another number of classes or of another width.
    """
    path = context.config.student.zero_shot_head
    head = ZeroShotHead.load(path)
    wanted = (context.student_model.feature_width, len(context.class_names))
    if head.kernel.shape != wanted:
        raise ValueError(
            f"the zero-shot head does not fit; got {list(head.kernel.shape)} in {path} for "
            f"{wanted[0]} features and {wanted[1]} classes; build it with this model's text tower "
            "and one name for each class, in the order of the data's classes"
        )
    return head.kernel


def train_classifier(
    context: Context,
    name: str,
    model: models.StagedModel,
    entry: models.ModelEntry,
    *,
    loss: str,
    jsd_weight: float = 0.0,
    augmented_image: bool = False,
    start: str = "",
) -> dict[str, Any]:
    """Trains all of a model by the config section `name` and stores it in `name/variables`.

    Args:
      loss: a key of `supervised.VIEWS`.
      augmented_image: the first view is augmented too.
      start: weights to begin with, under a new classifier; "" begins at random.
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
    facts: dict[str, Any] = {}
    if start:
        variables, facts = load_weights(context, "student" if name == "pretrain" else name, "new")
        variables = jax.tree.map(jnp.asarray, variables)
    else:
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
    return {**facts, **times, **_finish(context, name, model, entry, trained), "steps": total}


def _finish(
    context: Context,
    name: str,
    model: models.StagedModel,
    entry: models.ModelEntry,
    variables: dict[str, Any],
) -> dict[str, float]:
    """Stores the variables and measures them on the clean evaluation images."""
    context.save(f"{name}/variables", variables)

    @jax.jit
    def answer(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
        logits: Any = model.apply(variables, models.normalise(images, entry))
        return {"label": logits.argmax(-1)}

    outputs = classification.evaluate(
        answer,
        variables,
        classification.EvalSet(context.val, context.ops("eval_ops")),
        batch_size=context.config.evaluate.batch_size,
        mesh=context.mesh,
    )
    accuracy = metrics.accuracy(outputs["label"], context.val.labels)
    print(f"{name}: clean accuracy {accuracy.value:.4f} on {accuracy.n} images")
    return {"clean_accuracy": accuracy.value}
