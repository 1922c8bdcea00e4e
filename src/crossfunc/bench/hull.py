"""Time and memory of hulls at the size of a whole database, against pymatgen's `PhaseDiagram` of each target's system.

Synthetic entries: made-up formulas and energies over 89 elements, as unevenly spread as the real ones, so that a
popular chemical system holds hundreds of entries and a rare one a dozen.
"""

import contextlib
import os
import statistics
import time
import warnings

import numpy as np

from crossfunc.bench.progress import held_gb, status_gb, tell
from crossfunc.energies.composition import composition_matrix
from crossfunc.stability.entries import EntryTable
from crossfunc.stability.formation import element_energies_ev
from crossfunc.stability.hull import hull_report, index_entries
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS, N_ELEMENTS

_ABSENT = ("Po", "At", "Rn", "Fr", "Ra")  # leaves 89 elements, as in the pretraining data
_SHARE_BY_ELEMENTS = (0.02, 0.15, 0.38, 0.27, 0.12, 0.06)  # of entries with 1, 2, ... 6 elements
_TOLERANCE_EV = 1e-6
_CHUNK = 25


def synthetic_entries(n_entries: int, seed: int = 0) -> EntryTable:
    """Entries of random formula: 1 to 6 of 89 elements, some elements far more frequent than others.

    Parameters
    ----------
    n_entries : int
        At least 89: every element has an entry of its own.
    seed : int

    Returns
    -------
    EntryTable
        Energies: one made-up ground state per element, minus 1.5 eV times the squared difference of made-up
        electronegativities for each pair of elements (times both atomic fractions), plus noise of 0.08 eV/atom.
    """
    rng = np.random.default_rng(seed)
    allowed = np.array([z - 1 for symbol, z in ATOMIC_NUMBERS.items() if symbol not in _ABSENT])
    frequency = -np.log(rng.permutation(len(allowed)) + 3.0)  # as 1/rank
    n_kinds = rng.choice(np.arange(1, 7), size=n_entries - len(allowed), p=_SHARE_BY_ELEMENTS)
    formulas = [ELEMENT_SYMBOLS[column] for column in allowed]
    for kinds in np.array_split(n_kinds, max(1, n_entries // 10_000)):
        # Gumbel's trick: the largest of log p + noise are a draw without replacement
        order = np.argsort(-(frequency + rng.gumbel(size=(len(kinds), len(allowed)))), axis=1)[:, :6]
        amounts = rng.integers(1, 7, size=(len(kinds), 6))
        formulas += [
            "".join(f"{ELEMENT_SYMBOLS[allowed[c]]}{a}" for c, a in zip(columns[:k], some, strict=False))
            for k, columns, some in zip(kinds, order, amounts, strict=True)
        ]
    energies = _made_up_energies(formulas, rng)
    ids = [f"s-{k}" for k in range(n_entries)]
    return EntryTable.from_columns(ids, formulas, energies, functional="made up", energy_kind="raw")


def _made_up_energies(formulas: list[str], rng) -> np.ndarray:
    """Energy per atom of each formula."""
    X = composition_matrix(formulas)
    electronegativity = rng.uniform(0.7, 4.0, N_ELEMENTS)
    mean, mean_square = X @ electronegativity, X @ electronegativity**2
    # sum over pairs of x_i x_j (chi_i - chi_j)^2 is the variance of chi over the atoms
    mixing = -1.5 * (mean_square - mean**2)
    noise = np.where(
        np.diff(X.indptr) == 1, np.abs(rng.normal(0, 0.08, len(formulas))), rng.normal(0, 0.08, len(formulas))
    )
    return X @ -rng.uniform(1, 90, N_ELEMENTS) + mixing + noise


def run(
    n_entries: int = 150_000,
    n_targets: int = 20_000,
    n_compared: int = 500,
    n_per_row: int = 100,
    n_jobs: int = 2,
    seed: int = 0,
) -> dict:
    """Measure `hull_report` on all targets, and beside pymatgen on a random part of them, in turns.

    Parameters
    ----------
    n_entries, n_targets : int
        Targets are drawn from the entries.
    n_compared : int
        Targets that pymatgen is given too: a `PhaseDiagram` of the target's system, `get_e_above_hull` and
        `get_phase_separation_energy`. Finding the system's entries is not timed for pymatgen.
    n_per_row : int
        Targets per row of the two tables of growth: by entries, where the same targets are looked at among ever more
        entries, and by elements, where they are random compounds of so many elements.
    n_jobs : int
        Worker processes of the run on all targets; everything beside pymatgen runs in one.
    seed : int

    Returns
    -------
    dict
        `seconds` (all targets, index included), `seconds_index`, `peak_rss_gb` (this process and its workers
        together; None where the system does not tell), `seconds_per_target` (one process, index shared out), its
        counterpart `pymatgen_seconds_per_target` on the same targets and their ratio `speedup` (of means: whole jobs;
        pymatgen's time has a long tail, and `speedup_of_medians` is that of a typical target),
        `largest_difference_ev_per_atom`, `n_pymatgen_stopped_early` and `largest_excess_of_pymatgen_ev_per_atom` (see
        below), `growth_with_entries` and `growth_with_elements` (lists of rows), sizes and versions.

    Raises
    ------
    AssertionError
        A target where both differ by more than 1e-6 eV/atom, unless HiGHS agrees with ours and pymatgen's mixture costs
        more than that: it looks for the competitors of a stable compound with SLSQP, which may stop early.
    """
    entries = synthetic_entries(n_entries, seed)
    targets = entries.take(_draw(entries, n_targets, seed))
    seconds, peak = _whole(targets, entries, n_jobs)
    tell(f"all {len(targets):,} targets: {seconds:.3g} s; now {n_compared} of them beside pymatgen")
    beside = _Beside(entries)
    beside.measure(targets.take([0]))  # first calls import pymatgen, in both
    chosen = np.random.default_rng(seed + 1).choice(len(targets), size=min(n_compared, len(targets)), replace=False)
    compared = beside.measure(targets.take(chosen))
    tell(f"pymatgen {1e3 * compared['pymatgen_seconds_per_target']:.4g} ms per target; now growth with size")
    ours = compared["seconds_per_target"] + beside.seconds_index / n_targets
    return {
        "n_entries": n_entries,
        "n_elements": len(np.unique(entries.X.indices)),
        "n_targets": len(targets),
        "n_systems": len({tuple(targets.X.indices[a:b]) for a, b in _rows(targets.X)}),
        "n_jobs": n_jobs,
        "seconds": seconds,
        "seconds_index": beside.seconds_index,
        "peak_rss_gb": peak,
        "n_compared": compared["n_targets"],
        "median_entries_in_system": compared["median_entries_in_system"],
        "largest_system": compared["largest_system"],
        "seconds_per_target": ours,
        "pymatgen_seconds_per_target": compared["pymatgen_seconds_per_target"],
        "speedup": compared["pymatgen_seconds_per_target"] / ours,
        "speedup_of_medians": compared["pymatgen_median_seconds_per_target"] / compared["median_seconds_per_target"],
        "largest_difference_ev_per_atom": compared["largest_difference_ev_per_atom"],
        "n_pymatgen_stopped_early": compared["n_pymatgen_stopped_early"],
        "largest_excess_of_pymatgen_ev_per_atom": compared["largest_excess_of_pymatgen_ev_per_atom"],
        "growth_with_entries": _growth_with_entries(entries, n_per_row, seed),
        "growth_with_elements": [
            {"n_elements": d} | beside.measure(entries.take(_draw(entries, n_per_row, seed, n_elements=d)))
            for d in range(1, 7)
        ],
        "versions": _versions(),
    }


def format_report(report: dict) -> str:
    """The measurements as tables for the terminal."""
    peak = "not measured" if report["peak_rss_gb"] is None else f"{report['peak_rss_gb']:.2f} GB"
    lines = {
        "entries": f"{report['n_entries']:,} of {report['n_elements']} elements",
        "targets": f"{report['n_targets']:,} in {report['n_systems']:,} chemical systems",
        "together": f"{report['seconds']:.1f} s in {report['n_jobs']} processes, index {report['seconds_index']:.1f} s",
        "peak memory": peak,
        "per target": f"{report['seconds_per_target'] * 1e3:.2f} ms in one process",
        "pymatgen": f"{report['pymatgen_seconds_per_target'] * 1e3:.1f} ms per target, on the same "
        f"{report['n_compared']:,} targets (median {report['median_entries_in_system']:.0f} entries per system, "
        f"largest {report['largest_system']:,})",
        "ratio": f"{report['speedup']:.0f} x, of medians {report['speedup_of_medians']:.0f} x",
        "difference": f"at most {report['largest_difference_ev_per_atom']:.1e} eV/atom",
        "pymatgen early": f"{report['n_pymatgen_stopped_early']} targets, up to "
        f"{report['largest_excess_of_pymatgen_ev_per_atom']:.1e} eV/atom above the optimum (HiGHS)",
    }
    text = [f"{name:<20}{value}" for name, value in lines.items()]
    for key in ("entries", "elements"):
        text += ["", f"{key:>10}{'in system':>12}{'median, ms':>14}{'of pymatgen':>14}"]
        text += [
            f"{row[f'n_{key}']:>10,}{row['median_entries_in_system']:>12.0f}"
            f"{row['median_seconds_per_target'] * 1e3:>14.2f}{row['pymatgen_median_seconds_per_target'] * 1e3:>14.1f}"
            for row in report[f"growth_with_{key}"]
        ]
    return "\n".join(text)


class _Beside:
    """Both ways on the same targets, in turns, in one process."""

    def __init__(self, entries: EntryTable):
        self.entries = entries
        clock = time.perf_counter()
        index_entries.__wrapped__(entries)  # not the one kept from before
        self.seconds_index = time.perf_counter() - clock
        self.systems: dict[tuple, list[int]] = {}
        for row, (a, b) in enumerate(_rows(entries.X)):
            self.systems.setdefault(tuple(entries.X.indices[a:b]), []).append(row)

    def measure(self, targets: EntryTable) -> dict:
        """Means and medians over the targets (ours over chunks of them), and the largest difference of the results."""
        index_entries(self.entries)  # timed on its own
        ours, per_target, theirs, sizes, agreed = [], [], [], [], [0.0]
        early: list[float] = []
        for start in range(0, len(targets), _CHUNK):
            part = targets.take(np.arange(start, min(start + _CHUNK, len(targets))))
            clock = time.perf_counter()
            report = hull_report(part, self.entries)
            ours.append(time.perf_counter() - clock)
            per_target.append(ours[-1] / len(part))
            columns = ["e_above_hull_ev_per_atom", "decomposition_energy_ev_per_atom"]
            for name, found in zip(part.ids, report[columns].to_numpy(), strict=True):
                seconds, expected, size = self._pymatgen(name, part)
                theirs.append(seconds)
                sizes.append(size)
                difference = float(np.abs(found - expected).max())
                if difference >= _TOLERANCE_EV:
                    self._check_that_pymatgen_stopped_early(name, found, expected)
                (agreed if difference < _TOLERANCE_EV else early).append(difference)
        return {
            "n_targets": len(targets),
            "median_entries_in_system": statistics.median(sizes),
            "largest_system": max(sizes),
            "seconds_per_target": sum(ours) / len(targets),
            "pymatgen_seconds_per_target": sum(theirs) / len(targets),
            "median_seconds_per_target": statistics.median(per_target),
            "pymatgen_median_seconds_per_target": statistics.median(theirs),
            "largest_difference_ev_per_atom": max(agreed),
            "n_pymatgen_stopped_early": len(early),
            "largest_excess_of_pymatgen_ev_per_atom": max(early, default=0.0),
        }

    def _check_that_pymatgen_stopped_early(self, name: str, found: np.ndarray, expected: np.ndarray) -> None:
        """Only its mixture for a stable compound, from an iterative optimiser, may cost more than the cheapest one."""
        exact = _cheapest_by_highs(self.entries, int(np.flatnonzero(self.entries.ids == name)[0]))
        wrong = abs(found[0] - expected[0]), expected[1] - found[1], abs(found[1] - exact)
        assert max(wrong) < _TOLERANCE_EV, f"{name}: {found} against pymatgen's {expected} and HiGHS' {exact} eV/atom"

    def _pymatgen(self, name: str, part: EntryTable) -> tuple[float, np.ndarray, int]:
        """Seconds, hull distance and phase separation energy, and the number of entries in the system."""
        from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
        from pymatgen.core import Composition

        k = int(np.flatnonzero(part.ids == name)[0])
        elements = set(part.X.indices[part.X.indptr[k] : part.X.indptr[k + 1]])
        rows = [row for system, some in self.systems.items() if elements.issuperset(system) for row in some]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of noble gases and of many competing entries
            entries = []
            for row in rows:
                composition = Composition(self.entries.compositions[row])
                energy_ev = self.entries.energy_per_atom_ev[row] * composition.num_atoms
                entries.append(PDEntry(composition, energy_ev, name=self.entries.ids[row]))
            target = next(entry for entry in entries if entry.name == name)
            clock = time.perf_counter()
            diagram = PhaseDiagram(entries)
            expected = diagram.get_e_above_hull(target), diagram.get_phase_separation_energy(target)
            return time.perf_counter() - clock, np.array(expected), len(rows)


def _cheapest_by_highs(entries: EntryTable, row: int) -> float:
    """Decomposition energy of one entry, its linear program written out for scipy's HiGHS."""
    from scipy.optimize import linprog

    target = entries.X[[row]]
    elsewhere = np.setdiff1d(np.arange(entries.X.shape[1]), target.indices)
    within = np.flatnonzero(entries.X[:, elsewhere].sum(axis=1) == 0)
    A, x = entries.X[within][:, target.indices].toarray(), target.data
    formation = entries.energy_per_atom_ev - entries.X @ element_energies_ev(entries)
    other = np.abs(A - x).max(axis=1) > 1e-8
    return formation[row] - linprog(formation[within][other], A_eq=A[other].T, b_eq=x, method="highs").fun


def _growth_with_entries(entries: EntryTable, n_targets: int, seed: int) -> list[dict]:
    """A row for each number of entries, the first so many of all; the targets are the same in every row."""
    sizes = _sizes(len(entries))
    chosen = _draw(entries.take(np.arange(sizes[0])), n_targets, seed)
    parts = (entries.take(np.arange(size)) for size in sizes)
    return [{"n_entries": len(part)} | _Beside(part).measure(part.take(chosen)) for part in parts]


def _whole(targets: EntryTable, entries: EntryTable, n_jobs: int) -> tuple[float, float | None]:
    """Seconds of all targets, and the peak memory of this process and its workers (None where /proc does not tell)."""
    with contextlib.suppress(OSError):
        held_gb()  # any peak of making the entries is forgotten
    clock = time.perf_counter()
    report = hull_report(targets, entries, n_jobs=n_jobs)
    seconds = time.perf_counter() - clock
    assert (report["status"] == "ok").all()
    try:
        return seconds, status_gb("VmHWM") + _workers_gb(n_jobs)
    except OSError:
        return seconds, None


def _workers_gb(n_jobs: int) -> float:
    """Peak memory of the worker processes that are still warm, together."""
    if n_jobs == 1:
        return 0.0
    from joblib import Parallel, delayed

    return sum(dict(Parallel(n_jobs=n_jobs)(delayed(_worker_peak)() for _ in range(8 * n_jobs))).values())


def _worker_peak() -> tuple[int, float]:
    time.sleep(0.05)  # so that every worker gets its turn
    return os.getpid(), status_gb("VmHWM")


def _draw(entries: EntryTable, n: int, seed: int, n_elements: int | None = None) -> np.ndarray:
    """Random rows, all of them compounds of `n_elements` elements if that is given."""
    rows = np.arange(len(entries))
    if n_elements is not None:
        rows = rows[np.diff(entries.X.indptr) == n_elements]
    return np.random.default_rng(seed).choice(rows, size=min(n, len(rows)), replace=False)


def _sizes(n_entries: int) -> list[int]:
    return sorted({max(200, n_entries // part) for part in (32, 16, 8, 4, 2, 1)})


def _rows(X):
    return zip(X.indptr[:-1], X.indptr[1:], strict=True)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("numpy", "pymatgen", "scipy")}
