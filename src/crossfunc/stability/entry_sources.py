"""Where entries come from: pymatgen entries, their JSON files, tables on disk, datasets.

JSON files are read as plain JSON: nothing that a file names is imported.
"""

import codecs
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossfunc.datasets.parquet_sizes import check_unpacked_size
from crossfunc.datasets.schema import ENERGY_KINDS
from crossfunc.energies.corrections import mp2020_corrections
from crossfunc.stability.entries import NOT_STATED, EntryTable, HullError, named
from crossfunc.symbols import ATOMIC_NUMBERS

_FUNCTIONALS = {"gga": "gga", "gga+u": "gga", "pbe": "gga", "pbe+u": "gga", "gga_gga+u": "gga", "r2scan": "r2scan"}
_CLASSES = ("ComputedEntry", "ComputedStructureEntry", "PDEntry")
# An oxidation state and a spin may follow the symbol: Fe3+, Fe3+,spin=5, Fe,spin=-1.
_SPECIES = re.compile(r"([A-Z][a-z]?)(?:\d*\.?\d*[+-])?(?:,\w+=[-+.\w]+)*$")
_COLUMNS = ("id", "composition", "energy_per_atom_ev")


@dataclass(frozen=True)
class _Facts:
    """What matters of one pymatgen entry, from the object or from its JSON."""

    id: str
    formula: str
    energy_per_atom_ev: float
    functional: str
    corrections: tuple[str, ...]
    hubbards: dict


def as_entries(entries, *, among: EntryTable | None = None) -> EntryTable:
    """Entries in any of their forms as an EntryTable.

    Parameters
    ----------
    entries : EntryTable, pandas.DataFrame, Dataset, or iterable of pymatgen entries
        A table needs the columns `id, composition, energy_per_atom_ev` and may have `functional` and `energy_kind`.
        A dataset gives those of its high functional.
    among : EntryTable, optional
        As in `entries_from_pymatgen`.

    Returns
    -------
    EntryTable

    Raises
    ------
    HullError
    """
    if isinstance(entries, EntryTable):
        return entries
    if hasattr(entries, "pairs"):
        return entries_from_dataset(entries)
    if hasattr(entries, "columns"):
        return _from_table(entries, "table")
    if hasattr(entries, "composition") or isinstance(entries, (str, bytes)):
        raise HullError(f"one {type(entries).__name__} where a list of entries is needed: give [entry].")
    return entries_from_pymatgen(entries, among=among)


def entries_from_pymatgen(
    entries: Iterable,
    *,
    functional: str | None = None,
    energy_kind: str | None = None,
    among: EntryTable | None = None,
) -> EntryTable:
    """Table of pymatgen entries (ComputedEntry, ComputedStructureEntry, PDEntry), with their corrections applied.

    Parameters
    ----------
    entries : iterable of pymatgen entries
        One without an `entry_id` is called "entry 3", after its place.
    functional, energy_kind : str, optional
        What the energies are, where the entries do not say: nothing that they say is overruled. By default the
        functional follows from `parameters["run_type"]` (GGA and GGA+U: "gga") and the kind from the adjustments:
        "raw" without any, "mp2020", "mixed" (pymatgen's mixing scheme).
    among : EntryTable, optional
        The entries that these are going to be compared with.

    Returns
    -------
    EntryTable

    Raises
    ------
    HullError
        As `EntryTable.from_columns`.

    Notes
    -----
    MP2020 does not touch elements and intermetallics. Among corrected entries, one without adjustments counts as
    "mp2020" if that scheme has none for its composition, and as "raw" if it has: forgotten corrections are found.
    """
    facts = [_facts_of_object(k, entry) for k, entry in enumerate(entries)]
    return _table(facts, "entries", functional, energy_kind, among)


def read_entries(
    path: str | os.PathLike,
    *,
    functional: str | None = None,
    energy_kind: str | None = None,
    among: EntryTable | None = None,
) -> EntryTable:
    """Read entries: pymatgen's entry JSON (also gzipped), a CSV or parquet table, or a dataset by name or folder.

    Parameters
    ----------
    path : str or path
        Tables need the columns `id, composition, energy_per_atom_ev` and may have `functional` and `energy_kind`.
    functional, energy_kind : str, optional
        What the energies of a file are, where it does not say: nothing that it says is overruled. Of a dataset, which
        of its energies to take (default: those of its high functional, of the kind it says they are).
    among : EntryTable, optional
        As in `entries_from_pymatgen`.

    Returns
    -------
    EntryTable

    Raises
    ------
    HullError
        A file that is missing, damaged or of no known form; entries that no hull can be made of.
    DatasetError
        A dataset that cannot be opened.
    """
    path = Path(path)
    if path.is_file() and path.name != "mp_thermo_pairs.csv":
        if path.suffix in (".csv", ".parquet"):
            return _from_table(_read_table(path), str(path), functional, energy_kind)
        rows = _read_json(path)
        facts = [_facts_of_json(k, row, path) for k, row in enumerate(rows)]
        return _table(facts, str(path), functional, energy_kind, among)
    if path.suffix in (".json", ".gz", ".csv", ".parquet") and not path.exists():
        raise HullError(f"{path}: no such file; give entries as pymatgen JSON, CSV, parquet, or a dataset's name.")
    from crossfunc.datasets import open_dataset

    return entries_from_dataset(open_dataset(path), functional=functional or "high", energy_kind=energy_kind)


def entries_from_dataset(dataset, *, functional: str = "high", energy_kind: str | None = None) -> EntryTable:
    """Entries of one functional from a dataset's pairs, and its elements as "element Li".

    Parameters
    ----------
    dataset : Dataset
    functional : str
        "low", "high", or the functional's key or name.
    energy_kind : {"raw", "mp2020"}, optional
        Default: what the dataset says its energies are.

    Returns
    -------
    EntryTable

    Raises
    ------
    HullError
        Another functional than the dataset's two, no pairs, or energies of this kind missing for some of them.

    Notes
    -----
    MP2020 leaves elements as they are, so elements of either kind serve both.
    """
    pairs = dataset.pairs
    try:
        chosen = dataset.functional(functional)
        kind = energy_kind or chosen.energy_kind
        column = chosen.column(kind)
    except ValueError as error:
        raise HullError(f"{dataset.path}: {error}") from None
    if pairs is None:
        raise HullError(f"{dataset.name}: no table of pairs to take entries from; give entries as a file.")
    missing = pairs["material_id"][pairs[column].isna()].tolist()
    if missing:
        raise HullError(
            f"{dataset.name}: {column} is missing for {len(missing)} materials ({missing[0]} first); "
            "fill raw energies in with crossfunc.energies.add_raw_gga."
        )
    ids, formulas = pairs["material_id"].tolist(), pairs["composition"].tolist()
    energies = pairs[column].to_numpy(dtype=np.float64)
    if dataset.elements is not None:
        table = dataset.elements
        table = table[table["functional"] == chosen.key].drop_duplicates("element")
        ids += [f"element {symbol}" for symbol in table["element"]]
        formulas += table["element"].tolist()
        energies = np.concatenate([energies, table["energy_per_atom_ev"].to_numpy(dtype=np.float64)])
    return EntryTable.from_columns(
        ids, formulas, energies, functional=chosen.key, energy_kind=kind, source=dataset.name
    )


def _table(facts: list[_Facts], source: str, functional, energy_kind, among: EntryTable | None) -> EntryTable:
    """The table of all facts, with the kind of every energy."""
    ids = [fact.id for fact in facts]
    kinds = _energy_kinds(facts, among)
    if energy_kind:  # raw and corrections without a name are what adjustments look like, not what anybody said
        said = [kind if kind in _SAID_BY_ADJUSTMENTS else NOT_STATED for kind in map(_kind_of, facts)]
        kinds = _agreed("energy_kind", said, energy_kind, ids, source)
    functionals = [fact.functional for fact in facts]
    if functional and "mixed" not in kinds:  # the mixing scheme puts functionals on one scale
        functionals = _agreed("functional", functionals, functional, ids, source)
    return EntryTable.from_columns(
        ids,
        [fact.formula for fact in facts],
        [fact.energy_per_atom_ev for fact in facts],
        functional=functional if functional and "mixed" in kinds else functionals,
        energy_kind=kinds,
        source=source,
    )


_SAID_BY_ADJUSTMENTS = ("mp2020", "mixed")
_OPTION_KINDS = (*ENERGY_KINDS, "mixed")


def _agreed(name: str, stated: list[str], given: str, ids: list, source: str) -> list[str]:
    """The labels of all entries where an option says one for all: it adds to what is stated, and overrules nothing."""
    option = f"--{name.replace('_', '-')} {given}"
    if name == "energy_kind" and given not in _OPTION_KINDS:
        raise HullError(f"{source}: {option}: an energy kind is one of {', '.join(_OPTION_KINDS)}.")
    others = [k for k, one in enumerate(stated) if one != NOT_STATED and _normal(one) != _normal(given)]
    if others:
        there = ", ".join(sorted({str(stated[k]) for k in others}))
        raise HullError(
            f"{source}: {option} says otherwise than {len(others)} of {len(stated)} entries, which state {there}: "
            f"{named([ids[k] for k in others])}. Leave the option out, or leave these entries out of the file."
        )
    return [given] * len(stated)


def _normal(label: str) -> str:
    """One word for the names that a functional goes by."""
    return _FUNCTIONALS.get(str(label).lower(), str(label).lower())


def _energy_kinds(facts: list[_Facts], among: EntryTable | None) -> list[str]:
    """Kind of every energy; what needs no MP2020 correction counts as corrected among corrected ones."""
    kinds = [_kind_of(fact) for fact in facts]
    if "mp2020" not in kinds and (among is None or "mp2020" not in among.energy_kind):
        return kinds
    bare = [k for k, kind in enumerate(kinds) if kind == "raw" and facts[k].functional == "gga"]
    if bare:
        table = mp2020_corrections([facts[k].formula for k in bare], hubbard=[facts[k].hubbards for k in bare])
        for k, correction in zip(bare, table["correction_per_atom_ev"], strict=True):
            if correction == 0:
                kinds[k] = "mp2020"
    return kinds


def _kind_of(fact: _Facts) -> str:
    """Energy kind from the schemes and names of an entry's adjustments."""
    if not fact.corrections:
        return NOT_STATED if fact.functional == NOT_STATED else "raw"
    if all("MP2020" in one or "MaterialsProject2020" in one for one in fact.corrections):
        return "mp2020"
    return "mixed" if any("mixing" in one.lower() for one in fact.corrections) else "other corrections"


def _facts_of_object(k: int, entry) -> _Facts:
    """Facts of a pymatgen entry."""
    if not hasattr(entry, "composition") or not hasattr(entry, "energy_per_atom"):
        raise HullError(f"entry {k} is a {type(entry).__name__}, not a pymatgen entry (ComputedEntry, PDEntry).")
    name = getattr(entry, "entry_id", None)
    adjustments = getattr(entry, "energy_adjustments", None) or ()
    schemes = tuple(_scheme(getattr(one, "cls", None), one.name) for one in adjustments)
    parameters, data = getattr(entry, "parameters", None) or {}, getattr(entry, "data", None) or {}
    return _Facts(
        f"entry {k}" if name is None else str(name),
        _formula(entry.composition.get_el_amt_dict()),
        float(entry.energy_per_atom),
        _functional(parameters, data),
        schemes,
        dict(parameters.get("hubbards") or {}),
    )


def _facts_of_json(k: int, row, path: Path) -> _Facts:
    """Facts of the JSON of a pymatgen entry."""
    if not isinstance(row, dict) or not isinstance(row.get("composition"), dict) or "energy" not in row:
        raise HullError(f"{path}: entry {k} has no composition and energy; write pymatgen's entry.as_dict().")
    kind = row.get("@class", "ComputedEntry")
    if kind not in _CLASSES:
        raise HullError(f"{path}: entry {k} is a {kind}; known are {', '.join(_CLASSES)}.")
    name = f"entry {k}" if row.get("entry_id") is None else str(row["entry_id"])
    try:
        amounts: dict[str, float] = {}
        if not row["composition"]:
            raise ValueError("its composition is empty")
        for species, amount in row["composition"].items():
            symbol = _symbol(species)
            amounts[symbol] = amounts.get(symbol, 0.0) + _number(amount, f"the amount of {species}")
        adjustments = row.get("energy_adjustments") or []
        correction = sum(map(_value, adjustments)) if adjustments else float(row.get("correction") or 0.0)
        energy = (_number(row["energy"], "the energy") + correction) / sum(amounts.values())
        schemes = tuple(_scheme(one.get("cls"), one.get("name") or "") for one in adjustments)
        parameters, data = row.get("parameters") or {}, row.get("data") or {}
        functional, hubbards = _functional(parameters, data), dict(parameters.get("hubbards") or {})
    except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise HullError(
            f"{path}: {name} cannot be read ({type(error).__name__}: {error}); write pymatgen's entry.as_dict()."
        ) from error
    if correction and not schemes:
        schemes = ("correction without a name",)
    return _Facts(name, _formula(amounts), energy, functional, schemes, hubbards)


def _number(value, what: str) -> float:
    """A number of a JSON file; true is none, and neither is text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{what} is {value!r:.40}, no number")
    return float(value)


def _symbol(species: str) -> str:
    """The element of a species; what comes after it says how it is charged or polarised."""
    parts = _SPECIES.match(species)
    if parts is None or parts[1] not in ATOMIC_NUMBERS:
        raise ValueError(f"{species!r} is none of the {len(ATOMIC_NUMBERS)} elements H to Pu; leave the entry out")
    return parts[1]


def _value(adjustment: dict) -> float:
    """Energy of one adjustment in eV, for the classes that pymatgen has."""
    kind = adjustment["@class"]
    if kind == "CompositionEnergyAdjustment":
        return float(adjustment["adj_per_atom"]) * float(adjustment["n_atoms"])
    if kind == "TemperatureEnergyAdjustment":
        return float(adjustment["adj_per_deg"]) * float(adjustment["temp"]) * float(adjustment["n_atoms"])
    if kind in ("ConstantEnergyAdjustment", "ManualEnergyAdjustment"):
        return float(adjustment["value"])
    raise ValueError(f"unknown energy adjustment {kind!r}")


def _scheme(cls, name: str) -> str:
    """Name of an adjustment together with that of the scheme it came from."""
    scheme = cls.get("@class", "") if isinstance(cls, dict) else getattr(cls, "__name__", "")
    return f"{scheme} {name}".strip()


def _functional(parameters: dict, data: dict) -> str:
    """Functional from the run type: GGA and GGA+U are one here, as MP2020 joins them."""
    run_type = parameters.get("run_type") or data.get("run_type")
    return NOT_STATED if run_type is None else _normal(run_type)


def _formula(amounts: dict[str, float]) -> str:
    """Formula that reads back to the same amounts."""
    return "".join(f"{symbol}{amount:.12f}".rstrip("0").rstrip(".") for symbol, amount in amounts.items())


def _read_json(path: Path) -> list:
    """The list of entries in a JSON file, gzipped or not."""
    try:
        raw = path.read_bytes()
        document = json.loads(_unpacked(raw) if raw[:2] == b"\x1f\x8b" else raw)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise HullError(f"{path}: not readable as JSON ({error}); write it again.") from error
    if isinstance(document, dict):
        document = document.get("entries")
    if not isinstance(document, list):
        raise HullError(f"{path}: expected a list of pymatgen entries, or an object with a list `entries`.")
    return document


_MOST_UNPACKED = 200  # entries of structures shrink to a twentieth
_SMALL_BYTES = 100_000_000


def _unpacked(raw: bytes) -> bytes:
    """The content of a gzip stream, unless it claims more than entries can shrink by."""
    most = max(_MOST_UNPACKED * len(raw), _SMALL_BYTES)
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{len(raw)} bytes unpack to more than {most}, which no entries do")
    return content


_NO_TEXT = {b"PK\x03\x04": "an Excel workbook; save it as CSV", codecs.BOM_UTF16_LE: "UTF-16; save it as CSV in UTF-8"}


def _read_table(path: Path):
    """A CSV or parquet table."""
    import pandas as pd
    import pyarrow as pa

    try:
        if path.suffix == ".parquet":
            check_unpacked_size(path)
            return pd.read_parquet(path)
        with path.open("rb") as file:
            start = file.read(4)
        for mark, remedy in _NO_TEXT.items():
            if start.startswith(mark):
                raise HullError(f"{path}: no table of text but {remedy}.")
        # As text first: NaN is sodium nitride, InF indium fluoride, and 1e5 or 007 may be an id.
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except HullError:
        raise
    except UnicodeDecodeError as error:
        raise HullError(
            f"{path}: holds letters that are not UTF-8 (byte {error.object[error.start]:#x}); save it as UTF-8."
        ) from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise HullError(f"{path}: not readable as a table ({str(error).strip()}); write it again.") from error
    return table


def _energies(table, source: str) -> list[float]:
    """The energies of a table, of whatever type its reader gave them; what is no number is named by its row."""
    import pandas as pd

    column = table["energy_per_atom_ev"].astype(object)
    is_truth = column.map(lambda value: isinstance(value, bool | np.bool_))
    energies = pd.to_numeric(column.mask(is_truth), errors="coerce").to_numpy(dtype=float)
    for row in np.flatnonzero(np.isnan(energies))[:1]:
        raise HullError(
            f"{source}: row {row} ({table['id'].iloc[row]}): energy_per_atom_ev is {column.iloc[row]!r}, no number; "
            "correct it or leave the row out."
        )
    return energies.tolist()


def _refuse_repeated_columns(table, source: str) -> None:
    columns = list(map(str, table.columns))
    for name in (*_COLUMNS, "functional", "energy_kind"):
        if columns.count(name) > 1 or f"{name}.1" in columns:  # as pandas calls the second one
            raise HullError(f"{source}: there are two columns {name}; leave one.")


def _from_table(table, source: str, functional: str | None = None, energy_kind: str | None = None) -> EntryTable:
    """Entries from a pandas table."""
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        there = ", ".join(map(str, table.columns))
        mark = next((mark for mark in ";\t|" if len(table.columns) == 1 and mark in there), None)
        remedy = f" Separate columns by commas instead of {mark!r}, and write -1.5, not -1,5." if mark else ""
        raise HullError(f"{source}: no column {', '.join(missing)}; there are {there}.{remedy}")
    _refuse_repeated_columns(table, source)
    nameless = np.flatnonzero((table["id"].isna() | (table["id"].astype(str) == "")).to_numpy())
    if len(nameless):
        raise HullError(f"{source}: row {nameless[0]} has no id; give every entry an id of its own.")
    given = {}
    for name, value in (("functional", functional), ("energy_kind", energy_kind)):
        stated = _stated(table, name)
        given[name] = _agreed(name, stated, value, table["id"].tolist(), source) if value else stated
    columns = (table["id"].tolist(), table["composition"].tolist(), _energies(table, source))
    return EntryTable.from_columns(*columns, **given, source=source)


def _stated(table, name: str) -> list[str]:
    """The functionals or kinds of a table's rows; an empty cell states nothing."""
    if name not in table:
        return [NOT_STATED] * len(table)
    return [value if isinstance(value, str) and value else NOT_STATED for value in table[name]]
