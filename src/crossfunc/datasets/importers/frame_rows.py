"""From parsed structures to rows of the frames table: strict about numbers, and each refusal with its reason."""

import hashlib
import itertools
import re
from array import array
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS

MIN_DISTANCE_A = 0.5
"""Two atoms closer than this are one spot twice: the bond of H2 has 0.74 Å."""
MIN_CELL_HEIGHT_A = 1.0
LIMITS = {
    "energy_per_atom_ev": (1e6, "eV/atom"),
    "forces_ev_per_a": (1e4, "eV/Å"),
    "stress_gpa": (1e5, "GPa"),
    "magmoms_mub": (100.0, "µB"),
    "lattice_a": (1e3, "Å"),
    "frac_coords": (1e3, "cells"),
}
"""Beyond these no calculation of a crystal ends; all-electron energies of heavy elements are within."""
BATCH_ROWS = 2048
BATCH_ATOMS = 80_000
_PAIRS_AT_ONCE = 400_000
_TREE_ATOMS = 600  # from here on a tree beats all pairs


class RowError(ValueError):
    """A row that cannot be imported; the message is its reason in the ledger."""


class FrameRows:
    """A batch of frames in flat arrays, grown row by row.

    Attributes
    ----------
    source_rows : list of int
        Where in the source each row stood.
    """

    def __init__(self):
        self.source_rows: list[int] = []
        self.n_atoms: list[int] = []
        self.texts: dict[str, list] = {
            k: [] for k in ("frame_id", "material_id", "functional", "energy_kind", "source", "structure_id")
        }
        self.energies = array("d")
        self.numbers = array("h")
        self.lattices, self.coords = array("d"), array("d")
        self.optional = {k: ([], array("d")) for k in ("forces_ev_per_a", "stress_gpa", "magmoms_mub")}

    def __len__(self) -> int:
        return len(self.n_atoms)

    @property
    def is_full(self) -> bool:
        """True when the batch should be written: by rows or by atoms, so that memory is bounded either way."""
        return len(self) >= BATCH_ROWS or len(self.numbers) >= BATCH_ATOMS

    def append(self, source_row: int, texts: dict, structure: tuple, energy_per_atom_ev: float, **labels) -> None:
        """Add one row.

        Parameters
        ----------
        source_row : int
        texts : dict
            The text columns.
        structure : tuple
            Atomic numbers, lattice (9 numbers, Å) and fractional coordinates (3 per atom).
        energy_per_atom_ev : float
        **labels
            `forces_ev_per_a`, `stress_gpa`, `magmoms_mub`: flat sequences in these units, or None.
        """
        numbers, lattice, coords = structure
        self.source_rows.append(source_row)
        self.n_atoms.append(len(numbers))
        for name, values in self.texts.items():
            values.append(texts.get(name))
        self.energies.append(energy_per_atom_ev)
        self.numbers.extend(numbers)
        self.lattices.extend(lattice)
        self.coords.extend(coords)
        for name, (lengths, values) in self.optional.items():
            given = labels.get(name)
            lengths.append(-1 if given is None else len(given))
            if given is not None:
                values.extend(given)

    def to_table(self, scale: dict[str, float] | None = None) -> pa.Table:
        """Return the batch as a table in the columns of the frames schema.

        Parameters
        ----------
        scale : dict of str to float, optional
            Factors by which labels are multiplied on the way, such as GPa per unit of the source.
        """
        scale = scale or {}
        columns = {k: pa.array(v, type=pa.string()) for k, v in self.texts.items() if k != "structure_id" or any(v)}
        columns["atomic_numbers"] = _lists(np.frombuffer(self.numbers, np.int16), self.n_atoms)
        lattices = np.frombuffer(self.lattices) if self.lattices else np.empty(0)
        columns["lattice_a"] = pa.FixedSizeListArray.from_arrays(pa.array(lattices), 9)
        columns["frac_coords"] = _lists(np.frombuffer(self.coords), [3 * n for n in self.n_atoms])
        columns["energy_per_atom_ev"] = pa.array(np.frombuffer(self.energies))
        for name, (lengths, values) in self.optional.items():
            flat = np.frombuffer(values) if values else np.empty(0)
            columns[name] = _lists(flat * scale[name] if name in scale else flat, lengths)
        return pa.table(columns)


def _lists(values: np.ndarray, lengths: list[int]) -> pa.ListArray:
    """Lists of these lengths; -1 stands for null."""
    counts = np.asarray(lengths)
    offsets = np.concatenate([[0], np.cumsum(np.maximum(counts, 0))]).astype(np.int32)
    null = counts < 0
    mask = pa.array(null) if null.any() else None
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=mask)


def parse_structure(structure) -> tuple[list[int], list[float], list[float]]:
    """Read a pymatgen structure as JSON holds it, without building one.

    Parameters
    ----------
    structure : dict
        `lattice.matrix` in Å and `sites` with `species` and `abc`.

    Returns
    -------
    atomic_numbers : list of int
    lattice_a : list of 9 floats
    frac_coords : list of 3n floats

    Raises
    ------
    RowError
        Whatever is missing, of another shape, disordered, not periodic, or no element.
    """
    if not isinstance(structure, dict):
        raise RowError(f"structure is {kind_of(structure)}, not an object")
    lattice = structure.get("lattice")
    if not isinstance(lattice, dict) or "matrix" not in lattice:
        raise RowError("structure has no lattice.matrix")
    if lattice.get("pbc", _PERIODIC) != _PERIODIC:
        raise RowError("structure is not periodic in all directions (lattice.pbc)")
    sites = structure.get("sites")
    if not isinstance(sites, list) or not sites:
        raise RowError("structure has no sites")
    try:
        species = [site["species"] for site in sites]
        single = [one["element"] for (one,) in species if one["occu"] == 1]
        rows = [site["abc"] for site in sites]
    except (KeyError, TypeError, ValueError):
        raise RowError(_site_fault(sites)) from None
    if len(single) != len(sites):
        raise RowError("a site is disordered (occupancy below 1); only ordered crystals have a label per atom")
    try:
        numbers = [ATOMIC_NUMBERS[symbol] for symbol in single]
    except (KeyError, TypeError):
        numbers = [_number_of(species) for species in single]
    return numbers, flat_numbers(lattice["matrix"], 3, "lattice.matrix"), flat_numbers(rows, len(sites), "abc")


_PERIODIC = [True, True, True]
_SPECIES = re.compile(r"([A-Z][a-z]?)(?:\d*\.?\d*[+-])?(?:,\w+=[-+.\w]+)*$")


def _number_of(species) -> int:
    """Atomic number of a species such as Fe3+ or Fe,spin=5: how it is charged or polarised is no label here."""
    parts = _SPECIES.match(species) if isinstance(species, str) else None
    if parts is None or parts[1] not in ATOMIC_NUMBERS:
        raise RowError(f"unknown element {str(species)[:20]!r}; only 94 elements (H to Pu) are known")
    return ATOMIC_NUMBERS[parts[1]]


def _site_fault(sites: list) -> str:
    """Say what is wrong with the first site that cannot be read."""
    for k, site in enumerate(sites):
        if not isinstance(site, dict) or not isinstance(site.get("species"), list):
            return f"site {k} has no list of species"
        if "abc" not in site:
            return f"site {k} has no fractional coordinates (abc)"
        if len(site["species"]) != 1:
            return "a site is disordered (several species); only ordered crystals have a label per atom"
        if not isinstance(site["species"][0], dict) or not {"element", "occu"} <= set(site["species"][0]):
            return f"site {k}: its species has no element or no occu"
    return "sites cannot be read"


def flat_numbers(rows, n_rows: int, name: str, width: int = 3) -> list[float]:
    """Return rows of numbers as one flat list; text, null, truth values and ragged rows are refused.

    Raises
    ------
    RowError
    """
    if not isinstance(rows, list):
        raise RowError(f"{name} is {kind_of(rows)}, not a list")
    if len(rows) != n_rows:
        raise RowError(f"{name} has {len(rows)} rows where {n_rows} are expected")
    try:
        widths = set(map(len, rows))
        flat = list(itertools.chain.from_iterable(rows))
    except TypeError:
        raise RowError(f"{name} is not a list of rows of {width} numbers") from None
    if widths != {width}:
        raise RowError(f"{name} is ragged: rows of {', '.join(map(str, sorted(widths)))} values, not {width}")
    return checked_numbers(flat, name)


def checked_numbers(flat: list, name: str) -> list[float]:
    """Return the list when it holds numbers only.

    Raises
    ------
    RowError
    """
    types = set(map(type, flat))
    strange = types - _NUMBER_TYPES
    if types == {list} and all(len(value) == 3 for value in flat):
        raise RowError(
            f"{name} has three numbers each (non-collinear moments), where one is read; put their lengths in, or null"
        )
    if strange:
        value = next(v for v in flat if type(v) in strange)
        raise RowError(f"{name} holds {kind_of(value)} where a number belongs")
    return flat


def checked_number(value, name: str) -> float:
    """Return one number; the energy of a row, for example.

    Raises
    ------
    RowError
    """
    if type(value) not in _NUMBER_TYPES:
        raise RowError(f"{name} is {kind_of(value)}, not a number")
    if abs(value) > 1e300:
        raise RowError(f"{name} is out of range")
    return float(value)


_NUMBER_TYPES = {float, int}


def kind_of(value) -> str:
    """Say what a JSON value is, for reasons."""
    if value is None:
        return "null"
    names = {bool: "a truth value", str: "text", list: "a list", dict: "an object", float: "a number", int: "a number"}
    return names.get(type(value), type(value).__name__)


def structure_digest(kind: str, numbers: np.ndarray, lattice: np.ndarray, coords: np.ndarray) -> str:
    """Name a structure by its atoms, lattice and places modulo cells, so that it is found again elsewhere.

    Numbers that agree to 1e-4 (Å, or of a cell) nearly always get one name; the offset keeps the edges of the bins away
    from where printed digits lie.
    """
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    digest.update(np.asarray(numbers, dtype=np.int16).tobytes())
    digest.update(np.floor(np.asarray(lattice) * 1e4 + _OFFSET).astype(np.int64).tobytes())
    coords = np.asarray(coords)
    with np.errstate(invalid="ignore"):  # NaN is refused by the schema, with the row
        places = np.floor((coords - np.floor(coords)) * 1e4 + _OFFSET).astype(np.int64) % 10_000
    digest.update(places.tobytes())
    return digest.hexdigest()


_OFFSET = 0.1234567


def impossible_rows(table: pa.Table) -> Iterator[tuple[np.ndarray, str]]:
    """Yield (rows, reason) for numbers and geometries that no crystal has.

    Parameters
    ----------
    table : pyarrow.Table
        A batch that the frames schema has accepted.
    """
    for name, (limit, unit) in LIMITS.items():
        column = table[name].combine_chunks()
        lists = pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)
        values = (column.flatten() if lists else column).to_numpy(zero_copy_only=False)
        bad = np.flatnonzero(np.abs(values) > limit)
        if not lists:
            rows = bad
        elif pa.types.is_fixed_size_list(column.type):
            rows = bad // 9
        else:
            rows = column.value_parent_indices().to_numpy()[bad]
        yield _mask(rows, table.num_rows), f"{name} holds a number beyond {limit:g} {unit}"
    lattices = _lattices(table)
    heights_a = cell_heights_a(lattices)
    flat = heights_a.min(axis=1, initial=np.inf) < MIN_CELL_HEIGHT_A
    yield flat, f"the cell is thinner than {MIN_CELL_HEIGHT_A:g} Å"
    overlapping = shortest_distances_a(table, skip=flat) < MIN_DISTANCE_A
    yield overlapping, f"two atoms overlap: less than {MIN_DISTANCE_A:g} Å apart"


REACH_A = 6.0
"""An atom without a neighbour within this distance, CHGNet's cutoff, is an isolated atom in a box."""
ISOLATED = "isolated atom"


def isolated_rows(table: pa.Table) -> Iterator[tuple[np.ndarray, str]]:
    """Yield (rows, reason), composition by composition, for atoms in a box, each alone: no crystals, no ground states.

    Parameters
    ----------
    table : pyarrow.Table
        A batch that the frames schema has accepted.
    """
    numbers, coords = (table[name].combine_chunks() for name in ("atomic_numbers", "frac_coords"))
    lattices, n_atoms = _lattices(table), np.asarray(numbers.value_lengths())
    roomy = np.abs(np.linalg.det(lattices)) > n_atoms * REACH_A**3 / np.sqrt(2)  # no packing is denser than fcc
    found: dict[tuple[str, ...], list[int]] = {}
    for row in map(int, np.flatnonzero(roomy)):
        kinds = numbers[row].as_py()
        if _are_isolated(kinds, lattices[row], coords[row].as_py()):
            found.setdefault(tuple(ELEMENT_SYMBOLS[z - 1] for z in sorted(kinds)), []).append(row)
    for symbols, rows in sorted(found.items()):
        called = symbols[0] if len(symbols) == 1 else f"{', '.join(sorted({*symbols}))}, {len(symbols)} in a cell"
        reason = (
            f"{ISOLATED} of {called} (no neighbour within {REACH_A:g} Å): no crystal, so neither a "
            "ground state nor anything CHGNet can learn from"
        )
        yield _mask(rows, table.num_rows), reason


def _are_isolated(numbers: list[int], lattice: np.ndarray, coords: list[float]) -> bool:
    """Whether no atom has a neighbour within reach, whatever vectors span the lattice."""
    from ase import Atoms
    from ase.neighborlist import neighbor_list

    atoms = Atoms(numbers, cell=lattice, scaled_positions=np.reshape(coords, (-1, 3)), pbc=True)
    return len(neighbor_list("i", atoms, REACH_A)) == 0


def _mask(rows: Sequence[int] | np.ndarray, n_rows: int) -> np.ndarray:
    mask = np.zeros(n_rows, dtype=bool)
    mask[rows] = True
    return mask


def _lattices(table: pa.Table) -> np.ndarray:
    return table["lattice_a"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, 3, 3)


def cell_heights_a(lattices: np.ndarray) -> np.ndarray:
    """Distances between opposite faces of each cell, |V| / |b x c|, in Å, shape (n, 3)."""
    areas = np.linalg.norm(np.cross(np.roll(lattices, -1, axis=1), np.roll(lattices, -2, axis=1)), axis=2)
    return np.abs(np.linalg.det(lattices))[:, None] / areas


def shortest_distances_a(table: pa.Table, skip: np.ndarray | None = None) -> np.ndarray:
    """Shortest distance between two atoms of each crystal, Å, shape (n_rows,); infinity for one atom or a skipped row.

    Exact below `MIN_DISTANCE_A` in cells higher than `MIN_CELL_HEIGHT_A`, where the nearest image is the one with
    fractional differences within ±1/2; above it a distance that is at least as long.
    """
    numbers = table["atomic_numbers"].combine_chunks()
    n_atoms = np.asarray(numbers.value_lengths())
    coords = table["frac_coords"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, 3)
    lattices = _lattices(table)
    first = np.cumsum(n_atoms) - n_atoms
    shortest = np.full(table.num_rows, np.inf)
    wanted = n_atoms > 1 if skip is None else (n_atoms > 1) & ~skip
    for row in np.flatnonzero(wanted & (n_atoms >= _TREE_ATOMS)):
        shortest[row] = _shortest_by_tree(coords[first[row] : first[row] + n_atoms[row]], lattices[row])
    wanted &= n_atoms < _TREE_ATOMS
    for n in np.unique(n_atoms[wanted]):
        rows = np.flatnonzero(wanted & (n_atoms == n))
        at_once = max(1, _PAIRS_AT_ONCE // (n * (n - 1) // 2))
        for some in np.split(rows, range(at_once, len(rows), at_once)):
            atoms = coords[first[some][:, None] + np.arange(n)]
            shortest[some] = _shortest_of(atoms, lattices[some])
    return shortest


def _shortest_of(coords: np.ndarray, lattices: np.ndarray) -> np.ndarray:
    """Shortest distances in crystals of equally many atoms, shape (k, n, 3): each atom against those s further on."""
    n = coords.shape[1]
    coords = (coords - np.floor(coords)).astype(np.float32)
    lattices = lattices.astype(np.float32)
    squared = np.full(len(coords), np.inf, dtype=np.float32)
    step = max(1, _PAIRS_AT_ONCE // (n * len(coords)))
    for start in range(1, n // 2 + 1, step):
        shifts = np.arange(start, min(start + step, n // 2 + 1))
        partner = (np.arange(n)[None, :] + shifts[:, None]) % n  # (shifts, n)
        difference = coords[:, None, :, :] - coords[:, partner, :]
        difference -= np.rint(difference)
        vectors = difference.reshape(len(coords), -1, 3) @ lattices
        np.minimum(squared, np.einsum("kpi,kpi->kp", vectors, vectors).min(axis=1), out=squared)
    return np.sqrt(squared)


def _shortest_by_tree(coords: np.ndarray, lattice: np.ndarray) -> float:
    """Shortest distance in one large crystal, with the images of atoms near its faces."""
    from scipy.spatial import KDTree

    coords = coords - np.floor(coords)
    margin = MIN_DISTANCE_A / cell_heights_a(lattice[None])[0]
    points = coords
    for axis in range(3):
        low, high = points[points[:, axis] < margin[axis]], points[points[:, axis] > 1 - margin[axis]]
        points = np.concatenate([points, low + np.eye(3)[axis], high - np.eye(3)[axis]])
    distances, _ = KDTree(points @ lattice).query(coords @ lattice, k=2)
    return float(distances[:, 1].min())
