"""Tiny LiT towers: transformers' BERT with the tanh GELU and a linear map, and its ViT likewise."""

import numpy as np
from cases_vit import vit_model
from parity import Case, Reference
from transformers_files import run_from_file
from vit_names import DEPTH, HEADS, MLP, PATCH, WIDTH, big_vision_shapes, from_big_vision

from robust_jax.models.bert import Bert
from robust_jax.models.vit import ViT

EMBED, IMAGE_SIZE, GRID = 24, 32, 4
TEXT = {"width": 32, "depth": 2, "num_heads": 4, "mlp_dim": 80, "embed_dim": EMBED}
TEXT |= {"vocab_size": 50, "context": 12, "max_len": 15}
ENCODER = "txt/BertEncoder_0"
BERT = {  # of flaxformer's modules -> of transformers' BERT
    "attention_block/attention_layer/query": "attention.self.query",
    "attention_block/attention_layer/key": "attention.self.key",
    "attention_block/attention_layer/value": "attention.self.value",
    "attention_block/dense_layer": "attention.output.dense",
    "attention_block/layer_norm": "attention.output.LayerNorm",
    "mlp_block/mlp/dense_layer": "intermediate.dense",
    "mlp_block/dense_layer": "output.dense",
    "mlp_block/layer_norm": "output.LayerNorm",
}
AUGREG = (  # names of today -> in vision_transformer, whose files LiT's are
    ("/LayerNorm_1/", "/LayerNorm_2/"),
    ("/MultiHeadDotProductAttention_0/", "/MultiHeadDotProductAttention_1/"),
    ("/MlpBlock_0/", "/MlpBlock_3/"),
    ("pos_embedding", "Transformer/posembed_input/pos_embedding"),
)


def bert_names(depth):
    """Names in LiT's files -> of the parameters of transformers' BERT."""
    names = {
        f"{ENCODER}/embedder/embedders_{ours}_ids/embedding": f"embeddings.{theirs}.weight"
        for ours, theirs in (
            ("token", "word_embeddings"),
            ("position", "position_embeddings"),
            ("segment", "token_type_embeddings"),
        )
    }
    modules = {f"{ENCODER}/layer_norm": "embeddings.LayerNorm"}
    for i in range(depth):
        layer = f"{ENCODER}/encoder_block/layer_sequence/layers_{i}"
        modules |= {f"{layer}/{ours}": f"encoder.layer.{i}.{name}" for ours, name in BERT.items()}
    for ours, theirs in modules.items():
        weight = "scale" if ours.endswith("layer_norm") else "kernel"
        names |= {f"{ours}/{weight}": f"{theirs}.weight", f"{ours}/bias": f"{theirs}.bias"}
    return names


def text_reference(fields=TEXT):
    import torch
    import transformers

    config = transformers.BertConfig(
        vocab_size=fields["vocab_size"],
        hidden_size=fields["width"],
        num_hidden_layers=fields["depth"],
        num_attention_heads=fields["num_heads"],
        intermediate_size=fields["mlp_dim"],
        max_position_embeddings=fields["max_len"],
        hidden_act="gelu_new",
        layer_norm_eps=1e-12,
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    state, names = model.state_dict(), bert_names(fields["depth"])
    shapes = {
        name: tuple(state[own].shape)[:: -1 if name.endswith("/kernel") else 1]
        for name, own in names.items()
    }
    shapes |= {
        "txt/head/kernel": (fields["width"], fields["embed_dim"]),
        "txt/head/bias": (fields["embed_dim"],),
        "t": (1,),
    }

    def run(tensors, tokens):
        loaded = {
            own: torch.tensor(tensors[name].T if name.endswith("/kernel") else tensors[name])
            for name, own in names.items()
        }
        buffers = {name: value for name, value in state.items() if name.endswith("_ids")}
        model.load_state_dict(buffers | loaded, strict=True)
        tokens = torch.tensor(tokens).long()
        with torch.no_grad():
            out = model(tokens, attention_mask=tokens != 0).last_hidden_state[:, 0].numpy()
        return out @ tensors["txt/head/kernel"] + tensors["txt/head/bias"]

    return Reference(shapes, run)


def image_reference(projection, augreg):
    def in_file(name):
        for today, before in AUGREG if augreg else ():
            name = name.replace(today, before)
        return f"{'' if augreg else 'params/'}img/{name}"

    def make():
        outputs = EMBED if projection else WIDTH
        model = vit_model(IMAGE_SIZE, hidden_act="gelu_new", num_labels=outputs)
        shapes = big_vision_shapes(GRID, cls=True)
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith("head/")}
        shapes["pos_embedding"] = (1, GRID**2 + augreg, WIDTH)
        if projection:
            shapes |= {"head/kernel": (WIDTH, EMBED), "head/bias": (EMBED,)}

        def run(tensors, images):
            tensors = {name: tensors[in_file(name)] for name in shapes}
            table = tensors["pos_embedding"]
            first, patches = np.split(table, [int(augreg)], axis=1)
            tensors |= {
                "pos_embedding": patches,
                "cls": tensors["cls"] + first.sum(1, keepdims=True),
            }
            state = {f"vit.{n}": tensor for n, tensor in from_big_vision(tensors, False).items()}
            # The classifier of transformers stands for the map; without one, it changes nothing.
            kernel, bias = np.eye(WIDTH, dtype=np.float32), np.zeros(WIDTH, np.float32)
            if projection:
                kernel, bias = tensors["head/kernel"], tensors["head/bias"]
            state |= {"classifier.weight": kernel.T, "classifier.bias": bias}
            return run_from_file(model, state, images)

        return Reference({in_file(name): shape for name, shape in shapes.items()}, run)

    return make


def text():
    return Bert(**TEXT)


def image(projection):
    fields = {"projection": EMBED, "projection_bias": True} if projection else {}
    return ViT(10, IMAGE_SIZE, PATCH, WIDTH, DEPTH, HEADS, MLP, gelu="tanh", **fields)


def image_case(name, projection, augreg):
    reference = image_reference(projection, augreg)
    return Case(name, "lit", "big_vision", lambda: image(projection), reference, stop="head")


CASES = [
    Case("lit_text", "lit", "big_vision", text, text_reference, text=True),
    image_case("lit_image", projection=True, augreg=True),
    image_case("lit_image_without_head", projection=False, augreg=False),
]
