"""Which two functionals a dataset holds, and what each of its energies is: read from `dataset.json`, never assumed."""

import re
import unicodedata
from dataclasses import dataclass

import pyarrow as pa

from crossfunc.datasets.schema import ENERGY_KINDS, SIDES, DatasetError
from crossfunc.plain_text import visible

_KEY = re.compile(r"[a-z0-9][a-z0-9+._-]{0,60}")
_OLD_KEYS = {"gga", "r2scan"}
_KNOWN_KEYS = {"gga/gga+u": "gga", "low functional": "low", "high functional": "high"}
_KIND_IN_WORDS = {"raw": "", "mp2020": ", MP2020 corrected"}
_MARKUP = re.compile(r"[\\`{}\[\]<>|$\n\t]")
_COLUMN = re.compile(r"(low|high)_(uncorrected_)?(formation_)?energy_per_atom_ev")


@dataclass(frozen=True)
class Functional:
    """One of the two functionals of a dataset.

    Attributes
    ----------
    side : {"low", "high"}
        The one to start from, or the one to get to.
    name : str
        In prose: "GGA/GGA+U".
    key : str
        In tables and options: "gga".
    energy_kind : {"raw", "mp2020"}
        Kind of the energies in its columns of the pairs table.
    """

    side: str
    name: str
    key: str
    energy_kind: str

    @property
    def full_name(self) -> str:
        """The name with what was added to the energies: "GGA/GGA+U with MP2020 corrections", "r²SCAN"."""
        return self.name if self.energy_kind == "raw" else f"{self.name} with MP2020 corrections"

    def column(self, energy_kind: str | None = None, *, formation: bool = False) -> str:
        """Return the column of the pairs table that holds its energies of one kind; by default of its own.

        Raises
        ------
        DatasetError
            The dataset has no such energies.
        """
        quantity = "formation_energy_per_atom_ev" if formation else "energy_per_atom_ev"
        if energy_kind in (None, self.energy_kind):
            return f"{self.side}_{quantity}"
        if energy_kind == "raw" and self.side == "low":
            return f"low_uncorrected_{quantity}"
        raise DatasetError(
            f"{self.name}: its energies are of kind {self.energy_kind}, none of kind {energy_kind}; ask for "
            f"{self.energy_kind}, or correct them first (crossfunc.energies.apply_mp2020)."
        )


def functional_key(name: str) -> str:
    """Return what a functional is called in tables and options: "r²SCAN" gives "r2scan", "PBE+U" gives "pbe+u".

    Raises
    ------
    DatasetError
        Nothing is left of the name.
    """
    plain = unicodedata.normalize("NFKC", name).strip().casefold()
    key = _KNOWN_KEYS.get(plain) or re.sub(r"[^a-z0-9+._]+", "-", plain).strip("-+._")[:60]
    if not key:
        raise DatasetError(f"functional {name!r}: the name needs a letter or a digit, such as PBEsol.")
    return key


def describe_functionals(
    low: str,
    high: str,
    *,
    energy_kinds: tuple[str, str] = ("raw", "raw"),
    keys: tuple[str | None, str | None] | None = None,
) -> dict:
    """Return the entry `functionals` of `dataset.json` for two functionals by their names.

    Parameters
    ----------
    low, high : str
        Names in prose.
    energy_kinds : tuple of two str
        What the energies of each are: "raw", or "mp2020".
    keys : tuple of two str, optional
        What they are called in tables; by default `functional_key` of the names.

    Raises
    ------
    DatasetError
        Equal names, or a kind that is not known.
    """
    keys = keys or (functional_key(low), functional_key(high))
    entry = {
        side: {"name": name, "key": key, "energy_kind": kind}
        for side, name, key, kind in zip(SIDES, (low, high), keys, energy_kinds, strict=True)
    }
    parse_functionals(entry, "functionals")
    return entry


def parse_functionals(entry, file: str) -> tuple[Functional, Functional]:
    """Return the low and the high functional that `dataset.json` describes.

    Parameters
    ----------
    entry
        What stands under `functionals`.
    file : str
        For messages.

    Raises
    ------
    DatasetError
        Written by an older crossfunc, incomplete, a name with markup in it, or two that cannot be told apart.
    """
    if isinstance(entry, dict) and set(entry) == _OLD_KEYS and all(isinstance(name, str) for name in entry.values()):
        folder = re.sub(r"/?dataset\.json$", "", file)
        raise DatasetError(
            f"{file}: written by an older crossfunc, which did not say what kind of energies its columns hold; bring "
            f"it up to date with `crossfunc data migrate {folder or '.'}`."
        )
    if not (isinstance(entry, dict) and set(entry) == set(SIDES) and all(_is_whole(one) for one in entry.values())):
        raise DatasetError(
            f'{file}: functionals must describe `low` and `high`, each as {{"name": "GGA/GGA+U", "key": "gga", '
            f'"energy_kind": one of {", ".join(ENERGY_KINDS)}}}; a key has small letters, digits and + . _ - only.'
        )
    for name in (entry[side]["name"] for side in SIDES):
        markup = _MARKUP.search(name)
        if markup or visible(name) != name:
            what = markup[0] if markup else "a character that is not shown"
            raise DatasetError(
                f"{file}: the functional {visible(name)!r} has {what} in its name, which pages would take for markup; "
                "names have letters, digits, spaces and + - . , / ( ) * only."
            )
    low, high = (Functional(side, **{k: entry[side][k] for k in ("name", "key", "energy_kind")}) for side in SIDES)
    if low.key == high.key or low.key == "high" or high.key == "low":
        raise DatasetError(
            f"{file}: the low functional is called {low.name} ({low.key}) and the high one {high.name} ({high.key}), "
            "which cannot be told apart in the tables; give them different names."
        )
    return low, high


def _is_whole(one) -> bool:
    return (
        isinstance(one, dict)
        and all(isinstance(one.get(key), str) and one[key] for key in ("name", "key", "energy_kind"))
        and bool(_KEY.fullmatch(one["key"]))
        and one["energy_kind"] in ENERGY_KINDS
    )


def find_functional(functionals: tuple[Functional, Functional], which: str, dataset: str) -> Functional:
    """Return the functional that a side ("low", "high"), a key ("r2scan") or a name ("r²SCAN") stands for.

    Raises
    ------
    DatasetError
        Names those that there are.
    """
    for attribute in ("side", "key", "name"):
        for one in functionals:
            if which == getattr(one, attribute):
                return one
    there = " and ".join(f"{one.key} ({one.side}: {one.name})" for one in functionals)
    raise DatasetError(f"{dataset}: no functional {which!r}; it has {there}. Choose one.")


def energies_of(column: str, functionals: tuple[Functional, Functional]) -> tuple[Functional, str] | None:
    """Return whose energies a column of the pairs table holds and of which kind; None for any other column."""
    parts = _COLUMN.fullmatch(column)
    if parts is None:
        return None
    functional = functionals[SIDES.index(parts[1])]
    return functional, "raw" if parts[2] else functional.energy_kind


def label_of(column: str, functionals: tuple[Functional, Functional]) -> str:
    """Return the axis text of a column of the pairs table: "GGA/GGA+U energy, MP2020 corrected (eV/atom)".

    Raises
    ------
    DatasetError
        No column of energies.
    """
    scaled = re.fullmatch(r"(low|high)_scaled_energy_per_atom_ev", column)
    if scaled:
        return f"{functionals[SIDES.index(scaled[1])].name} energy − element references (eV/atom)"
    found = energies_of(column, functionals)
    if found is None:
        raise DatasetError(f"{column!r} is no column of energies in the pairs table.")
    functional, kind = found
    quantity = "formation energy" if "_formation_" in column else "energy"
    return f"{functional.name} {quantity}{_KIND_IN_WORDS[kind]} (eV/atom)"


def mark_columns(table: pa.Table, functionals: tuple[Functional, Functional]) -> pa.Table:
    """Write functional and energy kind into the metadata of each column of energies, so that the file says them too."""
    fields = []
    for field in table.schema:
        found = energies_of(field.name, functionals)
        if found is not None:
            functional, kind = found
            facts = {"functional": functional.name, "functional_key": functional.key, "energy_kind": kind}
            field = field.with_metadata({"unit": "eV/atom", **facts})
        fields.append(field)
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def check_columns(table: pa.Table, functionals: tuple[Functional, Functional], file: str) -> None:
    """Refuse a pairs table whose columns say something else than `dataset.json`.

    Raises
    ------
    DatasetError
        Another functional or energy kind in a column's metadata, or uncorrected energies beside raw ones.
    """
    for field in table.schema:
        found = energies_of(field.name, functionals)
        stated = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        if found is None or "energy_kind" not in stated:
            continue
        functional, kind = found
        if (stated.get("functional_key"), stated["energy_kind"]) != (functional.key, kind):
            raise DatasetError(
                f"{file}: column {field.name} says it holds {stated['energy_kind']} energies of "
                f"{stated.get('functional_key')}, dataset.json says {kind} ones of {functional.key}; import the data "
                "again, or write them with crossfunc.datasets.write_dataset."
            )
    for name in ("low_uncorrected_energy_per_atom_ev", "low_uncorrected_formation_energy_per_atom_ev"):
        is_filled = name in table.column_names and table[name].null_count < table.num_rows
        if is_filled and functionals[0].energy_kind == "raw":
            raise DatasetError(
                f"{file}: {name} holds values although the energies of {functionals[0].name} are raw themselves; "
                "leave the column out, or say in dataset.json what was added to the others."
            )
