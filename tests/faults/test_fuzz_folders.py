"""What stands beside weights, saying anything: a documented error, or values that can be used."""

import json

import hypothesis.strategies as st
import numpy as np
from fuzzing import ANYTHING, JSON, fuzz, only_house_errors

from robust_jax import models
from robust_jax.weights import files, native

USED = [
    *("hidden_act", "layer_norm_eps", "num_attention_heads", "window_size", "qkv_bias", "id2label"),
    *("vision_config", "text_config", "model_cfg", "preprocess_cfg", "image_mean", "image_std"),
    *("resample", "quick_gelu", "downsample_in_bottleneck", "other"),
]


@fuzz(
    st.tuples(
        st.sampled_from(["config.json", "open_clip_config.json", "preprocessor_config.json"]),
        st.one_of(
            st.dictionaries(st.sampled_from(USED), JSON, max_size=5).map(json.dumps),
            JSON.map(json.dumps),
            st.text(max_size=20),
        ),
    )
)
def test_json_beside_weights(case, folder):
    name, text = case
    files.write_safetensors(folder / "model.safetensors", {"a": np.ones(3)})
    for other in folder.glob("*.json"):
        other.unlink()
    (folder / name).write_text(text, "utf-8", errors="replace")
    found = only_house_errors(files.read, folder)
    if found is not None:
        labels = found.config.get("id2label", {})
        assert all(isinstance(labels[i], str) for i in sorted(labels, key=int))
        assert isinstance(found.config.get("model_cfg", {}).get("vision_cfg", {}), dict)


FIELDS = sorted(models.entry_to_json(models.entry("clip_vit_b16")))


@fuzz(st.tuples(st.sampled_from(FIELDS), JSON | ANYTHING, st.none() | st.text(max_size=8)))
def test_entries_of_the_model_table(case, folder):
    field, value, inner = case
    values = models.entry_to_json(models.entry("clip_vit_b16"))
    if inner is not None and isinstance(values[field], dict):
        value = {**values[field], inner: value}
    only_house_errors(native.entry, {**values, field: value})
    only_house_errors(native.entry, value)
