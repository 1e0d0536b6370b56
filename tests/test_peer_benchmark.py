"""benchmarks/peer_torch.py: the two sides do the same, and what it writes."""

import json
import subprocess
import sys

import numpy as np
import pytest
from runs import ROOT

from robust_jax.method.selection import HEADS, SelectionConfig, predict

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

MODEL, BATCH = "vit_tiny8", 4
# A tensor of every part: of the network, frozen and freed, and of what is added.
TENSORS = (
    "network.vit.embeddings.patch_embeddings.projection.weight",
    "network.vit.layers.2.attention.k_proj.weight",
    "network.vit.layernorm.weight",
    "network.classifier.bias",
    "adapter.bottleneck.down.weight",
    "heads.unclean.up.bias",
)


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import peer_torch

        yield peer_torch


@pytest.fixture(scope="module")
def ours(benchmark):
    return benchmark.Ours(MODEL, BATCH)


@pytest.fixture
def theirs(benchmark, ours):
    return benchmark.Torch(ours)


def test_both_sides_agree(benchmark, ours, theirs):
    benchmark.check(ours, theirs)


@pytest.mark.parametrize("name", TENSORS)
def test_one_other_weight_is_noticed(benchmark, ours, theirs, name):
    with torch.no_grad():
        theirs.peer.get_parameter(name).flatten()[0] += 0.5
    with pytest.raises(ValueError, match="must agree before they are timed; got logits of"):
        benchmark.check(ours, theirs)


def test_another_loss_is_noticed(benchmark, ours, theirs):
    theirs.labels = (theirs.labels + 1) % benchmark.NUM_CLASSES
    with pytest.raises(ValueError, match="got loss"):
        benchmark.check(ours, theirs)


@pytest.mark.parametrize("change", ["frozen", "freed"])
def test_other_tuned_tensors_are_noticed(benchmark, ours, theirs, change):
    if change == "frozen":
        theirs.peer.network.vit.layernorm.bias.requires_grad_(False)
    else:
        theirs.peer.network.classifier.requires_grad_(True)
    with pytest.raises(ValueError, match=r"got (gradient_norm|number of tuned)"):
        benchmark.check(ours, theirs)


def test_a_step_tunes_what_is_tuned_and_nothing_else(theirs):
    before = {name: value.clone() for name, value in theirs.peer.named_parameters()}
    theirs.step(theirs.split_loss)()
    for name, value in theirs.peer.named_parameters():
        assert torch.equal(value, before[name]) != value.requires_grad, name


def test_tuning_drops_out_what_was_added_alone(theirs):
    peer = theirs.peer.tuning()
    with torch.no_grad():
        z, again = peer.trunk(theirs.images), peer.trunk(theirs.images)
        assert torch.equal(z, again)
        assert not torch.equal(peer.tail(z)["clean"], peer.tail(z)["clean"])


@pytest.mark.parametrize("way", ["mc_whole", "mc_split"])
def test_samples_differ_by_dropout(theirs, way):
    probs, head = getattr(theirs, way)()
    again, _ = getattr(theirs, way)()
    assert probs.shape == (BATCH, 1000)
    assert set(head.tolist()) <= {0, 1}
    torch.testing.assert_close(probs.sum(-1), torch.ones(BATCH))
    assert not torch.equal(probs, again)


def test_both_choose_the_same_head(benchmark):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (len(HEADS), 10, 32, 20)).astype(np.float32)
    ours = predict(logits, SelectionConfig())
    probs, head = benchmark.peer_torch_model.choose(torch.tensor(logits))
    np.testing.assert_array_equal(head, ours["head"])
    assert 0 < head.sum() < len(head)
    np.testing.assert_allclose(probs, ours["probs"], atol=1e-6)


def test_a_batch_holds_pairs(benchmark):
    with pytest.raises(ValueError, match="got batch=3"):
        benchmark.Ours(MODEL, 3)


def test_another_network_is_refused(benchmark):
    with pytest.raises(ValueError, match="got 'resnet18_cifar'"):
        benchmark.Torch(benchmark.Ours("resnet18_cifar", 2))


@pytest.mark.slow
def test_prints_a_table_and_writes_json(tmp_path):
    file = tmp_path / "peer.json"
    options = ["--model", MODEL, "--batch", str(BATCH), "--rounds", "1", "--eager"]
    command = [sys.executable, "benchmarks/peer_torch.py", *options, "--json", str(file)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    said = json.loads(file.read_text())
    assert set(said) == {"machine", "rows", "ratios"}
    took = {row["way"]: row["ms"] for row in said["rows"]}
    fastest = min(took["torch step"], took["torch step, split"])
    selecting = took["our selection"]
    assert said["ratios"] == {
        "streaming_over_torch": pytest.approx(took["our step on images"] / fastest),
        "cached_over_torch": pytest.approx(took["our step on the cache"] / fastest),
        "selection_over_torch": pytest.approx(selecting / took["torch MC dropout"]),
        "selection_over_torch_split": pytest.approx(selecting / took["torch MC dropout, split"]),
    }
    for name in said["ratios"]:
        assert f"{name}: " in found.stdout
