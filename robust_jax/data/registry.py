"""Turns an ops string such as `"decode|resize(32)|flip_lr"` into one function of an example.

Imports no TensorFlow; the modules that register ops are imported when ops are first built.
"""

import ast
import difflib
import importlib
import inspect
from collections.abc import Callable
from typing import Any

Features = dict[str, Any]
Op = Callable[[Features, Any], Features]

_OP_MODULES = (
    "robust_jax.data.ops",
    "robust_jax.data.augmix",
    "robust_jax.data.randaugment",
    "robust_jax.data.corruption_ops",
)
_FACTORIES: dict[str, Callable[..., Op]] = {}


def register(name: str) -> Callable[[Callable[..., Op]], Callable[..., Op]]:
    """Registers the factory of an op: `factory(*args, **kwargs) -> fn(features, seed) -> features`.

    Args:
      name: how ops strings call it.
    """

    def decorator(factory: Callable[..., Op]) -> Callable[..., Op]:
        known = _FACTORIES.get(name)
        # The same function again is a module reloaded in a notebook.
        if known is not None and (known.__module__, known.__qualname__) != (
            factory.__module__,
            factory.__qualname__,
        ):
            raise ValueError(
                f"two ops with one name; got {name!r} from {factory.__module__} and "
                f"{known.__module__}; rename one"
            )
        _FACTORIES[name] = factory
        return factory

    return decorator


def parse(ops: str) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Reads an ops string: names with literal arguments, joined by `|`.

    Args:
      ops: e.g. `"decode|random_crop(32, pad=4)"`; empty or blank for no ops.

    Returns:
      One (name, positional arguments, keyword arguments) for each op, in order.
    """
    if not ops.strip():
        return []
    try:
        node = ast.parse(ops.strip(), mode="eval").body
        calls = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            calls.append(_parse_call(node.right))
            node = node.left
        calls.append(_parse_call(node))
    # The last three are for literals that are no keys, and for nesting without end.
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"cannot read the ops string ({error}); got {ops!r:.400}; write names with literal "
            'arguments joined by |, such as "decode|resize(32)|flip_lr"'
        ) from None
    return calls[::-1]


def _parse_call(node: ast.expr) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    if isinstance(node, ast.Name):
        return node.id, (), {}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        kwargs = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise ValueError("** is not supported")
            if keyword.arg in kwargs:
                raise ValueError(f"{keyword.arg} is given twice")
            kwargs[keyword.arg] = ast.literal_eval(keyword.value)
        return node.func.id, tuple(ast.literal_eval(arg) for arg in node.args), kwargs
    raise ValueError(f"{ast.unparse(node)!r} is not an op")


def _make(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Op:
    if name not in _FACTORIES:
        near = difflib.get_close_matches(name, _FACTORIES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"unknown op; got {name!r}; {hint}choose among: {', '.join(sorted(_FACTORIES))}"
        )
    factory = _FACTORIES[name]
    signature = inspect.signature(factory)
    try:
        signature.bind(*args, **kwargs)
        return factory(*args, **kwargs)
    # Values that a factory does not expect fail in it in many ways.
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        got = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
        usage = ", ".join(str(p.replace(annotation=p.empty)) for p in signature.parameters.values())
        raise ValueError(
            f"bad arguments of op {name!r} ({error}); got {name}({got}); use {name}({usage})"
        ) from error


def build(ops: str) -> Op:
    """Builds the function that applies the ops of a string in order.

    Args:
      ops: e.g. `"decode|resize(32)|flip_lr"`; empty for the identity.

    Returns:
      fn(features, seed: int32[2] tensor) -> features. Op number i gets its own seed, folded from
      `seed` and i.
    """
    for module in _OP_MODULES:
        importlib.import_module(module)
    fns = [_make(*call) for call in parse(ops)]

    def apply(features: Features, seed: Any) -> Features:
        import tensorflow as tf

        for i, fn in enumerate(fns):
            features = fn(features, tf.random.experimental.stateless_fold_in(seed, i))
        return features

    return apply


def check_rgb_bytes(image: Any, op: str) -> None:
    """Raises a ValueError for anything but an image tensor uint8[h, w, 3]; `op` is for the text."""
    if image.dtype != "uint8" or image.shape.rank != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"{op} works on RGB bytes; got {image.dtype.name}{image.shape}; place it before "
            "value_range and give it uint8[h, w, 3]"
        )
