"""The command line: `python -m robust_jax.main --config configs/X.py[:arg] --workdir DIR`."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import ml_collections
from absl import app, flags, logging
from etils import epath
from ml_collections import config_flags

from robust_jax import claim, hosts, preemption, validation, wandb_run
from robust_jax import config as config_lib

_CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/X.py[:arg]")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where results go; gs:// works.", required=True)
_RERUN = flags.DEFINE_multi_enum(
    "rerun", [], config_lib.STAGES, "Run this stage, and what depends on it, again."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the plan and stop.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "This is one of several hosts.")
_SHARD = flags.DEFINE_string("shard", "", "i/n: of a sweep, only this part of its runs.")
flags.mark_flag_as_required("config")


def main(argv: Sequence[str]) -> None:
    """Runs what the command line asks for."""
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments; got {argv[1:]}; options begin with --")
    # Orbax tells a screenful about every file it touches.
    logging.set_verbosity(logging.WARNING)
    config, workdir, rerun, dry_run = _CONFIG.value, _WORKDIR.value, _RERUN.value, _DRY_RUN.value
    if _SHARD.value and not config.sweep.title:
        raise ValueError(
            f"only a sweep can be spread by --shard; got {_SHARD.value!r} and a config without "
            "sweep.title; leave it out"
        )
    if _DISTRIBUTED.value:
        if config.sweep.title:
            raise ValueError(
                "the runs of a sweep are of one host each; got --distributed; spread them over "
                "hosts by --shard=i/n"
            )
        from robust_jax import sharding

        sharding.use_all_cores()
        hosts.connect()
        preemption.listen()
        with hosts.one_speaker(), hosts.failing_at_once():
            run(config, workdir, rerun=rerun, dry_run=dry_run)
        return
    preemption.listen()
    if config.sweep.title:
        from robust_jax import sweep, sweep_runs

        if rerun:
            raise ValueError(
                f"--rerun is of one run; got {rerun} for a sweep; remove the runs below {workdir} "
                "that should be made again"
            )
        changed = config_flags.get_override_values(flags.FLAGS["config"])
        config = sweep_runs.without_paper(config, changed)
        sweep.run(config, workdir, run, shard=_SHARD.value, dry_run=dry_run)
    else:
        run(config, workdir, rerun=rerun, dry_run=dry_run)


def run(
    config: ml_collections.ConfigDict,
    workdir: epath.PathLike,
    *,
    rerun: Sequence[str] = (),
    dry_run: bool = False,
    shared: epath.PathLike | None = None,
    others: Sequence[epath.Path] = (),
) -> None:
    """Runs the stages of a config, from where an earlier run of the same workdir stopped.

    Args:
      config: made from `configs/base.py`.
      workdir: where results go.
      rerun: stages to run again, with what depends on them.
      dry_run: only print the plan; the workdir is not touched.
      shared: where compiled programs and what is known of the data lie; the workdir if None.
      others: workdirs of other runs, whose equal stages are taken over.

    Raises:
      ValueError: for a bad config or bad data, before anything is trained, and where the workdir
        holds results of another config, is in use by another run, or cannot be written.
    """
    validation.validate(config, config_lib.base())
    wandb_run.check(config.train.wandb)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from robust_jax import sharding

    sharding.use_all_cores()
    if dry_run:
        from robust_jax import plan

        with tempfile.TemporaryDirectory() as scratch:
            plan.make(config, scratch, dry_run=True)
        return
    workdir = epath.Path(workdir)
    with claim.of(workdir) if hosts.is_first() else contextlib.nullcontext():
        _run(config, workdir, rerun, epath.Path(shared or workdir), others)


def _run(
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    rerun: Sequence[str],
    shared: epath.Path,
    others: Sequence[epath.Path],
) -> None:
    """Runs the stages; for the arguments see `run`."""
    import jax

    from robust_jax import plan, stages, writers

    jax.config.update("jax_compilation_cache_dir", str(shared / "xla_cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    # XLA's own caches would put this directory's name into the key of every program.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    if not hosts.is_first():
        hosts.wait("data")  # the first host fetches and indexes it for all
    print("reading the data and the models")
    context = plan.make(config, workdir, index_dir=shared / "data")
    if hosts.is_first():
        hosts.wait("data")
    stages.check(workdir, config, context.resolved, rerun)
    hosts.wait("checked")
    if hosts.is_first():
        for name in rerun:
            stages.clear(workdir, name)
        stages.adopt(workdir, config, context.resolved, others)
        writers.write_json(workdir / "config.json", config_lib.flatten(config))
        writers.write_json(workdir / "dataset.json", {"classes": list(context.class_names)})
        writers.write_json(workdir / "networks.json", context.entries_as_json())
        writers.write_json(workdir / "versions.json", _versions())
    hosts.wait("ready")
    with wandb_run.of(workdir, config):
        for name in config_lib.STAGES:
            if name not in config.stages:
                continue
            if stages.is_done(workdir, name):
                print(f"stage {name}: done before")
                continue
            print(f"stage {name}")
            stages.run(name, context)
        if "report" in config.stages and hosts.is_first():
            from robust_jax.stages import report

            wandb_run.tell(report.show(workdir)["methods"])


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-cpu", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return {**found, "git_commit": _git_commit()}


def _git_commit() -> str:
    """Returns the commit that this code is of; "unknown" outside its own repository."""
    root = Path(__file__).parents[1]
    command = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said[1] if Path(said[0]) == root else "unknown"


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line, with unknown config keys explained before anything else."""
    config_lib.check_overrides(argv)
    return app.parse_flags_with_usage(argv)


def cli() -> None:
    """Runs `main` through absl."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # in a log, too
    app.run(main, flags_parser=parse_flags)


if __name__ == "__main__":
    cli()
