"""Training all of a network as a classifier: the clean student, and the teachers."""

import functools
from typing import Any

import jax
import ml_collections

from robust_jax import config as config_lib
from robust_jax import models, optim, sharding, weights
from robust_jax.checkpoint import parameter_hash
from robust_jax.data.pipeline import Elements, train_batches
from robust_jax.evals import classification, metrics
from robust_jax.method import supervised
from robust_jax.stages import feed
from robust_jax.stages.context import Context
from robust_jax.state import TrainState


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
    model, _ = context.network(name)
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


def train(
    context: Context,
    path: str,
    name: str,
    section_name: str,
    *,
    start: dict[str, Any] | None = None,
    loss: str = "cross_entropy",
    jsd_weight: float = 0.0,
    augmented: ml_collections.ConfigDict | None = None,
    ema_decay: float = 0.0,
    seed: int | None = None,
) -> dict[str, Any]:
    """Trains all of a network and stores it.

    Args:
      path: below the workdir; the network goes to `path/variables`.
      name: "student" or "teacher", for the architecture and the weights to start from.
      section_name: of the config: durations and optimizer.
      start: variables to begin with; None for the network's `weights`, or random ones.
      loss: a key of `supervised.VIEWS`.
      jsd_weight: of the consistency loss.
      augmented: section with the mixture that views are drawn from; None for one view, the image.
      ema_decay: of the average of the weights that is kept in their place; 0 keeps the last.
      seed: of the first weights, the order and the views; that of the run if None.

    Returns:
      Clean accuracy, times and which weights it began with.
    """
    section = context.config[section_name]
    seed = context.config.seed if seed is None else seed
    views, drawn, mixture = {"image": ""}, {}, {}
    if augmented is not None:
        augment = context.ops("augment_ops")
        # The consistency loss has augmented views beside the image; without it, it is the image.
        plain = "image" if len(supervised.VIEWS[loss]) > 1 else ""
        drawn = {view: "" if view == plain else augment for view in supervised.VIEWS[loss]}
        views, mixture = {}, context.drawn("train", augmented)
    elements = Elements(
        source=context.train,
        ops=context.ops("train_ops"),
        views=views,
        drawn=drawn,
        seed=seed,
        **mixture,
    )
    total = config_lib.duration(section, "total", examples=len(elements), label=path)
    optimizer = optim.make(section, total)
    facts: dict[str, Any] = {}
    if start is None:
        start, facts = _start(context, name, seed)
    params, others = start["params"], {k: v for k, v in start.items() if k != "params"}
    model, entry = context.network(name)
    create = functools.partial(TrainState.create, optimizer=optimizer, averaged=ema_decay > 0)
    state, times = context.train_steps(
        path,
        supervised.make_step(
            model,
            entry,
            optimizer,
            loss=loss,
            jsd_weight=jsd_weight,
            ema_decay=ema_decay,
            accum_steps=section.accum_steps,
            remat=section.remat,
        ),
        sharding.create(create, context.training_mesh, params, model_state=others),
        {},
        lambda start, stop: train_batches(
            elements,
            batch_size=section.batch_size,
            start_step=start,
            num_steps=stop,
            **feed.host_part(),
        ),
        section=section_name,
        total_steps=total,
    )
    trained = state.average or {"params": state.params, **state.model_state}
    return {**facts, **times, **finish(context, path, name, trained), "steps": total}


def _start(context: Context, name: str, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    model, _ = context.network(name)
    if context.config[name].weights:
        variables, facts = load_weights(context, name, "new")
        return sharding.place(variables, context.training_mesh), facts
    key, images = jax.random.key(seed), model.example_input()
    return dict(sharding.create(model.init, context.training_mesh, key, images)), {}


def finish(context: Context, path: str, name: str, variables: dict[str, Any]) -> dict[str, float]:
    """Stores the variables of a network and measures them on the clean evaluation images."""
    context.save(f"{path}/variables", variables)
    variables = context.variables(path)  # on this host's devices
    model, entry = context.network(name)

    @jax.jit
    def answer(variables: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        logits: Any = model.apply(variables, models.normalise(batch["image"], entry))
        return {"label": logits.argmax(-1)}

    outputs = classification.evaluate(
        answer,
        variables,
        classification.EvalSet(context.val, context.ops("eval_ops")),
        batch_size=context.config.evaluate.batch_size,
        mesh=context.mesh,
    )
    accuracy = metrics.accuracy(outputs["label"], context.val.labels)
    print(f"{path}: clean accuracy {accuracy.value:.4f} on {accuracy.n} images")
    return {"clean_accuracy": accuracy.value}
