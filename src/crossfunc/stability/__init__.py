"""From energies to phase stability."""

from crossfunc.stability.entries import EntryTable, HullError
from crossfunc.stability.entry_sources import as_entries, entries_from_dataset, entries_from_pymatgen, read_entries
from crossfunc.stability.formation import FormationError, element_energies_ev, formation_energy_per_atom_ev
from crossfunc.stability.hull import decomposition_energy, hull_report
from crossfunc.stability.model_entries import entries_by_model
from crossfunc.stability.relax import Relaxation, relax

__all__ = [
    "EntryTable",
    "FormationError",
    "HullError",
    "Relaxation",
    "as_entries",
    "decomposition_energy",
    "element_energies_ev",
    "entries_by_model",
    "entries_from_dataset",
    "entries_from_pymatgen",
    "formation_energy_per_atom_ev",
    "hull_report",
    "read_entries",
    "relax",
]
