"""Tiny EfficientNet-Lites, scaled and not, at sizes whose halves are odd."""

from parity import Case, Reference

from robust_jax.models.efficientnet import EfficientNet, Group

GROUPS = (Group(1, 3, 1, 1, 16), Group(2, 5, 2, 6, 24), Group(2, 3, 2, 4, 40), Group(1, 5, 1, 3, 8))


def ours(image_size, width_factor, depth_factor):
    return EfficientNet(10, image_size, width_factor, depth_factor, GROUPS)


def theirs(image_size, width_factor, depth_factor):
    from efficientnet_lite_pytorch import EfficientNet as Theirs
    from efficientnet_lite_pytorch.utils import BlockDecoder, get_model_params

    widths = (32, *(group.width for group in GROUPS))
    blocks = [
        f"r{g.num_blocks}_k{g.kernel}_s{g.stride}{g.stride}_e{g.expansion}_i{width_in}_o{g.width}"
        for width_in, g in zip(widths, GROUPS, strict=False)
    ]
    _, common = get_model_params(
        "efficientnet-lite0",
        {
            "image_size": image_size,
            "width_coefficient": width_factor,
            "depth_coefficient": depth_factor,
            "num_classes": 10,
        },
    )
    return reference(Theirs(BlockDecoder.decode(blocks), common))


def reference(model):
    """A torch image classifier with batch norm, whose counters need no values."""
    import torch

    model.eval()
    own = model.state_dict()
    counters = {name: value for name, value in own.items() if not value.is_floating_point()}
    shapes = {name: tuple(value.shape) for name, value in own.items() if name not in counters}

    def run(tensors, inputs):
        given = {name: torch.tensor(value) for name, value in tensors.items()}
        model.load_state_dict({**counters, **given}, strict=True)
        with torch.no_grad():
            output = model(torch.tensor(inputs))
        return getattr(output, "logits", output).numpy()

    return Reference(shapes, run)


CASES = [
    Case(
        name,
        "efficientnet",
        "efficientnet_lite_pytorch",
        lambda scale=scale: ours(*scale),
        lambda scale=scale: theirs(*scale),
    )
    for name, scale in (
        ("efficientnet_lite_odd", (45, 1.0, 1.0)),
        ("efficientnet_lite_scaled", (50, 1.1, 1.2)),
    )
]
