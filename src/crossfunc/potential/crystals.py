"""Many crystals in flat arrays: what graphs are built from and what relaxation moves."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS


def row_numbers(rows: Sequence[int] | Sequence[bool] | np.ndarray, n: int) -> np.ndarray:
    """Return rows as numbers, int64: numbers as they are, a mask as the places where it is true.

    Parameters
    ----------
    rows : array_like of int, or of bool, shape (n,)
    n : int
        How many rows there are to choose from.

    Raises
    ------
    CrystalError
        A mask of another length, or numbers that are not whole.
    """
    given = np.asarray(rows)
    if given.dtype == bool:
        if given.shape != (n,):
            raise CrystalError(f"a mask of shape {given.shape} does not choose among {n} rows; give one value per row.")
        return np.flatnonzero(given)
    whole = given.astype(np.int64)
    if not np.array_equal(whole, given):
        raise CrystalError(f"rows are whole numbers, got {given[whole != given][0]}; give numbers or a mask.")
    return whole


class CrystalError(ValueError):
    """A structure that is no crystal of known elements; the message names it, the atom and the remedy."""


@dataclass(frozen=True)
class Crystals:
    """A batch of periodic crystals without per-structure objects.

    Attributes
    ----------
    atomic_numbers : ndarray of int64, shape (n_atoms,)
        Atoms of all crystals, one crystal after another.
    frac_coords : ndarray, shape (n_atoms, 3)
    lattices_a : ndarray, shape (n_crystals, 3, 3)
        Lattice vectors as rows, Å.
    n_atoms : ndarray of int64, shape (n_crystals,)
    """

    atomic_numbers: np.ndarray
    frac_coords: np.ndarray
    lattices_a: np.ndarray
    n_atoms: np.ndarray

    def __len__(self) -> int:
        """Return the number of crystals."""
        return len(self.n_atoms)

    @property
    def starts(self) -> np.ndarray:
        """Index of each crystal's first atom, shape (n_crystals,)."""
        return np.cumsum(self.n_atoms) - self.n_atoms

    @property
    def owners(self) -> np.ndarray:
        """Which crystal each atom belongs to, shape (n_atoms,)."""
        return np.repeat(np.arange(len(self)), self.n_atoms)

    @property
    def positions_a(self) -> np.ndarray:
        """Cartesian positions, Å, shape (n_atoms, 3)."""
        return np.einsum("ni,nij->nj", self.frac_coords, self.lattices_a[self.owners])

    def take(self, indices: Sequence[int] | np.ndarray) -> "Crystals":
        """Return the crystals at `indices`, in that order, or those where a mask is true."""
        indices = row_numbers(indices, len(self))
        atoms = self.atom_indices(indices)
        return Crystals(
            self.atomic_numbers[atoms], self.frac_coords[atoms], self.lattices_a[indices], self.n_atoms[indices]
        )

    def atom_indices(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the atoms of the crystals at `indices`, crystal after crystal."""
        return concatenate_ranges(self.starts[indices], self.n_atoms[indices])

    def split(self, per_atom: np.ndarray) -> list[np.ndarray]:
        """Cut an array with one row per atom into one array per crystal."""
        return np.split(per_atom, np.cumsum(self.n_atoms)[:-1])

    def formula(self, index: int) -> str:
        """Return the formula of one crystal, for messages."""
        one = self.take([index])
        numbers, counts = np.unique(one.atomic_numbers, return_counts=True)
        return "".join(f"{ELEMENT_SYMBOLS[z - 1]}{n if n > 1 else ''}" for z, n in zip(numbers, counts, strict=True))

    @classmethod
    def from_arrays(cls, crystals: Iterable[tuple]) -> "Crystals":
        """Build from (atomic_numbers, frac_coords, lattice_a) triples."""
        triples = list(crystals)
        if not triples:
            raise CrystalError("no crystals given; give at least one.")
        numbers = [_check_numbers(t[0], k) for k, t in enumerate(triples)]
        return cls(
            np.concatenate(numbers),
            np.concatenate([np.asarray(t[1], dtype=float).reshape(-1, 3) for t in triples]),
            np.stack([np.asarray(t[2], dtype=float).reshape(3, 3) for t in triples]),
            np.array([len(z) for z in numbers], dtype=np.int64),
        )

    @classmethod
    def from_structures(cls, structures: Iterable) -> "Crystals":
        """Build from pymatgen Structures or ASE Atoms; what is no crystal of known elements is refused by number."""
        return cls.from_arrays(_triple(structure, k) for k, structure in enumerate(structures))

    @classmethod
    def from_frames(cls, frames) -> "Crystals":
        """Build from a frames table (Arrow) of a dataset."""
        numbers = frames["atomic_numbers"].combine_chunks()
        values = numbers.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
        coords = frames["frac_coords"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        lattices = frames["lattice_a"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        counts = numbers.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        return cls(values, coords.reshape(-1, 3), lattices.reshape(-1, 3, 3), counts)

    def to_structures(self) -> list:
        """Return pymatgen Structures."""
        from pymatgen.core import Structure

        atoms = zip(self.split(self.atomic_numbers), self.split(self.frac_coords), strict=True)
        return [
            Structure(lattice, numbers, coords)
            for lattice, (numbers, coords) in zip(self.lattices_a, atoms, strict=True)
        ]


def _triple(structure, index: int) -> tuple:
    if hasattr(structure, "get_scaled_positions"):  # ASE
        if not structure.pbc.all():
            raise CrystalError(f"structure {index} is not periodic in all directions; put it in a cell with pbc=True.")
        try:
            return structure.numbers, structure.get_scaled_positions(wrap=False), structure.cell.array
        except np.linalg.LinAlgError:
            raise CrystalError(f"structure {index}: its cell has no volume; leave the structure out.") from None
    if not hasattr(structure, "lattice"):
        raise CrystalError(
            f"structure {index} is a {type(structure).__name__}, which has no lattice; give pymatgen Structures or ASE "
            "Atoms in a cell."
        )
    if not structure.is_ordered:
        raise CrystalError(
            f"structure {index} ({structure.formula}) is disordered; order it first (pymatgen.transformations)."
        )
    symbols = [site.specie.symbol for site in structure]
    for atom, symbol in enumerate(symbols):
        if symbol not in ATOMIC_NUMBERS:
            raise _unknown_element(index, atom, symbol)
    numbers = [ATOMIC_NUMBERS[symbol] for symbol in symbols]
    return numbers, structure.frac_coords, structure.lattice.matrix


def _check_numbers(given, index: int) -> np.ndarray:
    """Return the atomic numbers of one crystal, refusing what no model has an element for."""
    numbers = np.asarray(given).reshape(-1)
    if len(numbers) == 0:
        raise CrystalError(f"structure {index} has no atoms; leave it out.")
    known = np.isin(numbers, np.arange(1, len(ELEMENT_SYMBOLS) + 1))
    if not known.all():
        atom = int(np.flatnonzero(~known)[0])
        raise _unknown_element(index, atom, f"Z = {numbers[atom]}")
    return numbers.astype(np.int64)


def _unknown_element(index: int, atom: int, element: str) -> CrystalError:
    from ase.data import chemical_symbols

    number = element.removeprefix("Z = ")
    if number != element and number.isdecimal() and 0 < int(number) < len(chemical_symbols):
        element = f"{chemical_symbols[int(number)]} ({element})"
    return CrystalError(
        f"structure {index}: atom {atom} is {element}, which is none of the {len(ELEMENT_SYMBOLS)} elements from "
        f"{ELEMENT_SYMBOLS[0]} to {ELEMENT_SYMBOLS[-1]} that CHGNet knows; leave the structure out."
    )


def concatenate_ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return arange(start, start + length) of every pair, one after another."""
    return np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
