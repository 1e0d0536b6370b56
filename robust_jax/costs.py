"""What computations cost: floating-point operations, and the time of compiling them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from etils import epath
from jax.extend import core

from robust_jax import writers


def flops(calls: float, fn: Callable[..., Any], *args: Any) -> dict[str, float]:
    """Counts the floating-point operations of a number of calls, without running any.

    XLA's count of the program before it is optimised, for one CPU: it is the same on every device
    and on any number of them. A product of a row by a column of n numbers has 2n operations,
    padding of a convolution has none, and exp, log and the like are left out. Of a choice the
    dearest branch counts; a loop counts as often as it runs, or once where the data decide that.

    Args:
      calls: how many.
      fn: to be compiled; it does not split its work over devices itself.
      args: of `fn`; only their shapes and dtypes count.

    Returns:
      {"flops"}; {} where JAX was told to do without the CPU.
    """
    try:
        cpu = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return {}

    def shaped(a: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=cpu)

    return {"flops": calls * _flops(fn, jax.tree.map(shaped, args))}


def _flops(fn: Callable[..., Any], args: tuple[Any, ...]) -> float:
    traced = jax.jit(fn).trace(*args)
    return _once(traced) + _repeated(traced.jaxpr, jax.tree.leaves(args)[0].sharding)


def _once(traced: Any) -> float:
    """XLA's own count, which takes the body of a loop once; it has no entry where that is 0."""
    return float(traced.lower().cost_analysis().get("flops", 0.0))


def _repeated(jaxpr: Any, sharding: jax.sharding.Sharding) -> float:
    """What is missing from `_once`: the other runs of the bodies of the loops."""
    missing = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "scan":
            body, repeats = params["jaxpr"], params["length"]
            args = [
                jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a in body.in_avals
            ]
            once = _once(jax.jit(core.jaxpr_as_fun(body)).trace(*args))
            missing += repeats * (once + _repeated(body, sharding)) - once
        elif found := [_repeated(part, sharding) for part in _parts(params)]:
            missing += max(found) if name == "cond" else sum(found)
    return missing


def _parts(params: Mapping[str, Any]) -> Iterator[Any]:
    """The programs within an operation; of those for several platforms the one for a CPU."""
    if platforms := params.get("branches_platforms"):
        yield params["branches"][next(i for i, p in enumerate(platforms) if not p or "cpu" in p)]
        return
    for value in params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(part, "eqns"):
                yield part


def added(*parts: Mapping[str, float]) -> dict[str, float]:
    """Adds up what `flops` found; {} where one of them found nothing."""
    if all("flops" in part for part in parts):
        return {"flops": sum(part["flops"] for part in parts)}
    return {}


def spent(path: epath.PathLike) -> dict[str, float]:
    """Returns the seconds that calls of `spend`, interrupted ones too, have added to a file."""
    return writers.read_json(path) or {}


def spend(path: epath.PathLike, **seconds: float) -> None:
    """Adds to the seconds in a file, by name."""
    before = spent(path)
    writers.write_json(path, before | {k: before.get(k, 0.0) + v for k, v in seconds.items()})
