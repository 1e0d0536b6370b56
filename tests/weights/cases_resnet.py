"""Tiny ResNets of both kinds of block, under both kinds of names."""

from cases_efficientnet import reference
from parity import Case, Reference

from robust_jax.models.resnet import ResNet

DEPTHS, BASE_WIDTH, IMAGE_SIZE = (1, 2, 1), 8, 50
RENAMED = (  # Hugging Face's names to torchvision's, in order
    ("resnet.embedder.embedder.convolution", "conv1"),
    ("resnet.embedder.embedder.normalization", "bn1"),
    ("resnet.encoder.stages.0.layers", "layer1"),
    ("resnet.encoder.stages.1.layers", "layer2"),
    ("resnet.encoder.stages.2.layers", "layer3"),
    ("shortcut.convolution", "downsample.0"),
    ("shortcut.normalization", "downsample.1"),
    ("layer.0.convolution", "conv1"),
    ("layer.0.normalization", "bn1"),
    ("layer.1.convolution", "conv2"),
    ("layer.1.normalization", "bn2"),
    ("layer.2.convolution", "conv3"),
    ("layer.2.normalization", "bn3"),
    ("classifier.1", "fc"),
)


def ours(block):
    return ResNet(10, IMAGE_SIZE, DEPTHS, block, base_width=BASE_WIDTH)


def huggingface(block):
    import transformers

    expansion = 4 if block == "bottleneck" else 1
    config = transformers.ResNetConfig(
        embedding_size=BASE_WIDTH,
        hidden_sizes=[expansion * BASE_WIDTH * 2**i for i in range(len(DEPTHS))],
        depths=DEPTHS,
        layer_type=block,
        downsample_in_bottleneck=False,
        num_labels=10,
    )
    return reference(transformers.ResNetForImageClassification(config))


def torchvision(block):
    """The same network, for whose file every tensor is renamed."""
    whole = huggingface(block)
    names = {name: renamed(name) for name in whole.shapes}

    def run(tensors, inputs):
        return whole.run({name: tensors[new] for name, new in names.items()}, inputs)

    return Reference({new: whole.shapes[name] for name, new in names.items()}, run)


def renamed(name):
    for old, new in RENAMED:
        name = name.replace(old, new)
    return name


CASES = [
    Case(
        f"resnet_{fmt}_{block}",
        "resnet",
        fmt,
        lambda block=block: ours(block),
        lambda make=make, block=block: make(block),
    )
    for fmt, make in (("huggingface", huggingface), ("timm", torchvision))
    for block in ("basic", "bottleneck")
]
