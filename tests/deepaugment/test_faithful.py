"""Which perturbations `faithful` changes: those are tested in both modes, the others in one."""

import jax
import jax.numpy as jnp
import pytest

from robust_jax.deepaugment import cae_code, cae_weights, edsr_activations, edsr_weights

F32 = jnp.float32
LAYER = cae_weights.LayerWeights(
    jax.ShapeDtypeStruct((3, 3, 4, 8), F32),
    jax.ShapeDtypeStruct((8,), F32),
    -1,
    0.5,
    jax.ShapeDtypeStruct((3, 3, 4, 8), F32),
)
CODE = jax.ShapeDtypeStruct((6, 5, 32), F32)
BODY = {
    "kernel": jax.ShapeDtypeStruct((16, 2, 3, 3, 4, 4), F32),
    "bias": jax.ShapeDtypeStruct((16, 2, 4), F32),
}


def computation(change, inputs, faithful):
    """What the function computes, as text: the same text is the same result."""
    key = jax.random.key(0)
    if not isinstance(inputs, cae_weights.LayerWeights):
        return jax.jit(lambda key, x: change(key, x, faithful)).lower(key, inputs).as_text()

    def run(key, kernel, bias, noise):
        layer = inputs._replace(kernel=kernel, bias=bias, noise=noise)
        new = change(key, layer, faithful)
        return new.kernel, new.bias

    return jax.jit(run).lower(key, inputs.kernel, inputs.bias, inputs.noise).as_text()


@pytest.mark.parametrize(
    "changes, inputs, count, differ",
    [
        (
            cae_weights.CHANGES,
            LAYER,
            9,
            {"negate_filters", "zero_filters", "gelu_filters", "scale_weights", "negate_fifth"},
        ),
        (cae_code.CHANGES, CODE, 9, {"scale_bits", "flip_some_channels"}),
        (
            edsr_weights.CHANGES,
            BODY,
            17,
            {"scale_weights", "convolve_shifts", "convolve_noise", "negate_filters"},
        ),
        (edsr_activations.BEFORE, CODE, 4, {"swap_channels"}),
        (edsr_activations.MIDDLE, CODE, 5, set()),
    ],
    ids=["cae_weights", "cae_code", "edsr_weights", "edsr_before", "edsr_middle"],
)
def test_what_differs(changes, inputs, count, differ):
    assert len(changes) == count
    computed = {
        name: [computation(change, inputs, faithful) for faithful in (True, False)]
        for name, change in changes.items()
    }
    assert {name for name, (faithful, meant) in computed.items() if faithful != meant} == differ
    # No two of them are the same, but for what leaves the features alone.
    texts = {meant for _, meant in computed.values()}
    assert len(texts) == count - (changes is edsr_activations.MIDDLE)
