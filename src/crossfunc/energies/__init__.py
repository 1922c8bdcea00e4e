"""One functional against another: compositions, element references, corrections, shifts, importance."""

from crossfunc.energies.atomref import (
    AtomRefError,
    AtomRefFit,
    fit_atomref,
    fit_model_aware_atomref,
    held_out_error,
    material_folds,
)
from crossfunc.energies.composition import CompositionError, composition_matrix, element_symbols, elements_present
from crossfunc.energies.corrections import (
    CorrectionError,
    add_raw_gga,
    apply_mp2020,
    mp2020_correction_per_atom_ev,
    mp2020_corrections,
    remove_mp2020,
)
from crossfunc.energies.importance import ElementImportance, element_importance, share_change
from crossfunc.energies.priors import ShiftPrior, free_atom_shifts_ev, published_shift
from crossfunc.energies.published import published_atomref, published_tables_apply
from crossfunc.energies.shifts import (
    Pearson,
    RefitAdvice,
    correlation_report,
    correlation_text,
    element_shifts,
    pearson,
    refit_advice,
    scale_held_out,
)

__all__ = [
    "AtomRefError",
    "AtomRefFit",
    "CompositionError",
    "CorrectionError",
    "ElementImportance",
    "Pearson",
    "RefitAdvice",
    "ShiftPrior",
    "add_raw_gga",
    "apply_mp2020",
    "composition_matrix",
    "correlation_report",
    "correlation_text",
    "element_importance",
    "element_shifts",
    "element_symbols",
    "elements_present",
    "fit_atomref",
    "fit_model_aware_atomref",
    "free_atom_shifts_ev",
    "held_out_error",
    "material_folds",
    "mp2020_correction_per_atom_ev",
    "mp2020_corrections",
    "pearson",
    "published_atomref",
    "published_shift",
    "published_tables_apply",
    "refit_advice",
    "remove_mp2020",
    "scale_held_out",
    "share_change",
]
