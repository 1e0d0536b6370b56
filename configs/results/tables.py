"""The table of a setting: which methods stand in it, and what is told of each."""

from ml_collections import ConfigDict

from configs.paper.scales import SEEDS, Cell, Changes
from robust_jax.validation import HEADS

ROWS = {
    "original": "original",
    "teacher": "teacher",
    "full fine-tuning": "full_finetune",
    "WiSE-FT": "wise_ft",
    "APT": "apt",
    "ours w/o KD": "ours_no_kd",
    "ours w/o KLD": "ours_no_kld",
    "ours w/o U_mc": "ours_no_umc",
    "ours, U x KL": "ours_product",
    "ours": "ours",
}
# Heading -> (format, metric).
COLUMNS = {
    "clean %": ("percent", "clean_accuracy"),
    "corrupted %": ("percent", "corrupted_accuracy"),
    "flips %": ("percent", "mean_flip_probability"),
    "F clean": ("fraction", "f_correct_clean"),
    "F severe": ("fraction", "f_correct_severe"),
    "AUROC": ("fraction", "routing_auroc"),
    "tuned": ("count", "tuned_params"),
    "training s": ("seconds", "train_seconds"),
}
ROUTING = ("F clean", "F severe", "AUROC")  # of ours alone: the others have no heads to choose
TRANSFER = "other data"
TRANSFERRED = ("original", "full_finetune", "ours")  # beside these, it costs a pass for each
NOTE = (
    "Clean and corrupted: accuracy; flips: how often the answer changes along a sequence. F: the "
    "share of clean images, and of corrupted ones of severities 3 to 5, that the head answers that "
    "is meant for them. Training seconds are of all that a method needs: for ours the teacher, too."
)


def on_folder(c: ConfigDict) -> None:
    """What the settings on a folder have in common.

    One given student for all seeds; every family of training-time shifts for the teacher, the tail
    and the choice of a head.
    """
    c.student_seed = 0
    c.distort.networks, c.distort.noise2net_max_eps = ("cae", "edsr", "noise2net"), 0.3
    c.distort.fit_steps = 1500
    for section in (c.teacher, c.augmented, c.selection):
        section.mixture.augment_ops, section.mixture.chained = 2.0, 1.0
        section.mixture.noise2net = 1.0
    c.finetune.loss = "cross_entropy"


def fill(c: ConfigDict, title: str, transfer: Changes = ()) -> None:
    """Makes a config the sweep of a setting: every method, three seeds.

    Args:
      c: the config of its runs.
      title: of the table.
      transfer: what other data, to which a linear probe transfers, changes in the section `data`;
        () for none.
    """
    c.baselines.methods = ("teacher", "full_finetune", "wise_ft", "apt", "ours_no_kd")
    c.evaluate.severities = (1, 3, 5)
    c.evaluate.perturbations = ("all",)
    c.evaluate.max_sequences = 100
    c.sweep.title, c.sweep.note, c.sweep.seeds = title, NOTE, SEEDS
    c.sweep.runs = (("all", ()),)
    c.sweep.columns = tuple((heading, form) for heading, (form, _) in COLUMNS.items())
    if transfer:
        c.sweep.transfer = ((TRANSFER, transfer),)
        c.sweep.columns += ((f"{TRANSFER} %", "percent"),)
    cells = list[Cell]()
    for row, method in ROWS.items():
        for heading, (_, metric) in COLUMNS.items():
            if heading in ROUTING and not method.startswith("ours"):
                continue
            cells.append((row, heading, "all", method, metric, None))
        if transfer and method in TRANSFERRED:
            cells.append((row, f"{TRANSFER} %", "all", method, f"transfer/{TRANSFER}", None))
    for head in HEADS:
        for heading in ("clean %", "corrupted %"):
            metric = f"heads/{head}/{COLUMNS[heading][1]}"
            cells.append((f"ours, the {head} head alone", heading, "all", "ours", metric, None))
    c.sweep.cells = tuple(cells)
