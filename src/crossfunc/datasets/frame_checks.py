"""What frames say of themselves, without a model: structures that repeat, impossible ones, elements seldom seen."""

from collections import defaultdict

import numpy as np
import pyarrow as pa

from crossfunc.datasets.importers.frame_rows import impossible_rows, structure_digest
from crossfunc.datasets.report import Finding
from crossfunc.symbols import ELEMENT_SYMBOLS

SAME_ENERGY_EV_PER_ATOM = 1e-3
FEW_MATERIALS = 5
_ROWS_SHOWN = 20
_BATCH_ROWS = 4096


def find_frame_faults(frames: pa.Table) -> list[Finding]:
    """Look for duplicates, impossible numbers and geometries, and elements in few materials.

    Parameters
    ----------
    frames : pyarrow.Table
        A frames table that the schema has accepted.

    Returns
    -------
    list of Finding
        Each with the ids of (some of) its rows.
    """
    return [*_check_duplicates(frames), *_check_geometry(frames), *_check_elements(frames)]


def _check_duplicates(frames: pa.Table) -> list[Finding]:
    groups: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(structure_digests(frames)):
        groups[digest].append(row)
    repeated = [rows for rows in groups.values() if len(rows) > 1]
    if not repeated:
        return []
    ids, energies = frames["frame_id"], frames["energy_per_atom_ev"].to_numpy()
    materials = frames["material_id"]
    findings = []
    contradict = [rows for rows in repeated if np.ptp(energies[rows]) > SAME_ENERGY_EV_PER_ATOM]
    leaking = [rows for rows in repeated if len({materials[r].as_py() for r in rows}) > 1]
    for some, text in (
        (contradict, "structures occur more than once with energies that differ by more than 1 meV/atom"),
        (leaking, "structures occur in two materials: a split by material can put one in training and in test"),
    ):
        if some:
            shown = tuple(ids[r].as_py() for rows in some for r in rows)[:_ROWS_SHOWN]
            findings.append(Finding("warning", "frames.parquet", f"{len(some)} {text}", shown))
    n_extra = sum(len(rows) - 1 for rows in repeated)
    shown = tuple(ids[rows[1]].as_py() for rows in repeated[:_ROWS_SHOWN])
    findings.append(Finding("info", "frames.parquet", f"{n_extra} frames repeat the structure of another", shown))
    return findings


def structure_digests(frames: pa.Table) -> list[str]:
    """Return a digest of functional, atoms, lattice and places (to 1e-4) of each frame, in their order."""
    digests = []
    for batch in frames.to_batches(max_chunksize=_BATCH_ROWS):
        numbers, coords = batch["atomic_numbers"], batch["frac_coords"]
        lattices = batch["lattice_a"].flatten().to_numpy(zero_copy_only=False).reshape(-1, 9)
        ends = np.cumsum(np.asarray(coords.value_lengths()))[:-1]
        kinds = np.split(numbers.flatten().to_numpy(zero_copy_only=False), ends // 3)
        places = np.split(coords.flatten().to_numpy(zero_copy_only=False), ends)
        parts = zip(batch["functional"].to_pylist(), kinds, lattices, places, strict=True)
        digests += [structure_digest(*part) for part in parts]
    return digests


def _check_geometry(frames: pa.Table) -> list[Finding]:
    hits: dict[str, list[str]] = defaultdict(list)
    for start in range(0, frames.num_rows, _BATCH_ROWS):
        some = frames.slice(start, _BATCH_ROWS).combine_chunks()
        for bad, reason in impossible_rows(some):
            hits[reason] += [some["frame_id"][int(k)].as_py() for k in np.flatnonzero(bad)]
    return [
        Finding("error", "frames.parquet", f"{len(ids)} frames: {reason}", tuple(ids[:_ROWS_SHOWN]))
        for reason, ids in hits.items()
        if ids
    ]


def _check_elements(frames: pa.Table) -> list[Finding]:
    """Say how many frames and materials each element has, and which have few."""
    numbers = frames["atomic_numbers"].combine_chunks()
    lengths = np.asarray(numbers.value_lengths())
    material = frames["material_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    pairs = np.stack([numbers.flatten().to_numpy(zero_copy_only=False), np.repeat(material, lengths)])
    z, counts = np.unique(np.unique(pairs, axis=1)[0], return_counts=True)
    few = [f"{ELEMENT_SYMBOLS[k - 1]} ({n})" for k, n in zip(z, counts, strict=True) if n < FEW_MATERIALS]
    if not few:
        return []
    text = f"elements in fewer than {FEW_MATERIALS} materials (how many): {', '.join(few)}; little is learnt of them"
    return [Finding("warning", "frames.parquet", text)]
