"""The surrogate's crystals labelled by another network: a teacher that does not descend from CHGNet.

The structures of the embedded dataset stay as they are; energies, forces and stress come from a network that predicts
both functionals and has nothing in common with CHGNet but its training data's origin.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from crossfunc.datasets import Dataset, open_dataset
from crossfunc.datasets.functionals import describe_functionals
from crossfunc.datasets.schema import FRAMES, REJECTED_COLUMNS
from crossfunc.datasets.store import check_target, dataset_fingerprint, target_folder, write_dataset
from crossfunc.errors import InputError
from crossfunc.files import locked_folder, remove_drafts, write_atomically
from crossfunc.surrogate.formation import with_formation_energies
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS

SPREAD = "teacher_spread_ev_per_atom"
"""Column of the pairs: how far two teachers' formation energies in the high functional lie apart, eV/atom."""

__all__ = ["TEACHERS", "Teacher", "find_teacher", "label_again", "label_chunks"]

SOURCE = "surrogate"
CHUNK = 200
ROUNDED_TO = {"energy_per_atom_ev": 5, "forces_ev_per_a": 3, "stress_gpa": 3}
"""Digits after the point that are stored: a tenth of what the teacher's float32 and its own error are worth."""


@dataclass(frozen=True)
class Teacher:
    """A network that labels crystals in both functionals, or in the high one alone, through ASE.

    Attributes
    ----------
    name : str
        In prose.
    package : str
        That must be installed.
    calculator : str
        Import path of its ASE calculator.
    low, high : dict
        Arguments of the calculator for the low and the high functional; `low` is None for a network of the high one
        alone, which adds an opinion to a dataset but makes none.
    licence, citation : str
    """

    name: str
    package: str
    calculator: str
    low: dict | None
    high: dict
    licence: str
    citation: str


TEACHERS = {
    "sevennet": Teacher(
        name="SevenNet-MF-0",
        package="sevenn",
        calculator="sevenn.calculator:SevenNetCalculator",
        low={"model": "7net-mf-0", "modal": "PBE", "device": "cpu"},
        high={"model": "7net-mf-0", "modal": "R2SCAN", "device": "cpu"},
        licence="MIT (crossfunc); predicted with SevenNet-MF-0 (sevenn, MIT)",
        citation="J. Kim et al., J. Am. Chem. Soc. 147, 1042 (2025), doi 10.1021/jacs.4c14455",
    ),
    "diep": Teacher(
        name="DIEP",
        package="diep",
        calculator="diep.pretrained:make_calculator",
        low=None,
        high={},
        licence="BSD-3-Clause (diep)",
        citation="diep 2.0, trained on MatPES r2SCAN; the method: S. A. Tawfik et al., Digital Discovery (2024)",
    ),
}
"""In code, because no file names what is imported. CHGNet is no entry: its labels are what the structures came with."""


def label_again(
    out: str | os.PathLike,
    labels: str = "sevennet",
    *,
    source: str | os.PathLike | Dataset = SOURCE,
    n_limit: int | None = None,
    n_jobs: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Write a dataset of the source's crystals with another teacher's labels.

    Parameters
    ----------
    out : str or path
        Folder to write. Finished chunks are kept beside it until the end, so a killed run goes on where it stopped.
    labels : str
        Which teacher, a key of `TEACHERS`.
    source : Dataset, str or path
        With frames and pairs.
    n_limit : int, optional
        Only this many compounds, beside the elemental crystals (for trying things out).
    n_jobs : int
        Worker processes, each with a calculator of its own.
    overwrite : bool
        Replace an existing dataset.
    progress : bool
        Show a bar.

    Returns
    -------
    Dataset
        Low energies carry MP2020 corrections where the source's do, taken from the source's pairs: the teacher
        predicts uncorrected ones. There are no magnetic moments.

    Raises
    ------
    InputError
        No such teacher, or its package is not installed.
    DatasetError
        The folder exists and `overwrite` is not set, or is no dataset.
    FolderInUse
        Another process makes the same dataset.
    """
    teacher = find_teacher(labels)
    if teacher.low is None:
        raise InputError(
            f"labels {labels!r}: {teacher.name} speaks the high functional alone, so it labels no dataset; it can add "
            "its opinion to one (crossfunc.surrogate.add_teacher)."
        )
    out = target_folder(out)
    check_target(out, overwrite)  # now, not after half an hour
    given = source if isinstance(source, Dataset) else open_dataset(source)
    chosen = _small(given, n_limit) if n_limit is not None else given.need_frames()
    parts = out.with_name(f".{out.name}-parts-{_run_hash(given, labels)}")
    with locked_folder(parts):
        remove_drafts(parts)
        tables = {
            side: chosen.filter(pc.equal(chosen["functional"], functional.key))
            for side, functional in zip(("low", "high"), given.functionals, strict=True)
        }
        found = label_chunks(teacher, tables, parts=parts, n_jobs=n_jobs, progress=progress)
        dataset = _write(out, labels, given, chosen, found, overwrite=overwrite)
        shutil.rmtree(parts, ignore_errors=True)
    return dataset


def find_teacher(labels: str) -> Teacher:
    """Return a teacher whose package is installed; an `InputError` says what is missing."""
    if labels not in TEACHERS:
        raise InputError(f"labels {labels!r}: choose chgnet (what the structures came with) or {', '.join(TEACHERS)}.")
    teacher = TEACHERS[labels]
    if importlib.util.find_spec(teacher.package) is None:
        raise InputError(
            f"labels {labels!r}: {teacher.name} needs the package {teacher.package}, which is not installed "
            f"(pip install {teacher.package})."
        )
    return teacher


def _run_hash(source: Dataset, labels: str) -> str:
    text = json.dumps([labels, dataset_fingerprint(source.path), CHUNK, ROUNDED_TO])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _small(source: Dataset, n: int) -> pa.Table:
    """Frames of every elemental crystal and of a spread of n compounds."""
    pairs, frames = source.need_pairs(), source.need_frames()
    is_element = pairs["composition"].isin(ELEMENT_SYMBOLS)
    compounds = pairs.loc[~is_element, "material_id"]
    kept = [*pairs.loc[is_element, "material_id"], *compounds[:: max(1, len(compounds) // n)][:n]]
    return frames.filter(pc.is_in(frames["material_id"], value_set=pa.array(kept)))


def label_chunks(
    teacher: Teacher,
    tables: Mapping[str, pa.Table],
    *,
    parts: Path | None = None,
    n_jobs: int = 1,
    progress: bool = True,
) -> dict:
    """Label the frames of each side ("low", "high"), some at a time; return labels by frame id.

    Parameters
    ----------
    teacher : Teacher
    tables : mapping of str to pyarrow.Table
        Side to its frames.
    parts : path, optional
        Folder in which finished chunks are kept and found again.
    n_jobs : int
    progress : bool

    Returns
    -------
    dict
        A text in place of labels is the reason why there are none.
    """
    from joblib import Parallel, delayed
    from tqdm import tqdm

    tasks = [
        (side, frames.slice(start, CHUNK))
        for side, frames in tables.items()
        for start in range(0, frames.num_rows, CHUNK)
    ]
    jobs = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(_run_chunk)(teacher, side, chunk, parts and parts.absolute()) for side, chunk in tasks
    )
    found: dict = {}
    for chunk in tqdm(jobs, total=len(tasks), desc=f"label with {teacher.name}", disable=not progress):
        found |= chunk
    return found


def _run_chunk(teacher: Teacher, side: str, frames: pa.Table, parts: Path | None) -> dict:
    from crossfunc.potential.parallel import one_thread

    ids = frames["frame_id"].to_pylist()
    part = parts and parts / f"{side}-{hashlib.sha256(chr(0).join(ids).encode()).hexdigest()[:16]}.json"
    if part:
        with contextlib.suppress(OSError, ValueError):  # not there, or damaged: made below
            return json.loads(part.read_text(encoding="utf-8"))
    with one_thread():  # several threads add up in any order, and one process per core is faster
        found = _label(teacher, side, frames)
    if part:
        write_atomically(part, json.dumps(found))
    return found


def _label(teacher: Teacher, side: str, frames: pa.Table) -> dict:
    from crossfunc.potential import Crystals, load_calculator

    model = _model(teacher, side, load_calculator)
    predicted = model.predict(Crystals.from_frames(frames), strict=False)
    found = {}
    for k, name in enumerate(frames["frame_id"].to_pylist()):
        if k in predicted["refused"]:
            found[name] = predicted["refused"][k].partition(": ")[2]
            continue
        found[name] = {
            "energy_per_atom_ev": _rounded(predicted["energy_per_atom_ev"][k], "energy_per_atom_ev"),
            "forces_ev_per_a": _rounded(predicted["forces_ev_per_a"][k], "forces_ev_per_a"),
            "stress_gpa": _rounded(predicted["stress_gpa"][k], "stress_gpa"),
        }
    return found


_LOADED: dict[tuple, object] = {}


def _model(teacher: Teacher, side: str, load_calculator):
    """The teacher's calculator of this process, loaded once."""
    key = (teacher.name, side)
    if key not in _LOADED:
        _LOADED[key] = load_calculator(teacher.calculator, getattr(teacher, side))
    return _LOADED[key]


def _rounded(values, name: str):
    return (np.round(np.asarray(values, dtype=np.float64), ROUNDED_TO[name]) + 0.0).ravel().tolist()


def _write(out: Path, labels: str, source: Dataset, chosen: pa.Table, found: dict, *, overwrite: bool) -> Dataset:
    low, _ = source.functionals
    teacher = TEACHERS[labels]
    correction = _corrections(source) if low.energy_kind == "mp2020" else {}
    frames, refused = _frames(chosen, found, correction, low.key)
    pairs = _pairs(source, frames)
    elements = _elements(source, pairs)
    ledger = pd.DataFrame(refused, columns=REJECTED_COLUMNS)
    return write_dataset(
        out,
        meta=_meta(labels, teacher, source),
        frames=frames,
        pairs=pairs,
        elements=elements,
        rejected=ledger,
        overwrite=overwrite,
    )


def _corrections(source: Dataset) -> dict[str, float]:
    """MP2020 correction of each material, eV/atom, as the source has it."""
    low, pairs = source.functional("low"), source.need_pairs()
    return dict(zip(pairs["material_id"], pairs[low.column()] - pairs[low.column("raw")], strict=True))


def _frames(chosen: pa.Table, found: dict, correction: dict[str, float], low: str) -> tuple[pa.Table, list]:
    """The source's frames with new labels; forces and stress for the tier with displaced crystals alone."""
    rows, refused = [], []
    for k, row in enumerate(chosen.to_pylist()):
        label = found[row["frame_id"]]
        if isinstance(label, str):
            refused.append(("frames", k, row["frame_id"], label))
            continue
        (energy,) = label["energy_per_atom_ev"]
        if row["functional"] == low:
            energy += correction.get(row["material_id"], 0.0)
        dense = row["source"].startswith("dense")
        row |= {
            "energy_per_atom_ev": round(energy, 6),
            "forces_ev_per_a": label["forces_ev_per_a"] if dense else None,
            "stress_gpa": label["stress_gpa"] if dense else None,
            "magmoms_mub": None,
        }
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=pa.schema([column.field for column in FRAMES])), refused


def _pairs(source: Dataset, frames: pa.Table) -> pd.DataFrame:
    """The source's pairs with new energies, each functional's in the crystal that the first teacher relaxed for it."""
    low, high = source.functionals
    table = frames.select(["material_id", "functional", "source", "energy_per_atom_ev"]).to_pandas()
    what = table["source"].str.partition(": ")[2]
    energies = {
        side.key: table[(table["functional"] == side.key) & (what == name)].set_index("material_id")[
            "energy_per_atom_ev"
        ]
        for side, name in ((low, "relaxed-gga"), (high, "relaxed"))
    }
    labelled = energies[low.key].index.intersection(energies[high.key].index)
    pairs = source.need_pairs()
    pairs = pairs[pairs["material_id"].isin(labelled)].reset_index(drop=True)
    formation = high.column(formation=True)
    before = pairs[formation]
    correction = pairs[low.column()] - pairs[low.column("raw")]
    first, second = (pairs["material_id"].map(energies[side.key]) for side in (low, high))
    pairs[low.column()], pairs[high.column()] = first, second
    pairs[low.column("raw")] = (first - correction).round(6)
    pairs = with_formation_energies(pairs, [low.column(), low.column("raw"), high.column()])
    return pairs.assign(**{SPREAD: (pairs[formation] - before).abs().round(6)})


def _elements(source: Dataset, pairs: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for functional in source.functionals:
        total = functional.column()
        elemental = pairs[pairs["composition"].isin(ELEMENT_SYMBOLS)]
        lowest = elemental.loc[elemental.groupby("composition")[total].idxmin()]
        table = pd.DataFrame(
            {
                "element": lowest["composition"],
                "functional": functional.key,
                "energy_kind": functional.energy_kind,
                "energy_per_atom_ev": lowest[total],
                "structure_type": lowest["prototype"],
            }
        )
        rows.append(table.sort_values("element", key=lambda symbols: symbols.map(ATOMIC_NUMBERS)))
    return pd.concat(rows, ignore_index=True)


def _meta(labels: str, teacher: Teacher, source: Dataset) -> dict:
    from importlib.metadata import version

    low, high = source.functionals
    return {
        "name": f"{source.name}-{labels}",
        "version": "1",
        "licence": teacher.licence,
        "citation": teacher.citation,
        "provenance": (
            f"the crystals of {source.name}, version {source.meta['version']}, as CHGNet relaxed them; energies, "
            f"forces and stress predicted by {teacher.name} (made by `crossfunc data make-surrogate --labels {labels}`)"
        ),
        "functionals": describe_functionals(low.name, high.name, energy_kinds=(low.energy_kind, high.energy_kind)),
        "label_notice": f"surrogate labels: predicted by {teacher.name}, not DFT",
        "labelled_by": f"model, {teacher.name}",
        "differs_from_paper": (
            f"there DFT; here {teacher.name}, which predicts both functionals with the Materials Project's references, "
            "and other materials, relaxed by another model"
        ),
        "generator": {
            "source": f"{source.name}, version {source.meta['version']}",
            "calculator": teacher.calculator,
            "low": teacher.low,
            "high": teacher.high,
            "corrections": "the low energies are the teacher's plus the MP2020 corrections of the source's pairs",
            "digits_after_the_point": ROUNDED_TO,
            "made_with": {name: version(name) for name in (teacher.package, "torch", "ase")},
        },
    }
