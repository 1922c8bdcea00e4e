"""Decomposition energies, hull distances and competing phases, for one target or a hundred thousand.

pymatgen's `PhaseDiagram` defines the numbers and the tests compare with it. It builds the hull of a whole chemical
system; a target needs one point of it, the cheapest mixture of other phases with its composition:

    min e·a  subject to  A a = x,  a >= 0

with a column of A for each phase (its atomic fractions), e their formation energies and a the share of the atoms that
each takes. A handful of equations: a revised simplex of a dozen pivots, 0.16 ms where HiGHS through scipy's `linprog`
took 2.2 (298 of the systems of `crossfunc bench hull`). HiGHS answers where the simplex cannot prove that it is right.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from crossfunc.stability.entries import EntryTable, HullError, check_one_scale, reduced_formula
from crossfunc.stability.entry_sources import as_entries
from crossfunc.stability.formation import element_energies_ev
from crossfunc.symbols import ELEMENT_SYMBOLS

_SAME_COMPOSITION = 1e-8  # pymatgen's Composition.amount_tolerance
_USEFUL_EV = 1e-11  # pymatgen's PhaseDiagram.formation_energy_tol
_DUAL_EV = 1e-10  # a mixture is optimal if no phase lies further below its plane
_PRIMAL = 1e-9
_PIECES_PER_TASK, _TARGETS_PER_PIECE = 128, 256


@dataclass(frozen=True)
class _System:
    """The phases that can matter in one chemical system, elements first, and the compositions asked for."""

    rows: np.ndarray  # of the phases in their table, (n,)
    A: np.ndarray  # atomic fractions, (d, n)
    formation_ev: np.ndarray  # (n,)
    x: np.ndarray  # compositions of the targets, (m, d)


@dataclass(frozen=True)
class _Mixture:
    """The cheapest mixture of other phases at one composition, and the cheapest phase of that composition."""

    energy_ev: float
    own_ev: float
    rows: np.ndarray
    amounts: np.ndarray


def decomposition_energy(target, competitors) -> float:
    """Energy against competing phases other than itself, E_d = E - min Σ a_k E_k, in eV/atom.

    Negative: the target is stable by that much. Positive: a mixture of other phases is lower.

    Parameters
    ----------
    target : pymatgen entry, (formula, energy_per_atom_ev), or EntryTable of one row
    competitors : EntryTable, pandas.DataFrame, Dataset, or sequence of pymatgen entries
        All known phases; the target may be among them.

    Returns
    -------
    float

    Raises
    ------
    HullError
        No elemental entry for one of the target's elements, energies of different functionals or kinds, or entries
        that `EntryTable` refuses.

    Notes
    -----
    Paper, Fig. 4; lesson 6. Equal to pymatgen's `get_phase_separation_energy`: phases of the target's own composition
    (itself, polymorphs, duplicates) are no competitors, and an element, which has none, gets its hull distance.
    """
    report = hull_report(_one_target(target, entries := as_entries(competitors)), entries)
    if report["status"][0] != "ok":
        raise HullError(f"{report['id'][0]}: {report['status'][0]}")
    return float(report["decomposition_energy_ev_per_atom"][0])


def hull_report(targets, entries, *, n_jobs: int = 1, progress: bool = False):
    """Hull distance, decomposition energy and competing phases of each target.

    Parameters
    ----------
    targets : EntryTable, pandas.DataFrame, Dataset, sequence of pymatgen entries, or None
        None: every entry is a target.
    entries : EntryTable, pandas.DataFrame, Dataset, or sequence of pymatgen entries
        The phases that make up the hull. Targets that are not among them do not join it.
    n_jobs : int
        Worker processes (joblib; -1: one per core). Results do not depend on it.
    progress : bool
        Show a bar of targets that are done.

    Returns
    -------
    pandas.DataFrame
        A row per target, in the order given: `id`, `formula`, `e_above_hull_ev_per_atom`,
        `decomposition_energy_ev_per_atom`, `competitors` (list of dict `id, formula, amount`; amounts are shares of
        the target's atoms and sum to 1, as in pymatgen) and `status`: "ok", or why there is no number.

    Raises
    ------
    HullError
        No targets or entries, repeated ids, energies that are not finite, or energies of different functionals or
        kinds: nothing can be compared then. A target outside the entries' chemical systems, or with an element that
        has no elemental entry, only gets NaN and its status; the others keep their results.

    Notes
    -----
    As pymatgen does it, for entries on their own hull:

    - `e_above_hull_ev_per_atom` is `get_e_above_hull`: 0 on the hull, and for a polymorph the distance to the hull at
      its composition, its own ground state included. A target that is not among the entries and lies below their hull
      gets a negative distance (`allow_negative=True`).
    - `decomposition_energy_ev_per_atom` is `get_phase_separation_energy`: phases of the target's composition are left
      out, so it is negative on the hull, and also for a polymorph that other phases do not undercut. Elements: equal
      to the hull distance.
    - Of several entries of one composition only the lowest can matter; compounds that do not form from the elements
      (formation energy >= 0) cannot compete.
    """
    import pandas as pd

    entries = as_entries(entries)
    targets = entries if targets is None else as_entries(targets, among=entries)
    check_one_scale(entries) if targets is entries else check_one_scale(entries, targets)
    phases = index_entries(entries)
    formation_ev = targets.energy_per_atom_ev - targets.X @ phases.elements_ev
    mixtures = _mixtures(phases, targets, np.isfinite(formation_ev), n_jobs, progress)
    formula = lru_cache(maxsize=None)(reduced_formula)
    rows = []
    for k, (name, mixture) in enumerate(zip(targets.ids, mixtures, strict=True)):
        row = {"id": name, "formula": formula(targets.compositions[k])}
        if mixture is None:
            rows.append(row | _no_result(phases, targets, k))
            continue
        rows.append(
            row
            | {
                "e_above_hull_ev_per_atom": formation_ev[k] - min(mixture.energy_ev, mixture.own_ev),
                "decomposition_energy_ev_per_atom": formation_ev[k] - mixture.energy_ev,
                "competitors": [
                    {"id": entries.ids[j], "formula": formula(entries.compositions[j]), "amount": float(amount)}
                    for j, amount in zip(mixture.rows, mixture.amounts, strict=True)
                ],
                "status": "ok",
            }
        )
    return pd.DataFrame(rows)


class _Phases:
    """The entries that can matter to any hull, by chemical system: one block of fractions and energies for each."""

    def __init__(self, entries: EntryTable):
        self.elements_ev = element_energies_ev(entries)
        self.held = np.unique(entries.X.indices)
        X, formation = entries.X, entries.energy_per_atom_ev - entries.X @ self.elements_ev
        columns, fractions = X.indices.astype(np.uint8), np.round(X.data, 8)
        useful = (formation < -_USEFUL_EV) | ((np.diff(X.indptr) == 1) & (formation == 0))
        seen: set[tuple[bytes, bytes]] = set()
        systems: dict[bytes, list[int]] = {}
        for row in np.argsort(formation, kind="stable"):  # the lowest of each composition comes first
            part = slice(X.indptr[row], X.indptr[row + 1])
            system = columns[part].tobytes()
            composition = (system, fractions[part].tobytes())
            if useful[row] and composition not in seen:
                seen.add(composition)
                systems.setdefault(system, []).append(row)
        self.systems = {
            system: (
                np.array(rows),
                np.stack([X.data[X.indptr[row] : X.indptr[row + 1]] for row in rows]),
                formation[rows],
            )
            for system, rows in systems.items()
        }

    def gather(self, system: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, fractions (d, n) and formation energies of all phases within a chemical system, elements first."""
        columns = list(system)
        subsets = sorted(self._subsets(columns), key=len)
        blocks = [self.systems[subset] for subset in subsets]
        A = np.zeros((len(columns), sum(len(block[0]) for block in blocks)))
        start = 0
        for subset, (rows, fractions, _) in zip(subsets, blocks, strict=True):
            A[[columns.index(column) for column in subset], start : start + len(rows)] = fractions.T
            start += len(rows)
        return np.concatenate([b[0] for b in blocks]), A, np.concatenate([b[2] for b in blocks])

    def _subsets(self, columns: list[int]) -> list[bytes]:
        if 2 ** len(columns) > len(self.systems):
            chosen = set(columns)
            return [system for system in sorted(self.systems) if chosen.issuperset(system)]
        subsets = itertools.chain.from_iterable(
            itertools.combinations(columns, size) for size in range(1, len(columns) + 1)
        )
        return [key for subset in subsets if (key := bytes(subset)) in self.systems]


@lru_cache(maxsize=2)
def index_entries(entries: EntryTable) -> _Phases:
    """The phases of a table, kept for the next question about the same table."""
    return _Phases(entries)


def _mixtures(phases: _Phases, targets: EntryTable, known: np.ndarray, n_jobs: int, progress: bool) -> list:
    """The cheapest mixture for every target, None where its system lacks an element."""
    from joblib import Parallel, delayed
    from tqdm import tqdm

    groups: dict[bytes, list[int]] = {}
    columns = targets.X.indices.astype(np.uint8)
    for k in np.flatnonzero(known):
        groups.setdefault(columns[targets.X.indptr[k] : targets.X.indptr[k + 1]].tobytes(), []).append(k)
    pieces = [(system, some) for system, all_ in groups.items() for some in _batches(all_, _TARGETS_PER_PIECE)]
    tasks = list(_batches(pieces, _PIECES_PER_TASK))
    parallel = Parallel(n_jobs=n_jobs, return_as="generator")
    answers = parallel(delayed(_solve)(list(_systems(phases, targets, task))) for task in tasks)
    found: list = [None] * len(targets)
    with tqdm(total=int(known.sum()), desc="hull", disable=not progress) as bar:
        for task, solved in zip(tasks, answers, strict=True):
            for (_, some), mixtures in zip(task, solved, strict=True):
                for k, mixture in zip(some, mixtures, strict=True):
                    found[k] = mixture
                bar.update(len(mixtures))
    return found


def _batches(items: list, size: int) -> Iterator[list]:
    """The items in lists of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _systems(phases: _Phases, targets: EntryTable, pieces: list) -> Iterator[_System]:
    """The linear programs of one task, self-contained so that they can go to another process."""
    data, indptr = targets.X.data, targets.X.indptr
    for system, some in pieces:
        x = np.stack([data[indptr[k] : indptr[k + 1]] for k in some])
        yield _System(*phases.gather(system), x)


def _solve(systems: list[_System]) -> list[list[_Mixture]]:
    """The cheapest mixtures at the compositions of each system; equal compositions are solved once."""
    answers = []
    for system in systems:
        distinct, which = np.unique(np.round(system.x, 8), axis=0, return_inverse=True)
        first = [np.flatnonzero(which == k)[0] for k in range(len(distinct))]
        mixtures = [_cheapest(system, system.x[k]) for k in first]
        answers.append([mixtures[k] for k in which])
    return answers


def _cheapest(system: _System, x: np.ndarray) -> _Mixture:
    """The cheapest mixture at one composition of phases of other compositions; for an element, its ground state."""
    same = np.abs(system.A - x[:, None]).max(axis=0) <= _SAME_COMPOSITION
    own = system.formation_ev[same].min(initial=np.inf)
    if len(x) == 1:
        return _Mixture(0.0, own, system.rows[:1], np.ones(1))
    cost = np.where(same, np.inf, system.formation_ev)
    columns, amounts = _simplex(system.A, cost, x) or _highs(system.A, cost, x)
    there = amounts > _SAME_COMPOSITION
    order = np.argsort(-amounts[there], kind="stable")
    columns, amounts = columns[there][order], amounts[there][order]
    return _Mixture(float(cost[columns] @ amounts), own, system.rows[columns], amounts)


def _simplex(A: np.ndarray, cost: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Phases and amounts of the cheapest mixture, from the elements downhill; None without proof of the optimum.

    The proof is linear programming's: amounts >= 0 that add up to x, and no phase below the plane of the chosen ones.
    """
    basis = np.arange(len(x))
    try:
        for _ in range(100 + 10 * len(x)):
            inverse = np.linalg.inv(A[:, basis])
            amounts = inverse @ x
            above = cost - (cost[basis] @ inverse) @ A
            enter = int(above.argmin())
            if above[enter] > -_DUAL_EV:
                proven = amounts.min() > -_PRIMAL and np.abs(A[:, basis] @ amounts - x).max() < _PRIMAL
                return (basis, np.maximum(amounts, 0.0)) if proven else None
            direction = inverse @ A[:, enter]
            leaving = np.where(direction > _PRIMAL, amounts / np.where(direction > _PRIMAL, direction, 1.0), np.inf)
            basis[leaving.argmin()] = enter
    except np.linalg.LinAlgError:
        return None
    return None


def _highs(A: np.ndarray, cost: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest mixture by linear programming (HiGHS)."""
    from scipy.optimize import linprog

    columns = np.flatnonzero(np.isfinite(cost))
    result = linprog(cost[columns], A_eq=A[:, columns], b_eq=x, method="highs")
    if result.x is None:
        raise HullError(f"no mixture of composition {x.tolist()} found: {result.message}")
    return columns, result.x


def _no_result(phases: _Phases, targets: EntryTable, k: int) -> dict:
    """NaN, and which element is at fault."""
    columns = targets.X.indices[targets.X.indptr[k] : targets.X.indptr[k + 1]]
    outside = [ELEMENT_SYMBOLS[c] for c in columns if c not in phases.held]
    lacking = [ELEMENT_SYMBOLS[c] for c in columns if np.isnan(phases.elements_ev[c])]
    status = (
        f"outside the entries' chemical systems: none of them holds {', '.join(outside)}"
        if outside
        else f"no entry of the element {', '.join(lacking)}, so its chemical system has no hull"
    )
    nothing = {"e_above_hull_ev_per_atom": np.nan, "decomposition_energy_ev_per_atom": np.nan}
    return nothing | {"competitors": [], "status": status}


def _one_target(target, entries: EntryTable) -> EntryTable:
    """One target as a table; a (formula, energy) pair is taken to be of the competitors' functional and kind."""
    if isinstance(target, EntryTable):
        if len(target) != 1:
            raise HullError(f"{len(target)} targets where one is needed; use hull_report for many.")
        return target
    if isinstance(target, tuple) and len(target) == 2 and isinstance(target[0], str):
        formula, energy_per_atom_ev = target
        labels = {"functional": entries.functional[:1], "energy_kind": entries.energy_kind[:1]}
        return EntryTable.from_columns([formula], [formula], [energy_per_atom_ev], **labels, source="target")
    return as_entries([target], among=entries)
