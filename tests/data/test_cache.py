import ml_dtypes
import numpy as np
import pytest

from robust_jax import hosts
from robust_jax.data import cached_batches, sources
from robust_jax.data.cache import FeatureCache
from robust_jax.data.cache_build import build
from robust_jax.data.pipeline import Elements, ordered_batches, train_batches

N = 50
FINGERPRINT = {"student": "abc", "seed": 1, "fraction": 0.5, "elements": N}


def elements(**kwargs):
    images = np.random.default_rng(0).integers(0, 256, (N, 4, 4, 3), np.uint8)
    source = sources.from_arrays(images, np.arange(N) % 3)
    return Elements(source, "", {"clean": "", "aug": "flip_lr"}, 5, **({"replicas": 1} | kwargs))


def batches(start, stop):
    for batch in ordered_batches(elements(), batch_size=8, start=start, stop=stop):
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
        found = {
            "z": z.astype(ml_dtypes.bfloat16),
            "exact": z,
            "zeros": np.zeros((8, 2), np.float32),
            "label": batch["label"],
        }
        return found, {"apart": 0.25}


def expected():
    parts = [{k: v[:count] for k, v in Compute()(b)[0].items()} for count, b in batches(0, N)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def open_cache(tmp_path, **changes):
    return FeatureCache(tmp_path / "cache", FINGERPRINT | changes, N)


def fill(tmp_path, compute):
    cache = open_cache(tmp_path)
    example, _ = Compute()(next(batches(0, 8))[1])
    cache.lay_out(example, 8)
    assert cache.block == 16  # whole chunks and batches
    build(cache, batches, compute)


NAMES = ("z", "exact", "zeros", "label")


@pytest.fixture
def built(tmp_path):
    fill(tmp_path, Compute())
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
        fill(tmp_path, first)
    assert set(open_cache(tmp_path).finished()) == {0}
    fill(tmp_path, second)
    assert first.elements == [list(range(i, i + 8)) for i in (0, 8, 16)]
    assert second.elements[:4] == [list(range(i, i + 8)) for i in (16, 24, 32, 40)]
    assert second.elements[4] == [48, 49] + [49] * 6  # the last batch is padded
    assert len(second.elements) == 5
    assert_complete(tmp_path)
    again = Compute()
    fill(tmp_path, again)
    assert again.elements == []


def test_a_build_that_stopped_while_writing_repeats_that_block(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, Compute(fail_at=3))
    # As if the arrays had been written in part and the count not yet.
    cache = open_cache(tmp_path)
    cache._store("label")[16:20].write(np.full(4, 99, np.int32)).result()
    fill(tmp_path, Compute())
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
    with pytest.raises(ValueError, match=r"unfinished; got 0 of 50 elements; run the same command"):
        open_cache(tmp_path).load(NAMES)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, Compute(fail_at=3))
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


def test_rows_are_read_in_any_order(built):
    rows = np.array([49, 3, 3, 17, 0])
    found = open_cache(built).read(("z", "label"), rows)
    assert set(found) == {"z", "label"}
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected()[name][rows])
    assert open_cache(built).nbytes(("z", "label")) == N * (7 * 2 + 4)


def test_times_add_up_over_interruptions(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, Compute(fail_at=3))
    assert open_cache(tmp_path).seconds()["apart"] == 0.5  # two batches are stored
    fill(tmp_path, Compute())
    took = open_cache(tmp_path).seconds()
    assert took["apart"] == 0.25 * 7 and took["seconds"] > 0


def as_host(monkeypatch, index, count):
    monkeypatch.setattr(hosts, "index", lambda: index)
    monkeypatch.setattr(hosts, "count", lambda: count)
    monkeypatch.setattr(hosts, "wait", lambda _: None)


def test_hosts_build_side_by_side(tmp_path, monkeypatch):
    # Each decides what is its own before the others write.
    every = [dict.fromkeys(range(0, N, 16)) for _ in range(2)]
    for index in range(2):
        as_host(monkeypatch, index, 2)
        compute = Compute()
        monkeypatch.setattr(FeatureCache, "finished", lambda _: {})
        fill(tmp_path, compute)
        monkeypatch.undo()
        every[index] = [rows[0] for rows in compute.elements]
    assert every == [[0, 8, 16, 24], [32, 40, 48]]
    assert sorted(p.name for p in (tmp_path / "cache").glob("done-*")) == [
        "done-0.json",
        "done-1.json",
    ]
    assert_complete(tmp_path)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_hosts_continues(tmp_path, monkeypatch, before, after):
    as_host(monkeypatch, 0, before)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, Compute(fail_at=3))
    assert set(open_cache(tmp_path).finished()) == {0}
    seen = []
    missing = open_cache(tmp_path).finished()
    for index in range(after):
        as_host(monkeypatch, index, after)
        monkeypatch.setattr(FeatureCache, "finished", lambda _: missing)
        compute = Compute()
        fill(tmp_path, compute)
        seen += [rows[0] for rows in compute.elements]
    monkeypatch.undo()
    assert seen == [16, 24, 32, 40, 48]
    assert_complete(tmp_path)


def steps(size=N, **options):
    arrays = {"element": np.arange(size), "label": np.arange(size) % 3}
    run = {"batch_size": 8, "seed": 5, "start_step": 0, "num_steps": 20} | options

    def read(rows):
        return {name: values[rows] for name, values in arrays.items()}

    return list(cached_batches.batches(read, size, **run))


@pytest.mark.parametrize("kwargs", [{}, {"replicas": 3, "fraction": 0.4}])
@pytest.mark.parametrize("start", [0, 11])
def test_training_visits_the_same_elements_as_from_images(kwargs, start):
    streamed = train_batches(elements(**kwargs), batch_size=8, start_step=start, num_steps=20)
    pairs = list(zip(streamed, steps(len(elements(**kwargs)), start_step=start), strict=True))
    assert len(pairs) == 20 - start
    for from_images, from_cache in pairs:
        np.testing.assert_array_equal(from_images["element"], from_cache["element"])


def test_reading_ahead_changes_nothing():
    for at_once, ahead in zip(steps(), steps(ahead=3), strict=True):
        np.testing.assert_array_equal(at_once["element"], ahead["element"])


def test_an_error_ahead_is_told_in_its_place():
    def read(rows):
        raise ValueError("a bad chunk")

    options = {"batch_size": 8, "seed": 5, "start_step": 0, "num_steps": 3, "ahead": 2}
    with pytest.raises(ValueError, match="a bad chunk"):
        next(cached_batches.batches(read, N, **options))


def test_hosts_share_the_batches():
    parts = [steps(process_index=i, process_count=4) for i in range(4)]
    for whole, *slices in zip(steps(), *parts, strict=True):
        assert all(len(part["label"]) == 2 for part in slices)
        for name, values in whole.items():
            np.testing.assert_array_equal(np.concatenate([s[name] for s in slices]), values)
