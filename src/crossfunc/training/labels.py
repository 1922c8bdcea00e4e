"""Labelled frames in flat arrays: what training, evaluation and element references read.

One row per frame or atom, NaN where there is no label, and no Python object per frame, so that 200,000 frames of 31
atoms take about a third of a gigabyte.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from crossfunc.datasets import Dataset, DatasetError, open_dataset
from crossfunc.datasets.parquet_sizes import UnpacksTooLarge, check_unpacked_size
from crossfunc.energies import composition_matrix
from crossfunc.errors import InputError
from crossfunc.potential.crystals import Crystals, concatenate_ranges, row_numbers
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS

TARGETS = ("energy", "forces", "stress", "magmoms")
"""What a frame can be labelled with; the keys of losses, weights and label counts."""

METRICS = {
    "energy": "energy_mae_mev_per_atom",
    "forces": "force_mae_mev_per_a",
    "stress": "stress_mae_gpa",
    "magmoms": "magmom_mae_mub",
}
"""Name of each target's mean absolute error; the unit is in the name."""

METRIC_SCALES = {"energy": 1000.0, "forces": 1000.0, "stress": 1.0, "magmoms": 1.0}
"""From the unit of a target's labels to that of its metric: eV to meV; GPa and μB stay."""

_BATCH_ROWS = 4096  # rows read at a time: small beside the arrays they go to
_LIGHT_COLUMNS = ("frame_id", "material_id", "functional", "energy_kind", "atomic_numbers", "energy_per_atom_ev")
_HEAVY_COLUMNS = {  # Arrow column: values per atom or frame
    "lattice_a": (9, "frame"),
    "frac_coords": (3, "atom"),
    "forces_ev_per_a": (3, "atom"),
    "stress_gpa": (9, "frame"),
    "magmoms_mub": (1, "atom"),
}


@dataclass(frozen=True, eq=False)
class LabelledFrames:
    """Crystals with their labels; NaN means that there is no label.

    Attributes
    ----------
    crystals : Crystals
    energy_per_atom_ev : ndarray of float64, shape (n_frames,)
        eV/atom.
    forces_ev_per_a : ndarray of float32, shape (n_atoms, 3)
        eV/Å, atoms in the order of `crystals`.
    stress_gpa : ndarray of float32, shape (n_frames, 3, 3)
        GPa, tension positive.
    magmoms_mub : ndarray of float32, shape (n_atoms,)
        μB, with the sign of the label. Losses and errors compare |m|, which is what CHGNet predicts.
    frame_ids, material_ids : ndarray of str, shape (n_frames,)
    """

    crystals: Crystals
    energy_per_atom_ev: np.ndarray
    forces_ev_per_a: np.ndarray
    stress_gpa: np.ndarray
    magmoms_mub: np.ndarray
    frame_ids: np.ndarray
    material_ids: np.ndarray

    def __post_init__(self):
        """Refuse arrays that do not fit the crystals."""
        n_frames, n_atoms = len(self.crystals), len(self.crystals.atomic_numbers)
        wanted = {
            "energy_per_atom_ev": (n_frames,),
            "forces_ev_per_a": (n_atoms, 3),
            "stress_gpa": (n_frames, 3, 3),
            "magmoms_mub": (n_atoms,),
            "frame_ids": (n_frames,),
            "material_ids": (n_frames,),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise DatasetError(
                    f"{name} has shape {getattr(self, name).shape}, not {shape}: give one value per frame or atom, "
                    "NaN where there is no label."
                )

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.crystals)

    def take(self, indices: Sequence[int] | np.ndarray) -> "LabelledFrames":
        """Return the frames at `indices`, in that order, or those where a mask is true."""
        indices = row_numbers(indices, len(self))
        atoms = self.crystals.atom_indices(indices)
        return LabelledFrames(
            self.crystals.take(indices),
            self.energy_per_atom_ev[indices],
            self.forces_ev_per_a[atoms],
            self.stress_gpa[indices],
            self.magmoms_mub[atoms],
            self.frame_ids[indices],
            self.material_ids[indices],
        )

    @cached_property
    def label_counts(self) -> dict[str, np.ndarray]:
        """How many numbers each frame is labelled with, target to int64 array of shape (n_frames,).

        A frame of n atoms has at most 1 energy, 3n force components, 9 stress components and n moments.
        """
        return {
            "energy": (~np.isnan(self.energy_per_atom_ev)).astype(np.int64),
            "forces": self._sum_over_atoms((~np.isnan(self.forces_ev_per_a)).sum(axis=1)),
            "stress": (~np.isnan(self.stress_gpa)).sum(axis=(1, 2)),
            "magmoms": self._sum_over_atoms(~np.isnan(self.magmoms_mub)),
        }

    def labelled(self, target: str) -> np.ndarray:
        """Return which frames have at least one label of `target` (one of `TARGETS`); bool, shape (n_frames,)."""
        if target not in TARGETS:
            raise InputError(f"target {target!r}: choose one of {', '.join(TARGETS)}.")
        return self.label_counts[target] > 0

    @cached_property
    def composition(self):
        """Atomic fractions, scipy csr array of shape (n_frames, 94); see `composition_matrix`."""
        import pyarrow as pa

        offsets = np.concatenate([[0], np.cumsum(self.crystals.n_atoms)]).astype(np.int32)
        numbers = pa.ListArray.from_arrays(pa.array(offsets), pa.array(self.crystals.atomic_numbers))
        return composition_matrix(pa.table({"frame_id": pa.array(self.frame_ids), "atomic_numbers": numbers}))

    def frames_with(self, symbol: str) -> np.ndarray:
        """Return the indices of the frames that hold an element."""
        atoms = np.flatnonzero(self.crystals.atomic_numbers == ATOMIC_NUMBERS[symbol])
        return np.unique(np.searchsorted(np.cumsum(self.crystals.n_atoms), atoms, side="right"))

    def elements(self) -> tuple[str, ...]:
        """Return the symbols of the elements that occur, in the order of their atomic numbers."""
        return tuple(ELEMENT_SYMBOLS[z - 1] for z in np.unique(self.crystals.atomic_numbers))

    def fingerprint(self) -> str:
        """Return a sha256 over every number and id: equal frames in equal order, equal fingerprint."""
        digest = hashlib.sha256()
        for array in (*_arrays(self.crystals), *(getattr(self, f.name) for f in fields(self)[1:])):
            digest.update(f"{array.shape}".encode())
            digest.update("\0".join(array).encode() if array.dtype.kind in "UO" else np.ascontiguousarray(array))
        return digest.hexdigest()

    @classmethod
    def from_dataset(
        cls, dataset: Dataset | str | os.PathLike, functional: str = "high", *, rows=None
    ) -> "LabelledFrames":
        """Read the frames of one functional from a dataset.

        Parameters
        ----------
        dataset : Dataset, str or path
            What is no `Dataset` goes to `open_dataset`.
        functional : str
            "high" or "low", or the key or name of one of the dataset's functionals.
        rows : array_like of int or bool, optional
            Rows of the frames table to look at; the table's order is kept.

        Returns
        -------
        LabelledFrames
            NaN where the dataset has null or NaN.

        Raises
        ------
        DatasetError
            The dataset has no frames, none of that functional, energies of two kinds (raw and MP2020-corrected) among
            them, or no energy at all.

        Notes
        -----
        Read in two passes, a few thousand rows at a time, straight into the final arrays: the frames table is never
        in memory as a whole unless somebody has asked the dataset for it before.
        """
        dataset = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
        light = _read_light(dataset)
        functional = dataset.functional(functional).key
        wanted = _wanted_rows(dataset, light, functional, rows)
        light = light.filter(wanted)
        energies = np.array(light["energy_per_atom_ev"].to_numpy(), dtype=np.float64)
        _check_energies(dataset, light, functional, energies)
        numbers = light["atomic_numbers"].combine_chunks()
        counts = numbers.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        arrays = _read_heavy(dataset, wanted, counts)
        crystals = Crystals(
            numbers.flatten().to_numpy(zero_copy_only=False).astype(np.int64),
            arrays["frac_coords"],
            arrays["lattice_a"].reshape(-1, 3, 3),
            counts,
        )
        return cls(
            crystals,
            energies,
            arrays["forces_ev_per_a"],
            arrays["stress_gpa"].reshape(-1, 3, 3),
            arrays["magmoms_mub"][:, 0],
            np.asarray(light["frame_id"].to_pylist(), dtype=np.str_),
            np.asarray(light["material_id"].to_pylist(), dtype=np.str_),
        )

    def _sum_over_atoms(self, per_atom: np.ndarray) -> np.ndarray:
        return np.add.reduceat(per_atom, self.crystals.starts, dtype=np.int64) if len(self) else np.zeros(0, np.int64)


def _arrays(crystals: Crystals) -> list[np.ndarray]:
    return [getattr(crystals, f.name) for f in fields(crystals)]


def _batches(dataset: Dataset, columns: Sequence[str]) -> Iterator:
    """Record batches of the frames table: of the one in memory, else of the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if "frames" in vars(dataset) or "frames" in dataset._tables:
        table = dataset.need_frames()
        yield from table.select([c for c in columns if c in table.column_names]).to_batches(_BATCH_ROWS)
        return
    file = dataset.path / "frames.parquet"
    try:
        check_unpacked_size(file, dataset.meta["files"]["frames.parquet"]["rows"])
        # Without these two, Arrow would hold the whole compressed file while it hands out batches.
        lean = {"pre_buffer": False, "buffer_size": 2**20}
        with pq.ParquetFile(file, page_checksum_verification=True, **lean) as parquet:
            there = [c for c in columns if c in parquet.schema_arrow.names]
            yield from parquet.iter_batches(_BATCH_ROWS, columns=there, use_threads=False)
    except UnpacksTooLarge as error:
        raise DatasetError(f"{file}: {error}: corrupt; fetch or import the dataset again.") from error
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{file}: not readable as parquet ({error}); fetch or import the dataset again.") from error


def has_frames(dataset: Dataset, functional: str) -> bool:
    """Whether a dataset has a frame in a functional: "high" or "low", or a key or name; the frames stay on disk.

    Raises
    ------
    DatasetError
        The dataset has no such functional, or its table of frames is damaged.
    """
    key = dataset.functional(functional).key
    if not _lists_frames(dataset):
        return False
    return any(key in batch["functional"].to_pylist() for batch in _batches(dataset, ["functional"]))


def _lists_frames(dataset: Dataset) -> bool:
    if "frames" in dataset._tables:
        return dataset._tables["frames"] is not None
    return "frames.parquet" in dataset.meta.get("files", {})


def _read_light(dataset: Dataset):
    """Ids, kinds, elements and energies of all frames, as one small table."""
    import pyarrow as pa

    if not _lists_frames(dataset):
        raise DatasetError(
            f"{dataset.name}: has no frames (structures with labels), so there is nothing to train on or to compare "
            "with. Import frames with `crossfunc data import`, or use a dataset that has them."
        )
    table = pa.Table.from_batches(_batches(dataset, _LIGHT_COLUMNS))
    if "energy_per_atom_ev" not in table.column_names:
        table = table.append_column("energy_per_atom_ev", pa.nulls(table.num_rows, pa.float64()))
    return table


def _wanted_rows(dataset: Dataset, light, functional: str, rows) -> np.ndarray:
    """Mask over the frames table: the rows asked for, of the functional asked for."""
    functionals = light["functional"].to_numpy(zero_copy_only=False)
    wanted = functionals == functional
    if not wanted.any():
        there = ", ".join(f"{name} ({n})" for name, n in zip(*np.unique(functionals, return_counts=True), strict=True))
        raise DatasetError(f"{dataset.name}: no frames of functional {functional!r}; it has {there}. Choose one.")
    if rows is not None:
        asked = np.zeros(len(wanted), dtype=bool)
        asked[np.asarray(rows)] = True
        wanted &= asked
        if not wanted.any():
            raise DatasetError(f"{dataset.name}: none of the {asked.sum()} rows given is a {functional!r} frame.")
    return wanted


def _check_energies(dataset: Dataset, light, functional: str, energies: np.ndarray) -> None:
    kinds, first = np.unique(light["energy_kind"].to_numpy(zero_copy_only=False), return_index=True)
    if len(kinds) > 1:
        named = " and ".join(
            f"{kind} (frame {light['frame_id'][int(i)]})" for kind, i in zip(kinds, first, strict=True)
        )
        raise DatasetError(
            f"{dataset.name}: its {functional} frames mix energies of kind {named}, which differ by up to eV/atom. "
            "Bring them to one kind with crossfunc.energies.apply_mp2020 or remove_mp2020, or pass rows=... of one."
        )
    if np.isnan(energies).all():
        raise DatasetError(
            f"{dataset.name}: none of its {len(energies)} {functional} frames has an energy; fine-tuning and element "
            "references need energy_per_atom_ev. Label the frames first."
        )


def _read_heavy(dataset: Dataset, wanted: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Cells, coordinates and labels of the wanted rows, each as an array of (n_frames or n_atoms, values)."""
    n_rows = {"frame": len(counts), "atom": int(counts.sum())}
    geometry = ("lattice_a", "frac_coords")
    arrays = {
        name: np.full((n_rows[per], width), np.nan, dtype=np.float64 if name in geometry else np.float32)
        for name, (width, per) in _HEAVY_COLUMNS.items()
    }
    row = frame = atom = 0
    for batch in _batches(dataset, tuple(_HEAVY_COLUMNS)):
        here = wanted[row : row + batch.num_rows]
        row += batch.num_rows
        n_frames = int(here.sum())
        sizes = counts[frame : frame + n_frames]
        n_atoms = int(sizes.sum())
        if n_frames:
            chosen = batch.filter(here)
            for name in chosen.schema.names:
                width, per = _HEAVY_COLUMNS[name]
                first, lengths = (frame, np.ones_like(sizes)) if per == "frame" else (atom, sizes)
                part = arrays[name][first : first + int(lengths.sum())]
                _fill(part, chosen[name], lengths, width)
        frame, atom = frame + n_frames, atom + n_atoms
    return arrays


def _fill(target: np.ndarray, column, lengths: np.ndarray, width: int) -> None:
    """Copy an Arrow list column into rows of `target`; rows of null lists keep their NaN."""
    import pyarrow.compute as pc

    values = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    if column.null_count == 0:
        target[:] = values
        return
    there = np.flatnonzero(pc.is_valid(column).to_numpy(zero_copy_only=False))
    target[concatenate_ranges((np.cumsum(lengths) - lengths)[there], lengths[there])] = values
