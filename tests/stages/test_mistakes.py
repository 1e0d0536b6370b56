"""What a user can get wrong is told before anything is trained."""

import shutil

import pytest
from runs import folder_config, make_folder, run


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "pets")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__image_size": 2}, r"data.image_size .*got 2; use a value of at least 8"),
        ({"data__image_size": 30, "student__name": "vit_tiny8"}, r"got image_size=30 with pat"),
        ({"pretrain__batch_size": 30}, r"pretrain.batch_size .*got 30 on 4 devices; use 32"),
        ({"distill__batch_size": 2}, r"distill.batch_size .*got 2 on 4 devices; use 4"),
        ({"student__name": "vit_tinny"}, r"unknown model; got 'vit_tinny'; did you mean 'vit_tiny"),
        ({"data__eval_ops": "decode|resise(32)"}, r"unknown op; got 'resise'; did you mean"),
        ({"data__eval_ops": "decode|resize(16)"}, r"data.eval_ops must make uint8 .*\[16, 16, 3\]"),
        ({"data__train_ops": "decode"}, r"data.train_ops must make uint8 .* for image_size=32"),
        ({"evaluate__corruptions": ("mist",)}, r"unknown corruption; got 'mist'"),
        ({"evaluate__severities": (6,)}, r"severities must be .*got \[6\]"),
        ({"distill__weight_decay": 0.1}, r"'adam' has no weight decay; got weight_decay=0.1"),
        ({"teacher__total_examples": 4}, r"teacher: two durations"),
        ({"method__tuned_params": "much"}, r"method.tuned_params must be .*got 'much'"),
    ],
)
def test_mistakes_are_told_before_training(images, tmp_path, changes, message):
    # Plain ops in place of AugMix, which is slow to build.
    config = folder_config(images, **({"data__augment_ops": "flip_lr"} | changes))
    with pytest.raises(ValueError, match=message):
        run(config, tmp_path)
    assert not (tmp_path / "stages").exists()


def corrupt_image(root):
    (root / "val" / "cat" / "1.png").write_bytes(b"\x89PNG")


def empty_class(root):
    for file in (root / "train" / "ant").iterdir():
        file.unlink()
    (root / "train" / "ant" / "notes.txt").write_text("x")


def new_class(root):
    (root / "val" / "dodo").mkdir()


def few_images(root):
    for file in (root / "train").rglob("[3-9].*"):
        file.unlink()
    for part in ("train", "val"):
        shutil.rmtree(root / part / "jay")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (corrupt_image, r"1 images of .*val cannot be read; got cat/1.png; .*max_bad_images=1"),
        (empty_class, r"no readable image in .*train/ant; got 1 other files"),
        (new_class, r"val has classes that train lacks; got dodo"),
        (few_images, r"too few training images; got 27; a run needs at least 30"),
    ],
)
def test_bad_folders_are_told_before_training(tmp_path, damage, message):
    root = make_folder(tmp_path / "pets")
    damage(root)
    with pytest.raises(ValueError, match=message):
        run(folder_config(root), tmp_path / "run")
    assert not (tmp_path / "run" / "stages").exists()
    with pytest.raises(ValueError, match=r"data.dir is not a directory; got '.*nowhere'"):
        run(folder_config(tmp_path / "nowhere"), tmp_path / "run")
