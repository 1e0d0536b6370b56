"""Sequences stored as videos and arrays, one file each."""

import importlib

import numpy as np
import pytest
from benchmark_folders import load

from robust_jax.data.stored import videos
from robust_jax.evals import subsets

WNIDS = subsets.imagenet_wnids()


def frames_of(number, side=64, count=5):
    """Frames that become brighter, with more red than blue and a dark lower half."""
    rising = 60 + 20 * np.arange(count) + number
    frames = np.broadcast_to(rising[:, None, None, None], (count, side, side, 3)).copy()
    frames[..., 2] //= 4
    frames[:, side // 2 :] //= 4
    return frames.astype(np.uint8)


def write_video(path, frames):
    cv2 = pytest.importorskip("cv2")
    path.parent.mkdir(parents=True, exist_ok=True)
    code = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), code, 30, frames.shape[1:3][::-1])
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()


def test_videos_are_read_in_rgb_and_upright(tmp_path):
    write_video(tmp_path / "a.mp4", frames_of(0))
    read = videos.read_sequence(tmp_path / "a.mp4")
    assert read.shape == (5, 64, 64, 3) and read.dtype == np.uint8
    difference = np.abs(read.astype(int) - frames_of(0))
    difference[:, 28:36] = 0  # the edge, of which a video loses most
    assert difference.max() <= 12


def test_imagenet_p(tmp_path):
    write_video(tmp_path / "one.mp4", frames_of(0))
    video = (tmp_path / "one.mp4").read_bytes()
    for wnid in WNIDS:
        (tmp_path / "digital" / "tilt" / wnid).mkdir(parents=True)
        (tmp_path / "digital" / "tilt" / wnid / "val_1.mp4").write_bytes(video)
    (tilt,) = load(f"imagenet_p:{tmp_path}", WNIDS, size=32)
    assert tilt.where == {"set": "imagenet_p", "perturbation": "tilt"}
    assert tilt.labels.tolist() == list(range(1000))
    frames, labels = next(tilt.batches(40))
    assert frames.shape == (32, 5, 32, 32, 3) and labels.tolist() == list(range(32))
    means = frames.mean((0, 2, 3))
    assert (np.diff(means, axis=0) > 0).all() and (means[:, 0] > 2 * means[:, 2]).all()
    with pytest.raises(ValueError, match=r"lacks the perturbation rotate; got the directories dig"):
        load(f"imagenet_p:{tmp_path}", WNIDS, perturbations=("rotate",))
    with pytest.raises(ValueError, match=r"unknown sequence; got 'rotat'.*'rotate'"):
        load(f"imagenet_p:{tmp_path}", WNIDS, perturbations=("rotat",))
    with pytest.raises(ValueError, match="imagenet_p has nothing to read; got no perturbations"):
        load(f"imagenet_p:{tmp_path}", WNIDS, perturbations=())


@pytest.fixture
def pets(tmp_path):
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "tilt" / name).mkdir(parents=True)
        np.save(tmp_path / "tilt" / name / "a.npy", frames_of(number, side=8))
    return tmp_path


def test_sequences_of_other_classes(pets, capsys):
    (pets / "tilt" / "cat" / "notes.txt").write_text("")
    (tilt,) = load(f"folder_p:{pets}", ("dog", "cat", "cow"))
    assert "left out 1 files that are no sequences, e.g. cat/notes.txt" in capsys.readouterr().out
    assert tilt.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(tilt.read(1), frames_of(1, side=8))


def test_a_sequence_that_is_none_is_told(pets):
    (pets / "tilt" / "cat" / "a.npy").unlink()
    with pytest.raises(ValueError, match=r"no sequence in .*tilt/cat; got 0 other files; put"):
        load(f"folder_p:{pets}", ("cat", "dog"))
    pytest.importorskip("cv2")
    (pets / "tilt" / "cat" / "a.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"a.mp4 is not a video; got no frame of it"):
        load(f"folder_p:{pets}", ("cat", "dog"))


def test_missing_opencv_is_told(monkeypatch, tmp_path):
    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(ValueError, match="run `pip install opencv-python-headless`"):
        videos.read_sequence(tmp_path / "a.mp4")
