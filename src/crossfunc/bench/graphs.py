"""Time of building CHGNet's graphs for a whole batch, against chgnet's own converter in C, on the same crystals."""

import statistics
import time

import numpy as np

from crossfunc.bench.progress import tell
from crossfunc.errors import InputError
from crossfunc.potential.crystals import Crystals
from crossfunc.potential.graphs import ATOM_CUTOFF_A, BOND_CUTOFF_A, build_graphs

N_ATOMS = (5, 14, 31, 60)
"""Sizes of the cells: perovskite, spinel, six perovskite cells with an interstitial, twelve perovskite cells."""
_RATTLE_A = 0.05


def perovskite(a: float = 3.9):
    """Cubic SrTiO3 as a pymatgen Structure, 5 atoms."""
    from pymatgen.core import Lattice, Structure

    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
    return Structure.from_spacegroup("Pm-3m", Lattice.cubic(a), ["Sr", "Ti", "O"], sites)


def spinel(a: float = 8.08):
    """MgAl2O4 as a pymatgen Structure, primitive cell of 14 atoms."""
    from pymatgen.core import Lattice, Structure

    sites = [[1 / 8] * 3, [1 / 2] * 3, [0.2624] * 3]
    cube = Structure.from_spacegroup("Fd-3m", Lattice.cubic(a), ["Mg", "Al", "O"], sites)
    return cube.get_primitive_structure()


def rattled_crystals(structure, n_crystals: int, seed: int = 0) -> Crystals:
    """Copies of a structure, every coordinate of every atom displaced at random (standard deviation 0.05 Å)."""
    rng = np.random.default_rng(seed)
    numbers, coords, lattice = structure.atomic_numbers, structure.frac_coords, structure.lattice.matrix
    moves = rng.normal(0, _RATTLE_A, (n_crystals, *coords.shape)) @ np.linalg.inv(lattice)
    return Crystals.from_arrays((numbers, coords + move, lattice) for move in moves)


def _structure(n_atoms: int):
    if n_atoms == 5:
        return perovskite()
    if n_atoms == 14:
        return spinel()
    if n_atoms == 31:
        cells = perovskite() * (2, 3, 1)
        return cells.append("Li", [0.975] * 3, coords_are_cartesian=True) or cells
    if n_atoms == 60:
        return perovskite() * (2, 2, 3)
    raise InputError(f"no cell of {n_atoms} atoms; there are {', '.join(map(str, N_ATOMS))}.")


def run(n_atoms: tuple[int, ...] = N_ATOMS, n_crystals: int = 32, repeats: int = 7, seed: int = 0) -> dict:
    """Build the graphs of rattled crystals both ways, in turns.

    Parameters
    ----------
    n_atoms : tuple of int
        Sizes out of `N_ATOMS`.
    n_crystals : int
        Crystals of each size: one call of ours, as many calls of chgnet's converter.
    repeats : int
        Timings of each, taken alternately after one that does not count; medians are reported.
    seed : int

    Returns
    -------
    dict
        By number of atoms: `ms_per_structure` (`ours`, `chgnet`), `ratio`, `n_edges` and `n_angles` a crystal (directed
        edges, as chgnet counts); and `repeats`, `n_crystals`. Both start from structures in memory.
    """
    from crossfunc.vendor import import_chgnet

    converter = import_chgnet("chgnet.graph").CrystalGraphConverter(
        atom_graph_cutoff=ATOM_CUTOFF_A, bond_graph_cutoff=BOND_CUTOFF_A
    )
    sizes = {}
    for n in n_atoms:
        crystals = rattled_crystals(_structure(n), n_crystals, seed)
        structures = crystals.to_structures()
        graphs = [converter(structure) for structure in structures]
        timed = {
            "ours": lambda crystals=crystals: [batch.incidences for _, batch in build_graphs(crystals)],
            "chgnet": lambda structures=structures: [converter(structure) for structure in structures],
        }
        seconds = time_in_turns(timed, repeats, about=f"{n} atoms")
        ms = {name: statistics.median(values) / n_crystals * 1e3 for name, values in seconds.items()}
        sizes[str(n)] = {
            "ms_per_structure": ms,
            "ratio": ms["chgnet"] / ms["ours"],
            "n_edges": sum(len(graph.atom_graph) for graph in graphs) / n_crystals,
            "n_angles": sum(len(graph.bond_graph) for graph in graphs) / n_crystals,
        }
    return {"n_atoms": sizes, "n_crystals": n_crystals, "repeats": repeats, "algorithm_of_chgnet": converter.algorithm}


_SECONDS_BETWEEN_LINES = 3.0


def time_in_turns(calls: dict, repeats: int, synchronize=lambda: None, *, about: str = "") -> dict[str, list[float]]:
    """Seconds of every call, one after another in each of `repeats` rounds, after one round that does not count.

    With `about`, the medians so far are told every few seconds and at the end.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    told = time.perf_counter()
    for turn in range(repeats + 1):
        for name, call in calls.items():
            synchronize()
            clock = time.perf_counter()
            call()
            synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - clock)
        late = time.perf_counter() - told > _SECONDS_BETWEEN_LINES
        if about and turn and (late or turn == repeats):
            told = time.perf_counter()
            so_far = ", ".join(f"{name} {1e3 * statistics.median(taken):.4g} ms" for name, taken in seconds.items())
            tell(f"{about}, round {turn} of {repeats}: {so_far}")
    return seconds


def format_report(report: dict) -> str:
    """The measurements as a table for the terminal."""
    lines = [f"{'atoms':>6}{'edges':>8}{'angles':>8}{'chgnet ms':>12}{'ours ms':>10}{'ratio':>8}"]
    for n, size in report["n_atoms"].items():
        ms = size["ms_per_structure"]
        lines.append(
            f"{n:>6}{size['n_edges']:>8.0f}{size['n_angles']:>8.0f}{ms['chgnet']:>12.3f}{ms['ours']:>10.3f}"
            f"{size['ratio']:>8.1f}"
        )
    lines.append(f"per structure, batches of {report['n_crystals']}, median of {report['repeats']}, in turns")
    return "\n".join(lines)
