"""From frames to what lies between them: the same material in both functionals, and the elements' ground states."""

import re

import numpy as np
import pandas as pd
import pyarrow as pa

from crossfunc.datasets.functionals import Functional
from crossfunc.datasets.schema import DatasetError
from crossfunc.datasets.writer import DatasetWriter
from crossfunc.symbols import ELEMENT_SYMBOLS

MANY = 10
SAME_VOLUME = 1e-3
"""Largest relative difference in volume between two frames that are said to be one structure."""


def add_elements_and_pairs(
    writer: DatasetWriter,
    functionals: tuple[Functional, Functional],
    *,
    named_by: dict[str, str | None] | None = None,
) -> tuple[int, int, dict]:
    """Write the elements and pairs that the frames written so far give.

    A pair of one material is the structure labelled in both functionals (`structure_id`) that has the lowest energy in
    the high one; where no structure has both labels, the lowest frame of each functional, each in its own structure.
    The compositions of a pair agree.

    Parameters
    ----------
    writer : DatasetWriter
    functionals : tuple of Functional
        The low and the high one, with the kind of their energies.
    named_by : dict, optional
        Which entry of the user's file names materials (`material_id`) and structures (`structure_id`). Without one for
        materials these are no more than formulas, and only structures labelled in both functionals make pairs. By
        default a source with ids of its own.

    Returns
    -------
    n_materials, n_pairs : int
    extra : dict
        For `dataset.json`: how pairs and elements came to be.

    Raises
    ------
    DatasetError
        Two files with the same labels.
    """
    frames, numbers = _read_light(writer)
    by_material = named_by is None or named_by.get("material_id") is not None
    elements = _ground_states(frames)
    from_places = named_by is not None and named_by.get("structure_id") is None
    pairs = _pairs(frames, numbers, writer, functionals, by_material=by_material, from_places=from_places)
    extra = {}
    if len(elements):
        writer.add_table("elements", _arrow(elements), functionals)
        extra["elements_from"] = "the frame of lowest energy of each element in this dataset"
    if len(pairs):
        pairs = _with_formation_energies(pairs, elements, functionals)
        writer.add_table("pairs", _arrow(pairs), functionals)
        extra["pairs_from"] = "the structures and materials labelled in both functionals; see the column pairing"
    return frames["material_id"].nunique(), len(pairs), extra


_LIGHT = ["material_id", "functional", "energy_kind", "energy_per_atom_ev", "atomic_numbers", "lattice_a"]
_OPTIONAL = ["structure_id"]


def _read_light(writer: DatasetWriter) -> tuple[pd.DataFrame, np.ndarray]:
    """The frames without their coordinates and labels, about 100 bytes each, and the atomic numbers of all."""
    table = writer.read_frames(_LIGHT, _OPTIONAL)
    frames = pd.DataFrame(
        {
            "material_id": table["material_id"].dictionary_encode().to_pandas(),
            "functional": table["functional"].dictionary_encode().to_pandas(),
            "energy_kind": table["energy_kind"].dictionary_encode().to_pandas(),
            "energy": table["energy_per_atom_ev"].to_numpy(),
        }
    )
    numbers = table["atomic_numbers"].combine_chunks()
    flat, lengths = numbers.flatten().to_numpy(), np.asarray(numbers.value_lengths())
    first = np.cumsum(lengths) - lengths
    frames["n_atoms"] = lengths
    low, high = np.minimum.reduceat(flat, first), np.maximum.reduceat(flat, first)
    frames["element"] = np.where(low == high, low, 0)
    frames["first"] = first
    frames["signature"] = np.add.reduceat(_WEIGHTS[flat], first) / lengths
    lattices = table["lattice_a"].combine_chunks().flatten().to_numpy().reshape(-1, 3, 3)
    frames["volume"] = np.abs(np.linalg.det(lattices))
    if "structure_id" in table.column_names:
        frames["structure_id"] = table["structure_id"].to_pandas()
    return frames, flat


_WEIGHTS = np.random.default_rng(0).random(95)
"""One number per element: their mean over the atoms tells compositions apart, whatever the size of the cell."""
_SAME_SIGNATURE = 1e-9


def refuse_shared_ids(writer: DatasetWriter, named_by: dict[str, str | None]) -> None:
    """Refuse an entry of the user's file that calls two compositions by one name: their energies would be paired.

    Parameters
    ----------
    writer : DatasetWriter
    named_by : dict
        As in `add_elements_and_pairs`.

    Raises
    ------
    DatasetError
        Names both.
    """
    keys = {column: key for column, key in named_by.items() if key is not None}
    if keys:
        frames, numbers = _read_light(writer)
        for column, key in keys.items():
            _refuse_shared(frames, numbers, writer, column, key)


def _refuse_shared(frames: pd.DataFrame, numbers: np.ndarray, writer: DatasetWriter, column: str, key: str) -> None:
    """Raise where one id of the user's stands for two compositions."""
    groups = frames.groupby(column, observed=True)["signature"]
    ends = pd.DataFrame({"first": groups.idxmin(), "last": groups.idxmax(), "width": groups.max() - groups.min()})
    shared = ends[ends["width"] > _SAME_SIGNATURE]
    if shared.empty:
        return
    name, worst = shared.index[0], shared.iloc[0]
    ids = writer.read_frames(["frame_id"])["frame_id"]
    one, other = (
        f"{_formula_of(frames, numbers, row)} (frame {ids[int(row)].as_py()})"
        for row in (worst["first"], worst["last"])
    )
    more = f", and {len(shared) - 1} more of its values are shared likewise" if len(shared) > 1 else ""
    option = "--material-key" if column == "material_id" else "--structure-key"
    raise DatasetError(
        f"{writer.path}: nothing written: {key} {str(name)!r} names {one} and {other}{more}; energies of different "
        f"compositions would be paired. Name an entry that tells them apart with {option}, or leave the option out."
    )


def _formula_of(frames: pd.DataFrame, numbers: np.ndarray, row: int) -> str:
    from pymatgen.core import Composition

    first, n_atoms = int(frames["first"][row]), int(frames["n_atoms"][row])
    return Composition(_formula(numbers[first : first + n_atoms])).reduced_formula


_GASES = [1, 7, 8, 9, 17]
_LARGEST_A3_PER_ATOM = 250.0  # more than the emptiest crystal of an element takes: caesium, 115 Å³


def _ground_states(frames: pd.DataFrame) -> pd.DataFrame:
    """Lowest energy per atom of each element and functional among crystals of that element alone.

    Dimers, clusters and slabs in a wide box are the ground state of no element but those that are gases of diatomic
    molecules.
    """
    is_crystal = (frames["volume"] < _LARGEST_A3_PER_ATOM * frames["n_atoms"]) | frames["element"].isin(_GASES)
    alone = frames[(frames["element"] > 0) & is_crystal]
    keys = ["element", "functional", "energy_kind"]
    lowest = alone.groupby(keys, observed=True, sort=True)["energy"].min().reset_index()
    lowest["element"] = [ELEMENT_SYMBOLS[z - 1] for z in lowest["element"]]
    return lowest.rename(columns={"energy": "energy_per_atom_ev"}).astype(dict.fromkeys(keys, str))


def _pairs(
    frames: pd.DataFrame,
    numbers: np.ndarray,
    writer: DatasetWriter,
    functionals: tuple[Functional, Functional],
    *,
    by_material: bool,
    from_places: bool,
) -> pd.DataFrame:
    by_functional = {one.key: frames[frames["functional"] == one.key] for one in functionals}
    if any(len(some) == 0 for some in by_functional.values()):
        return pd.DataFrame()
    matched = pd.DataFrame(columns=_PAIR)
    if "structure_id" in frames:
        matched = _matched(by_functional, numbers, writer, _Geometries(writer, are_told_apart=from_places))
    parts = [matched]
    if by_material:
        parts.append(_own_minima(by_functional, set(matched["material_id"]), numbers, writer))
    pairs = pd.concat([p for p in parts if len(p)], ignore_index=True) if any(map(len, parts)) else matched
    if pairs.empty:
        return pairs
    order = np.argsort(pairs["high"].to_numpy(), kind="stable")
    counts = pairs.groupby("material_id")["high"].transform("size")
    pairs = pairs.assign(n_structures=counts).iloc[order].drop_duplicates("material_id").sort_index()
    return _pair_columns(pairs, frames, numbers)


_PAIR = ["material_id", "low", "high", "row", "pairing"]


_SAME_PLACE_A = 0.02
"""Atoms of one structure lie this near each other in two frames: more than printed digits leave, less than a rattle."""


class _Geometries:
    """Where the atoms of every frame are, to compare frames that are said to be one structure.

    Read when the first frames are compared; `are_told_apart` says that structure ids come from the places of the atoms,
    so that there is nothing to find.
    """

    def __init__(self, writer: DatasetWriter, *, are_told_apart: bool):
        self.writer, self.are_told_apart, self.is_read = writer, are_told_apart, False

    def _read(self) -> None:
        table = self.writer.read_frames(["atomic_numbers", "frac_coords", "lattice_a"])
        numbers = table["atomic_numbers"].combine_chunks()
        self.numbers, self.n_atoms = numbers.flatten().to_numpy(), np.asarray(numbers.value_lengths())
        self.first = np.cumsum(self.n_atoms) - self.n_atoms
        self.coords = table["frac_coords"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, 3)
        self.lattices_a = table["lattice_a"].combine_chunks().flatten().to_numpy().reshape(-1, 3, 3)
        self.is_read = True

    def differ(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether two frames of as many atoms each have atoms in different places, in whatever order they stand."""
        differ = np.zeros(len(rows), dtype=bool)
        if self.are_told_apart or (rows == others).all():
            return differ
        if not self.is_read:
            self._read()
        for start in range(0, len(rows), 4096):
            part = slice(start, start + 4096)
            differ[part] = self._differ(np.asarray(rows[part]), np.asarray(others[part]))
        for k in np.flatnonzero(differ):
            differ[k] = not self._same_in_another_order(int(rows[k]), int(others[k]))
        return differ

    def _differ(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        n_atoms = self.n_atoms[rows]
        starts = np.cumsum(n_atoms) - n_atoms
        within = np.arange(n_atoms.sum()) - np.repeat(starts, n_atoms)
        one, other = (np.repeat(self.first[of], n_atoms) + within for of in (rows, others))
        moved = self.coords[other] - self.coords[one]
        moved -= np.rint(moved)
        moved_a = np.einsum("ni,nij->nj", moved, np.repeat(self.lattices_a[rows], n_atoms, axis=0))
        apart = (np.linalg.norm(moved_a, axis=1) > _SAME_PLACE_A) | (self.numbers[one] != self.numbers[other])
        return np.logical_or.reduceat(apart, starts) if len(starts) else np.zeros(0, dtype=bool)

    def _same_in_another_order(self, row: int, other: int) -> bool:
        from scipy.optimize import linear_sum_assignment

        one, two = (slice(self.first[k], self.first[k] + self.n_atoms[k]) for k in (row, other))
        if sorted(self.numbers[one]) != sorted(self.numbers[two]):
            return False
        moved = self.coords[two][None] - self.coords[one][:, None]
        moved -= np.rint(moved)
        apart_a = np.linalg.norm(moved @ self.lattices_a[row], axis=-1)
        apart_a[self.numbers[one][:, None] != self.numbers[two][None]] = 1e6
        return bool(apart_a[linear_sum_assignment(apart_a)].max() <= _SAME_PLACE_A)


def _matched(
    by_functional: dict[str, pd.DataFrame], numbers: np.ndarray, writer: DatasetWriter, geometries: _Geometries
) -> pd.DataFrame:
    """Structures with one frame of one material in each functional; what an id mixes up is told in the ledger."""
    sides = []
    for frames in by_functional.values():
        known = frames[frames["structure_id"].notna()].reset_index(names="row")
        cells = known.groupby("structure_id", sort=False)[["volume", "n_atoms"]].transform
        several = (cells("max") / cells("min") - 1 > SAME_VOLUME).any(axis=1)
        for row in known[several].drop_duplicates("structure_id").itertuples():
            reason = "one structure id on several cells in one functional: frames kept, not paired"
            writer.reject("pairs", row.row, row.structure_id, reason)
        known = known[~several]
        first = known.groupby("structure_id", sort=False)["row"].transform("first")
        moved = known[geometries.differ(known["row"].to_numpy(), first.to_numpy())]["structure_id"].unique()
        for row in known[known["structure_id"].isin(moved)].drop_duplicates("structure_id").itertuples():
            reason = "one structure id on several geometries in one functional: frames kept, not paired"
            writer.reject("pairs", row.row, row.structure_id, reason)
        # of one structure in several states, magnetic ones perhaps, the lowest
        lowest = (
            known[~known["structure_id"].isin(moved)].sort_values("energy", kind="stable").astype({"material_id": str})
        )
        sides.append(lowest.drop_duplicates(["structure_id", "material_id"]).sort_index())
    both = _of_one_structure(*sides)
    differ = (both["n_atoms_low"] != both["n_atoms_high"]) | (
        (both["volume_low"] / both["volume_high"] - 1).abs() > SAME_VOLUME
    )
    mixed = _other_composition(both)
    moved = ~differ & ~mixed
    moved[moved] = geometries.differ(both.loc[moved, "row_low"].to_numpy(), both.loc[moved, "row_high"].to_numpy())
    for row in both[moved].itertuples():
        reason = "one structure id on two different geometries in the two functionals: frames kept, not paired"
        writer.reject("pairs", row.row_low, row.structure_id, reason)
    differ |= moved
    for row in both[differ & ~mixed & ~moved].itertuples():
        reason = "one structure id on two different cells in the two functionals: frames kept, not paired"
        writer.reject("pairs", row.row_low, row.structure_id, reason)
    for row in both[mixed].itertuples():
        reason = f"structure id: {_why_not_paired(by_functional, numbers, row)}"
        writer.reject("pairs", row.row_low, row.structure_id, reason)
    stranger = both["material_id_low"] != both["material_id_high"]
    for row in both[stranger & ~differ & ~mixed].itertuples():
        reason = (
            f"structure id: material {row.material_id_low} in the low functional, {row.material_id_high} in the high "
            "one: frames kept, not paired"
        )
        writer.reject("pairs", row.row_low, row.structure_id, reason)
    both = both[~differ & ~mixed & ~stranger]
    same = int((both["energy_low"] == both["energy_high"]).sum())
    if len(both) >= MANY and same > len(both) / 2:
        raise DatasetError(
            f"{writer.path}: nothing written: {same} of {len(both)} structures have the same energy in both "
            "functionals: the two files hold the same labels. Give one file of each functional."
        )
    return pd.DataFrame(
        {
            "material_id": both["material_id_high"],
            "low": both["energy_low"],
            "high": both["energy_high"],
            "row": both["row_high"],
            "pairing": "same structure",
        }
    )


def _of_one_structure(low: pd.DataFrame, high: pd.DataFrame) -> pd.DataFrame:
    """Frames of one structure in both functionals: of one material where there is one, else of two."""
    both = low.assign(material_id_low=low["material_id"]).merge(
        high.assign(material_id_high=high["material_id"]),
        on=["structure_id", "material_id"],
        suffixes=("_low", "_high"),
    )
    left, right = (
        some[~some["structure_id"].isin(both["structure_id"])].drop_duplicates("structure_id") for some in (low, high)
    )
    strangers = left.merge(right, on="structure_id", suffixes=("_low", "_high"))
    return pd.concat([both.drop(columns="material_id"), strangers], ignore_index=True) if len(strangers) else both


def _other_composition(both: pd.DataFrame) -> pd.Series:
    return (both["signature_low"] - both["signature_high"]).abs() > _SAME_SIGNATURE


def _why_not_paired(by_functional: dict[str, pd.DataFrame], numbers: np.ndarray, row) -> str:
    sides = zip(by_functional.values(), (row.row_low, row.row_high), strict=True)
    low, high = (_formula_of(frames, numbers, one) for frames, one in sides)
    return f"{low} in the low functional, {high} in the high one: frames kept, not paired"


def _own_minima(
    by_functional: dict[str, pd.DataFrame], known: set[str], numbers: np.ndarray, writer: DatasetWriter
) -> pd.DataFrame:
    """The lowest frame of each functional, for materials that have both but no structure labelled twice."""
    lowest = []
    for frames in by_functional.values():
        frames = frames[~frames["material_id"].isin(known)]
        at = frames.groupby("material_id", observed=True)["energy"].idxmin()
        lowest.append(frames.loc[at].reset_index(names="row").astype({"material_id": str}))
    both = lowest[0].merge(lowest[1], on="material_id", suffixes=("_low", "_high"))
    differ = _other_composition(both)
    for row in both[differ].itertuples():
        reason = f"material id: {_why_not_paired(by_functional, numbers, row)}"
        writer.reject("pairs", row.row_low, row.material_id, reason)
    both = both[~differ]
    return pd.DataFrame(
        {
            "material_id": both["material_id"],
            "low": both["energy_low"],
            "high": both["energy_high"],
            "row": both["row_high"],
            "pairing": "own minimum",
        }
    )


def _pair_columns(pairs: pd.DataFrame, frames: pd.DataFrame, numbers: np.ndarray) -> pd.DataFrame:
    some = frames.loc[pairs["row"]]
    first, n_atoms = some["first"].to_numpy(), some["n_atoms"].to_numpy()
    return pd.DataFrame(
        {
            "material_id": pairs["material_id"].astype(str).to_numpy(),
            "composition": [_formula(numbers[a : a + n]) for a, n in zip(first, n_atoms, strict=True)],
            "n_atoms": n_atoms.astype(np.int32),
            "low_energy_per_atom_ev": pairs["low"].to_numpy(),
            "high_energy_per_atom_ev": pairs["high"].to_numpy(),
            "pairing": pairs["pairing"].to_numpy(),
            "n_structures": pairs["n_structures"].to_numpy().astype(np.int32),
        }
    )


def _with_formation_energies(
    pairs: pd.DataFrame, elements: pd.DataFrame, functionals: tuple[Functional, Functional]
) -> pd.DataFrame:
    """Add E - sum of x E(element) where this dataset has every element's ground state in that functional."""
    for functional in functionals:
        known = elements[elements["functional"] == functional.key].set_index("element")["energy_per_atom_ev"].to_dict()
        reference = [_reference(formula, known) for formula in pairs["composition"]]
        if not np.isnan(reference).all():
            pairs[functional.column(formation=True)] = pairs[functional.column()] - np.array(reference)
    return pairs


def _reference(formula: str, known: dict[str, float]) -> float:
    amounts = [(s, int(n or 1)) for s, n in re.findall(r"([A-Z][a-z]?)(\d*)", formula)]
    total = sum(n for _, n in amounts)
    return sum(n * known.get(s, np.nan) for s, n in amounts) / total


def _formula(numbers: np.ndarray) -> str:
    kinds, counts = np.unique(numbers, return_counts=True)
    return "".join(f"{ELEMENT_SYMBOLS[z - 1]}{n}" for z, n in zip(kinds, counts, strict=True))


def _arrow(frame: pd.DataFrame) -> pa.Table:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return table.replace_schema_metadata(None)
