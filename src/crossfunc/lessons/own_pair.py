"""What lesson 8 does around one's own files: practice files to start from, the report as a table, two trainings."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from crossfunc.datasets import check_dataset, open_dataset
from crossfunc.lessons.scores import QUANTITIES
from crossfunc.symbols import ELEMENT_SYMBOLS
from crossfunc.units import EV_PER_A3_TO_GPA

SOURCES = ("dense: relaxed", "dense: strained", "dense: path-0")
"""Frames of the embedded dataset that the practice files hold."""

DIGITS = dict(zip(QUANTITIES, (",.0f", ",.0f", ".2f", ".3f"), strict=True))


def to_ase(row: Mapping):
    """Return one frame of a dataset as ASE's Atoms with its labels, stress in ASE's convention (eV/Å³).

    Parameters
    ----------
    row : mapping
        A row of the table `frames`; forces may be None, and stress and moments are then left out.
    """
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = Atoms(
        row["atomic_numbers"],
        cell=np.reshape(row["lattice_a"], (3, 3)),
        scaled_positions=np.reshape(row["frac_coords"], (-1, 3)),
        pbc=True,
        info={"material": row["material_id"]},
    )
    labels = {"energy": row["energy_per_atom_ev"] * len(atoms)}
    if row["forces_ev_per_a"] is not None:
        stress = np.reshape(row["stress_gpa"], (3, 3)) / EV_PER_A3_TO_GPA
        labels["forces"] = np.reshape(row["forces_ev_per_a"], (-1, 3))
        labels["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        labels["magmoms"] = row["magmoms_mub"]
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def practice_files(source, folder: Path, elements: Sequence[str]) -> dict[str, Path]:
    """Cut two extended XYZ files out of a dataset, one per functional, of the crystals made of some elements.

    Parameters
    ----------
    source : Dataset
    folder : path
        Gets `<functional>.extxyz`.
    elements : sequence of str

    Returns
    -------
    dict
        "low" and "high" -> file.
    """
    from ase.io import write

    rows = source.frames.filter(np.isin(source.frames["source"].to_pylist(), SOURCES)).to_pylist()
    rows = [row for row in rows if {ELEMENT_SYMBOLS[z - 1] for z in row["atomic_numbers"]} <= set(elements)]
    files = {}
    for functional in source.functionals:
        files[functional.side] = folder / f"{functional.key}.extxyz"
        chosen = [to_ase(row) for row in rows if row["functional"] == functional.key]
        write(files[functional.side], chosen, format="extxyz")
    return files


def report_table(folder: Path):
    """Return what `crossfunc data check` finds in a dataset's folder as a table (a pandas Styler)."""
    from crossfunc.label_checks import add_label_findings

    report = check_dataset(folder)
    add_label_findings(report, open_dataset(folder))
    lines = [(f.level, f.file, f.message) for f in report.findings]
    table = pd.DataFrame(lines, columns=["level", "what", "finding"])
    return table.style.hide(axis="index").set_properties(**{"text-align": "left", "white-space": "normal"})


def tune(folder: Path, out: Path | str, *, n_epochs: int, pretrained: str, max_atoms: int | None = None, **settings):
    """Fine-tune by Method 4 on the high functional's frames, and measure the model before, after new references, after.

    Parameters
    ----------
    folder : path
        The dataset.
    out : path
        Folder of the run.
    n_epochs : int
    pretrained : str
        Model to start from.
    max_atoms : int, optional
        Larger crystals are left out.
    settings
        Settings of the training: `seed` (of the split, too), `batch_size`.

    Returns
    -------
    run : TrainingResult
    errors : dict
        "as it comes", "new references" and "fine-tuned" -> errors on the held-out materials.
    """
    from crossfunc.datasets import split_by_material
    from crossfunc.potential import load_model
    from crossfunc.training import LabelledFrames, evaluate, finetune

    frames = LabelledFrames.from_dataset(folder, "high")
    if max_atoms is not None:
        frames = frames.take(np.flatnonzero(frames.crystals.n_atoms <= max_atoms))
    split = split_by_material(frames.material_ids, seed=settings["seed"])
    settings |= {"split": split, "pretrained": pretrained, "progress": False}
    untrained = finetune("references-only", frames, **settings)
    run = finetune("4", frames, out=out, n_epochs=n_epochs, **settings)
    return run, {
        "as it comes": evaluate(load_model(pretrained), frames, rows=split["test"]),
        "new references": untrained.metrics["test"],
        "fine-tuned": run.metrics["test"],
    }


def error_table(errors: Mapping[str, Mapping]) -> pd.DataFrame:
    """Return errors as text: one row per model, one column per label, a dash where nothing is labelled."""
    table = pd.DataFrame(errors).T[list(QUANTITIES)].astype(float)
    cells = {f"{what} ({unit})": table[key].map(_cell(DIGITS[key])) for key, (what, unit) in QUANTITIES.items()}
    return pd.DataFrame(cells)


def _cell(digits: str):
    return lambda value: "–" if np.isnan(value) else format(value, digits)


IN_KEYS = {
    "what": [*(what for what, _ in QUANTITIES.values()), "frames", "materials"],
    "result_key(model)": ["as_it_comes", "new_references", "fine_tuned"],
}
"""What may stand in the keys that are recorded here, by the expression that puts it there."""


def record_offsets(results, advice) -> None:
    """Record how far two functionals lie apart, and how far after a refit where materials were held out.

    Parameters
    ----------
    results : LessonResults
    advice : RefitAdvice
    """
    results.record("offset_before", 1000 * advice.initial_mae_ev_per_atom)
    if advice.is_held_out:
        results.record("offset_after", 1000 * advice.refitted_mae_ev_per_atom)


def record_errors(results, errors: Mapping[str, Mapping], **sizes) -> None:
    """Record every error that has a label to be measured against, as `<what>_mae_<model>`.

    Parameters
    ----------
    results : LessonResults
    errors : mapping
        As `tune` returns them.
    sizes
        `pretrained`, `n_epochs` and `n_train`, for the notes beside the numbers.
    """
    asked = {"as it comes": ("pretrained",), "new references": (), "fine-tuned": ("n_epochs", "n_train")}
    for model, found in errors.items():
        about = {name: sizes[name] for name in asked[model]}
        for metric, (what, _) in QUANTITIES.items():
            value = found[metric]
            if value is not None and np.isfinite(value):
                results.record(f"{what}_mae_{result_key(model)}", value, **about)


def record_published(results, published: Mapping) -> tuple[float, float]:
    """Record and return a model's energy error on the fluorides as the mean over frames, and over materials (meV/atom).

    Parameters
    ----------
    results : LessonResults
    published : mapping
        Errors from `evaluate(..., with_predictions=True)`.
    """
    predictions = published["predictions"]
    off = np.abs(np.subtract(*predictions.pairs("energy")))
    by_material = pd.Series(1000 * off).groupby(predictions.frames.material_ids).mean()
    over = {"frames": published["energy_mae_mev_per_atom"], "materials": by_material.mean()}
    for what, value in over.items():
        about = {"n": len(predictions.frames), "n_materials": len(by_material)}
        results.record(f"fluorides_energy_mae_{what}", value, **about)
    return tuple(over.values())


def record_fluorides(results, errors: Mapping[str, Mapping], sizes: Mapping[str, int]) -> None:
    """Record the energy errors on the fluorides; `sizes` are the frames of each part of the split."""
    for model, value in energy_errors(errors).items():
        about = {"n_train": sizes["train"], "n_test": sizes["test"]}
        results.record(f"fluorides_energy_mae_{result_key(model)}", value, **about)


def energy_errors(errors: Mapping[str, Mapping]) -> dict[str, float]:
    """Return the energy error of each model, meV/atom."""
    return {model: found["energy_mae_mev_per_atom"] for model, found in errors.items()}


def in_words(stages: Mapping[str, Mapping[str, float]]) -> str:
    """Return the errors of each dataset at its stages as text, for a reader who cannot see the figure."""
    return "; ".join(f"{name} {', '.join(f'{v:.0f}' for v in errors.values())}" for name, errors in stages.items())


def names_and_kinds(dataset) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return the names of the low and the high functional, and the kinds of their energies."""
    low, high = dataset.functionals
    return (low.name, high.name), (low.energy_kind, high.energy_kind)


def result_key(model: str) -> str:
    """Return what results call a model: "fine-tuned" is `fine_tuned`."""
    return model.replace(" ", "_").replace("-", "_")
