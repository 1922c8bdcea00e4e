"""Refuse labels that are not what they are said to be: units and signs, raw or corrected, which element.

The units are measured by `units`; here energies tell raw from corrected ones and an element from another one, and
all of it becomes a report or a refusal.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crossfunc.datasets import CheckReport, Dataset, Finding
from crossfunc.datasets.frame_checks import find_frame_faults
from crossfunc.datasets.importers.import_run import Sample
from crossfunc.label_checks.units import (
    MIN_FRAMES,
    ROWS_SHOWN,
    Labels,
    check_energies,
    check_forces,
    check_stress,
    read_labels,
)
from crossfunc.potential.chgnet import load_model, predict
from crossfunc.potential.crystals import Crystals
from crossfunc.symbols import ELEMENT_SYMBOLS

MODELS = {"high": "r2scan", "low": "0.3.0"}
"""The published checkpoint that frames of each side are compared with."""
SUSPICIOUS_EV_PER_ATOM = 0.15


class WrongLabelError(ValueError):
    """Labels that are not what they are said to be; the message holds the evidence and the remedy."""


def check_corrections(labels: Labels, energy_kind: str) -> list[Finding]:
    """Tell raw GGA energies from MP2020-corrected ones: CHGNet 0.3.0 predicts the corrected ones."""
    from crossfunc.energies.corrections import mp2020_correction_per_atom_ev

    formulas = [labels.crystals.formula(k) for k in range(len(labels.ids))]
    correction = mp2020_correction_per_atom_ev(formulas, on_error="nan")
    model = labels.model_energy_per_atom_ev
    use = np.isfinite(correction) & np.isfinite(model) & (np.abs(correction) > 0.05)
    if use.sum() < MIN_FRAMES:
        return []
    residual = labels.energy_per_atom_ev[use] - model[use]
    corrected, raw = np.median(np.abs(residual)), np.median(np.abs(residual + correction[use]))
    evidence = (
        f"the median distance from CHGNet 0.3.0 on {use.sum()} frames is {corrected:.3f} eV/atom as it stands and "
        f"{raw:.3f} eV/atom with MP2020 corrections added"
    )
    if energy_kind == "mp2020" and raw < 0.6 * corrected:
        text = f"raw, though marked mp2020: {evidence}. Take corrected energies, or mark the frames raw."
        return [Finding("error", "energy_kind", text)]
    if energy_kind == "raw" and corrected < 0.6 * raw:
        text = f"MP2020-corrected, though marked raw: {evidence}. Take uncorrected energies, or mark the frames mp2020."
        return [Finding("error", "energy_kind", text)]
    return [Finding("info", "energy_kind", f"{energy_kind}: {evidence}")]


def check_elements(labels: Labels, model) -> list[Finding]:
    """Look for an element under another one's name: frames far from the model that come near it when renamed.

    Only for energies on the model's own scale.
    """
    residual = labels.energy_per_atom_ev - labels.model_energy_per_atom_ev
    known = np.isfinite(residual)
    if known.sum() < MIN_FRAMES:
        return []
    spread = np.median(np.abs(residual[known]))
    far = np.flatnonzero(known & (np.abs(residual) > max(SUSPICIOUS_EV_PER_ATOM, 4 * min(spread, 0.1))))
    if not len(far):
        return [
            Finding("info", "atomic_numbers", "no frame is far from the model: elements are what they are said to be")
        ]
    renamed = _best_renaming(labels, far, residual, model)
    rows = tuple(labels.ids[far][:ROWS_SHOWN])
    if renamed is not None:
        old, new, before, after, rows = renamed
        text = (
            f"what is called {old} fits as {new}: the median distance of {len(rows)} frames from the model is "
            f"{before:.2f} eV/atom as it stands and {after:.2f} eV/atom with {new}. Correct the element in the source."
        )
        n_materials = len(set(labels.materials[np.isin(labels.ids, rows)]))
        # One odd calculation comes near some element by chance; three frames of two materials do not.
        level = "error" if len(rows) >= 3 and n_materials >= 2 else "warning"
        return [Finding(level, "atomic_numbers", text, rows[:ROWS_SHOWN])]
    text = f"{len(far)} frames lie more than {SUSPICIOUS_EV_PER_ATOM} eV/atom from the model; look at their labels"
    return [Finding("warning", "energy_per_atom_ev", text, rows)]


def _best_renaming(labels: Labels, far: np.ndarray, residual: np.ndarray, model) -> tuple | None:
    """The exchange of one element that brings the frames that hold it nearest to the model, in energies and forces.

    Only an element that (nearly) all of the far frames have can be the one. Every other element is tried in its place
    on a few frames, the best of them on more.
    """
    shares = np.stack([np.isin(np.arange(1, 95), labels.crystals.take([k]).atomic_numbers) for k in far]).mean(axis=0)
    best = None
    for old in np.flatnonzero(shares >= _COMMON_SHARE) + 1:
        rows = np.array([k for k in far if old in labels.crystals.take([k]).atomic_numbers])
        rows = rows[:: max(1, len(rows) // _RENAMED_FRAMES)][:_RENAMED_FRAMES]
        before = float(np.median(np.abs(residual[rows])))
        for new in _candidates(labels, rows, old, model):
            energy, force = _distance_when_renamed(labels, rows, old, new, model)
            score = energy + _FORCE_WEIGHT_A * (force if np.isfinite(force) else 0.0)
            if best is None or score < best[0]:
                names = ELEMENT_SYMBOLS[old - 1], ELEMENT_SYMBOLS[new - 1]
                best = (score, (*names, before, energy, tuple(labels.ids[rows])))
    if best is None:
        return None
    _, (_, _, before, after, _) = best
    return best[1] if after < min(0.25 * before, 0.2) else None


def _candidates(labels: Labels, rows: np.ndarray, old: int, model) -> list[int]:
    """The elements that, in the place of one, bring the smallest of some frames nearest to the model's energies."""
    references = model.composition_model.fc.weight[0].detach().cpu().numpy()
    others = [z for z in range(1, 95) if z != old and references[z - 1] != 0]
    few = rows[np.argsort(labels.crystals.n_atoms[rows], kind="stable")][:_SCREENED_FRAMES]
    some = labels.crystals.take(few)
    numbers = np.concatenate([np.where(some.atomic_numbers == old, z, some.atomic_numbers) for z in others])
    n = len(others)
    crystals = Crystals(
        numbers, np.tile(some.frac_coords, (n, 1)), np.tile(some.lattices_a, (n, 1, 1)), np.tile(some.n_atoms, n)
    )
    energies = predict(model, crystals, derivatives=False, strict=False)["energy_per_atom_ev"].reshape(n, -1)
    distances = np.abs(energies - labels.energy_per_atom_ev[few]).mean(axis=1)
    return [others[k] for k in np.argsort(distances)[:_CANDIDATES]]


_COMMON_SHARE = 0.9
_SCREENED_FRAMES = 3
_RENAMED_FRAMES = 12
_CANDIDATES = 5
_FORCE_WEIGHT_A = 1.0  # 0.1 eV/Å of a wrong element counts as much as 0.1 eV/atom


def _distance_when_renamed(labels: Labels, rows: np.ndarray, old: int, new: int, model) -> tuple[float, float]:
    """Median distance of energies (eV/atom) and mean distance of forces (eV/Å) from the model with another element."""
    some = labels.crystals.take(rows)
    numbers = np.where(some.atomic_numbers == old, new, some.atomic_numbers)
    renamed = Crystals(numbers, some.frac_coords, some.lattices_a, some.n_atoms)
    found = predict(model, renamed, strict=False)
    energy = np.nanmedian(np.abs(labels.energy_per_atom_ev[rows] - found["energy_per_atom_ev"]))
    forces = np.concatenate([labels.forces_ev_per_a[k] for k in rows]) - np.concatenate(found["forces_ev_per_a"])
    return float(energy), float(np.nanmean(np.abs(forces))) if np.isfinite(forces).any() else np.nan


def find_label_faults(
    frames: pa.Table,
    *,
    absolute: bool = True,
    stress_unit: str | None = None,
    use_model: bool = True,
    high: str = "r2scan",
    model=None,
) -> list[Finding]:
    """Check a sample of frames against the published checkpoint of their functional, and against themselves.

    Parameters
    ----------
    frames : pyarrow.Table
        Some hundred frames; whole relaxations rather than single frames, so that energies can vouch for stresses.
    absolute : bool
        True where energies should be the model's: Materials Project settings. False for anyone's own calculations,
        whose pseudopotentials shift every element.
    stress_unit : str, optional
        The unit the source was read with, for the remedy.
    use_model : bool
        False: only what labels say of themselves.
    high : str
        Key of the dataset's high functional, whose frames go to the checkpoint for r²SCAN; all others go to 0.3.0.
    model : AseModel or CHGNet, optional
        Compare with this one instead of the published checkpoints; its zero of energy is taken for unknown.

    Returns
    -------
    list of Finding
        `file` names the functional and the column.
    """
    findings = []
    absolute = absolute and model is None
    for functional in sorted(set(frames["functional"].to_pylist())):
        some = frames.filter(pc.equal(frames["functional"], functional))
        is_high = functional == high
        chosen = model or (load_model(MODELS["high" if is_high else "low"]) if use_model else None)
        labels = read_labels(some, chosen)
        energies = check_energies(labels, absolute=absolute) if use_model else []
        energies_hold = all(f.level != "error" for f in energies)
        found = check_stress(labels, stress_unit, use_energies=energies_hold) + check_forces(labels) + energies
        if use_model and absolute and energies_hold:
            kind = some["energy_kind"][0].as_py()
            found += [] if is_high else check_corrections(labels, kind)
            if is_high or kind == "mp2020":
                found += check_elements(labels, chosen)
        findings += [Finding(f.level, f"{functional} {f.file}", f.message, f.rows) for f in found]
    return findings


def refuse_wrong_labels(
    frames: pa.Table, *, absolute: bool = True, stress_unit: str | None = None, high: str = "r2scan"
) -> list[Finding]:
    """Check labels as `find_label_faults` does, and raise when they are measurably not what they are said to be.

    Raises
    ------
    WrongLabelError
        With the evidence, the rows and the remedy of every error.
    """
    findings = find_label_faults(frames, absolute=absolute, stress_unit=stress_unit, high=high)
    errors = [f for f in findings if f.level == "error"]
    if errors:
        lines = [f"{f.file}: {f.message}" + (f" Rows: {', '.join(f.rows[:5])} ..." if f.rows else "") for f in errors]
        raise WrongLabelError("nothing imported: the labels are not what they are read as.\n  " + "\n  ".join(lines))
    return findings


def add_label_findings(report: CheckReport, dataset: Dataset, *, use_model: bool = True, model=None) -> CheckReport:
    """Add to a dataset's report what its frames say of themselves, and what the published models say of a sample.

    Parameters
    ----------
    report : CheckReport
        From `check_dataset`; of a dataset that cannot be used it is returned as it is.
    dataset : Dataset
    use_model : bool
        False leaves the models out: seconds instead of minutes.
    model : AseModel or CHGNet, optional
        As of `find_label_faults`.

    Returns
    -------
    CheckReport
    """
    if not report.ok or dataset.frames is None:
        return report
    report.findings += find_frame_faults(dataset.frames)
    # Only these were calculated with the settings of the models' own training data.
    low, high = dataset.functionals
    absolute = (low.name, high.name) == _MODEL_FUNCTIONALS
    # Where every element's zero is fitted, more materials than elements are needed.
    sample = Sample() if absolute else Sample(n_frames=512, n_per_material=4)
    for start in range(0, dataset.frames.num_rows, _BATCH_ROWS):
        sample.add(dataset.frames.slice(start, _BATCH_ROWS))
    if sample.frames is None:
        report.findings.append(Finding("warning", "frames.parquet", sample.note))
        return report
    report.findings += find_label_faults(
        sample.frames, absolute=absolute, use_model=use_model, high=high.key, model=model
    )
    return report


_BATCH_ROWS = 4096
_MODEL_FUNCTIONALS = ("GGA/GGA+U", "r²SCAN")
