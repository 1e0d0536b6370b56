"""Every config key with its default; an experiment copies this and changes what differs."""

from typing import Any

from ml_collections import ConfigDict, config_dict


def get_config(arg: str = "") -> ConfigDict:
    """Returns the defaults; `arg` must be empty (experiments take `runlocal`)."""
    if arg:
        raise ValueError(f"configs/base.py takes no argument; got {arg!r}; leave it out")
    c = ConfigDict()
    c.seed = 0  # every random number of the run derives from it
    c.stages = (
        "pretrain",
        "distort",
        "teacher",
        "cache",
        "distill",
        "baselines",
        "evaluate",
        "report",
    )
    # The seed of the held-out images, the student and the distorted copies, so that runs of several
    # seeds share them and the student is a given one; else seed.
    c.student_seed = config_dict.placeholder(int)

    c.data = ConfigDict()
    c.data.source = "digits"  # digits | folder | tfds | arrays
    c.data.dir = ""  # folder: holds train/CLASS/* and val/CLASS/*; tfds: its data_dir
    c.data.name = ""  # tfds: dataset name, e.g. "cifar10"
    c.data.file = ""  # arrays: npz with {train,val}_{images,labels} and optional class_names
    c.data.classes = ()  # names of the classes to use, of those in the data; () for all
    c.data.train_split = "train"  # tfds: split string
    c.data.val_split = "test"  # tfds: split string
    # Side in pixels; 0 for the size that the student was made for. In the strings below, {size} is
    # this side, {pad} an eighth of it, and {resize} and {interpolation} what the student wants of
    # the resize before the crop.
    c.data.image_size = 0
    c.data.train_ops = (
        # clean training view
        "decode|resize_small({resize}, '{interpolation}')|random_crop({size}, pad={pad})|flip_lr"
    )
    c.data.augment_ops = "augmix(severity=3)"  # on top of train_ops: the augmented view
    # Ops of the two strings above that overlap with the test corruptions are an error unless they
    # are named here, e.g. ("gaussian_noise",).
    c.data.allowed_overlap = ()
    # evaluation view
    c.data.eval_ops = "decode|resize_small({resize}, '{interpolation}')|central_crop({size})"
    c.data.calibration_images = 1000  # of train (at most a tenth), held out for head selection
    c.data.max_bad_images = 0  # unreadable images tolerated in train, and in val (reported)
    c.data.verify = True  # decode every image of a folder once before training

    c.student = ConfigDict()
    c.student.name = "vit_tiny"  # see `python -m robust_jax.models`
    c.student.dtype = "float32"  # compute dtype: float32 | bfloat16
    # Pre-trained weights: a file, a folder, hf://OWNER/NAME, gs://..., or "pretrained" for those in
    # an installed package; "" trains the student here, by the section `pretrain`.
    c.student.weights = ""
    # With weights: probe (a linear one on fixed features) | finetune (everything, by `pretrain`) |
    # load (the file's own, the data must have its classes) | zero_shot (from its text tower).
    c.student.classifier = "probe"
    c.student.zero_shot_head = ""  # zero_shot: npz that `python -m robust_jax.zero_shot` made
    c.pretrain = _training(total_epochs=30, batch_size=128, optimizer="adamw", learning_rate=1e-3)

    c.distort = ConfigDict()
    # Copies of the training images for DeepAugment (cae, edsr) and Noise2Net (noise2net), made once
    # before the teacher; mixtures draw from them. () makes none.
    c.distort.networks = ()
    c.distort.copies = 1  # of each image, by each network
    c.distort.ops = (
        # what is distorted; then come train_ops
        "decode|resize_small({resize}, '{interpolation}')|central_crop({resize})"
    )
    c.distort.dir = ""  # copies that `python -m robust_jax.distort` made before, instead
    c.distort.cae_weights = ""  # DeepAugment's model_final.state; "" trains a small network here
    c.distort.edsr_weights = ""  # its edsr_baseline_x4-*.pt; "" trains a small network here
    c.distort.fit_steps = config_dict.placeholder(int)  # of each; else 6,000 (CAE), 3,000 (EDSR)
    c.distort.edsr_shrink = 2  # EDSR sees images at 1/2 (1 | 2 | 4): 4 as published, for large ones
    c.distort.faithful = False  # True repeats the published code of DeepAugment with its bugs
    c.distort.noise2net_max_eps = 0.75  # strength, as published

    c.teacher = _training(
        total_epochs=20, batch_size=128, optimizer="sgd", learning_rate=0.1, weight_decay=5e-4
    )
    c.teacher.clip_norm = 0.0  # the AugMix recipe does not clip
    c.teacher.name = "resnet_small"  # see `python -m robust_jax.models`
    c.teacher.weights = ""  # weights to start from, as for the student; "" starts at random
    c.teacher.dtype = "float32"  # compute dtype: float32 | bfloat16
    c.teacher.loss = "augmix_jsd"  # cross_entropy (augmented view only) | augmix_jsd
    c.teacher.mixture = _mixture()  # how its views are made
    c.teacher.ema_decay = 0.0  # of an average of the weights over steps that is kept; 0 is off
    c.teacher.jsd_weight = 12.0  # lambda of the AugMix paper

    c.augmented = ConfigDict()
    c.augmented.mixture = _mixture()  # how the augmented views of the augmented set are made
    c.augmented.replicas = 2  # R: the augmented set has N' = R * N elements
    c.augmented.fraction = (
        0.5  # a: the part of it that is used (paper, section 7 of the supplement)
    )

    c.method = ConfigDict()
    c.method.tuned_params = "auto"  # paper | auto | a count "2100000" | a fraction "0.05"
    c.method.heads_share = 0.2  # part of the budget in the three heads (supplement, section 7)
    c.method.share = "tail"  # tail: heads share the tuned tail | none: a copy for each head
    c.method.dropout = 0.25  # supplement, section 7
    c.method.frozen_dtype = "float32"  # of frozen matrices: float32 | bfloat16 (half the memory)
    c.method.kd = ConfigDict()
    c.method.kd.weight = 0.5  # lambda: 0 is "w/o KD"
    c.method.kd.clean_weight = config_dict.placeholder(float)  # of the clean head; else weight
    c.method.kd.temperature = 2.0  # tau
    c.method.kd.weighting = "none"  # none | teacher_entropy
    c.method.kd.heads = ("clean", "unclean", "combined")  # heads that the teacher teaches
    c.method.kd.clean_anchor = 0.0  # weight of KL to the original model on clean images
    c.distill = _training(total_epochs=50, batch_size=256, optimizer="adam", learning_rate=1e-3)

    c.cache = ConfigDict()
    c.cache.use = "auto"  # auto (compares bytes and passes, says why) | true | false (stream)
    c.cache.dtype = "bfloat16"  # bfloat16 | float32
    c.cache.max_gigabytes = 50.0  # auto streams when the cache would be larger

    c.baselines = ConfigDict()
    c.baselines.methods = ("teacher", "apt", "ours_no_kd")  # rows beside `original` and `ours`

    # full_finetune trains all of the student on the views that the augmented set is made of; lp_ft
    # on clean ones; wise_ft interpolates between the student and full_finetune.
    c.finetune = _training(
        total_epochs=10, batch_size=128, optimizer="adamw", learning_rate=3e-5, weight_decay=0.1
    )
    c.finetune.loss = "augmix_jsd"  # of full_finetune: cross_entropy | augmix_jsd
    c.finetune.jsd_weight = 12.0  # lambda of the AugMix paper

    c.selection = ConfigDict()
    c.selection.num_samples = 10  # N MC-dropout samples a head (supplement, section 7)
    c.selection.uncertainty = "mutual_information"  # | variance | predictive_entropy
    c.selection.score = "gate"  # | product (U x KL, the paper) | sum | uncertainty | kl | max_logit
    c.selection.direction = "combined_to_head"  # | head_to_combined
    c.selection.candidates = "clean_unclean"  # | all (the combined head may answer)
    c.selection.calibrate = True  # temperature a head and one threshold, on held-out images
    # The share of held-out clean images that the threshold leaves to the clean head; 0 for the
    # threshold that is right most often (of the gate: even odds).
    c.selection.keep_clean = 0.88
    # How the shifted images that calibrate are made; all 0 is as those of augmented.mixture.
    c.selection.mixture = _mixture(augment_ops=0.0)
    # The first stages of the network whose channel means and deviations the gate sees.
    c.selection.gate_stages = 4

    c.evaluate = ConfigDict()
    c.evaluate.batch_size = 250  # images at a time
    c.evaluate.corruptions = ("all",)  # all (the 15 of ImageNet-C), extra (four more) or names
    c.evaluate.severities = (1, 2, 3, 4, 5)  # 1 to 5
    c.evaluate.jpeg85 = False  # True: corrupted images go through JPEG 85, as the published ones
    c.evaluate.perturbations = ()  # sequences: all (the ten of ImageNet-P), extra (four) or names
    c.evaluate.perturbation_ops = (
        # what the sequences are made of: {size} is cut out of their middle
        "decode|resize_small({resize}, '{interpolation}')|central_crop({resize})"
    )
    c.evaluate.sets = ()  # benchmarks to read: KIND:PATH (see docs/benchmarks.md)
    c.evaluate.max_images = config_dict.placeholder(int)  # evaluate on the first so many only
    c.evaluate.max_sequences = config_dict.placeholder(int)  # of these, make sequences of so many

    c.sweep = ConfigDict()
    # Several runs in one workdir that end in one table; see docs/sweeps.md and configs/paper/.
    c.sweep.title = ""  # of the table; "" for a run
    c.sweep.note = ""  # what it shows
    c.sweep.runs = ()  # ((name, ((key, value), ...)), ...): what each changes in this config
    c.sweep.seeds = (0,)  # every run is repeated with each
    c.sweep.transfer = ()  # ((name, ((key of data, value), ...)), ...): a linear probe on each
    c.sweep.columns = ()  # ((heading, format), ...): see `robust_jax.report.sweep_table`
    c.sweep.cells = ()  # ((row, column, run, method, metric, the paper's value or None), ...)
    c.sweep.figures = ()  # ((name, bars | lines | scatter, (column, ...), xlabel, ylabel), ...)

    c.train = ConfigDict()
    c.train.log_every_steps = 20  # metrics to TensorBoard and the progress line
    c.train.wandb = ""  # Weights & Biases project to write to, too (requirements-wandb.txt)
    c.train.checkpoint_every_steps = 200  # a resume repeats at most so many steps
    # When a loss or a gradient is not finite: stop, or skip:K, which passes over K such steps of a
    # training and stops at the next.
    c.train.on_nan = "stop"
    c.train.fsdp = 1  # neighbouring devices that share one copy of parameters and optimizer state
    # A cache that is smaller is held on every device, where many steps then run in one call; or
    # in the memory of every host; else its rows are read as they are needed.
    c.train.cache_on_device_gigabytes = 2.0
    c.train.cache_in_memory_gigabytes = 16.0
    return c.lock()


def _mixture(augment_ops: float = 1.0) -> ConfigDict:
    m = ConfigDict()  # weights of the ways to make an augmented view; an element draws one
    m.clean = 0.0  # the image as it is
    m.augment_ops = augment_ops  # data.augment_ops, so AugMix
    m.deepaugment = 0.0  # a copy by one of DeepAugment's networks of distort.networks
    m.noise2net = 0.0  # a copy by Noise2Net
    m.chained = 0.0  # data.augment_ops on a copy by one of DeepAugment's networks
    return m


def _training(
    *,
    total_epochs: float,
    batch_size: int,
    optimizer: str,
    learning_rate: float,
    weight_decay: float = 0.0,
) -> ConfigDict:
    t: Any = ConfigDict()
    t.total_epochs = float(total_epochs)  # length, unless one of the next two is set
    t.total_steps = config_dict.placeholder(int)  # overrides total_epochs
    t.total_examples = config_dict.placeholder(int)  # overrides total_epochs
    t.batch_size = batch_size  # over all devices
    t.optimizer = optimizer  # adam | adamw | sgd (Nesterov momentum 0.9)
    t.learning_rate = learning_rate  # peak
    t.schedule = "cosine"  # cosine (to 0) | step (a tenth after each third) | constant
    t.warmup_percent = 5.0  # of all steps, linear from 0
    t.weight_decay = weight_decay  # of kernels only; decoupled for adamw, L2 for sgd
    t.clip_norm = 1.0  # global gradient norm; 0 turns it off
    t.accum_steps = 1  # parts of a batch, one after another: less memory, the same step
    t.remat = False  # True computes activations again in the backward pass: less memory
    return t
