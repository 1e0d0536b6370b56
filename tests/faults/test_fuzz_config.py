"""Any value for any key, any override and any argument: a documented error or none."""

import hypothesis.strategies as st
import pytest
from fuzzing import ANYTHING, fuzz, only_house_errors
from ml_collections import ConfigDict

from configs import base
from robust_jax import config as config_lib
from robust_jax.config import STAGES
from robust_jax.data.overlap import OVERLAPS
from robust_jax.validation import BASELINES, CHOICES, HEADS, validate

BASE = base.get_config()
KEYS = sorted(config_lib.flatten(BASE))
SECTIONS = sorted({key.partition(".")[0] for key in KEYS if "." in key})


def changed(key, value):
    """The defaults with another value, past the type checks of ConfigDict."""
    nested = base.get_config().to_dict()
    *path, last = key.split(".")
    inner = nested
    for part in path:
        inner = inner[part]
    inner[last] = value
    return ConfigDict(nested, type_safe=False)


OPS = st.text(alphabet="augmixfoeds|(){}=,'0123. \0", max_size=30)
WORDS = st.one_of(
    st.text(max_size=10),
    OPS,
    st.sampled_from([*STAGES, *BASELINES, *HEADS, *OVERLAPS, "cae", "noise2net", "skip:2"]),
    st.sampled_from([choice for choices in CHOICES.values() for choice in choices]).map(str),
)


def alike(default):
    """Values of the type that a key takes."""
    if isinstance(default, list):
        return st.lists(WORDS, max_size=4).map(tuple) | st.lists(st.integers(-1, 6), max_size=4)
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, str):
        return WORDS
    return st.one_of(st.integers(), st.integers(-2, 300), st.floats(), st.floats(0, 2))


VALUES = {key: alike(default) for key, default in config_lib.flatten(BASE).items()}
CASES = st.sampled_from(KEYS).flatmap(lambda key: st.tuples(st.just(key), ANYTHING | VALUES[key]))


@fuzz(CASES)
def test_any_value_of_any_key(case, folder):
    only_house_errors(validate, changed(*case), BASE)


@fuzz(st.tuples(st.sampled_from(SECTIONS), ANYTHING))
def test_any_value_in_place_of_a_section(case, folder):
    only_house_errors(validate, changed(*case), BASE)


OTHER_TYPES = {
    "seed": [1.5, True, "1", None, 2**63],
    "data.source": [1, None, ["digits"]],
    "data.verify": [1, "true", None],
    "data.dir": ["a\0b", 3],
    "stages": ["pretrain", 3, (1, 2)],
    "evaluate.severities": [("1",), 3, (1.5,), (True,)],
    "distill.total_steps": [1.5, "3", True],
    "distill.total_epochs": [float("inf"), float("nan"), 10**400, "1", 1e300],
    "sweep.runs": ["x", ({},), ((((((("x",),),),),),),)],
    "method.tuned_params": [0.05, 2100000],
}
ONE_EACH = [(key, value) for key, values in OTHER_TYPES.items() for value in values]


@pytest.mark.parametrize(("key", "value"), ONE_EACH, ids=lambda v: repr(v)[:20])
def test_another_type_is_told(key, value):
    with pytest.raises(ValueError, match=rf"^{key} (has another type|comes to steps without end)"):
        validate(changed(key, value), BASE)


PARTS = st.text(alphabet="abcdets._=:-/[]0\0 ", max_size=12)
OVERRIDES = st.one_of(
    st.sampled_from(KEYS).flatmap(lambda key: PARTS.map(lambda text: f"--config.{key}={text}")),
    PARTS.map(lambda text: f"--config.{text}"),
    PARTS.map(lambda text: f"--config={text}"),
    PARTS.map(lambda text: f"--config=configs/base.py:{text}"),
    PARTS,
    st.text(max_size=20),
    st.sampled_from(["--config", "--config=" + "a" * 5000, "--config.", "--", "-config.seed=1"]),
)


@fuzz(st.lists(OVERRIDES, max_size=4))
def test_any_command_line(argv, folder):
    only_house_errors(config_lib.check_overrides, ["--config=configs/quickstart.py", *argv])
    only_house_errors(config_lib.check_overrides, argv)


DEEP = st.integers(1, 3000).flatmap(lambda n: st.sampled_from(["(" * n, "[" * n, "-" * n + "1"]))
ARGUMENTS = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.tuples(st.sampled_from(["flag", "width", "rate", "name", "x"]), PARTS | DEEP).map(
            "=".join
        ),
        max_size=4,
    ).map(",".join),
    st.sampled_from(["width={[]:1}", "width={[],}", "width=9" + "9" * 5000]),
)


@fuzz(ARGUMENTS)
def test_any_config_argument(text, folder):
    spec = {"flag": False, "width": 3, "rate": 0.5, "name": "vit"}
    only_house_errors(config_lib.parse_arg, text, **spec)
