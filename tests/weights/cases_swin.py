"""Tiny Swin networks in the names of every format, and UniCL's text tower.

The other implementation of the image network is that of transformers, read from a file; timm's and
UniCL's tensors are brought to its names. That of the text tower is torch's own encoder.
"""

import numpy as np
from parity import Case, Reference
from transformers_files import run_from_file, written

from robust_jax.models.swin import Swin
from robust_jax.models.text import TextTransformer

# Maps of 11, 6 and 3 tokens: windows that are padded and shifted, padded merging, and a last map
# that is one window, on which the second block must not shift.
SWIN = {"embed_dim": 16, "depths": (2, 1, 2), "num_heads": (1, 2, 4)}
WINDOW, SIZE, CLASSES, EMBED = 3, 44, 10, 24
TEXT = {"width": 32, "depth": 2, "num_heads": 4, "embed_dim": EMBED}
TEXT |= {"vocab_size": 50, "context": 12, "norm_eps": 1e-12}

HUGGINGFACE = (  # parts of Microsoft's names -> of the names in files of transformers
    ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
    ("patch_embed.norm.", "embeddings.norm."),
    ("layers.", "encoder.layers."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".attn.proj.", ".attention.output.dense."),
    (".attn.", ".attention.self."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)


def huggingface_model(classifier=True, **fields):
    import transformers

    make = transformers.SwinForImageClassification if classifier else transformers.SwinModel
    tiny = {"window_size": WINDOW, "image_size": SIZE, "num_labels": CLASSES, **SWIN}
    return make(transformers.SwinConfig(**{**tiny, **fields}))


def huggingface():
    model = huggingface_model()
    return Reference(
        written(model), lambda tensors, x: run_from_file(model, tensors, x, "pooler_output")
    )


def packed_names(shapes):
    """Shapes by Microsoft's names of a network without its classifier."""
    packed = {}
    for name, shape in shapes.items():
        name = name.removeprefix("swin.")
        if name.startswith("classifier.") or ".self.query." in name or ".self.key." in name:
            continue
        if ".self.value." in name:
            name, shape = name.replace(".self.value.", ".self.qkv."), (3 * shape[0], *shape[1:])
        for ours, theirs in HUGGINGFACE:
            name = name.replace(theirs, ours)
        packed[name.replace("layernorm.", "norm.")] = shape
    return packed


def unpacked(tensors):
    """Tensors by the names of `SwinModel`, from a network without its classifier."""
    state = {}
    for name, tensor in tensors.items():
        if name.startswith("norm."):
            name = f"layer{name}"
        for ours, theirs in HUGGINGFACE:
            name = name.replace(ours, theirs)
        if ".qkv." in name:
            for part, third in zip(("query", "key", "value"), np.split(tensor, 3), strict=True):
                state[name.replace("qkv", part)] = third
        else:
            state[name] = tensor
    return state


def timm_layer(name, step):
    """A name with the number of the layer moved by `step` if it is of a patch merging."""
    layers, number, *rest = name.split(".")
    moves = layers == "layers" and rest[0] == "downsample"
    return ".".join((layers, str(int(number) + step), *rest)) if moves else name


def microsoft(head="head", step=0):
    """Names of Microsoft's files; timm's have another head, and merging a layer later."""

    def make():
        model = huggingface_model()
        shapes = {timm_layer(n, step): s for n, s in packed_names(written(model)).items()}
        width = SWIN["embed_dim"] * 4
        shapes |= {f"{head}.weight": (CLASSES, width), f"{head}.bias": (CLASSES,)}

        def run(tensors, images):
            heads = {n: a for n, a in tensors.items() if n.startswith("head.")}
            body = {timm_layer(n, -step): a for n, a in tensors.items() if n not in heads}
            state = {f"swin.{n}": a for n, a in unpacked(body).items()}
            state |= {n.replace(head, "classifier"): a for n, a in heads.items()}
            return run_from_file(model, state, images, "pooler_output")

        return Reference(shapes, run)

    return make


def unicl(tower="image_encoder.", projection="image_projection"):
    def make():
        model = huggingface_model(classifier=False)
        shapes = {tower + name: shape for name, shape in packed_names(written(model)).items()}
        shapes[projection] = (SWIN["embed_dim"] * 4, EMBED)

        def run(tensors, images):
            body = {n.removeprefix(tower): a for n, a in tensors.items() if n != projection}
            return (
                run_from_file(model, unpacked(body), images, "pooler_output") @ tensors[projection]
            )

        return Reference(shapes, run)

    return make


def unicl_text():
    import torch

    width, context = TEXT["width"], TEXT["context"]
    token = torch.nn.Embedding(TEXT["vocab_size"], width)
    blocks = torch.nn.ModuleList(
        torch.nn.TransformerEncoderLayer(
            width,
            TEXT["num_heads"],
            4 * width,
            activation=lambda x: x * torch.sigmoid(1.702 * x),
            layer_norm_eps=TEXT["norm_eps"],
            batch_first=True,
            norm_first=True,
        )
        for _ in range(TEXT["depth"])
    )
    norm = torch.nn.LayerNorm(width, TEXT["norm_eps"])
    model = torch.nn.ModuleDict({"token_embedding": token, "resblocks": blocks, "ln_final": norm})
    model.eval()
    spellings = (
        (".self_attn.", ".attn."),
        (".linear1.", ".mlp.c_fc."),
        (".linear2.", ".mlp.c_proj."),
        (".norm1.", ".ln_1."),
        (".norm2.", ".ln_2."),
    )

    def in_file(name):
        for torchs, unicls in spellings:
            name = name.replace(torchs, unicls)
        return f"text_encoder.{name}"

    names = {in_file(name): name for name in model.state_dict()}
    shapes = {n: tuple(model.state_dict()[own].shape) for n, own in names.items()}
    shapes["text_encoder.positional_embedding"] = (context, width)
    shapes |= {"text_projection": (width, EMBED), "logit_scale": ()}

    def run(tensors, tokens):
        state = {own: torch.tensor(tensors[name]) for name, own in names.items()}
        model.load_state_dict(state, strict=True)
        tokens = torch.tensor(tokens).long()
        causal = torch.nn.Transformer.generate_square_subsequent_mask(context)
        with torch.no_grad():
            x = token(tokens) + torch.tensor(tensors["text_encoder.positional_embedding"])
            for block in blocks:
                x = block(x, src_mask=causal)
            x = norm(x)[torch.arange(len(x)), tokens.argmax(1)]
            return (x @ torch.tensor(tensors["text_projection"])).numpy()

    return Reference(shapes, run)


def swin(projection=None):
    return Swin(num_classes=CLASSES, image_size=SIZE, window=WINDOW, projection=projection, **SWIN)


def projected():
    return swin(EMBED)


def text():
    return TextTransformer(**TEXT)


old_unicl = unicl("visual.", "vision_projection")
CASES = [
    Case("swin_huggingface", "swin", "huggingface", swin, huggingface),
    Case("swin_timm", "swin", "timm", swin, microsoft("head.fc", 1)),
    Case("swin_microsoft", "swin", "timm", swin, microsoft()),
    Case("swin_unicl", "swin", "unicl", projected, unicl(), stop="head"),
    Case("swin_unicl_old", "swin", "unicl", projected, old_unicl, stop="head"),
    Case("swin_unicl_text", "swin", "unicl", text, unicl_text, text=True),
]
