"""What more devices, more processes and split parameters cost a training step.

Every topology is a process (or two) of its own with so many fake CPU devices; they take turns, at
one global batch. Fake devices share the cores of this machine: nothing gets faster by them, and
only the overhead can be read from the ratios.

- full: every parameter; split: the three-head step on images; cached: on rows of a feature cache
  that the devices hold, 20 steps a call, as in a run.
- fsdp: neighbouring devices that share one copy of large arrays. `state_mib` is what one device
  holds of parameters and optimizer state.

`full_2_processes_over_1` compares two processes of one device with one process of two.
`python benchmarks/scaling.py [--json FILE] [--model vit_tiny8] [--batch 128] [--rounds 5]
[--quick]`; --worker is for the processes that it starts.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import measuring
import numpy as np

CALLS = 20  # cached steps of one call
CLASSES = 10
STEPS = ("full", "split", "cached")
DEVICES, QUICK_DEVICES = (1, 2, 4, 8), (1, 2, 8)
Topology = tuple[int, int, int]  # devices of all processes, processes, fsdp
Processes = list[subprocess.Popen[str]]


def topologies(devices: tuple[int, ...]) -> list[Topology]:
    """Returns what is measured: whole copies and split ones, and two processes."""
    found = [(count, 1, fsdp) for count in devices for fsdp in sorted({1, count})]
    return [*found, (2, 2, 1)]


def start(topology: Topology, args: Namespace) -> Processes:
    """Starts the processes of a topology."""
    from robust_jax import hosts

    devices, processes, fsdp = topology
    with socket.socket() as found:
        found.bind(("localhost", 0))
        address = f"localhost:{found.getsockname()[1]}"
    options = {"--worker": fsdp, "--model": args.model, "--batch": args.batch}
    command = [sys.executable, __file__, *(str(part) for item in options.items() for part in item)]
    flag = f"--xla_force_host_platform_device_count={devices // processes}"
    started = []
    for index in range(processes):
        environment = {k: v for k, v in os.environ.items() if k not in hosts.VARIABLES}
        environment |= {"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
        if processes > 1:
            values = (address, str(processes), str(index))
            environment |= dict(zip(hosts.VARIABLES, values, strict=True))
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
        started.append(subprocess.Popen(command, env=environment, text=True, **pipes))
    return started


def answer(processes: Processes) -> dict[str, float]:
    """Waits for what every process says next; returns what the first one says."""
    said = []
    for process in processes:
        assert process.stdout is not None
        # Libraries print lines of their own.
        line = next((line for line in process.stdout if line.startswith("{")), None)
        if line is None:
            raise RuntimeError(
                f"a process of this benchmark ended early; got exit status {process.wait()}; see "
                "what it printed above"
            )
        said.append(json.loads(line))
    return said[0]


def ask(processes: Processes) -> dict[str, float]:
    """Lets the processes of a topology measure once; returns step -> ms."""
    for process in processes:
        print("measure", file=process.stdin, flush=True)
    return answer(processes)


@contextlib.contextmanager
def started(
    wanted: list[Topology], args: Namespace
) -> Iterator[dict[Topology, tuple[Processes, dict[str, float]]]]:
    """Yields, for each topology, its processes and the mebibytes of each step's state."""
    found = {}
    running: Processes = []
    try:
        for topology in wanted:
            processes = start(topology, args)
            running += processes
            found[topology] = processes, answer(processes)  # they compile one after another
        yield found
        for process in running:
            assert process.stdin is not None
            process.stdin.close()  # it ends; those of one topology wait for each other
        for process in running:
            process.wait()
    finally:
        for process in running:
            process.kill()


def work(args: Namespace) -> None:
    """What a started process does: builds the steps, then measures them for each line of input."""
    import jax
    from steps import variants

    from robust_jax import hosts, sharding

    if hosts.VARIABLES[0] in os.environ:
        hosts.connect()
    mesh = sharding.make_mesh(fsdp=args.worker)
    found = variants(args.model, args.batch, CLASSES)
    steps = {name: program(name, *found[name], mesh) for name in STEPS}
    own = jax.local_devices()[0]
    held = {
        name: sum(
            shard.data.nbytes
            for leaf in jax.tree.leaves(state)
            for shard in leaf.addressable_shards
            if shard.device == own
        )
        for name, (_, state, _, _) in steps.items()
    }
    programs = {name: repeatedly(*parts) for name, parts in steps.items()}
    for run in programs.values():
        run()
    print(json.dumps({name: size / 2**20 for name, size in held.items()}), flush=True)
    for _ in sys.stdin:
        took = {}
        for name, run in programs.items():
            began = time.perf_counter()
            run()
            seconds = time.perf_counter() - began
            took[name] = 1e3 * seconds / (CALLS if name == "cached" else 1)
        print(json.dumps(took), flush=True)


def program(name: str, step: Any, arguments: Any, mesh: Any) -> tuple[Any, Any, Any, Any]:
    """Returns a compiled step as `robust_jax.train` makes it, its state, frozen arrays, batch."""
    import jax
    import jax.numpy as jnp

    from robust_jax import hosts, sharding, train
    from robust_jax.stages.feed import gathered

    state, frozen, batch = arguments
    state = jax.tree.map(jnp.copy, state)  # it is donated, and others hold the same arrays
    stacked = name == "cached"
    if stacked:
        count = len(batch["label"])
        rows = np.random.default_rng(0).permuted(np.tile(np.arange(count), (CALLS, 1)), axis=1)
        frozen, batch, step = {**frozen, "cache": batch}, {"row": rows}, gathered(step)
    own = {
        key: np.split(np.asarray(value), hosts.count(), axis=int(stacked))[hosts.index()]
        for key, value in batch.items()
    }
    state, frozen = sharding.place((state, frozen), mesh)
    placed = sharding.shard_batch(own, mesh, stacked=stacked)
    run = train.jitted(step, state, mesh, CALLS if stacked else 1)
    return run.lower(state, frozen, placed).compile(), state, frozen, placed


def repeatedly(compiled: Any, state: Any, frozen: Any, batch: Any) -> Any:
    """Returns a function that goes one call on, and waits for it."""
    import jax

    now = [state]  # a call donates it

    def run() -> None:
        now[0], metrics = compiled(now[0], frozen, batch)
        jax.block_until_ready((now[0], metrics))

    return run


def main() -> None:
    """Measures, prints the table and writes the JSON."""
    args = measuring.arguments(
        __doc__, model="vit_tiny8", batch=128, rounds=5, quick=False, worker=0
    )
    if args.worker:
        work(args)
        return
    if args.quick:
        args.batch, args.rounds = 16, 1
    took: dict[tuple[Topology, str], list[float]] = {}
    with started(topologies(QUICK_DEVICES if args.quick else DEVICES), args) as running:
        for _ in range(args.rounds):
            for topology, (processes, _) in running.items():
                for step, once in ask(processes).items():
                    took.setdefault((topology, step), []).append(once)
        state = {
            (topology, step): held[step] for topology, (_, held) in running.items() for step in held
        }
    ms = {key: float(np.median(values)) for key, values in took.items()}
    names = ("devices", "processes", "fsdp")
    rows = [
        {
            "step": step,
            **dict(zip(names, topology, strict=True)),
            "ms": ms[topology, step],
            "state_mib": state[topology, step],
        }
        for step in STEPS
        for topology in running
    ]
    one, two, eight = (1, 1, 1), (2, 1, 1), (8, 1, 1)
    ratios = {
        "cached_8_over_1_devices": ms[eight, "cached"] / ms[one, "cached"],
        "full_2_over_1_devices": ms[two, "full"] / ms[one, "full"],
        "full_2_processes_over_1": ms[(2, 2, 1), "full"] / ms[two, "full"],
        "state_bytes_fsdp8_over_1": state[(8, 1, 8), "full"] / state[eight, "full"],
    }
    said = (
        f"{args.model}, global batch of {args.batch} images; fake devices share "
        f"{measuring.machine()['cores']} cores: only overhead can be read from this"
    )
    measuring.finish(said, rows, ratios, args.json)


if __name__ == "__main__":
    main()
