"""The entries of a hull: ids, compositions and energies per atom, with the functional and kind of every energy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from crossfunc.energies.composition import CompositionError, composition_matrix

NOT_STATED = "not stated"
_NAMED = 3  # entries that a message lists


class HullError(ValueError):
    """Entries that no hull can be made of; the message names them and the remedy."""


@dataclass(frozen=True, eq=False)
class EntryTable:
    """Energies of compounds and elements, one row each; make it with `from_columns`, which checks every row.

    Attributes
    ----------
    ids : ndarray of str, shape (n,)
        Each once.
    compositions : tuple of str
        Formulas as given.
    X : scipy.sparse.csr_array, shape (n, 94)
        Atomic fractions.
    energy_per_atom_ev : ndarray, shape (n,)
        Total energies, eV/atom.
    functional, energy_kind : ndarray of str, shape (n,)
        What each energy was computed with ("gga", "r2scan") and how it was corrected ("raw", "mp2020", "mixed").
    """

    ids: np.ndarray
    compositions: tuple[str, ...]
    X: sparse.csr_array
    energy_per_atom_ev: np.ndarray
    functional: np.ndarray
    energy_kind: np.ndarray

    def __post_init__(self):
        for array in (self.ids, self.energy_per_atom_ev, self.functional, self.energy_kind, self.X.data):
            array.setflags(write=False)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.ids)

    @classmethod
    def from_columns(
        cls,
        ids: Iterable,
        compositions: Sequence[str],
        energy_per_atom_ev,
        *,
        functional: str | Sequence[str] = NOT_STATED,
        energy_kind: str | Sequence[str] = NOT_STATED,
        source: str = "entries",
    ) -> "EntryTable":
        """Make a table of entries from its columns.

        Parameters
        ----------
        ids : iterable of str
        compositions : sequence of str
            Formulas, such as "Li2O" or "Fe0.9O".
        energy_per_atom_ev : array_like, shape (n,)
            Total energies, eV/atom: all of one zero, so no mixture of total and formation energies.
        functional, energy_kind : str or sequence of str
            One for all, or one an entry.
        source : str
            Name used in messages, a file for instance.

        Returns
        -------
        EntryTable

        Raises
        ------
        HullError
            No entries, columns of different lengths, an id that occurs twice, an energy that is not finite, or a
            formula that cannot be read. Names the entries.
        """
        names = np.array([str(one) for one in ids], dtype=object)
        energies = np.array(energy_per_atom_ev, dtype=np.float64).reshape(-1)
        formulas = tuple(compositions)
        if len(names) == 0:
            raise HullError(f"{source}: no entries; a hull needs one for each element at least.")
        if not len(names) == len(formulas) == len(energies):
            raise HullError(
                f"{source}: {len(names)} ids, {len(formulas)} compositions and {len(energies)} energies; give one each."
            )
        labels = [_one_each(values, len(names), source) for values in (functional, energy_kind)]
        _refuse_repeats(names, source)
        unusable = ~np.isfinite(energies)
        if unusable.any():
            raise HullError(
                f"{source}: the energy of {named(names[unusable])} is not finite; leave them out or compute them again."
            )
        return cls(names, formulas, _fractions(names, formulas, source), energies, *labels)

    def with_energies(self, energy_per_atom_ev, *, functional: str | None = None, energy_kind: str | None = None):
        """These entries with other energies: a model's instead of DFT's, for the model's own hull.

        Parameters
        ----------
        energy_per_atom_ev : array_like, shape (n,)
        functional, energy_kind : str, optional
            What the new energies are, where that is not what the old ones were.

        Returns
        -------
        EntryTable

        Raises
        ------
        HullError
            As `from_columns`.
        """
        return EntryTable.from_columns(
            self.ids,
            self.compositions,
            energy_per_atom_ev,
            functional=self.functional if functional is None else functional,
            energy_kind=self.energy_kind if energy_kind is None else energy_kind,
        )

    def take(self, rows) -> "EntryTable":
        """Return the entries at `rows` (indices or a mask), in that order."""
        rows = np.arange(len(self))[np.asarray(rows)]
        return EntryTable(
            self.ids[rows],
            tuple(self.compositions[row] for row in rows),
            sparse.csr_array(self.X[rows]),
            self.energy_per_atom_ev[rows],
            self.functional[rows],
            self.energy_kind[rows],
        )

    def to_pandas(self):
        """Return the table as pandas: `id, composition, energy_per_atom_ev, functional, energy_kind`."""
        import pandas as pd

        columns = {"id": self.ids, "composition": self.compositions, "energy_per_atom_ev": self.energy_per_atom_ev}
        return pd.DataFrame(columns | {"functional": self.functional, "energy_kind": self.energy_kind})


def check_one_scale(*tables: EntryTable) -> None:
    """Raise HullError unless all entries are of one functional and one energy kind; names those that disagree."""
    ids = np.concatenate([table.ids for table in tables])
    for column in ("functional", "energy_kind"):
        values = np.concatenate([getattr(table, column) for table in tables])
        if (values == values[0]).all():
            continue
        kinds, counts = np.unique(values.astype(str), return_counts=True)
        groups = [
            f"{kind} ({count}: {named(ids[values == kind])})"
            for count, kind in sorted(zip(counts, kinds, strict=True), reverse=True)
        ]
        raise HullError(
            f"entries of different {column.replace('_', ' ')} have no common zero, so no hull: {'; '.join(groups)}. "
            f"{_REMEDIES[column]}"
        )


_REMEDIES = {
    "functional": "Keep one functional; where the entries do not say theirs and you know it, say it for all with "
    "--functional NAME (functional=... in Python).",
    "energy_kind": "Keep one kind, or correct the others first (crossfunc.energies.apply_mp2020); where it is not "
    "stated and you know that all are of one kind, say so with --energy-kind raw or mp2020 (energy_kind=... in "
    "Python).",
}


def reduced_formula(composition: str) -> str:
    """Formula as pymatgen reduces it: "Li2Fe2O4" to "LiFeO2", "Li4O4" to "Li2O2", "Fe4" to "Fe"."""
    import warnings

    from pymatgen.core import Composition

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that noble gases have no electronegativity
        return Composition(composition).reduced_formula


def named(ids: Sequence[str]) -> str:
    """The first few ids, and how many more there are."""
    more = len(ids) - _NAMED
    return ", ".join(str(one) for one in ids[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _one_each(values, n: int, source: str) -> np.ndarray:
    """One label an entry, as an array of str."""
    labels = [values] * n if isinstance(values, str) else [str(value) for value in values]
    if len(labels) != n:
        raise HullError(f"{source}: {len(labels)} labels for {n} entries; give one for all, or one each.")
    return np.array(labels, dtype=object)


def _refuse_repeats(ids: np.ndarray, source: str) -> None:
    """Raise where an id occurs twice."""
    distinct, counts = np.unique(ids.astype(str), return_counts=True)
    if (counts > 1).any():
        raise HullError(
            f"{source}: {named(distinct[counts > 1])} occurs more than once; give every entry an id of its own."
        )


def _fractions(ids: np.ndarray, formulas: tuple[str, ...], source: str) -> sparse.csr_array:
    """Atomic fractions of the formulas; what cannot be read is named by its id."""
    try:
        return composition_matrix(formulas)
    except CompositionError as error:
        row = int(str(error).split()[1].rstrip(":"))  # "row 3: ..."
        raise HullError(f"{source}: {ids[row]} ({error})") from error
