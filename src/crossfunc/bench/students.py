"""Lesson 4's comparison with a student that is no CHGNet: references before training, for an equivariant network.

The pretrained network keeps its weights and gets references that fit the low functional's labels: the start. From there
it learns the high functional's labels, with references as in Methods 2 (trained along), 3 (frozen) and 4 (refitted to
the labels alone), or refitted to what the network leaves (model-aware). All else is the same: frames, order, steps,
loss. One run, a method with a seed, is a file of its own; a comparison that was ended goes on with the next.
"""

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from crossfunc.bench.verdicts import rounded
from crossfunc.bootstrap import Estimate, mean_over_seeds, paired_over_seeds
from crossfunc.datasets import open_dataset
from crossfunc.datasets.store import dataset_fingerprint
from crossfunc.energies.atomref import fit_atomref, fit_model_aware_atomref
from crossfunc.errors import InputError
from crossfunc.files import write_atomically
from crossfunc.lessons.units import method_splits, usable_frames
from crossfunc.potential.ase_model import to_atoms
from crossfunc.potential.calculator_source import without_network
from crossfunc.training.baselines import frame_errors, predict_zero
from crossfunc.training.batches import labels_of
from crossfunc.training.evaluate import FramePredictions
from crossfunc.training.fit import quiet_lightning
from crossfunc.training.labels import TARGETS, LabelledFrames
from crossfunc.training.loss import LossSettings, batch_loss
from crossfunc.training.taught import low_labels
from crossfunc.units import EV_PER_A3_TO_GPA

METHODS = {
    "untrained": "no training, references of the low functional",
    "references only": "no training, model-aware references",
    "2": "trained, references trained along",
    "3": "trained, references of the low functional",
    "4": "trained, references refitted to the labels",
    "model-aware": "trained, references refitted to what the network leaves",
}
UNTRAINED = ("untrained", "references only")
COMPARED = (("4", "3"), ("4", "2"), ("model-aware", "4"), ("3", "untrained"), ("4", "references only"))
"""Of each two the errors are subtracted, test frame by test frame."""
_LOSS = LossSettings(magmoms=0.0)


class Student(Protocol):
    """A network with element references, that learns energies, forces and stress."""

    name: str
    network: nn.Module
    references: nn.Parameter

    def element_rows(self) -> dict[int, int]:
        """Atomic number to the row of `references`, which is what one atom adds to the energy, eV."""

    def inputs(self, frames: LabelledFrames) -> list:
        """What the network takes, crystal by crystal."""

    def outputs(self, inputs: list) -> dict[str, torch.Tensor]:
        """Energies (eV/atom), forces (eV/Å) and stress (GPa, tension positive), as `batch_loss` takes them."""


class SevenNetStudent:
    """SevenNet-0 (PBE with +U, 842,623 parameters, MIT), whose weights come with the package `sevenn`."""

    name = "SevenNet-0"

    def __init__(self):
        """Build the pretrained network; nothing is downloaded."""
        try:
            from sevenn.util import load_checkpoint
        except ImportError:
            raise InputError(
                "SevenNet is not installed; it is no part of crossfunc: pip install sevenn, "
                "or leave this benchmark out, the book shows the kept run."
            ) from None
        with without_network():
            self.network = load_checkpoint("7net-0").build_model()
        self.network.set_is_batch_data(True)
        self.references = self.network.rescale_atomic_energy.shift

    def element_rows(self) -> dict[int, int]:
        """Atomic number to row."""
        return dict(self.network.type_map)

    def inputs(self, frames: LabelledFrames) -> list:
        """Graphs, as SevenNet builds them."""
        from sevenn.atom_graph_data import AtomGraphData
        from sevenn.train.dataload import unlabeled_atoms_to_graph

        graphs = (
            unlabeled_atoms_to_graph(atoms, self.network.cutoff, with_shift=False)
            for atoms in to_atoms(frames.crystals)
        )
        return [AtomGraphData.from_numpy_dict(graph) for graph in graphs]

    def outputs(self, inputs: list) -> dict[str, torch.Tensor]:
        """Predictions of one batch; SevenNet's stress is that of its own sign, as xx, yy, zz, xy, yz, zx."""
        from torch_geometric.data import Batch

        made = self.network(Batch.from_data_list([graph.clone() for graph in inputs]))
        n_atoms = made["num_atoms"].to(made["inferred_total_energy"])
        return {
            "energy_per_atom_ev": made["inferred_total_energy"].view(-1) / n_atoms.view(-1),
            "forces_ev_per_a": made["inferred_force"],
            "stress_gpa": -made["inferred_stress"][:, _SYMMETRIC].view(-1, 3, 3) * EV_PER_A3_TO_GPA,
        }


_SYMMETRIC = [0, 3, 5, 3, 1, 4, 5, 4, 2]


# --- the runs ---


def run(
    dataset: str,
    out: Path,
    *,
    student: Callable[[], Student] = SevenNetStudent,
    n_seeds: int = 3,
    n_steps: int = 100,
    batch_size: int = 2,
    learning_rate: float = 1e-3,
    max_atoms: int = 4,
    n_train_frames: int = 128,
    n_test_frames: int = 48,
    methods: tuple[str, ...] = tuple(METHODS),
    report: Callable[[str], object] = str,
) -> list[Path]:
    """Make the runs that are not there yet, a file each.

    Parameters
    ----------
    dataset : str
        Name or folder; with frames in both functionals.
    out : Path
        Folder to write, made if it is not there.
    student : callable
        Makes the pretrained student anew.
    n_seeds : int
        Splits by material, orders of the frames.
    n_steps, batch_size, learning_rate
        How Adam trains, under a cosine that ends at a hundredth.
    max_atoms, n_train_frames, n_test_frames : int
        Atoms of a frame at most, and how many frames train and test.
    methods : tuple of str
        Keys of `METHODS`.
    report : callable
        Gets a line per run.

    Returns
    -------
    list of Path
        The files of all runs.

    Raises
    ------
    InputError
        The dataset has one functional only, or the student's package is missing.
    """
    opened = open_dataset(dataset)
    high = usable_frames(opened, max_atoms, n_train_frames, need_forces=True)
    low = low_labels(opened, high)
    if low is None:
        raise InputError(f"{dataset}: the comparison needs the same crystals in both functionals, as pbe-r2scan has.")
    sizes = {"n_train_frames": n_train_frames, "n_eval_frames": n_test_frames, "n_seeds": n_seeds}
    settings = {
        "n_steps": n_steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "max_atoms": max_atoms,
        "dataset_sha256": dataset_fingerprint(dataset),
        **sizes,
    }
    files = []
    for seed, split in method_splits(high, {**sizes, "seed": 0}).items():
        for method in methods:
            file = out / f"{method.replace(' ', '-')}-seed{seed}.json"
            files.append(file)
            if _is_there(file, settings):
                report(f"{method}, seed {seed}: there already")
                continue
            made = _run_one(student(), method, seed, high, low, split, settings)
            out.mkdir(parents=True, exist_ok=True)
            about = {"method": method, "seed": seed, "dataset": opened.name, "label_notice": opened.label_notice}
            write_atomically(file, json.dumps(about | made | {"settings": settings}, indent=1) + "\n")
            means = {target: float(np.nanmean(made["errors"][target])) for target in made["errors"]}
            report(f"{method}, seed {seed}: {means['energy']:.0f} meV/atom, {means['forces']:.0f} meV/Å")
    return files


def _is_there(file: Path, settings: dict) -> bool:
    try:
        return json.loads(file.read_text(encoding="utf-8"))["settings"] == settings
    except (OSError, ValueError, KeyError):
        return False


def _run_one(student: Student, method: str, seed: int, high, low, split: dict, settings: dict) -> dict:
    """Set the references, train, and measure on the test frames."""
    clock = time.perf_counter()
    train, test = split["train"], split["test"]
    inputs = student.inputs(high)
    set_references(student, method, high.take(train), low.take(train), [inputs[k] for k in train])
    losses = []
    if method not in UNTRAINED:
        losses = train_student(student, high, inputs, train, seed=seed, trains_references=method == "2", **settings)
    predictions = predict(student, high.take(test), [inputs[k] for k in test])
    errors = {target: rounded(frame_errors(predictions, target).tolist()) for target in TARGETS[:3]}
    zeros = predict_zero(predictions.frames)
    return {
        "student": student.name,
        "n_train": len(train),
        "material_ids": [str(name) for name in high.material_ids[test]],
        "errors": errors,
        "errors_of_zero": {target: rounded(frame_errors(zeros, target).tolist()) for target in ("forces", "stress")},
        "loss": rounded(losses),
        "seconds": round(time.perf_counter() - clock, 1),
    }


def set_references(student: Student, method: str, high: LabelledFrames, low: LabelledFrames, inputs: list) -> None:
    """Give a student the references of a method, fitted to these training frames.

    Parameters
    ----------
    student : Student
        Its references change.
    method : str
        A key of `METHODS`.
    high, low : LabelledFrames
        The same crystals in both functionals.
    inputs : list
        The crystals as the network reads them.
    """
    network = predict(student, high, inputs).energy_per_atom_ev
    known = ~np.isnan(low.energy_per_atom_ev)
    start = _fit_to_rest(student, low, network, known)
    if method == "4":
        fit = fit_atomref(high.composition, high.energy_per_atom_ev, material_ids=high.material_ids)
        start = np.where(np.isnan(fit.energies_ev), start, fit.energies_ev)
    elif method in ("model-aware", "references only"):
        start = _fit_to_rest(student, high, network, np.ones(len(high), dtype=bool))
    elif method not in METHODS:
        raise InputError(f"method {method!r}: choose one of {', '.join(METHODS)}.")
    with torch.no_grad():
        for z, row in student.element_rows().items():
            if z <= len(start) and not np.isnan(start[z - 1]):
                student.references[row] = float(start[z - 1])


def _fit_to_rest(student: Student, frames: LabelledFrames, network: np.ndarray, known: np.ndarray) -> np.ndarray:
    """References with which the network's energies are right on average for each element, eV by atomic number - 1."""
    values = student.references.detach().cpu().numpy()
    own = np.full(frames.composition.shape[1], np.nan)
    for z, row in student.element_rows().items():
        if z <= len(own):
            own[z - 1] = values[row]
    fit = fit_model_aware_atomref(
        frames.composition[known],
        frames.energy_per_atom_ev[known],
        network[known],
        own,
        material_ids=frames.material_ids[known],
        absent="model",
    )
    return fit.energies_ev


def train_student(
    student: Student,
    frames: LabelledFrames,
    inputs: list,
    rows: np.ndarray,
    *,
    seed: int,
    trains_references: bool,
    n_steps: int,
    batch_size: int,
    learning_rate: float,
    **_,
) -> list[float]:
    """Train on some frames, through Lightning, and return the loss of each step.

    Parameters
    ----------
    student : Student
    frames : LabelledFrames
    inputs : list
        All frames as the network reads them.
    rows : ndarray of int
        Which of them are trained on.
    seed : int
        Seed of the order of the frames.
    trains_references : bool
    n_steps, batch_size, learning_rate
        As for `run`.
    """
    import lightning.pytorch as pl

    student.references.requires_grad_(trains_references)
    losses: list[float] = []

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = student.network

        def training_step(self, batch):
            batch = np.asarray(batch)
            some = frames.take(batch)
            labels = {target: given.float() for target, given in labels_of(some).items()}
            counts = {target: int(some.label_counts[target].sum()) for target in TARGETS}
            loss, _, _ = batch_loss(student.outputs([inputs[k] for k in batch]), labels, counts, _LOSS)
            losses.append(float(loss.detach()))
            return loss

        def configure_optimizers(self):
            chosen = [p for p in self.network.parameters() if p.requires_grad]
            optimizer = torch.optim.Adam(chosen, learning_rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps, learning_rate / 100)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    silent = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    student.network.train()
    with quiet_lightning():
        trainer = pl.Trainer(max_steps=n_steps, logger=False, accelerator="cpu", devices=1, **silent)
        # a bare list would be taken for as many loaders, all asked at every step
        trainer.fit(Module(), DataLoader(batches_of(rows, batch_size, n_steps, seed), batch_size=None))
    return losses


def batches_of(rows: np.ndarray, batch_size: int, n_steps: int, seed: int) -> list[np.ndarray]:
    """Rows of each step: all of them in a new order, again and again."""
    rng, order = np.random.default_rng(seed), np.zeros(0, dtype=int)
    while len(order) < n_steps * batch_size:
        order = np.concatenate([order, rng.permutation(rows)])
    return list(order[: n_steps * batch_size].reshape(n_steps, batch_size))


def predict(student: Student, frames: LabelledFrames, inputs: list, *, batch_size: int = 16) -> FramePredictions:
    """What a student predicts for labelled frames.

    Parameters
    ----------
    student : Student
    frames : LabelledFrames
    inputs : list
        The frames as the network reads them.
    batch_size : int

    Returns
    -------
    FramePredictions
        Without moments.
    """
    student.network.eval()
    made: dict[str, list] = {"energy_per_atom_ev": [], "forces_ev_per_a": [], "stress_gpa": []}
    for k in range(0, len(inputs), batch_size):
        output = student.outputs(inputs[k : k + batch_size])
        for name, parts in made.items():
            parts.append(output[name].detach().cpu().numpy().astype(float))
    arrays = {name: np.concatenate(parts) for name, parts in made.items()}
    no_moments = np.full(len(frames.crystals.atomic_numbers), np.nan)
    return FramePredictions(frames, np.arange(len(frames)), **arrays, magmoms_mub=no_moments)


# --- what they come to ---


def read_runs(folder: Path) -> dict[str, list[dict]]:
    """Return the kept runs of a folder, method -> one for each seed; seeds that a method lacks are left out of all.

    Raises
    ------
    InputError
        There are none, or they are of different data or settings.
    """
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*-seed*.json"))]
    if not runs:
        raise InputError(f"{folder}: no runs of a student; make them with: crossfunc bench students DATASET --out DIR")
    if any(one["settings"] != runs[0]["settings"] for one in runs):
        raise InputError(f"{folder}: runs of different data or settings; delete them and make all again.")
    found: dict[str, list[dict]] = {method: [] for method in METHODS}
    for one in sorted(runs, key=lambda one: one["seed"]):
        found[one["method"]].append(one)
    found = {method: some for method, some in found.items() if some}
    whole = set.intersection(*({one["seed"] for one in some} for some in found.values()))
    if not whole:
        raise InputError(f"{folder}: no seed has a run of every method; the same command makes what is missing.")
    return {method: [one for one in some if one["seed"] in whole] for method, some in found.items()}


def mean_errors(runs: list[dict], of: str = "errors") -> dict[str, Estimate]:
    """Mean error over seeds and test frames, by target, with an interval over materials and runs.

    Parameters
    ----------
    runs : list of dict
        Those of one method.
    of : str
        "errors" of the method, or "errors_of_zero".
    """
    ids = [one["material_ids"] for one in runs]
    return {target: mean_over_seeds([one[of][target] for one in runs], ids) for target in runs[0][of]}


def differences(runs: dict[str, list[dict]]) -> dict[tuple[str, str], dict[str, Estimate]]:
    """Errors of one method less those of another, by `COMPARED` and target, on the same frames of every seed."""
    found = {}
    for one, other in COMPARED:
        if one in runs and other in runs:
            ids = [made["material_ids"] for made in runs[one]]
            paired = functools.partial(_paired, runs[one], runs[other], ids)
            found[one, other] = {target: paired(target) for target in TARGETS[:3]}
    return found


def _paired(runs: list[dict], others: list[dict], ids: list, target: str) -> Estimate:
    return paired_over_seeds([one["errors"][target] for one in runs], [one["errors"][target] for one in others], ids)
