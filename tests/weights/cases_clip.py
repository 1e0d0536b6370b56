"""Tiny CLIP towers: the names and computations of OpenAI's code and of transformers."""

import importlib.util
import pathlib

from parity import Case, Reference

from robust_jax.models.clip import ModifiedResNet
from robust_jax.models.text import TextTransformer
from robust_jax.models.vit import ViT

VIT_CLIP = {"pre_norm": True, "patch_bias": False, "gelu": "quick", "norm_eps": 1e-5}
RESNET = ModifiedResNet(
    num_classes=10, image_size=64, depths=(1, 1, 1, 2), num_heads=4, embed_dim=24, base_width=8
)
VIT = ViT(
    num_classes=10,
    image_size=32,
    patch_size=8,
    width=32,
    depth=2,
    num_heads=4,
    mlp_dim=128,
    projection=24,
    **VIT_CLIP,
)
VIT_LARGER = VIT.clone(image_size=48, mlp_dim=80)
TEXT = TextTransformer(width=32, depth=2, num_heads=4, embed_dim=24, vocab_size=50, context=12)


def openai():
    """OpenAI's `clip/model.py`, as clip-anytorch ships it; its package itself needs torchvision."""
    package = importlib.util.find_spec("clip")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("the reference is missing; pip install --no-deps clip-anytorch")
    path = pathlib.Path(package.submodule_search_locations[0]) / "model.py"
    spec = importlib.util.spec_from_file_location("openai_clip_model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reference(model, forward, prefix="", without=("visual.",), scalars=()):
    """A torch model in a file that has its names behind `prefix`.

    Args:
      forward: (model, torch inputs) -> torch output.
      without: beginnings of names of the model that are not in the file.
      scalars: names in the file that are not the model's.
    """
    import torch

    model.eval()
    kept, shapes = {}, dict.fromkeys(scalars, ())
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not name.startswith(without):
            shapes[prefix + name] = tuple(value.shape)
        else:
            kept[name] = value

    def run(tensors, inputs):
        own = {name.removeprefix(prefix): tensors[name] for name in shapes.keys() - {*scalars}}
        own = {name: torch.tensor(value) for name, value in own.items()}
        model.load_state_dict({**kept, **own}, strict=True)
        with torch.no_grad():
            return forward(model, torch.tensor(inputs)).numpy()

    return Reference(shapes, run)


def openai_resnet(ours):
    fields = (ours.depths, ours.embed_dim, ours.num_heads, ours.image_size, ours.base_width)
    return reference(openai().ModifiedResNet(*fields), lambda model, x: model(x), "visual.")


def openai_vit(ours):
    fields = (ours.image_size, ours.patch_size, ours.width, ours.depth, ours.num_heads)
    model = openai().VisionTransformer(*fields, ours.projection)
    return reference(model, lambda model, x: model(x), "visual.")


def openai_text(ours):
    model = openai().CLIP(
        embed_dim=ours.embed_dim,
        image_resolution=8,
        vision_layers=1,
        vision_width=64,
        vision_patch_size=8,
        context_length=ours.context,
        vocab_size=ours.vocab_size,
        transformer_width=ours.width,
        transformer_heads=ours.num_heads,
        transformer_layers=ours.depth,
    )
    return reference(model, lambda model, tokens: model.encode_text(tokens))


def resized(whole, name, grid):
    """The reference of a file whose table `name` is for another grid, loaded as open_clip does."""
    import torch

    rows, width = whole.shapes[name]
    side = round((rows - 1) ** 0.5)

    def run(tensors, inputs):
        table = torch.tensor(tensors[name])
        cells = table[1:].reshape(1, grid, grid, width).permute(0, 3, 1, 2)
        cells = torch.nn.functional.interpolate(
            cells, (side, side), mode="bicubic", antialias=True, align_corners=False
        )
        table = torch.cat([table[:1], cells.permute(0, 2, 3, 1).reshape(-1, width)])
        return whole.run({**tensors, name: table.numpy()}, inputs)

    return Reference({**whole.shapes, name: (grid**2 + 1, width)}, run)


def huggingface_vit(ours, file_size):
    import transformers

    config = transformers.CLIPVisionConfig(
        hidden_size=ours.width,
        intermediate_size=ours.mlp_dim,
        projection_dim=ours.projection,
        num_hidden_layers=ours.depth,
        num_attention_heads=ours.num_heads,
        image_size=file_size,
        patch_size=ours.patch_size,
        hidden_act="quick_gelu",
        layer_norm_eps=ours.norm_eps,
    )
    return reference(
        transformers.CLIPVisionModelWithProjection(config),
        lambda model, x: model(x, interpolate_pos_encoding=True).image_embeds,
    )


def huggingface_text(ours):
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=ours.vocab_size,
        hidden_size=ours.width,
        intermediate_size=4 * ours.width,
        projection_dim=ours.embed_dim,
        num_hidden_layers=ours.depth,
        num_attention_heads=ours.num_heads,
        max_position_embeddings=ours.context,
        hidden_act="quick_gelu",
        layer_norm_eps=ours.norm_eps,
        bos_token_id=0,
        eos_token_id=2,  # Stands for "the highest id ends the text", as in OpenAI's files.
    )
    # Only the file of both towers has the scale.
    return reference(
        transformers.CLIPTextModelWithProjection(config),
        lambda model, tokens: model(tokens).text_embeds,
        scalars=("logit_scale",),
    )


def _image(name, fmt, ours, make, *args):
    return Case(f"clip_{name}", "clip", fmt, lambda: ours, lambda: make(ours, *args), stop="head")


def _text(name, fmt, make):
    return Case(f"clip_{name}", "clip", fmt, lambda: TEXT, lambda: make(TEXT), text=True)


def _resized_resnet(ours):
    return resized(openai_resnet(ours), "visual.attnpool.positional_embedding", grid=3)


def _resized_vit(ours):
    return resized(openai_vit(ours), "visual.positional_embedding", grid=6)


CASES = [
    _image("openai_resnet", "openai_clip", RESNET, openai_resnet),
    _image("openai_resnet_resized", "openai_clip", RESNET, _resized_resnet),
    _image("openai_vit", "openai_clip", VIT, openai_vit),
    _image("openai_vit_resized", "openai_clip", VIT, _resized_vit),
    _text("openai_text", "openai_clip", openai_text),
    _image("huggingface_vit", "huggingface", VIT_LARGER, huggingface_vit, 32),
    _text("huggingface_text", "huggingface", huggingface_text),
]
