"""crossfunc, imported as `xf`: cross-functional transfer of universal interatomic potentials."""

from importlib import import_module

__version__ = "0.1.0"

# The table of contents. Each name is imported when it is asked for, so that `import crossfunc` stays instant.
_HOME = {
    "AtomRefError": "crossfunc.energies",
    "AtomRefFit": "crossfunc.energies",
    "AseModel": "crossfunc.potential",
    "CHGNetCalculator": "crossfunc.potential.calculator",
    "CalculatorError": "crossfunc.potential",
    "CheckpointError": "crossfunc.potential",
    "DatasetError": "crossfunc.datasets",
    "EntryTable": "crossfunc.stability",
    "LabelledFrames": "crossfunc.training",
    "METHODS": "crossfunc.training",
    "advise": "crossfunc.advice",
    "composition_matrix": "crossfunc.energies",
    "crystal_features": "crossfunc.potential",
    "data_efficiency": "crossfunc.training",
    "decomposition_energy": "crossfunc.stability",
    "element_references": "crossfunc.potential",
    "evaluate": "crossfunc.training",
    "fetch_dataset": "crossfunc.datasets",
    "finetune": "crossfunc.training",
    "fit_atomref": "crossfunc.energies",
    "fit_frozen_model": "crossfunc.training",
    "fit_model_aware_atomref": "crossfunc.energies",
    "fit_power_law": "crossfunc.training",
    "forgetting": "crossfunc.training",
    "formation_energy_per_atom_ev": "crossfunc.stability",
    "hull_report": "crossfunc.stability",
    "load_calculator": "crossfunc.potential",
    "leave_composition_out": "crossfunc.datasets",
    "leave_prototype_out": "crossfunc.datasets",
    "load_model": "crossfunc.potential",
    "nested_subsets": "crossfunc.datasets",
    "open_dataset": "crossfunc.datasets",
    "predict": "crossfunc.potential",
    "published_atomref": "crossfunc.energies",
    "published_shift": "crossfunc.energies",
    "read_entries": "crossfunc.stability",
    "refit_advice": "crossfunc.energies",
    "relax": "crossfunc.stability",
    "save_model": "crossfunc.potential",
    "set_element_references": "crossfunc.potential",
    "split_by_material": "crossfunc.datasets",
    "start_model": "crossfunc.training",
    "verdict": "crossfunc.advice",
    "with_references": "crossfunc.potential.references",
    "write_dataset": "crossfunc.datasets",
}

__all__ = list(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'crossfunc' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOME])
