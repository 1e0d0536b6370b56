import ml_dtypes
import numpy as np
import pytest

from robust_jax.data import cache as cache_lib
from robust_jax.data import sources
from robust_jax.data.cache import FeatureCache, build
from robust_jax.data.pipeline import Elements, ordered_batches, train_batches

N = 50
FINGERPRINT = {"student": "abc", "seed": 1, "fraction": 0.5, "elements": N}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(cache_lib, "CHUNK_BYTES", 128)


def elements(**kwargs):
    images = np.random.default_rng(0).integers(0, 256, (N, 4, 4, 3), np.uint8)
    source = sources.from_arrays(images, np.arange(N) % 3)
    return Elements(source, "", {"clean": "", "aug": "flip_lr"}, 5, **({"replicas": 1} | kwargs))


def blocks(start):
    for batch in ordered_batches(elements(), batch_size=8, start=start):
        yield int(batch["mask"].sum()), batch


class Compute:
    """Features of a batch that tell which elements they are of; counts, and may fail once."""

    def __init__(self, fail_at=None):
        self.elements = []
        self.fail_at = fail_at

    def __call__(self, batch):
        if len(self.elements) == self.fail_at:
            raise KeyboardInterrupt
        self.elements.append(batch["element"].tolist())
        z = batch["clean"].reshape(8, -1)[:, :7].astype(np.float32) / 3
        return {
            "z": z.astype(ml_dtypes.bfloat16),
            "exact": z,
            "zeros": np.zeros((8, 2), np.float32),
            "label": batch["label"],
        }


def expected():
    parts = [{k: v[:count] for k, v in Compute()(b).items()} for count, b in blocks(0)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def open_cache(tmp_path, **changes):
    return FeatureCache(tmp_path / "cache", FINGERPRINT | changes, N)


NAMES = ("z", "exact", "zeros", "label")


@pytest.fixture
def built(tmp_path):
    build(open_cache(tmp_path), blocks, Compute())
    return tmp_path


def assert_complete(tmp_path):
    found = open_cache(tmp_path).load(NAMES)
    for name, values in expected().items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_arrays_come_back_as_they_were(built):
    assert_complete(built)
    assert set(open_cache(built).load(("label",))) == {"label"}


def test_an_interrupted_build_continues(tmp_path):
    first, second = Compute(fail_at=3), Compute()
    with pytest.raises(KeyboardInterrupt):
        build(open_cache(tmp_path), blocks, first)
    assert open_cache(tmp_path).progress[0] == 24
    build(open_cache(tmp_path), blocks, second)
    assert first.elements == [list(range(i, i + 8)) for i in (0, 8, 16)]
    assert second.elements[:3] == [list(range(i, i + 8)) for i in (24, 32, 40)]
    assert second.elements[3] == [48, 49] + [49] * 6  # the last block is padded
    assert len(second.elements) == 4
    assert_complete(tmp_path)
    again = Compute()
    build(open_cache(tmp_path), blocks, again)
    assert again.elements == []


def test_a_build_that_stopped_while_writing_repeats_that_block(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        build(open_cache(tmp_path), blocks, Compute(fail_at=2))
    # As if the arrays had been written in part and the count not yet.
    cache = open_cache(tmp_path)
    cache._store("label")[16:20].write(np.full(4, 99, np.int32)).result()
    build(open_cache(tmp_path), blocks, Compute())
    assert_complete(tmp_path)


def test_a_cache_of_something_else_is_refused(built):
    with pytest.raises(
        ValueError, match=r"differ \(student: cached 'abc', now 'xyz'\); run with --rerun=cache"
    ):
        open_cache(built, student="xyz")
    with pytest.raises(ValueError, match=r"its \['fraction', 'seed'\] differ \(fraction: cached"):
        open_cache(built, seed=2, fraction=0.25)
    with pytest.raises(ValueError, match=r"ops: cached None, now 'decode'"):
        open_cache(built, ops="decode")
    assert_complete(built)


def test_an_unfinished_cache_is_not_read(tmp_path):
    with pytest.raises(ValueError, match=r"unfinished; got 0 of 50 elements; run the cache stage"):
        open_cache(tmp_path).load(NAMES)
    with pytest.raises(KeyboardInterrupt):
        build(open_cache(tmp_path), blocks, Compute(fail_at=2))
    with pytest.raises(ValueError, match=r"unfinished; got 16 of 50 elements"):
        open_cache(tmp_path).load(NAMES)


def chunks(tmp_path, name):
    return sorted(p for p in (tmp_path / "cache" / name / "c").rglob("*") if p.is_file())


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_chunk_is_told(built, name):
    chunk = chunks(built, name)[1]
    data = bytearray(chunk.read_bytes())
    data[5] ^= 1
    chunk.write_bytes(data)
    message = rf"cannot be read; got a bad array '{name}' \(.*\); run with --rerun=cache"
    with pytest.raises(ValueError, match=message):
        open_cache(built).load(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_chunk_is_told(built, name):
    chunks(built, name)[0].unlink()
    with pytest.raises(ValueError, match=rf"cannot be read; got a bad array '{name}'"):
        open_cache(built).load(NAMES)


def test_a_missing_array_is_told(built):
    (built / "cache" / "label" / "zarr.json").unlink()
    with pytest.raises(ValueError, match=r"cannot be read; got a bad array 'label'"):
        open_cache(built).load(NAMES)


@pytest.mark.parametrize("kwargs", [{}, {"replicas": 3, "fraction": 0.4}])
@pytest.mark.parametrize("start", [0, 11])
def test_training_visits_the_same_elements_as_from_images(kwargs, start):
    streamed = train_batches(elements(**kwargs), batch_size=8, start_step=start, num_steps=20)
    cached = cache_lib.batches(
        {"element": np.arange(len(elements(**kwargs)))},
        batch_size=8,
        seed=5,
        start_step=start,
        num_steps=20,
    )
    pairs = list(zip(streamed, cached, strict=True))
    assert len(pairs) == 20 - start
    for from_images, from_cache in pairs:
        np.testing.assert_array_equal(from_images["element"], from_cache["element"])


def test_hosts_share_the_batches():
    def rows(**hosts):
        arrays = {"element": np.arange(N), "label": np.arange(N) % 3}
        run = {"batch_size": 8, "seed": 5, "start_step": 0, "num_steps": 9}
        return list(cache_lib.batches(arrays, **run, **hosts))

    parts = [rows(process_index=i, process_count=4) for i in range(4)]
    for whole, *slices in zip(rows(), *parts, strict=True):
        assert all(len(part["label"]) == 2 for part in slices)
        for name, values in whole.items():
            np.testing.assert_array_equal(np.concatenate([s[name] for s in slices]), values)
