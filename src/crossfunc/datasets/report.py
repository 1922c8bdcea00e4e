"""A report on a dataset folder that a person can read: what is wrong, where, and what to do."""

import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from crossfunc.datasets import coverage
from crossfunc.datasets.schema import TABLES, DatasetError, validate_table
from crossfunc.datasets.store import Dataset, find_dataset, open_dataset
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS

_LISTED_ROWS = 20


@dataclass(frozen=True)
class Finding:
    """One thing to know about a dataset: `level` is "error" (unusable), "warning" (look) or "info"; `rows` are ids."""

    level: str
    file: str
    message: str
    rows: tuple[str, ...] = ()


@dataclass
class CheckReport:
    """All findings on a dataset; `ok` is False when one of them is an error."""

    path: Path
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True when nothing keeps the dataset from being used."""
        return all(f.level != "error" for f in self.findings)

    def to_dict(self) -> dict:
        """Return the report as plain values, for JSON."""
        return {"path": str(self.path), "ok": self.ok, "findings": [_plain(f) for f in self.findings]}

    def __str__(self) -> str:
        lines = [f"{f.level:8s}{f.file}: {f.message}{_listed(f.rows)}" for f in self.findings]
        return "\n".join([*lines, f"{self.path}: {'usable' if self.ok else 'NOT usable'}"])


def _plain(finding: Finding) -> dict:
    """A finding as plain values; rows only where there are some."""
    plain = asdict(finding)
    rows = list(plain.pop("rows"))
    return {**plain, "rows": rows} if rows else plain


def _listed(rows: tuple[str, ...]) -> str:
    shown = ", ".join(rows[:5])
    return f" [{shown}{', ...' if len(rows) > 5 else ''}]" if rows else ""


def check_dataset(name_or_path: str | os.PathLike) -> CheckReport:
    """Check a dataset's files, checksums, schema, rows and coverage of elements.

    Parameters
    ----------
    name_or_path : str or path

    Returns
    -------
    CheckReport
        Every table is looked at, also after an error in another one.

    Raises
    ------
    DatasetError
        Only when there is no such dataset.
    """
    path = find_dataset(name_or_path)
    report = CheckReport(path)
    try:
        open_dataset(path)
    except DatasetError as error:
        report.findings.append(Finding("error", path.name, str(error)))
    try:
        dataset = open_dataset(path, verify=False)
    except DatasetError:
        return report
    for one in dataset.functionals:
        report.findings.append(Finding("info", path.name, f"{one.side} functional: {one.full_name} ({one.key})"))
    good = {kind: _check_table(dataset, kind, report) for kind in TABLES}
    _check_coverage(good, dataset, report)
    try:
        rejected = dataset.rejected
    except DatasetError:  # named above, by open_dataset
        return report
    if len(rejected):
        # Reasons that differ in a number only are one kind.
        reasons = rejected["reason"].str.replace(r"(?<![\w.])\d+\.\d+(?![\w.])", "…", regex=True).value_counts()
        text = "; ".join(f"{n} x {reason}" for reason, n in reasons.items())
        report.findings.append(Finding("info", "rejected", f"{len(rejected)} rows were left out: {text}"))
    return report


def _check_table(dataset: Dataset, kind: str, report: CheckReport) -> pa.Table | None:
    """Add what there is to say about one table and return its good rows; None where there are none."""
    file = f"{kind}.parquet"
    try:
        table = dataset._table(kind)
        if table is None:
            report.findings.append(Finding("info", file, "not part of this dataset"))
            return None
        keys = [one.key for one in dataset.functionals]
        good, bad = validate_table(table, kind, file=file, strict=False, functionals=keys)
    except DatasetError as error:
        known = any(str(error) in f.message for f in report.findings)
        if not known:
            report.findings.append(Finding("error", file, str(error)))
        return None
    report.findings.append(Finding("info", file, f"{good.num_rows} rows"))
    for row in bad.head(_LISTED_ROWS).itertuples():
        report.findings.append(Finding("error", file, f"row {row.row} ({row.id}): {row.reason}"))
    if len(bad) > _LISTED_ROWS:
        report.findings.append(Finding("error", file, f"and {len(bad) - _LISTED_ROWS} more unusable rows"))
    return good


def _check_coverage(good: dict[str, pa.Table | None], dataset: Dataset, report: CheckReport) -> None:
    """Say which elements occur, and which of them have no ground state to form compounds from."""
    present: set[str] = set()
    if good["frames"] is not None:
        numbers = pc.unique(pc.list_flatten(good["frames"]["atomic_numbers"])).to_pylist()
        present |= {ELEMENT_SYMBOLS[z - 1] for z in numbers}
    if good["pairs"] is not None:
        present |= set(re.findall(r"[A-Z][a-z]?", " ".join(good["pairs"]["composition"].to_pylist())))
    if not present:
        return
    symbols = sorted(present, key=ATOMIC_NUMBERS.__getitem__)
    heavy = [s for s in symbols if ATOMIC_NUMBERS[s] >= coverage.HEAVY_Z]
    _tell(report, f"{len(symbols)} elements: {' '.join(symbols)}")
    if heavy:
        _tell(report, f"{len(heavy)} of them heavy (Z >= {coverage.HEAVY_Z}): {' '.join(heavy)}")
    if good["frames"] is not None and good["frames"].num_rows:
        _count_frames(good["frames"], report)
    if good["elements"] is None:
        return
    if good["pairs"] is not None:
        _count_systems(good["pairs"], good["elements"], dataset, report)
    for functional in dataset.functionals:
        mine = pc.equal(good["elements"]["functional"], functional.key)
        known = good["elements"].filter(mine)["element"].to_pylist()
        lacking = [s for s in symbols if s not in known]
        if lacking:
            text = f"no {functional.name} ground state of {' '.join(lacking)}: no formation energies of their compounds"
            report.findings.append(Finding("warning", "elements.parquet", text))


def _tell(report: CheckReport, message: str) -> None:
    report.findings.append(Finding("info", report.path.name, message))


def _count_frames(frames: pa.Table, report: CheckReport) -> None:
    """Say how many structures and materials the frames are of, and how many elements are in enough materials."""
    found = coverage.count_frames(frames)
    _tell(report, f"frames of {found.n_structures} structures of {found.n_materials} materials")
    text = f"{len(found.enough)} elements in {coverage.ENOUGH_MATERIALS} materials or more"
    _tell(report, f"{text}, {found.n_heavy_in_enough} of them heavy")


def _count_systems(pairs: pa.Table, elements: pa.Table, dataset: Dataset, report: CheckReport) -> None:
    """Say which systems of three elements have most phases; nothing where none has its three elements."""
    known = coverage.known_elements(elements.to_pandas(), dataset.functionals)
    systems = coverage.ternary_systems(pairs["composition"].to_pylist(), known)
    if said := coverage.describe_systems(systems):
        _tell(report, said)
