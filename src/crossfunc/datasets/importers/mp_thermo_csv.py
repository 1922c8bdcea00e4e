"""Materials Project energies of the same materials in GGA/GGA+U and r2SCAN, from the CSV that stands for an import."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from crossfunc.datasets.functionals import describe_functionals, mark_columns, parse_functionals
from crossfunc.datasets.schema import REJECTED_COLUMNS, DatasetError, validate_table

DATASET_NAME = "mp-thermo-pairs"
FILE_NAME = "mp_thermo_pairs.csv"
ELEMENTS_FILE_NAME = "elemental_reference_energies.csv"

_RENAMED = {
    "mp_id": "material_id",
    "composition": "composition",
    "gga_mp2020_energy_per_atom_ev": "low_energy_per_atom_ev",
    "r2scan_energy_per_atom_ev": "high_energy_per_atom_ev",
    "gga_mp2020_formation_energy_per_atom_ev": "low_formation_energy_per_atom_ev",
    "r2scan_formation_energy_per_atom_ev": "high_formation_energy_per_atom_ev",
}
_EXPERIMENT = "experiment_nbs_formation_energy_per_atom_ev"
_KEPT = ["formula", "chemistry", _EXPERIMENT]
_TEXT = ["mp_id", "composition", "formula", "chemistry", "element"]
_ENERGIES = ["gga_mp2020_energy_per_atom_ev", "r2scan_energy_per_atom_ev"]
_ELEMENT_COLUMNS = {"mp_gga_gga_u_ev_per_atom": ("gga", "mp2020"), "mp_r2scan_ev_per_atom": ("r2scan", "raw")}

_META = {
    "name": DATASET_NAME,
    "version": "1",
    "licence": "CC-BY-4.0 (Materials Project data); compilation MIT (rasmusfr/RxnNet)",
    "citation": "A. Jain et al., APL Materials 1, 011002 (2013)",
    "provenance": f"read from {FILE_NAME}: Materials Project thermo data, GGA/GGA+U and r²SCAN queried separately",
    "functionals": describe_functionals("GGA/GGA+U", "r²SCAN", energy_kinds=("mp2020", "raw")),
    "labelled_by": "DFT, VASP",
    "label_notice": "DFT labels: Materials Project, GGA/GGA+U with MP2020 corrections and r²SCAN",
    "differs_from_paper": "the materials with a measured formation enthalpy here, many more in the paper",
}


def read_pairs(path: Path) -> tuple[dict, dict]:
    """Read the pairs CSV, and the elements' energies where their CSV lies beside it.

    Parameters
    ----------
    path : Path
        `mp_thermo_pairs.csv`.

    Returns
    -------
    meta : dict
    tables : dict
        `pairs` and perhaps `elements`, validated Arrow tables; `rejected`, a DataFrame of the rows left out, most of
        them materials without both energies. Its `row` counts the rows of the CSV from 0.

    Raises
    ------
    DatasetError
        Missing columns, text where a number belongs, an unreadable file, or no usable row.
    """
    raw = _read_csv(path, list(_RENAMED))
    _check_numbers(raw, [c for c in (*_RENAMED, _EXPERIMENT) if c.endswith("_ev") and c in raw], path)
    pairs = raw.rename(columns=_RENAMED)[list(_RENAMED.values()) + [c for c in _KEPT if c in raw]]
    pairs["n_atoms"] = pairs["composition"].map(_count_atoms, na_action="ignore").astype(float)
    lacking = raw[_ENERGIES].isna()
    unpaired = lacking.any(axis=1)
    unpaired_rows = pd.DataFrame(
        {
            "table": "pairs",
            "row": pairs.index[unpaired],
            "id": pairs.loc[unpaired, "material_id"],
            "reason": [f"no {' and no '.join(lacking.columns[row])}" for row in lacking[unpaired].to_numpy()],
        }
    )[REJECTED_COLUMNS]
    tables, ledgers = {}, [unpaired_rows]
    tables["pairs"], bad = _validate(pairs[~unpaired], "pairs", path)
    ledgers.append(bad)
    elements = path.with_name(ELEMENTS_FILE_NAME)
    if elements.exists():
        tables["elements"], bad = _validate(_read_elements(elements), "elements", elements)
        ledgers.append(bad)
    tables["rejected"] = pd.concat(ledgers, ignore_index=True)
    return dict(_META), tables


def source_files(path: Path) -> list[Path]:
    """Return the files that the dataset is read from, for its fingerprint."""
    elements = path.with_name(ELEMENTS_FILE_NAME)
    return [path, elements] if elements.exists() else [path]


def _validate(frame: pd.DataFrame, kind: str, path: Path) -> tuple[pa.Table, pd.DataFrame]:
    """Validate leniently; the ledger's rows are those of the CSV, which are the frame's index."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    functionals = parse_functionals(_META["functionals"], str(path))
    keys = [one.key for one in functionals]
    good, bad = validate_table(table, kind, file=str(path), strict=False, functionals=keys)
    good = mark_columns(good, functionals) if kind == "pairs" else good
    return good, bad.assign(row=frame.index.to_numpy()[bad["row"].to_numpy()])


def _count_atoms(formula: str) -> float:
    """Return the atoms in a composition without brackets, "Ni6N2" -> 8; NaN for anything else."""
    terms = re.findall(r"([A-Z][a-z]?)(\d+\.?\d*)?", formula)
    plain = "".join(symbol + amount for symbol, amount in terms) == formula
    return sum(float(amount or 1) for _, amount in terms) if plain else np.nan


def _read_elements(path: Path) -> pd.DataFrame:
    raw = _read_csv(path, ["element", *_ELEMENT_COLUMNS])
    _check_numbers(raw, list(_ELEMENT_COLUMNS), path)
    parts = [
        pd.DataFrame(
            {
                "element": raw["element"],
                "functional": functional,
                "energy_kind": kind,
                "energy_per_atom_ev": raw[column],
            }
        )
        for column, (functional, kind) in _ELEMENT_COLUMNS.items()
    ]
    return pd.concat(parts).dropna(subset="energy_per_atom_ev")


def _check_numbers(raw: pd.DataFrame, columns: list[str], path: Path) -> None:
    for name in columns:
        text = raw[name].notna() & pd.to_numeric(raw[name], errors="coerce").isna()
        if text.any():
            row = int(np.flatnonzero(text)[0])
            raise DatasetError(
                f"{path}: row {row} ({raw.iloc[row, 0]}): {name} is {raw[name].iloc[row]!r}, not a number; "
                "correct the file, or leave the cell empty where there is no value."
            )


def _read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        # "Na", "NaN" and "InF" are chemistry here, neither missing values nor numbers; 007 may be an id.
        text = dict.fromkeys(_TEXT, str)
        raw = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=text)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not readable as CSV ({str(error).strip()}); fetch it again.") from error
    missing = [c for c in columns if c not in raw]
    if missing:
        raise DatasetError(f"{path}: missing column {', '.join(missing)}; found {', '.join(raw.columns)}.")
    return raw
