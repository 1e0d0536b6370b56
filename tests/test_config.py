import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import base, quickstart
from robust_jax import config as config_lib
from robust_jax.data.mixture import WAYS
from robust_jax.validation import validate

ROOT = Path(__file__).parents[1]
CONFIG_FILE = """
from configs import base

def get_config(arg=""):
    c = base.get_config()
    {}
    return c
"""


def changed(**keys):
    c = base.get_config()
    for key, value in keys.items():
        c.update_from_flattened_dict({key.replace("__", "."): value})
    return c


def config_file(tmp_path, line):
    path = tmp_path / "configs" / "mine.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(CONFIG_FILE.format(line))
    return str(path)


def test_every_default_is_valid():
    validate(base.get_config(), base.get_config())
    validate(quickstart.get_config("runlocal"), base.get_config())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"cache__use": "flase"}, r"cache.use .*got 'flase'; use one of .*did you mean 'false'"),
        ({"selection__score": "prodct"}, r"selection.score .*'prodct'.*did you mean 'product'"),
        ({"data__source": "folders"}, r"data.source .*did you mean 'folder'"),
        ({"teacher__loss": "x"}, r"teacher.loss .*got 'x'; use one of \['cross_entropy', 'augm"),
        ({"method__share": "heads"}, r"method.share .*got 'heads'"),
        ({"distill__optimizer": "adamm"}, r"distill.optimizer .*did you mean 'adam'"),
        ({"teacher__schedule": "cosin"}, r"teacher.schedule .*did you mean 'cosine'"),
        ({"stages": ("pretrain", "distil")}, r"stages .*got 'distil'.*did you mean 'distill'"),
        ({"baselines__methods": ("apt", "lpft")}, r"baselines.methods .*did you mean 'lp_ft'"),
        ({"baselines__methods": ("wise_ft",)}, r"wise_ft interpolates .*add 'full_finetune'"),
        ({"finetune__loss": "jsd"}, r"finetune.loss .*got 'jsd'"),
        ({"method__kd__heads": ("clear",)}, r"method.kd.heads .*did you mean 'clean'"),
        ({"augmented__fraction": 0.0}, r"augmented.fraction .*got 0.0; use a value above 0.0 and"),
        ({"augmented__fraction": 1.5}, r"augmented.fraction .*got 1.5; .* at most 1.0"),
        ({"method__kd__weight": -0.1}, r"method.kd.weight .*got -0.1; use a value of at least 0.0"),
        ({"method__kd__clean_weight": 2.0}, r"method.kd.clean_weight .*got 2.0; .*at most 1.0"),
        ({"method__kd__temperature": 0.0}, r"method.kd.temperature .*above 0.0$"),
        ({"method__dropout": 1.0}, r"method.dropout .*at most 0.9"),
        ({"data__image_size": 4}, r"data.image_size .*got 4; use a value of at least 8$"),
        ({"selection__num_samples": 0}, r"selection.num_samples .*got 0; .*at least 1$"),
        ({"augmented__replicas": 0}, r"augmented.replicas .*got 0"),
        ({"evaluate__max_images": 0}, r"evaluate.max_images .*got 0"),
        ({"evaluate__max_sequences": 0}, r"evaluate.max_sequences .*got 0"),
        (
            {"selection__score": "gate", "selection__candidates": "all"},
            r"a gate tells clean .*got selection.candidates=all; use clean_unclean, or another",
        ),
        (
            {
                "selection__keep_clean": 0.9,
                "selection__calibrate": False,
                "selection__score": "kl",
            },
            r"keep_clean sets a threshold; got 0.9 .*; calibrate, or use 0",
        ),
        ({"selection__gate_stages": 0}, r"selection.gate_stages .*got 0; .*at least 1$"),
        ({"train__log_every_steps": 0}, r"train.log_every_steps .*got 0"),
        ({"train__checkpoint_every_steps": -1}, r"train.checkpoint_every_steps .*got -1"),
        ({"pretrain__batch_size": 0}, r"pretrain.batch_size .*got 0; use a value of at least 1"),
        ({"distill__learning_rate": 0.0}, r"distill.learning_rate .*above 0.0"),
        ({"distill__learning_rate": float("nan")}, r"distill.learning_rate .*got nan"),
        ({"teacher__warmup_percent": 101.0}, r"teacher.warmup_percent .*at most 100.0"),
        ({"teacher__total_steps": 0}, r"teacher.total_steps comes to no step at all; got 0"),
        ({"teacher__total_epochs": -1.0}, r"teacher.total_epochs comes to no step at all"),
        (
            {"distill__total_steps": 3, "distill__total_examples": 9},
            r"distill: two durations; got {'total_steps': 3, 'total_examples': 9}; set one",
        ),
        ({"seed": -1}, r"seed is out of range; got -1"),
        ({"distort__networks": ("cea",)}, r"distort.networks .*got 'cea'.*did you mean 'cae'"),
        ({"distort__networks": ("cae", "cae")}, r"names a network twice; got \('cae', 'cae'\)"),
        ({"distort__copies": 0}, r"distort.copies .*got 0; use a value of at least 1"),
        ({"distort__fit_steps": 0}, r"distort.fit_steps .*got 0; use a value of at least 1"),
        ({"distort__edsr_shrink": 3}, r"distort.edsr_shrink .*got 3; use one of \[1, 2, 4\]"),
        ({"distort__noise2net_max_eps": 0.0}, r"distort.noise2net_max_eps .*above 0.0"),
        ({"teacher__ema_decay": 1.0}, r"teacher.ema_decay .*got 1.0; .* at most 0.99999"),
        ({"teacher__mixture__clean": -1.0}, r"teacher.mixture: .*of at least 0 .*'clean': -1.0"),
        ({"augmented__mixture__augment_ops": 0.0}, r"augmented.mixture: .*and one above 0; got"),
        (
            {"augmented__mixture__chained": 1.0},
            r"augmented.mixture: nothing to draw chained from; .*; add cae or edsr to distort.netw",
        ),
        (
            {"selection__mixture__chained": 1.0},
            r"selection.mixture: nothing to draw chained from; .*; add cae or edsr to distort.netw",
        ),
        (
            {"distort__networks": ("edsr",), "teacher__mixture__noise2net": 1.0},
            r"teacher.mixture: nothing to draw noise2net from; got copies \['edsr_0'\]; add noise2",
        ),
        (
            {"data__allowed_overlap": ("gausian_noise",)},
            r"data.allowed_overlap .*got 'gausian_noise'.*did you mean 'gaussian_noise'",
        ),
    ],
)
def test_bad_values_are_told(keys, message):
    with pytest.raises(ValueError, match=message):
        validate(changed(**keys), base.get_config())


@pytest.mark.parametrize("key", ["train_ops", "augment_ops"])
def test_training_on_the_test_corruptions_is_refused_unless_allowed(key):
    ops = "decode|gaussian_noise(severity=1)|random_crop({size}, pad={pad})"
    keys = {f"data__{key}": ops}
    with pytest.raises(ValueError, match=rf"data.{key} trains on .*; got gaussian_noise ") as error:
        validate(changed(**keys), base.get_config())
    assert """--config.data.allowed_overlap='("gaussian_noise",)'""" in str(error.value)
    with pytest.raises(ValueError, match=rf"data.{key} trains on .*; got gaussian_noise "):
        validate(changed(**keys, data__allowed_overlap=("fog",)), base.get_config())
    validate(changed(**keys, data__allowed_overlap=("gaussian_noise",)), base.get_config())


def test_every_way_of_a_mixture_is_valid_with_its_networks():
    sections = ("teacher", "augmented", "selection")
    keys = {f"{section}__mixture__{way}": 0.2 for section in sections for way in WAYS}
    validate(changed(distort__networks=("noise2net", "edsr"), **keys), base.get_config())


def test_a_short_part_of_a_long_epoch_is_valid():
    validate(changed(pretrain__total_epochs=0.01), base.get_config())


def test_unknown_and_missing_keys_are_told():
    c = base.get_config().unlock()
    c.cache.max_gigabits = 5.0
    with pytest.raises(ValueError, match=r"got 'cache.max_gigabits'.*mean 'cache.max_gigabytes'"):
        validate(c, base.get_config())
    c = base.get_config().unlock()
    del c.cache.dtype
    with pytest.raises(ValueError, match=r"config key missing; got no 'cache.dtype'"):
        validate(c, base.get_config())


def test_parse_arg():
    spec = {"runlocal": False, "model": "vit", "width": 3, "rate": 0.5}
    assert config_lib.parse_arg(None, **spec).to_dict() == spec
    assert config_lib.parse_arg("", **spec).to_dict() == spec
    assert config_lib.parse_arg(" runlocal , model=a=b,width=4,", **spec).to_dict() == {
        "runlocal": True,
        "model": "a=b",
        "width": 4,
        "rate": 0.5,
    }
    assert config_lib.parse_arg("runlocal=False", **spec).runlocal is False


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("runlocl", r"got 'runlocl'; use one of \['runlocal', 'width'\]; did you mean 'runlocal'"),
        ("width", r"'width' must be a int; got 'width'; write width=3"),
        ("width=4.0", r"'width' must be a int; got 'width=4.0'"),
        ("width=wide", r"'width' must be a int; got 'width=wide'"),
        ("runlocal=yes", r"'runlocal' must be a bool; got 'runlocal=yes'"),
    ],
)
def test_bad_arguments_are_told(arg, message):
    with pytest.raises(ValueError, match=message):
        config_lib.parse_arg(arg, runlocal=False, width=3)


def section(**keys):
    empty = {"total_epochs": 2.0, "total_steps": None, "total_examples": None, "batch_size": 32}
    return ConfigDict(empty | keys)


def test_duration():
    def steps(**keys):
        return config_lib.duration(section(**keys), "total", examples=100, label="s")

    assert steps() == 6  # 200 / 32
    assert steps(total_steps=5) == 5
    assert steps(total_examples=320) == 10
    assert steps(total_epochs=0.2) == 1
    with pytest.raises(ValueError, match=r"s.total_epochs comes to no step .*got 0.1 with batch 3"):
        steps(total_epochs=0.1)
    with pytest.raises(ValueError, match=r"s.total_examples comes to no step .*got 9"):
        steps(total_examples=9)


def test_flatten_and_back():
    c = base.get_config()
    flat = config_lib.flatten(c)
    assert flat["method.kd.heads"] == ["clean", "unclean", "combined"]
    assert config_lib.unflatten(flat).to_dict() == c.to_dict()
    assert config_lib.subset(c, ("cache", "seed")) == {
        "seed": 0,
        **{f"cache.{k}": v for k, v in c.cache.items()},
    }
    assert config_lib.digest({"a": 1, "b": 2}) == config_lib.digest({"b": 2, "a": 1})
    assert config_lib.digest([1]) != config_lib.digest([2])


def test_overrides_are_checked():
    known = ["--workdir=x", "--config=configs/quickstart.py:runlocal"]
    config_lib.check_overrides([*known, "--config.distill.total_steps=3", "--config.seed", "1"])
    config_lib.check_overrides(["--config.wrong=1"])  # without a file absl tells what is missing
    for argv in (known, ["--config", "configs/quickstart.py"]):
        with pytest.raises(ValueError, match=r"--config.distil.lr; .*configs/base.py"):
            config_lib.check_overrides([*argv, "--config.distil.lr=1"])
    with pytest.raises(ValueError, match=r"cache.dtyp; .* did you mean 'cache.dtype'"):
        config_lib.check_overrides([*known, "--config.cache.dtyp", "x"])


def test_config_files_are_loaded_from_anywhere(tmp_path):
    assert config_lib.load(config_file(tmp_path, "c.seed = 3")).seed == 3
    with pytest.raises(ValueError, match=r"config file not found; got 'configs/quickstrt.py'"):
        config_lib.load("configs/quickstrt.py:runlocal")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "c.cache.dtypo = 1",
            r"does not fit configs/base.py; got .*dtypo.*[Dd]id you mean .*dtype",
        ),
        ("c.seed = 'one'", r"mine.py' does not fit configs/base.py; got .*seed"),
    ],
)
def test_config_files_with_wrong_keys_are_told(tmp_path, line, message):
    with pytest.raises(ValueError, match=message):
        config_lib.load(config_file(tmp_path, line))


def test_unknown_override_is_told_before_jax_is_imported(tmp_path):
    code = """
import sys
from robust_jax import main
try:
    main.cli()
except ValueError as error:
    print(error)
print(sorted({"jax", "tensorflow"} & set(sys.modules)))
"""
    args = ["--config=configs/quickstart.py", f"--workdir={tmp_path / 'w'}"]
    found = subprocess.run(
        [sys.executable, "-c", code, *args, "--config.distill.totl_steps=3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert found == [
        "unknown config key; got --config.distill.totl_steps; see configs/base.py for every key; "
        "did you mean 'distill.total_steps'?",
        "[]",
    ]
    assert not (tmp_path / "w").exists()
