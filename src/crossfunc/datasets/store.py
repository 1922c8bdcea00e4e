"""A dataset is a folder of parquet tables with a dataset.json; here it is found, opened, verified and written."""

import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from crossfunc.datasets.functionals import (
    Functional,
    check_columns,
    find_functional,
    label_of,
    mark_columns,
    parse_functionals,
)
from crossfunc.datasets.importers import mp_thermo_csv
from crossfunc.datasets.parquet_sizes import UnpacksTooLarge, check_unpacked_size
from crossfunc.datasets.schema import REJECTED_COLUMNS, TABLES, DatasetError, validate_table
from crossfunc.files import DRAFT_SUFFIX, LOCK_FILE
from crossfunc.plain_text import visible

META_FILE = "dataset.json"
REJECTED_FILE = "rejected.parquet"
RECORDS_FILE = "records.parquet"
"""What a generator computed, as it came: labels are made from it, and a run goes on from it. No reader needs it."""
META_KEYS = {
    "name": "what the dataset is called",
    "version": "a new one for every change",
    "licence": "under which terms the data may be used",
    "citation": "whom to cite",
    "provenance": "how the data came to be",
    "functionals": "the low and the high functional with name, key and energy_kind, as crossfunc.datasets.schema says",
    "label_notice": "the sentence that says what the labels are, on every figure",
}
_LONGEST_NAME = 240  # of 255 bytes: the hidden folder in which a dataset is made has a longer one
_OURS = {META_FILE, LOCK_FILE, REJECTED_FILE, RECORDS_FILE, *(f"{kind}.parquet" for kind in TABLES)}
PACKAGED = Path(__file__).parent / "packaged"


@dataclass(frozen=True)
class Dataset:
    """Frames, pairs and elements of one dataset, read from disk on first use.

    Attributes
    ----------
    name : str
    meta : dict
        The content of `dataset.json`.
    path : Path
        The folder (or the CSV file) it was opened from.
    """

    name: str
    meta: dict
    path: Path
    _tables: Mapping[str, pa.Table] = field(default_factory=dict, repr=False)

    @property
    def label_notice(self) -> str:
        """The sentence that every page, caption and table with these labels carries."""
        return visible(self.meta["label_notice"])

    @property
    def labelled_by(self) -> str:
        """What made the labels: "DFT, GPAW", "DFT, VASP" or "model, CHGNet"; empty where the dataset does not say."""
        return visible(str(self.meta.get("labelled_by", "")))

    @property
    def is_surrogate(self) -> bool:
        """Whether a network predicted the labels."""
        return self.labelled_by.startswith("model")

    @property
    def functionals(self) -> tuple[Functional, Functional]:
        """The low functional and the high one: `low, high = dataset.functionals`."""
        return parse_functionals(self.meta["functionals"], str(self.path / META_FILE))

    def functional(self, which: str) -> Functional:
        """Return one of the two functionals, with its `name`, `key`, `energy_kind` and `column()` of energies.

        Parameters
        ----------
        which : str
            "low" or "high"; or its key ("r2scan") or its name ("r²SCAN").

        Raises
        ------
        DatasetError
            Names the two that there are.
        """
        return find_functional(self.functionals, which, self.name)

    def label(self, column: str) -> str:
        """Return the axis text of a column of energies: "GGA/GGA+U energy, MP2020 corrected (eV/atom)"."""
        return label_of(column, self.functionals)

    @cached_property
    def frames(self) -> pa.Table | None:
        """One row per labelled structure (Arrow, because atoms make it ragged); None where the dataset has none."""
        return self._table("frames")

    @cached_property
    def pairs(self) -> pd.DataFrame | None:
        """One row per material with its energies in both functionals, each in its own relaxed structure."""
        return _to_pandas(self._table("pairs"))

    @cached_property
    def elements(self) -> pd.DataFrame | None:
        """Ground-state energies of the elements per functional, the zero of formation energies."""
        return _to_pandas(self._table("elements"))

    @cached_property
    def rejected(self) -> pd.DataFrame:
        """The ledger: table, row, id and reason of every row that was left out."""
        ledger = _to_pandas(self._table("rejected"))
        return pd.DataFrame(columns=REJECTED_COLUMNS) if ledger is None else ledger

    @cached_property
    def records(self) -> pa.Table | None:
        """What the labels were made from, as it was computed; None where the dataset does not keep it."""
        return self._table("records")

    def need_frames(self) -> pa.Table:
        """Return the frames.

        Raises
        ------
        DatasetError
            The dataset has none.
        """
        if self.frames is None:
            raise DatasetError(f"{self.name}: no table of frames, and labelled structures are needed here.")
        return self.frames

    def need_pairs(self) -> pd.DataFrame:
        """Return the pairs.

        Raises
        ------
        DatasetError
            The dataset has none.
        """
        if self.pairs is None:
            raise DatasetError(f"{self.name}: no table of pairs, and materials in both functionals are needed here.")
        return self.pairs

    def _table(self, kind: str) -> pa.Table | None:
        if kind in self._tables:
            return self._tables[kind]
        listed = self.meta.get("files", {}).get(f"{kind}.parquet")
        return _read_parquet(self.path / f"{kind}.parquet", listed["rows"]) if listed else None


def open_dataset(name_or_path: str | os.PathLike, *, verify: bool = True) -> Dataset:
    """Open a dataset by name ("surrogate") or by folder, and check that its files are the ones that were written.

    Parameters
    ----------
    name_or_path : str or path
        A folder with `dataset.json`, or a name. Names are looked up in the folders of `CROSSFUNC_DATA`
        (separated as in PATH) first, then among the datasets that ship with the package.
    verify : bool
        Compare each file's checksum and schema with what `dataset.json` records.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        Nothing of that name, no licence, a missing, truncated or edited file, a table that breaks the schema.
    """
    path = find_dataset(name_or_path)
    if path.is_file():
        return _open_thermo_csv(path)
    meta = _read_meta(path)
    dataset = Dataset(visible(meta["name"]), meta, path)
    if verify:
        for kind in _listed_tables(meta):
            _verify_checksum(path, f"{kind}.parquet", meta)
            if kind in TABLES:
                table, file = dataset._table(kind), str(path / f"{kind}.parquet")
                validate_table(table, kind, file=file, functionals=_keys(dataset.functionals))
                check_columns(table, dataset.functionals, file)
    return dataset


def find_dataset(name_or_path: str | os.PathLike) -> Path:
    """Return the folder (or the pairs CSV) that a dataset name or path stands for.

    Raises
    ------
    DatasetError
        Lists where it looked and what is there.
    """
    given = Path(name_or_path)
    if (given / META_FILE).exists() or (given.name == mp_thermo_csv.FILE_NAME and given.exists()):
        return given
    # A path that is mistyped must not end at a dataset that happens to have its last part for a name.
    found = list_datasets().get(str(name_or_path))
    if found is not None:
        return found
    if given.is_dir():
        raise DatasetError(f"{given}: the folder holds no {META_FILE}; import the data with `crossfunc data import`.")
    looked = ", ".join(str(f) for f in _search_folders())
    raise DatasetError(
        f"no dataset {str(name_or_path)!r}: neither a folder with {META_FILE} nor one of the known names "
        f"({', '.join(list_datasets()) or 'none'}). Looked in {looked}; add a folder to CROSSFUNC_DATA or give a path."
    )


def list_datasets() -> dict[str, Path]:
    """Return the datasets that open by name here, name to folder or file, `CROSSFUNC_DATA` before the package."""
    found: dict[str, Path] = {}
    for folder in _search_folders():
        for meta in sorted(folder.glob(f"*/{META_FILE}")):
            found.setdefault(meta.parent.name, meta.parent)
        if (folder / mp_thermo_csv.FILE_NAME).exists():
            found.setdefault(mp_thermo_csv.DATASET_NAME, folder / mp_thermo_csv.FILE_NAME)
    return found


def dataset_fingerprint(name_or_path: str | os.PathLike) -> str:
    """Return a sha256 that changes whenever the data of a dataset change."""
    path = find_dataset(name_or_path)
    files = mp_thermo_csv.source_files(path) if path.is_file() else [path / META_FILE]
    return hashlib.sha256("".join(_sha256(f) for f in files).encode()).hexdigest()


def write_dataset(
    path: str | os.PathLike,
    *,
    meta: dict,
    frames: pa.Table | None = None,
    pairs: pd.DataFrame | pa.Table | None = None,
    elements: pd.DataFrame | pa.Table | None = None,
    rejected: pd.DataFrame | None = None,
    records: pa.Table | None = None,
    strict: bool = True,
    overwrite: bool = False,
) -> Dataset:
    """Write a dataset folder: all of it, or nothing.

    Parameters
    ----------
    path : str or path
        The folder to make; its name becomes the dataset's name to `open_dataset`.
    meta : dict
        `name, version, licence, citation, provenance, functionals, label_notice`, and what else belongs there.
    frames, pairs, elements : tables
        Those the dataset has, in the columns of `crossfunc.datasets.schema`.
    rejected : pandas.DataFrame, optional
        Rows an importer left out before (`table, row, id, reason`).
    records : pyarrow.Table, optional
        What the labels were made from, kept as it is (`Dataset.records`).
    strict : bool
        False: rows that break the schema go to `rejected.parquet` instead of raising.
    overwrite : bool
        Replace an existing dataset; otherwise an existing folder is an error.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        With file, row and remedy; the target is then as it was before.
    """
    path = target_folder(path)
    check_target(path, overwrite)
    _check_meta(meta, str(path / META_FILE))
    if rejected is not None and not set(REJECTED_COLUMNS) <= set(rejected):
        raise DatasetError(f"{path / REJECTED_FILE}: the rejected rows need columns {', '.join(REJECTED_COLUMNS)}.")
    functionals = parse_functionals(meta["functionals"], str(path / META_FILE))
    tables, ledgers = {}, [] if rejected is None else [rejected]
    for kind, given in (("frames", frames), ("pairs", pairs), ("elements", elements)):
        if given is not None:
            file = f"{path.name}/{kind}.parquet"
            given = _to_arrow(given, file)
            check_columns(given, functionals, file)
            good, bad = validate_table(given, kind, file=file, strict=strict, functionals=_keys(functionals))
            tables[kind] = mark_columns(good, functionals) if kind == "pairs" else good
            ledgers.append(bad)
    if not tables:
        raise DatasetError(f"{path}: a dataset needs at least one table (frames, pairs or elements).")
    ledger = pd.concat(ledgers, ignore_index=True)
    if len(ledger):
        tables["rejected"] = pa.Table.from_pandas(ledger.astype({"id": str, "reason": str}), preserve_index=False)
    if records is not None:
        tables["records"] = records
    _write_folder(path, meta, tables)
    return open_dataset(path)


def target_folder(path: str | os.PathLike) -> Path:
    """Return the folder to write: a link is followed, so that what it leads to is replaced and never left behind.

    Raises
    ------
    DatasetError
        The links lead in a circle, or the name is too long for a file system.
    """
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise DatasetError(
            f"{path}: no dataset can be written there (its links lead in a circle); choose another name."
        )
    if len(os.fsencode(real.name)) > _LONGEST_NAME:
        raise DatasetError(f"{path}: no dataset can be written there (the name is too long); choose another name.")
    # Without links, messages name the folder as it was given.
    return Path(path) if str(real) == os.path.abspath(path) else real  # noqa: PTH100


def check_target(path: Path, overwrite: bool) -> None:
    """Raise DatasetError unless a dataset may be written here: nothing there, or a dataset that may be replaced."""
    if not path.exists():
        return
    if not path.is_dir() or (not (path / META_FILE).exists() and any(path.iterdir())):
        raise DatasetError(
            f"{path} exists and is no dataset ({META_FILE} is missing): not replaced; choose another name."
        )
    if not overwrite:
        raise DatasetError(f"{path} exists; choose another folder, or replace it (--overwrite, overwrite=True).")
    others = sorted(one.name for one in path.iterdir() if one.name not in _OURS and one.suffix != DRAFT_SUFFIX)
    if others:  # a replaced folder is deleted with all it holds
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise DatasetError(
            f"{path}: not replaced: it holds {others[0]}{more}, which is no table of its; move it elsewhere first."
        )


def _write_folder(path: Path, meta: dict, tables: dict[str, pa.Table]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name[:50]}-", dir=path.parent))
    try:
        files = {}
        for kind, table in tables.items():
            file = scratch / f"{kind}.parquet"
            # No pandas metadata: it holds library versions and would change the checksum of equal data.
            # One chunk: how the rows arrived must not show in the file either.
            table = table.replace_schema_metadata(None).combine_chunks()
            pq.write_table(table, file, compression="zstd", compression_level=19, write_page_checksum=True)
            files[file.name] = {"sha256": _sha256(file), "rows": table.num_rows}
        text = json.dumps({**meta, "files": files}, indent=2, ensure_ascii=False) + "\n"
        (scratch / META_FILE).write_text(text, encoding="utf-8")
        scratch.chmod(0o755)
        _replace_folder(scratch, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _replace_folder(new: Path, path: Path) -> None:
    """Put a finished folder in its place; a former dataset there is replaced in one step where the system has one."""
    if not path.exists():
        new.rename(path)
        return
    if _exchange(new, path):
        shutil.rmtree(new, ignore_errors=True)  # now the former one
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name[:50]}-old-", dir=path.parent))
    try:
        path.rename(old / "previous")
        new.rename(path)
    except BaseException:
        if (old / "previous").exists() and not path.exists():
            (old / "previous").rename(path)
        old.rmdir()  # only ever empty here: a dataset that could not be put back is not deleted
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders exchange their names at once; False where the system cannot (Linux can, mostly)."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _search_folders() -> list[Path]:
    given = os.environ.get("CROSSFUNC_DATA", "").split(os.pathsep)
    return [Path(folder).expanduser() for folder in given if folder] + [PACKAGED]


def _refuse_special(file: Path) -> None:
    """A pipe or a device has no end: reading it would wait, or fill the memory."""
    if file.exists() and not file.is_file():
        raise DatasetError(f"{file}: no file but a folder, pipe or device; fetch or import the dataset again.")


def _read_meta(path: Path) -> dict:
    file = path / META_FILE
    _refuse_special(file)
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{file}: not readable as JSON ({error}); import or fetch the dataset again.") from error
    if not isinstance(meta, dict):
        raise DatasetError(f"{file}: expected an object with {', '.join(META_KEYS)}; import the dataset again.")
    _check_meta(meta, str(file))
    _check_files(meta, file)
    return meta


def _check_files(meta: dict, file: Path) -> None:
    known = {f"{kind}.parquet" for kind in TABLES} | {REJECTED_FILE, RECORDS_FILE}
    files = meta.get("files")
    if not isinstance(files, dict) or not files or not set(files) <= known:
        raise DatasetError(
            f"{file}: `files` must list which of {', '.join(sorted(known))} there are; "
            "write datasets with crossfunc.datasets.write_dataset, or import this one again."
        )
    for name, entry in files.items():
        if not isinstance(entry, dict) or not entry.get("sha256") or not isinstance(entry.get("rows"), int):
            raise DatasetError(f"{file}: {name} has no sha256 and rows; fetch or import the dataset again.")


def _check_meta(meta: dict, file: str) -> None:
    missing = [key for key in META_KEYS if not meta.get(key)]
    if missing:
        wanted = "; ".join(f"{key}: {META_KEYS[key]}" for key in missing)
        raise DatasetError(f"{file}: {', '.join(missing)} missing. Add it ({wanted}).")
    no_text = [key for key in META_KEYS if key != "functionals" and not isinstance(meta[key], str)]
    if no_text:
        raise DatasetError(f"{file}: {', '.join(no_text)} must be text; write it between quotes.")
    parse_functionals(meta["functionals"], file)


def _keys(functionals: tuple[Functional, Functional]) -> tuple[str, str]:
    return functionals[0].key, functionals[1].key


def _listed_tables(meta: dict) -> list[str]:
    return [Path(name).stem for name in meta["files"]]


def _verify_checksum(path: Path, name: str, meta: dict) -> None:
    file = path / name
    if not file.exists():
        raise DatasetError(f"{file}: listed in {META_FILE} but missing; fetch or import the dataset again.")
    _refuse_special(file)
    if _sha256(file) != meta["files"][name]["sha256"]:
        raise DatasetError(
            f"{file}: the checksum differs from {META_FILE}: the file was truncated or edited. "
            "Fetch or import it again; write changes with crossfunc.datasets.write_dataset."
        )


def _read_parquet(file: Path, n_rows: int) -> pa.Table:
    """Read a table, but only if it unpacks to what its size and the recorded number of rows can justify."""
    _refuse_special(file)
    try:
        check_unpacked_size(file, n_rows)
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            return parquet.read()
    except UnpacksTooLarge as error:
        raise DatasetError(f"{file}: {error}: corrupt; fetch or import the dataset again.") from error
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file}: not readable as parquet ({error}); fetch or import the dataset again.") from error


def _to_arrow(table: pd.DataFrame | pa.Table, file: str) -> pa.Table:
    if isinstance(table, pa.Table):
        return table
    try:
        return pa.Table.from_pandas(table, preserve_index=False)
    except pa.ArrowException as error:
        detail = ", ".join(str(arg) for arg in error.args)
        raise DatasetError(f"{file}: {detail}; give every value of a column the same type.") from error


def _to_pandas(table: pa.Table | None) -> pd.DataFrame | None:
    return None if table is None else table.to_pandas()


def _open_thermo_csv(path: Path) -> Dataset:
    meta, tables = mp_thermo_csv.read_pairs(path)
    tables["rejected"] = pa.Table.from_pandas(tables["rejected"], preserve_index=False)
    return Dataset(meta["name"], meta, path, tables)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
