import inspect
import subprocess
import sys

import pytest

from configs import base, folder, quickstart
from robust_jax.augment.augmix_ops import OPS
from robust_jax.corruptions import CORRUPTIONS
from robust_jax.data import overlap


def test_plain_ops_pass():
    overlap.check("", (), "data.train_ops")
    overlap.check("decode|resize(8)|flip_lr|value_range(-1, 1)", (), "data.train_ops")
    overlap.check("augmix|augmix(3.0, 3, -1, 1.0, False)|no_such_op", (), "data.train_ops")


@pytest.mark.parametrize("op", OPS)
def test_augmix_operations_pass(op):
    overlap.check(op, (), "data.train_ops")


@pytest.mark.parametrize("module", [base, folder, quickstart])
def test_default_configs_pass(module):
    data = module.get_config().data
    assert "{size}" in data.train_ops
    overlap.check(data.train_ops, (), "data.train_ops")
    overlap.check(data.augment_ops, (), "data.augment_ops")


@pytest.mark.parametrize(
    "op", [*CORRUPTIONS, "speckle_noise", "gaussian_blur", "spatter", "saturate"]
)
def test_corruptions_are_refused_unless_allowed(op):
    ops = f"decode|{op}(severity=2)|flip_lr"
    with pytest.raises(ValueError, match=f"data.augment_ops trains on .*; got {op} ") as error:
        overlap.check(ops, (), "data.augment_ops")
    assert f"""--config.data.allowed_overlap='("{op}",)'""" in str(error.value)
    overlap.check(ops, (op,), "data.augment_ops")


@pytest.mark.parametrize("ops", ["augmix(all_ops=True)", "augmix(3.0, 3, -1, 1.0, True)"])
def test_augmix_is_refused_with_all_ops(ops):
    expected = r"augmix \(overlaps with brightness, contrast, saturate, gaussian_blur\)"
    with pytest.raises(ValueError, match=expected):
        overlap.check(ops, ("gaussian_noise",), "data.train_ops")
    overlap.check(ops, ("augmix",), "data.train_ops")


def test_position_of_all_ops():
    from robust_jax.data.augmix import augmix

    names = list(inspect.signature(augmix).parameters)
    assert names.index("all_ops") == overlap._ALL_OPS_POSITION == len(names) - 1


def test_every_op_is_named_once_and_the_suggestion_keeps_what_is_allowed():
    ops = "fog(1)|randaugment|snow(1)|snow(2)"
    with pytest.raises(ValueError, match=r"randaugment .* and snow") as error:
        overlap.check(ops, ("fog",), "data.train_ops")
    assert str(error.value).count("snow (") == 1
    assert str(error.value).endswith("""='("fog", "randaugment", "snow")'""")
    overlap.check(ops, ("fog", "randaugment", "snow"), "data.train_ops")


def test_unknown_names_in_allowed_are_refused():
    with pytest.raises(ValueError, match=r"got 'gausian_noise'.*did you mean 'gaussian_noise'"):
        overlap.check("", ("fog", "gausian_noise"), "data.train_ops")


def test_registered_ops_that_overlap_are_the_table():
    """A new op must be in the table or among those that only touch geometry and encoding."""
    from robust_jax.data import registry

    registry.build("")
    harmless = {"decode", "resize", "resize_small", "central_crop", "random_crop"}
    harmless |= {"inception_crop", "flip_lr", "value_range", "standardise", "crop_border"}
    ours = {name for name, make in registry._FACTORIES.items() if "robust_jax" in make.__module__}
    assert ours - harmless == set(overlap.OVERLAPS)


def test_runs_without_tensorflow():
    code = (
        "import sys; from robust_jax.data import overlap; "
        "overlap.check('augmix(severity=3)', (), 'k'); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
