"""Units and signs of forces, stresses and energies, measured against a model and against the labels themselves.

A pretrained model is wrong by some percent; a wrong unit is wrong by a factor of ten, a wrong sign by two. So the model
need not be good to tell them apart, only better than that. What it cannot tell is left open and said to be open.
"""

import itertools
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from crossfunc.datasets import Finding
from crossfunc.energies import composition_matrix
from crossfunc.potential.chgnet import predict
from crossfunc.potential.crystals import Crystals
from crossfunc.units import (
    BOHR_A,
    EV_PER_A3_TO_GPA,
    EV_PER_HARTREE,
    EV_TO_KCAL_PER_MOL,
    EV_TO_KJ_PER_MOL,
    STRESS_UNITS,
    VIRIAL_UNITS,
)

MIN_FRAMES = 8
MIN_COSINE = 0.25
"""Mean cosine between label and model, frame by frame, from which on a sign is taken for measured."""
WITHIN = 2.5
"""A scale within this factor of a unit's is that unit's; units of stress are at least 10 apart."""
ROWS_SHOWN = 20


@dataclass(frozen=True)
class Scale:
    """How a column of labels compares with what it should be: label = factor x truth.

    Attributes
    ----------
    factor : float
        Signed; NaN where nothing can be said.
    cosine : float
        Mean cosine (model) or correlation (work) that the sign rests on.
    n : int
        Frames or pairs of frames.
    is_conclusive : bool
    spread : float
        Median absolute deviation of the factor's logarithm over the frames; NaN where it is not measured.
    """

    factor: float
    cosine: float
    n: int
    is_conclusive: bool
    spread: float = np.nan


@dataclass(frozen=True)
class Labels:
    """Frames of one functional with their labels and a model's predictions, in arrays.

    Attributes
    ----------
    crystals : Crystals
    ids, materials : ndarray of str
    energy_per_atom_ev, model_energy_per_atom_ev : ndarray, shape (n,)
    forces_ev_per_a, model_forces_ev_per_a : list of ndarray (n_atoms, 3)
    stress_gpa, model_stress_gpa : ndarray, shape (n, 3, 3)
        NaN without a label.
    """

    crystals: Crystals
    ids: np.ndarray
    materials: np.ndarray
    energy_per_atom_ev: np.ndarray
    forces_ev_per_a: list
    stress_gpa: np.ndarray
    model_energy_per_atom_ev: np.ndarray
    model_forces_ev_per_a: list
    model_stress_gpa: np.ndarray


def read_labels(frames: pa.Table, model=None) -> Labels:
    """Collect labels and predictions.

    Parameters
    ----------
    frames : pyarrow.Table
        Frames of one functional.
    model : CHGNet, AseModel or ASE Calculator, optional
        None leaves the predictions NaN: what labels say of themselves is still checked.

    Returns
    -------
    Labels
    """
    crystals = Crystals.from_frames(frames)
    n = len(crystals)
    per_atom = [np.full((k, 3), np.nan) for k in crystals.n_atoms]
    forces = [
        gap if row is None else np.asarray(row, dtype=float).reshape(-1, 3)
        for row, gap in zip(frames["forces_ev_per_a"].to_pylist(), per_atom, strict=True)
    ]
    stress = np.full((n, 9), np.nan)
    for k, row in enumerate(frames["stress_gpa"].to_pylist()):
        if row is not None:
            stress[k] = row
    if model is None:
        found = {
            "energy_per_atom_ev": np.full(n, np.nan),
            "forces_ev_per_a": per_atom,
            "stress_gpa": np.full((n, 3, 3), np.nan),
        }
    else:
        found = predict(model, crystals, strict=False)
    return Labels(
        crystals,
        np.array(frames["frame_id"].to_pylist()),
        np.array(frames["material_id"].to_pylist()),
        frames["energy_per_atom_ev"].to_numpy(),
        forces,
        stress.reshape(-1, 3, 3),
        np.asarray(found["energy_per_atom_ev"]),
        list(found["forces_ev_per_a"]),
        np.asarray(found["stress_gpa"]),
    )


def scale_against_model(labels: list, predictions: list, materials: np.ndarray) -> Scale:
    """Sign and scale of labels against predictions on the stronger half: mean cosine, and median ratio of the norms.

    Parameters
    ----------
    labels, predictions : list of ndarray
        One array per frame, of equal shapes; frames with NaN are passed over.
    materials : ndarray of str
        Frames of one material count as one vote.

    Returns
    -------
    Scale
        Conclusive with `MIN_FRAMES` frames and a mean cosine of `MIN_COSINE` that is three standard errors from zero.
    """
    cosines, logs, sizes, groups = [], [], [], []
    for y, x, material in zip(labels, predictions, materials, strict=True):
        size = np.linalg.norm(y) * np.linalg.norm(x)
        if np.isfinite(size) and size > 0:
            cosines.append(np.sum(y * x) / size)
            logs.append(np.log(np.linalg.norm(y) / np.linalg.norm(x)))
            sizes.append(size)
            groups.append(material)
    if len(cosines) < MIN_FRAMES:
        return Scale(np.nan, np.nan, len(cosines), False)
    strong = np.array(sizes) >= np.median(sizes)  # what is nearly zero has no direction
    cosines, groups, logs = np.array(cosines)[strong], np.array(groups)[strong], np.array(logs)[strong]
    votes = np.array([cosines[groups == g].mean() for g in np.unique(groups)])
    error = votes.std(ddof=1) / np.sqrt(len(votes)) if len(votes) > 1 else np.inf
    cosine = float(votes.mean())
    clear = abs(cosine) >= MIN_COSINE and abs(cosine) >= 3 * error
    spread = float(np.median(np.abs(logs - np.median(logs))))
    return Scale(float(np.sign(cosine) * np.exp(np.median(logs))), cosine, len(cosines), bool(clear), spread)


def stress_scale_from_energies(labels: Labels) -> Scale:
    """Sign and scale of the stress from the labels alone: dE = V stress : strain - F . du between two near frames.

    Returns
    -------
    Scale
        Conclusive with `MIN_FRAMES` pairs of neighbouring frames of a material and a correlation above 0.8.
    """
    work, energy = _strain_work(labels)
    if len(work) < MIN_FRAMES or not np.any(work):
        return Scale(np.nan, np.nan, len(work), False)
    correlation = float(np.sum(work * energy) / np.sqrt(np.sum(work**2) * np.sum(energy**2)))
    ratio = np.sqrt(np.sum(work**2) / np.sum(energy**2))
    return Scale(float(np.sign(correlation) * ratio), correlation, len(work), abs(correlation) > 0.8)


def _strain_work(labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """V stress : strain and dE + F . du (eV) of neighbouring frames of a material that differ little.

    The mean of both ends' forces and stress stands for all between, which is wrong for steps as long as those between
    two rattled frames: where there are enough pairs whose atoms stay nearly in place, they alone are taken.
    """
    volumes = np.abs(np.linalg.det(labels.crystals.lattices_a))
    pairs, steps = [], []
    for a, b, strain, moved in _neighbours(labels):
        forces = (labels.forces_ev_per_a[a] + labels.forces_ev_per_a[b]) / 2
        stress = (volumes[a] * labels.stress_gpa[a] + volumes[b] * labels.stress_gpa[b]) / 2 / EV_PER_A3_TO_GPA
        gained = (labels.energy_per_atom_ev[b] - labels.energy_per_atom_ev[a]) * len(forces)
        pair = (np.sum(stress * strain.T), gained + np.sum(forces * moved))
        if np.isfinite(pair).all():
            pairs.append(pair)
            steps.append(np.abs(moved).max())
    found, short = np.array(pairs).reshape(-1, 2), np.array(steps) < _SHORT_STEP_A
    if short.sum() >= MIN_FRAMES:
        found = found[short]
    return found[:, 0], found[:, 1]


_LARGEST_STRAIN, _LONGEST_STEP_A, _SHORT_STEP_A = 0.1, 0.3, 0.1


def _neighbours(labels: Labels) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """Each frame with the nearest one of its material that is strained against it: rows, strain, and moves in Å."""
    crystals = labels.crystals
    found: dict[tuple[int, int], tuple[int, int, np.ndarray, np.ndarray]] = {}
    coords, lattices = crystals.split(crystals.frac_coords), crystals.lattices_a
    groups: dict[tuple, list[int]] = defaultdict(list)
    for row, numbers in enumerate(crystals.split(crystals.atomic_numbers)):
        groups[labels.materials[row], numbers.tobytes()].append(row)
    for rows in groups.values():
        best: dict[int, tuple[float, int, int]] = {}
        for a, b in itertools.combinations(rows, 2):
            strain, moved = _difference(lattices, coords, a, b)
            largest, step = np.abs(strain).max(), np.abs(moved).max()
            if 1e-5 <= largest <= _LARGEST_STRAIN and step <= _LONGEST_STEP_A:
                apart = (largest / _LARGEST_STRAIN + step / _LONGEST_STEP_A, a, b)
                for row in (a, b):
                    best[row] = min(apart, best.get(row, apart))
        found |= {(a, b): (a, b, *_difference(lattices, coords, a, b)) for _, a, b in best.values()}
    return list(found.values())


def _difference(lattices: np.ndarray, coords: list, a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
    """Strain from one frame to another, and how far its atoms move against the cell."""
    mean = (lattices[a] + lattices[b]) / 2
    moved = coords[b] - coords[a]
    return np.linalg.solve(mean, lattices[b] - lattices[a]), (moved - np.rint(moved)) @ mean


def check_stress(labels: Labels, declared: str | None = None, *, use_energies: bool = True) -> list[Finding]:
    """Compare sign and unit of the stress with the model, and with the energies of neighbouring frames.

    Parameters
    ----------
    labels : Labels
    declared : str, optional
        The unit (of `STRESS_UNITS`) the source was read with; the remedy then names the one to read it with.
    use_energies : bool
        False where the energies themselves are not to be trusted.
    """
    if not np.isfinite(labels.stress_gpa).any():
        return [Finding("info", "stress_gpa", "no labels")]
    model = scale_against_model(list(labels.stress_gpa), list(labels.model_stress_gpa), labels.materials)
    work = stress_scale_from_energies(labels) if use_energies else Scale(np.nan, np.nan, 0, False)
    evidence = "; ".join(text for text in (_say("the model's", model), _say("dE of neighbouring frames", work)) if text)
    told = [_unit_of(scale.factor, declared) for scale in (model, work) if scale.is_conclusive]
    verdicts = [unit for unit in told if unit]
    virial = _virial_finding(labels, model, declared, evidence)
    if virial is not None and not (verdicts and all(factor == 1 for _, factor in verdicts)):
        return [virial]
    if shears := _shear_finding(labels):
        return [shears]
    if not verdicts and _is_far_off(model):
        text = (
            f"in no known unit: {evidence}, where 1 x with a cosine of 1 is right, and no unit of "
            f"{', '.join(STRESS_UNITS)} makes up for it. Look up what the source writes, and convert it to GPa with "
            "tension positive."
        )
        return [Finding("error", "stress_gpa", text)]
    if not verdicts:
        return [Finding("warning", "stress_gpa", f"unit and sign cannot be told ({evidence or 'too few frames'})")]
    if len(set(verdicts)) > 1:
        return [Finding("warning", "stress_gpa", f"unit and sign are told differently: {evidence}")]
    measured, factor = verdicts[0]
    if factor == 1:
        return [Finding("info", "stress_gpa", f"GPa, tension positive, as measured: {evidence}")]
    text = f"not GPa with tension positive, but {factor:.3g} x that ({evidence}). "
    if declared is None:
        remedy = f"Import it again with the unit the source has, or multiply by {1 / factor:.6g}."
        return [Finding("error", "stress_gpa", text + remedy)]
    remedy = f"It was read as {declared}, but the source has {measured}: import with --stress-unit {measured}."
    return [Finding("error", "stress_gpa", text + remedy)]


FAR_OFF = 5.0
"""A model may be wrong by less than this factor, its cosine being near 1."""
_SURE = 0.8  # cosine from which on a scale that fits nothing is the labels' fault


def _is_far_off(scale: Scale) -> bool:
    return (
        scale.is_conclusive
        and abs(scale.cosine) >= _SURE
        and (scale.factor < 0 or not 1 / FAR_OFF < scale.factor < FAR_OFF)
    )


_SHEARS = ([1, 0, 0], [2, 2, 1])  # yz, xz, xy
_TURNS = {"vasp": [1, 2, 0], "another": [2, 0, 1]}
"""What is right of shears read as yz xz xy where the source's order is VASP's, xy yz zx; and the other turn."""


def _shear_finding(labels: Labels) -> Finding | None:
    """Say so when shears fit the model clearly better in another order of the six numbers than in the one read."""
    own, model = (values[:, _SHEARS[0], _SHEARS[1]] for values in (labels.stress_gpa, labels.model_stress_gpa))
    known = np.isfinite(own).all(axis=1) & np.isfinite(model).all(axis=1)
    known &= np.abs(model).max(axis=1, initial=0) > _TELLING_GPA
    if known.sum() < MIN_FRAMES:
        return None
    as_read = _cosine(own[known], model[known])
    turned = {name: _cosine(own[known][:, order], model[known]) for name, order in _TURNS.items()}
    best = max(turned, key=lambda name: abs(turned[name]))
    if abs(turned[best]) < _SURE or abs(turned[best]) < abs(as_read) + 0.3:
        return None
    remedy = "import with --stress-order vasp" if best == "vasp" else "write all nine numbers"
    text = (
        f"shears are in another order than yz xz xy: their cosine with the model's is {as_read:.2f} as read, and "
        f"{turned[best]:.2f} in {'the order of VASP, xy yz zx' if best == 'vasp' else 'the order xz xy yz'} on "
        f"{int(known.sum())} frames; {remedy}."
    )
    return Finding("error", "stress_gpa", text)


_TELLING_GPA = 0.2
"""Shears of frames in which the model's are all smaller say nothing of their order."""


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    norms = np.linalg.norm(one) * np.linalg.norm(other)
    return float((one * other).sum() / norms) if norms else 0.0


def _virial_finding(labels: Labels, model: Scale, declared: str | None, evidence: str) -> Finding | None:
    """Say so when the labels fit the model as virials, W = -V x stress in eV: then their scale goes with the volume."""
    if not model.is_conclusive or abs(model.cosine) < _SURE or declared in VIRIAL_UNITS:
        return None
    volume_a3 = np.abs(np.linalg.det(labels.crystals.lattices_a))[:, None, None]
    for read_as in [declared] if declared else ["gpa", "ev/a3"]:
        as_virial = -labels.stress_gpa / STRESS_UNITS[read_as] / volume_a3 * EV_PER_A3_TO_GPA
        scale = scale_against_model(list(as_virial), list(labels.model_stress_gpa), labels.materials)
        fits = 1 / WITHIN <= abs(scale.factor) <= WITHIN
        if fits and (scale.spread < 0.5 * model.spread or _unit_of(model.factor, declared) is None):
            unit, sign = ("ev-virial", "-") if scale.factor > 0 else ("ev-virial-tension", "")
            text = (
                f"no stress but a virial, {sign}V x stress in eV: {evidence} as it stands, {abs(scale.factor):.3g} x "
                f"the model's when divided by {sign}V. "
            )
            remedy = f"--stress-unit {unit}" if declared else f"--stress-unit {unit}, if that is what the source has"
            return Finding("error", "stress_gpa", f"{text}Import it with {remedy}.")
    return None


def _unit_of(factor: float, declared: str | None) -> tuple[str, float] | None:
    """The unit that the source must have had for this factor, and the factor exactly; None where no unit fits.

    What was read as a unit of d GPa and has a unit of u GPa comes out d / u times what it is.
    """
    read_as = [declared] if declared else ["gpa", "vasp-kbar"]
    units = VIRIAL_UNITS if declared in VIRIAL_UNITS else STRESS_UNITS
    exact = {(read, unit): units[read] / units[unit] for read in read_as for unit in units}
    near = {k: abs(np.log(factor / v)) for k, v in exact.items() if np.isfinite(factor) and factor * v > 0}
    best = min(near, key=near.__getitem__, default=None)
    return (best[1], exact[best]) if best is not None and near[best] <= np.log(WITHIN) else None


def _say(what: str, scale: Scale) -> str:
    if scale.n < MIN_FRAMES or not np.isfinite(scale.factor):
        return ""
    unit, kind = ("frames", "cosine") if what.startswith("the model") else ("pairs", "correlation")
    return f"{scale.factor:.3g} x {what} on {scale.n} {unit}, {kind} {scale.cosine:.2f}"


def check_forces(labels: Labels) -> list[Finding]:
    """Compare sign, unit and orientation of the forces with the model, and look for a net force on a frame."""
    findings = []
    scale = scale_against_model(labels.forces_ev_per_a, labels.model_forces_ev_per_a, labels.materials)
    if scale.is_conclusive and (scale.factor < 0 or not 1 / 5 < scale.factor < 5):
        word = "the gradient (opposite sign)" if -5 < scale.factor < -1 / 5 else _other_force_unit(scale.factor)
        text = f"not eV/Å: {word} ({_say('the model', scale)}). Multiply by {1 / scale.factor:.3g} or name the unit."
        findings.append(Finding("error", "forces_ev_per_a", text))
    elif scale.is_conclusive:
        findings.append(Finding("info", "forces_ev_per_a", f"eV/Å, as measured: {_say('the model', scale)}"))
    elif _say("the model", scale):
        text = f"unit and sign are left open, too unlike the model's to tell: {_say('the model', scale)}"
        findings.append(Finding("info", "forces_ev_per_a", text))
    turned = _turned_frames(labels)
    if turned is not None:
        findings.append(turned)
    nets = np.array(
        [np.linalg.norm(f.sum(axis=0)) / len(f) if np.isfinite(f).all() else 0 for f in labels.forces_ev_per_a]
    )
    pushed = np.flatnonzero(nets > 0.05)
    if len(pushed):
        text = f"{len(pushed)} frames have a net force above 0.05 eV/Å per atom: atoms are missing or out of order"
        findings.append(Finding("warning", "forces_ev_per_a", text, tuple(labels.ids[pushed][:ROWS_SHOWN])))
    return findings


_FORCE_UNITS = {  # what a truth of 1 eV/Å is in each, and the option that reads it
    "Hartree/Bohr (--force-unit hartree/bohr)": BOHR_A / EV_PER_HARTREE,
    "Rydberg/Bohr (--force-unit rydberg/bohr)": 2 * BOHR_A / EV_PER_HARTREE,
    "kcal/mol/Å": EV_TO_KCAL_PER_MOL,
    "kJ/mol/Å": EV_TO_KJ_PER_MOL,
    "meV/Å": 1000.0,
}


def _other_force_unit(factor: float) -> str:
    """Guess which unit gives this factor."""
    distance = {name: abs(np.log(abs(factor) / one)) for name, one in _FORCE_UNITS.items()}
    best = min(distance, key=distance.__getitem__)
    return f"another unit, perhaps {best}" if distance[best] < np.log(1.4) else "another unit, none that is known here"


def _turned_frames(labels: Labels) -> Finding | None:
    """Say so when forces fit the model only after a rotation, one for the frame: axes and forces were turned apart."""
    direct, best = [], []
    for y, x in zip(labels.forces_ev_per_a, labels.model_forces_ev_per_a, strict=True):
        lengths = np.linalg.norm(y) * np.linalg.norm(x)
        if len(y) >= 6 and np.isfinite(lengths) and lengths > 1e-3:
            values = np.linalg.svd(y.T @ x, compute_uv=False)
            direct.append(np.sum(y * x) / lengths)
            best.append(values.sum() / lengths)
    if len(best) < MIN_FRAMES or np.mean(best) < 0.8 or np.mean(direct) > 0.4:
        return None
    text = (
        f"forces and structures have different axes: cosine with the model {np.mean(direct):.2f}, but "
        f"{np.mean(best):.2f} after one rotation per frame. Take both from the same file."
    )
    return Finding("error", "forces_ev_per_a", text)


_ENERGY_CANDIDATES = {  # eV per unit, whether it is the cell's total, what to do about it
    "eV/atom": (1.0, False, ""),
    "the total energy of the cell": (1.0, True, "divide it by the number of atoms"),
    "meV/atom": (1e-3, False, "divide it by 1000"),
    "Hartree/atom": (EV_PER_HARTREE, False, f"multiply it by {EV_PER_HARTREE}"),
    "Rydberg/atom": (EV_PER_HARTREE / 2, False, f"multiply it by {EV_PER_HARTREE / 2}"),
    "kcal/mol of atoms": (1 / EV_TO_KCAL_PER_MOL, False, f"divide it by {EV_TO_KCAL_PER_MOL}"),
    "kJ/mol of atoms": (1 / EV_TO_KJ_PER_MOL, False, f"divide it by {EV_TO_KJ_PER_MOL}"),
}


def check_energies(labels: Labels, *, absolute: bool = True) -> list[Finding]:
    """Compare energies with the model: per atom or total, and in which unit.

    Parameters
    ----------
    labels : Labels
    absolute : bool
        False: the model's element references are fitted anew to each candidate, as other pseudopotentials ask for; then
        there must be more materials than elements.
    """
    model, n_atoms = labels.model_energy_per_atom_ev, labels.crystals.n_atoms
    there = np.isfinite(model)
    if there.sum() < MIN_FRAMES:
        return [Finding("warning", "energy_per_atom_ev", "per atom or total cannot be told (too few frames)")]
    errors = {}
    for name, (factor, is_total, _) in _ENERGY_CANDIDATES.items():
        residual = (labels.energy_per_atom_ev * factor / (n_atoms if is_total else 1) - model)[there]
        if not absolute:
            residual = _without_elements(residual, labels, there)
            if residual is None:
                return [Finding("warning", "energy_per_atom_ev", "per atom or total cannot be told (few materials)")]
        errors[name] = float(np.median(np.abs(residual)))
    best = min(errors, key=errors.__getitem__)
    said = errors["eV/atom"]
    fitted = "" if absolute else " after fitting element references"
    if best != "eV/atom" and errors[best] < 0.2 * said and errors[best] < 1.0:
        text = (
            f"not eV/atom but {best}: the median distance from the model{fitted} is {said:.3g} eV/atom as it stands "
            f"and {errors[best]:.3g} eV/atom when read as {best}. The remedy: {_ENERGY_CANDIDATES[best][2]}."
        )
        return [Finding("error", "energy_per_atom_ev", text)]
    text = f"eV/atom: the median distance from the model{fitted} is {said:.3g} eV/atom on {there.sum()} frames"
    return [Finding("info", "energy_per_atom_ev", text)]


def _without_elements(residual: np.ndarray, labels: Labels, there: np.ndarray) -> np.ndarray | None:
    X = _compositions(labels)[there]
    X = X[:, X.any(axis=0)]
    if len(np.unique(labels.materials[there])) <= X.shape[1] + 2:
        return None
    return residual - X @ np.linalg.lstsq(X, residual)[0]


def _compositions(labels: Labels) -> np.ndarray:
    numbers = labels.crystals.split(labels.crystals.atomic_numbers)
    table = pa.table({"atomic_numbers": pa.array([z.tolist() for z in numbers], pa.list_(pa.int16()))})
    return composition_matrix(table).toarray()
