"""Bring a dataset folder of an older crossfunc up to date: its columns were named after GGA, MP2020 and r2SCAN."""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crossfunc.datasets.functionals import (
    Functional,
    describe_functionals,
    functional_key,
    mark_columns,
    parse_functionals,
)
from crossfunc.datasets.schema import PAIRS, TABLES, DatasetError
from crossfunc.datasets.store import (
    META_FILE,
    Dataset,
    _check_files,
    _read_parquet,
    _refuse_special,
    _replace_folder,
    _sha256,
    _verify_checksum,
    open_dataset,
)

_OLD_LOW, _OLD_HIGH = "gga", "r2scan"
_CORRECTED, _RAW = "gga_mp2020_energy_per_atom_ev", "gga_energy_per_atom_ev"
_RENAMED = {
    _CORRECTED: "low_energy_per_atom_ev",
    "r2scan_energy_per_atom_ev": "high_energy_per_atom_ev",
    "gga_mp2020_formation_energy_per_atom_ev": "low_formation_energy_per_atom_ev",
    "r2scan_formation_energy_per_atom_ev": "high_formation_energy_per_atom_ev",
    _RAW: "low_uncorrected_energy_per_atom_ev",
    "gga_formation_energy_per_atom_ev": "low_uncorrected_formation_energy_per_atom_ev",
}
_UNCORRECTED = [name for name in _RENAMED.values() if name.startswith("low_uncorrected")]


@dataclass(frozen=True)
class Migrated:
    """The dataset as it is now, and whether anything had to be changed."""

    dataset: Dataset
    changed: bool


def migrate_dataset(path: str | os.PathLike) -> Migrated:
    """Rewrite a dataset folder in today's columns: every number stays; all of it, or nothing.

    The kind of the low functional's energies was not written down. Imports of raw energies put the same numbers into
    the raw and the corrected column and marked their frames raw; anything else holds under its name.

    Parameters
    ----------
    path : str or path
        A folder with `dataset.json`. One that is up to date is left alone.

    Returns
    -------
    Migrated

    Raises
    ------
    DatasetError
        No dataset, files that are not the ones that were written, energies of two kinds in one functional, or two
        functionals of one name; the folder is then as it was.
    """
    path = Path(path)
    meta = _read_old_meta(path)
    if meta is None:
        return Migrated(open_dataset(path), changed=False)
    tables = {Path(name).stem: _read(path, name, meta) for name in meta["files"]}
    low, high = _functionals(path, meta, tables)
    renamed = {_OLD_LOW: low.key, _OLD_HIGH: high.key}
    changed = {}
    for kind, table in tables.items():
        if kind == "pairs":
            changed[kind] = _new_pairs(table, (low, high))
        elif kind in TABLES and any(old != new for old, new in renamed.items()):
            changed[kind] = _rename_functionals(table, renamed)
    meta = {key: value for key, value in meta.items() if key != "corrections"}
    described = describe_functionals(
        low.name, high.name, energy_kinds=(low.energy_kind, high.energy_kind), keys=(low.key, high.key)
    )
    _write(path, meta | {"functionals": described}, changed)
    return Migrated(open_dataset(path), changed=True)


def _read_old_meta(path: Path) -> dict | None:
    """The description of an old folder; None for one that is up to date."""
    file = path / META_FILE
    _refuse_special(file)
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{file}: not readable as JSON ({error}); give the folder of a dataset.") from error
    functionals = meta.get("functionals") if isinstance(meta, dict) else None
    if not isinstance(functionals, dict) or set(functionals) != {_OLD_LOW, _OLD_HIGH}:
        return None
    if not all(isinstance(name, str) and name for name in functionals.values()):
        return None
    _check_files(meta, file)
    return meta


def _read(path: Path, name: str, meta: dict) -> pa.Table:
    _verify_checksum(path, name, meta)
    return _read_parquet(path / name, meta["files"][name]["rows"])


def _functionals(path: Path, meta: dict, tables: dict[str, pa.Table]) -> tuple[Functional, Functional]:
    names = meta["functionals"][_OLD_LOW], meta["functionals"][_OLD_HIGH]
    keys = functional_key(names[0]), functional_key(names[1])
    if keys[0] == keys[1]:
        raise DatasetError(
            f"{path / META_FILE}: both functionals are called {names[0]}; give them different names there, then "
            "migrate again."
        )
    kinds = _low_kind(path, meta, tables), _stated_kind(path, tables, _OLD_HIGH) or "raw"
    return parse_functionals(describe_functionals(*names, energy_kinds=kinds, keys=keys), str(path / META_FILE))


def _low_kind(path: Path, meta: dict, tables: dict[str, pa.Table]) -> str:
    """Kind of the energies that stood under `gga_mp2020_...`, whatever its name says."""
    stated = _stated_kind(path, tables, _OLD_LOW) or "mp2020"
    if "pairs" not in tables:
        return stated
    noted = str(meta.get("corrections", "")).startswith("none")
    return "raw" if (noted or stated == "raw") and _same_twice(tables["pairs"]) else "mp2020"


def _same_twice(pairs: pa.Table) -> bool:
    """Whether the raw column repeats the other one."""
    if _RAW not in pairs.column_names or pairs[_RAW].null_count:
        return False
    return bool(pc.all(pc.equal(pairs[_RAW], pairs[_CORRECTED])).as_py())


def _stated_kind(path: Path, tables: dict[str, pa.Table], functional: str) -> str | None:
    """The energy kind that the rows of a functional state, in the frames or else in the elements."""
    for kind in ("frames", "elements"):
        if kind not in tables:
            continue
        table = tables[kind]
        found = pc.unique(table.filter(pc.equal(table["functional"], functional))["energy_kind"]).to_pylist()
        if len(found) > 1:
            raise DatasetError(
                f"{path / kind}.parquet: energies of {functional} are of several kinds ({', '.join(sorted(found))}), "
                "so nobody can say which of them the pairs hold; import the data again."
            )
        if found:
            return found[0]
    return None


def _new_pairs(table: pa.Table, functionals: tuple[Functional, Functional]) -> pa.Table:
    table = table.rename_columns([_RENAMED.get(name, name) for name in table.column_names])
    if functionals[0].energy_kind == "raw":
        table = table.select([name for name in table.column_names if name not in _UNCORRECTED])
    first = [column.name for column in PAIRS]
    for column in PAIRS:
        if column.name not in table.column_names:
            table = table.append_column(column.field, pa.nulls(table.num_rows, column.dtype))
    return mark_columns(table.select([*first, *(n for n in table.column_names if n not in first)]), functionals)


def _rename_functionals(table: pa.Table, renamed: dict[str, str]) -> pa.Table:
    names = table["functional"].cast(pa.string())
    for old, new in renamed.items():
        names = pc.if_else(pc.equal(table["functional"], old), new, names)
    place = table.column_names.index("functional")
    return table.set_column(place, table.schema.field(place).with_type(pa.string()), names)


def _write(path: Path, meta: dict, changed: dict[str, pa.Table]) -> None:
    """Write beside the folder what changed, copy the rest, and change places in one step."""
    path = path.resolve()
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        files = {}
        for name, entry in meta["files"].items():
            file = scratch / name
            if file.stem in changed:
                table = changed[file.stem].replace_schema_metadata(None).combine_chunks()
                pq.write_table(table, file, compression="zstd", compression_level=19, write_page_checksum=True)
            else:
                shutil.copyfile(path / name, file)
            files[name] = {**entry, "sha256": _sha256(file)}
        others = [other for other in path.iterdir() if other.name != META_FILE and other.name not in files]
        for other in others:  # a README or a licence that somebody laid beside the tables
            (shutil.copytree if other.is_dir() else shutil.copy2)(other, scratch / other.name)
        text = json.dumps({**meta, "files": files}, indent=2, ensure_ascii=False) + "\n"
        (scratch / META_FILE).write_text(text, encoding="utf-8")
        scratch.chmod(0o755)
        open_dataset(scratch)
        _replace_folder(scratch, path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
