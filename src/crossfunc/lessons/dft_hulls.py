"""Hulls of three elements from a dataset with both functionals (lesson 6): which are whole, and what differs."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from crossfunc.bootstrap import Estimate, paired_difference
from crossfunc.datasets import Dataset, coverage
from crossfunc.dft.plan import plan_materials
from crossfunc.lessons.own_data import open_if_there
from crossfunc.lessons.verdicts import phase_diagram
from crossfunc.stability import element_energies_ev, hull_report
from crossfunc.stability.entries import EntryTable
from crossfunc.symbols import ATOMIC_NUMBERS

FEWEST_COMPOUNDS = 3
"""A hull of three elements with fewer compounds is hardly more than its three corners."""


def ternary_systems(dataset: Dataset) -> pd.DataFrame:
    """List the systems of three elements that materials of the dataset, or of the plan of `make-dft`, span.

    Parameters
    ----------
    dataset : Dataset
        With `pairs` and `elements`.

    Returns
    -------
    DataFrame
        `system` (tuple of symbols by atomic number), `n_compounds` of these elements in both functionals and `missing`
        (tuple of the symbols without an elemental energy in both); those that lack nothing first, then by compounds.
    """
    known = coverage.known_elements(cast("pd.DataFrame", dataset.elements), dataset.functionals)
    planned = {frozenset(material.elements) for material in plan_materials()}
    return coverage.ternary_systems(dataset.need_pairs()["composition"], known, also=planned)


def describe_lack(systems: pd.DataFrame, name: str, n_shown: int = 3) -> str:
    """Say that no system of `ternary_systems` is whole yet, and what is missing; an empty text if the first one is."""
    if len(systems) and not systems["missing"][0] and systems["n_compounds"][0] >= FEWEST_COMPOUNDS:
        return ""
    said = [f"{name} has no system of three elements with all of them and {FEWEST_COMPOUNDS} compounds yet."]
    nearest = systems.sort_values("n_compounds", ascending=False, kind="stable").head(n_shown)
    for row in nearest.itertuples():
        lacking = ", ".join(row.missing) or "nothing but compounds"
        said.append(f"{'-'.join(row.system)}: {row.n_compounds} compounds; still missing: {lacking}.")
    return "\n".join(said)


def hull_entries(dataset: Dataset, system) -> dict[str, EntryTable]:
    """Return elements and compounds of a system at the minimum of each functional, by the functional's name."""
    compounds = _compounds(dataset, system)
    found = {}
    for one in dataset.functionals:
        zero = element_energies_ev(dataset.elements, functional=one.key, energy_kind=one.energy_kind)
        energies = [zero[ATOMIC_NUMBERS[symbol] - 1] for symbol in system]
        found[one.name] = EntryTable.from_columns(
            [*system, *compounds["material_id"]],
            [*system, *compounds["composition"]],
            [*energies, *compounds[one.column()]],
            functional=one.key,
            energy_kind=one.energy_kind,
            source=dataset.name,
        )
    return found


@dataclass(frozen=True, eq=False)
class HullInBoth:
    """The hull of three elements in both functionals of a dataset.

    Attributes
    ----------
    dataset : Dataset
    system : tuple of str
        Elements, by atomic number.
    compounds : DataFrame
        Index material, lowest formation energy in the low functional first; `formula`; `formation_ev` and
        `decomposition_ev`, eV/atom, each with a column for every functional's name below it.
    diagrams : dict
        Name of a functional -> pymatgen PhaseDiagram.
    """

    dataset: Dataset
    system: tuple[str, ...]
    compounds: pd.DataFrame
    diagrams: dict

    @property
    def name(self) -> str:
        """Elements joined by dashes."""
        return "-".join(self.system)

    @property
    def names(self) -> dict[str, str]:
        """Names of the functionals by their side, "low" and "high"."""
        return {one.side: one.name for one in self.dataset.functionals}

    @property
    def looks(self) -> dict[str, str]:
        """Name of a functional -> its key in the tables of colours and markers."""
        return dict(zip(self.names.values(), ("gga", "r2scan"), strict=True))

    @property
    def formation_ev(self) -> pd.DataFrame:
        """Formation energy of each compound, eV/atom, a column for each functional."""
        return self.compounds["formation_ev"]

    def formation_step(self) -> Estimate:
        """Mean of high minus low formation energy, meV/atom, with an interval over compounds."""
        low, high = (1000 * self.formation_ev[name] for name in self.names.values())
        return paired_difference(high, low, self.compounds.index)

    def verdicts_that_differ(self) -> list[str]:
        """Compounds that are stable in one functional and not in the other."""
        stable = self.compounds["decomposition_ev"] < 0
        return [*self.compounds.index[stable.any(axis=1) & ~stable.all(axis=1)]]

    def describe(self) -> str:
        """Formation energies of every compound in words."""
        low, high = self.names.values()
        rows = self.formation_ev.iterrows()
        said = [f"{material} {row[low]:.2f} ({low}) and {row[high]:.2f} eV/atom ({high})" for material, row in rows]
        return "; ".join(said)


def find_hull(name: str) -> tuple[HullInBoth | None, str]:
    """Return the hull of the three elements with most compounds in a dataset, or None, and what to say of it.

    Parameters
    ----------
    name : str
        Name or folder of a dataset with `pairs` and `elements`.
    """
    dataset = open_if_there(name, "pairs", "elements")
    if dataset is None:
        return None, f"{name} is not here, or has no elements in both functionals yet."
    systems = ternary_systems(dataset)
    if lack := describe_lack(systems, dataset.name):
        return None, lack
    hull = hull_in_both(dataset, systems["system"][0])
    return hull, f"{hull.name} is whole, with {len(hull.compounds)} compounds."


def hull_in_both(dataset: Dataset, system) -> HullInBoth:
    """Compare the compounds of three elements in both functionals of a dataset.

    Parameters
    ----------
    dataset : Dataset
    system : sequence of str
        Three elements that have energies in both functionals.

    Returns
    -------
    HullInBoth
    """
    columns, diagrams = {}, {}
    for name, entries in hull_entries(dataset, system).items():
        report = hull_report(None, entries).set_index("id")
        formation = entries.energy_per_atom_ev - entries.X @ np.nan_to_num(element_energies_ev(entries))
        columns["formation_ev", name] = pd.Series(formation, index=entries.ids)
        columns["decomposition_ev", name] = report["decomposition_energy_ev_per_atom"]
        formulas = report["formula"]
        diagrams[name] = phase_diagram(entries)
    table = pd.DataFrame(columns)
    table.insert(0, ("formula", ""), formulas)
    table = table.drop(index=list(system)).sort_values(("formation_ev", dataset.functionals[0].name))
    return HullInBoth(dataset, tuple(system), table, diagrams)


def _elements_of(pairs: pd.DataFrame) -> list[frozenset]:
    from pymatgen.core import Composition

    return [frozenset(e.symbol for e in Composition(formula)) for formula in pairs["composition"]]


def _compounds(dataset: Dataset, system) -> pd.DataFrame:
    pairs: Any = dataset.pairs
    return pairs[[len(elements) > 1 and elements <= set(system) for elements in _elements_of(pairs)]]
