"""MP2020 energy corrections, on and off.

GGA/GGA+U energies of the Materials Project carry corrections fitted to experiment (anions) and to join GGA with
GGA+U; r2SCAN energies carry none. pymatgen knows the chemistry; here it is asked for tables of materials.
"""

import functools
import warnings

import numpy as np

from crossfunc.energies.composition import CompositionError, parse_formula

OXIDE_TYPES = ("oxide", "hydroxide", "peroxide", "superoxide", "ozonide")
_SPECIAL_OXIDES = ("peroxide", "superoxide", "ozonide")
_SULFATE_HINTS = {"sulfate", "hydrosulfate"}
_SULFIDE_HINTS = {"sulfide", "hydrosulfide"}
#: Elements whose correction depends on their oxidation state; for all others the slow guess is not needed.
_ANIONS_BY_STATE = frozenset(["Br", "I", "Se", "Si", "Sb", "Te", "H", "N", "F", "Cl"])


class CorrectionError(ValueError):
    """A material that MP2020 cannot correct; the message names it and the remedy."""


def mp2020_correction_per_atom_ev(
    compositions, *, structures=None, oxide_type=None, hubbard=True, on_error: str = "raise"
) -> np.ndarray:
    """MP2020 correction of each material, E(MP2020) - E(raw), in eV/atom.

    Parameters
    ----------
    compositions, structures, oxide_type, hubbard
        As in `mp2020_corrections`, which also tells what was assumed.
    on_error : "raise" or "nan"
        What a material gets that cannot be corrected.

    Returns
    -------
    ndarray, shape (n_materials,), eV/atom

    Raises
    ------
    CorrectionError
        With on_error="raise", for the first material that cannot be corrected.
    """
    if on_error not in ("raise", "nan"):
        raise CorrectionError(f"on_error={on_error!r}: choose 'raise' or 'nan'")
    table = mp2020_corrections(compositions, structures=structures, oxide_type=oxide_type, hubbard=hubbard)
    failed = table[table["reason"] != ""]
    if on_error == "raise" and len(failed):
        raise CorrectionError(
            f"{failed.index[0]} ({failed['composition'].iloc[0]}): {failed['reason'].iloc[0]} ({len(failed)} such "
            "materials; on_error='nan' leaves them out, mp2020_corrections(...) lists them)"
        )
    return table["correction_per_atom_ev"].to_numpy()


def mp2020_corrections(compositions, *, structures=None, oxide_type=None, hubbard=True):
    """MP2020 correction of each material with its parts and what was assumed for it.

    Parameters
    ----------
    compositions : pandas.DataFrame or sequence of str
        A table with a column `composition` (or `formula`) and perhaps `material_id`, `oxide_type` and `chemistry`
        (words such as "peroxide" or "oxide|sulfate"); or formulas alone.
    structures : sequence of pymatgen Structure or None, optional
        O and S are then classified by their distances, as the Materials Project does.
    oxide_type : sequence of str or None, optional
        "oxide", "hydroxide", "peroxide", "superoxide" or "ozonide" for each material; None where not known. What is
        given here goes before the structure, as in pymatgen.
    hubbard : True, False, or sequence of dict
        True: GGA+U where the Materials Project uses it (Co, Cr, Fe, Mn, Mo, Ni, V, W with O or F), with its U.
        False: plain GGA throughout; then only the anion corrections apply, and no mixing with GGA+U is corrected.
        A dict of element to U in eV for each material: checked; any U other than the project's cannot be corrected.

    Returns
    -------
    pandas.DataFrame
        Index as the table's `material_id` (or row number); columns `composition`, `correction_per_atom_ev` (NaN where
        there is none), its parts `anion_per_atom_ev` and `hubbard_per_atom_ev`, `oxide_type`, `oxide_type_source`
        and `sulfide_type`, `sulfide_type_source` ("structure", "given", "formula", "chemistry", "oxidation states",
        "assumed", or "" without O or S), `has_oxidation_states` (False: none could be guessed, so only the most
        electronegative element counts as an anion) and `reason` ("" or why there is no correction).

    Raises
    ------
    CorrectionError
        If the inputs do not match row by row, or a structure is of another material (names the row).

    Notes
    -----
    Wang et al., Sci. Rep. 11, 15496 (2021). Lesson 2: paper Fig. 1c and d, with and without corrections. O without a
    structure: special formulas that pymatgen knows (Li2O2, KO3), then `chemistry`, else "oxide". S without a
    structure: `chemistry`, else its guessed oxidation state (positive: a sulfate, not corrected), else a sulfide.
    """
    import pandas as pd

    formulas, index, given, hints = _materials(compositions, oxide_type)
    structures = [None] * len(formulas) if structures is None else list(structures)
    hubbards = [hubbard] * len(formulas) if isinstance(hubbard, (bool, np.bool_)) else list(hubbard)
    for name, values in (("structures", structures), ("hubbard", hubbards)):
        if len(values) != len(formulas):
            raise CorrectionError(f"{len(values)} {name} for {len(formulas)} compositions: give one per material")
    rows, known = [], {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of each assumption; the table states them
        for name, formula, structure, oxide, hint, u in zip(
            index, formulas, structures, given, hints, hubbards, strict=True
        ):
            key = (formula, oxide, hint, tuple(sorted(u.items())) if isinstance(u, dict) else u)
            if structure is not None:
                rows.append(_correct(name, formula, structure, oxide, hint, u))
                continue
            if key not in known:
                known[key] = _correct(name, formula, None, oxide, hint, u)
            rows.append(known[key])
    return pd.DataFrame(rows, index=index)


def apply_mp2020(raw_energy_per_atom_ev, correction_per_atom_ev) -> np.ndarray:
    """Corrected energy per atom, E(MP2020) = E(raw) + correction, in eV/atom."""
    return np.asarray(raw_energy_per_atom_ev, dtype=np.float64) + np.asarray(correction_per_atom_ev, dtype=np.float64)


def remove_mp2020(corrected_energy_per_atom_ev, correction_per_atom_ev) -> np.ndarray:
    """Raw energy per atom, E(raw) = E(MP2020) - correction, in eV/atom."""
    return np.asarray(corrected_energy_per_atom_ev, dtype=np.float64) - np.asarray(
        correction_per_atom_ev, dtype=np.float64
    )


def mp_hubbard_u_ev(formula: str) -> dict[str, float]:
    """Hubbard U that the Materials Project uses for a composition, element to eV; empty for plain GGA."""
    from pymatgen.core import Composition

    return _project_hubbards(Composition(formula))


def add_raw_gga(pairs, *, structures=None):
    """Copy of a pairs table with raw GGA energies filled in where they are missing: label - MP2020 correction.

    Parameters
    ----------
    pairs : Dataset, or pandas.DataFrame
        A dataset says itself what its energies are; where they are raw already, nothing is filled in. A table needs the
        columns `composition`, `low_energy_per_atom_ev` (corrected by MP2020), and perhaps
        `low_uncorrected_energy_per_atom_ev`, `low_formation_energy_per_atom_ev`,
        `low_uncorrected_formation_energy_per_atom_ev`, `chemistry`, `oxide_type`.
    structures : sequence, optional
        As in `mp2020_corrections`.

    Returns
    -------
    pandas.DataFrame
        With the two columns `low_uncorrected_...` filled, and the ledger:
        `mp2020_correction_per_atom_ev`, `mp2020_oxide_type`, `mp2020_oxide_type_source`, `mp2020_reason` ("" or why a
        material stays NaN). Values that were there stay.

    Raises
    ------
    CorrectionError
        If the corrected energies are not there.

    Notes
    -----
    Elements carry no correction, so formation energies change by the compound's own correction.
    """
    if hasattr(pairs, "label_notice"):  # a dataset
        dataset, pairs = pairs, pairs.pairs
        if dataset.functional("low").energy_kind == "raw":
            return pairs.copy()
    needed = "low_energy_per_atom_ev"
    if needed not in pairs:
        raise CorrectionError(f"the pairs have no column {needed!r}: raw energies follow from corrected ones")
    table = mp2020_corrections(pairs, structures=structures)
    filled = pairs.copy()
    corrected = pairs[needed].to_numpy(dtype=np.float64)
    correction = table["correction_per_atom_ev"].to_numpy()
    raw = _column_or_nan(pairs, "low_uncorrected_energy_per_atom_ev")
    raw = np.where(np.isnan(raw), remove_mp2020(corrected, correction), raw)
    formation = _column_or_nan(pairs, "low_uncorrected_formation_energy_per_atom_ev")
    corrected_formation = _column_or_nan(pairs, "low_formation_energy_per_atom_ev")
    filled["low_uncorrected_energy_per_atom_ev"] = raw
    filled["low_uncorrected_formation_energy_per_atom_ev"] = np.where(
        np.isnan(formation), corrected_formation - (corrected - raw), formation
    )
    filled["mp2020_correction_per_atom_ev"] = corrected - raw
    for name in ("oxide_type", "oxide_type_source", "reason"):
        filled[f"mp2020_{name}"] = table[name].to_numpy()
    return filled


def _materials(compositions, oxide_type):
    """Formulas, their names, given oxide types, and chemistry hints of the input in any of its forms."""
    import pandas as pd

    if isinstance(compositions, pd.DataFrame):
        column = next((name for name in ("composition", "formula") if name in compositions), None)
        if column is None:
            raise CorrectionError(f"no column 'composition' or 'formula' among {list(compositions.columns)}")
        formulas = compositions[column].tolist()
        index = compositions["material_id"].tolist() if "material_id" in compositions else compositions.index.tolist()
        hints = compositions["chemistry"].tolist() if "chemistry" in compositions else [None] * len(formulas)
        if oxide_type is None and "oxide_type" in compositions:
            oxide_type = compositions["oxide_type"].tolist()
    else:
        if isinstance(compositions, str):
            raise CorrectionError(f"compositions is one string: give a list, [{compositions!r}]")
        formulas = list(compositions)
        index, hints = list(range(len(formulas))), [None] * len(formulas)
    given = [None] * len(formulas) if oxide_type is None else [_known(value) for value in oxide_type]
    if len(given) != len(formulas):
        raise CorrectionError(f"{len(given)} oxide types for {len(formulas)} compositions: give one per material")
    for name, value in zip(index, given, strict=True):
        if value is not None and value not in OXIDE_TYPES:
            raise CorrectionError(f"{name}: oxide type {value!r} is none of {', '.join(OXIDE_TYPES)}")
    return formulas, index, given, [_known(hint) for hint in hints]


def _known(value):
    """Text, or None for anything that stands for a missing value."""
    return value if isinstance(value, str) and value not in ("", "None") else None


def _correct(name, formula, structure, oxide, hint, hubbard):
    """One row of the table of corrections."""
    from pymatgen.analysis.compatibility import CompatibilityError
    from pymatgen.analysis.structure_analyzer import oxide_type as oxide_type_of
    from pymatgen.analysis.structure_analyzer import sulfide_type as sulfide_type_of
    from pymatgen.core import Composition

    row = {
        "composition": formula,
        "correction_per_atom_ev": np.nan,
        "anion_per_atom_ev": np.nan,
        "hubbard_per_atom_ev": np.nan,
        "oxide_type": "",
        "oxide_type_source": "",
        "sulfide_type": "",
        "sulfide_type_source": "",
        "has_oxidation_states": True,
        "reason": "",
    }
    try:
        if not isinstance(formula, str):
            raise CompositionError(f"formula is {formula!r}, not text: fill it in")
        parse_formula(formula)  # pymatgen takes "Xx" for a dummy species and corrects it by 0
    except CompositionError as error:
        return row | {"reason": str(error)}
    composition = Composition(formula)
    if structure is not None:
        structure = structure.copy()
        structure.remove_oxidation_states()  # Mg2+ is Mg: a correction is of elements
    if structure is not None and structure.composition.reduced_composition != composition.reduced_composition:
        raise CorrectionError(
            f"{name}: the structure is {structure.composition.reduced_formula}, the composition "
            f"{composition.reduced_formula}: structures and compositions must be in the same order"
        )
    symbols = {element.symbol for element in composition.elements}
    words = set() if hint is None else set(hint.split("|"))
    if symbols & (_ANIONS_BY_STATE | {"S"}) and len(symbols) > 1:
        states = _oxidation_states(composition.formula)
        row["has_oxidation_states"] = bool(states)
    else:
        states = {}
    data = {"oxidation_states": states}
    if "O" in symbols and len(symbols) > 1:
        if oxide is not None:
            row["oxide_type"], row["oxide_type_source"] = oxide, "given"
        elif structure is not None:
            row["oxide_type"], row["oxide_type_source"] = str(oxide_type_of(structure, 1.05)), "structure"
        if row["oxide_type"]:
            data["oxide_type"] = row["oxide_type"]
    if "S" in symbols and len(symbols) > 1:
        if structure is not None:
            kind, source = sulfide_type_of(structure) or "sulfate", "structure"
        elif words & _SULFATE_HINTS:
            kind, source = "sulfate", "chemistry"
        elif words & _SULFIDE_HINTS:
            kind, source = "sulfide", "chemistry"
        elif states:
            kind, source = "sulfate" if states.get("S", 0) > 0 else "sulfide", "oxidation states"
        else:
            kind, source = "sulfide", "assumed"
        row["sulfide_type"], row["sulfide_type_source"] = kind, source
        data["sulfide_type"] = kind

    use = _project_hubbards(composition) if hubbard is True else {} if hubbard in (False, None) else dict(hubbard)
    compatibility = _compatibility("GGA" if hubbard is False else "Advanced")
    try:
        adjustments = _adjustments(compatibility, composition, use, data)
        if "O" in symbols and len(symbols) > 1 and not row["oxide_type"]:
            kind = _oxide_type_in(adjustments)
            hinted = next((word for word in _SPECIAL_OXIDES if word in words), None)
            if kind != "oxide":
                row["oxide_type"], row["oxide_type_source"] = kind, "formula"
            elif hinted:
                row["oxide_type"], row["oxide_type_source"] = hinted, "chemistry"
                adjustments = _adjustments(compatibility, composition, use, data | {"oxide_type": hinted})
            else:
                row["oxide_type"], row["oxide_type_source"] = "oxide", "chemistry" if "oxide" in words else "assumed"
    except CompatibilityError as error:
        return row | {"reason": f"not compatible with MP2020: {str(error).partition(' for {')[0]}"}
    except KeyError as error:
        return row | {"reason": f"pymatgen has no MP2020 correction for {error}"}
    parts = {"anion": 0.0, "mixing": 0.0}
    for adjustment in adjustments:
        parts["mixing" if "mixing" in adjustment.name else "anion"] += adjustment.value / composition.num_atoms
    row["anion_per_atom_ev"], row["hubbard_per_atom_ev"] = parts["anion"], parts["mixing"]
    row["correction_per_atom_ev"] = parts["anion"] + parts["mixing"]
    return row


def _adjustments(compatibility, composition, hubbards, data):
    """MP2020 energy adjustments of a composition, from pymatgen."""
    from pymatgen.entries.computed_entries import ComputedEntry

    parameters = {"run_type": "GGA+U" if hubbards else "GGA", "hubbards": hubbards}
    return compatibility.get_adjustments(ComputedEntry(composition, 0.0, parameters=parameters, data=dict(data)))


def _oxide_type_in(adjustments):
    """Oxide type that pymatgen chose, read from the name of its correction: "... (peroxide)"."""
    for adjustment in adjustments:
        kind = adjustment.name.rpartition("(")[2].rstrip(")")
        if kind in OXIDE_TYPES:
            return kind
    return "oxide"


def _project_hubbards(composition):
    """U values of MPRelaxSet: set by the most electronegative element, O or F, as the project's input files are."""
    settings = _compatibility("Advanced").u_settings
    elements = sorted(composition.elements, key=lambda element: element.X)
    u = settings.get(elements[-1].symbol, {}) if len(elements) > 1 else {}
    return {element.symbol: float(u[element.symbol]) for element in elements if u.get(element.symbol)}


@functools.cache
def _compatibility(kind):
    """The MP2020 scheme of pymatgen; POTCARs are not at hand, so they are not checked."""
    from pymatgen.analysis.compatibility import MaterialsProject2020Compatibility

    return MaterialsProject2020Compatibility(compat_type=kind, check_potcar=False)


@functools.lru_cache(maxsize=65_536)
def _oxidation_states(formula):
    """The first guess of pymatgen, as its MP2020 scheme makes it; empty if there is none."""
    from pymatgen.core import Composition

    try:
        guesses = Composition(formula).oxi_state_guesses(max_sites=-20)
    except ValueError:  # too many atoms to try
        return {}
    return dict(guesses[0]) if guesses else {}


def _column_or_nan(table, name):
    """A float column of a table, NaN if it is not there."""
    return table[name].to_numpy(dtype=np.float64) if name in table else np.full(len(table), np.nan)
