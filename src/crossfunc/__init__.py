"""crossfunc, imported as `xf`: cross-functional transfer of universal interatomic potentials."""

from importlib import import_module

__version__ = "0.1.0"

# The table of contents. Each name is imported when it is asked for, so that `import crossfunc` stays instant.
_HOME = {
    "AtomRefError": "crossfunc.energies",
    "AtomRefFit": "crossfunc.energies",
    "DatasetError": "crossfunc.datasets",
    "composition_matrix": "crossfunc.energies",
    "fit_atomref": "crossfunc.energies",
    "fit_model_aware_atomref": "crossfunc.energies",
    "load_model": "crossfunc.potential",
    "nested_subsets": "crossfunc.datasets",
    "open_dataset": "crossfunc.datasets",
    "predict": "crossfunc.potential",
    "published_atomref": "crossfunc.energies",
    "refit_advice": "crossfunc.energies",
    "relax": "crossfunc.stability",
    "split_by_material": "crossfunc.datasets",
    "write_dataset": "crossfunc.datasets",
}

__all__ = list(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'crossfunc' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOME])
