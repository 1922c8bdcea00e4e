"""A calculator with other element references: the same forces and stresses, another zero of energy."""

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from crossfunc.potential.ase_model import AseModel, as_model
from crossfunc.potential.calculator_source import CalculatorError
from crossfunc.symbols import ELEMENT_SYMBOLS, N_ELEMENTS

__all__ = ["ReferencedCalculator", "with_references"]


class ReferencedCalculator(Calculator):
    """ASE calculator: another one's energy plus an offset for each atom, E = E' + Σ n_Z d_Z; from `with_references`.

    Attributes
    ----------
    calculator : ASE Calculator
        The other one, left as it is.
    offsets_ev : ndarray, shape (94,)
        eV for each atom of an element; NaN where there is none.
    """

    def __init__(self, calculator, offsets_ev, **kwargs):
        super().__init__(**kwargs)
        self.calculator = calculator
        self.offsets_ev = np.array(offsets_ev, dtype=np.float64)
        self.offsets_ev.setflags(write=False)
        self.implemented_properties = list(calculator.implemented_properties)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        """Ask the other calculator for all of `properties`, and add the offsets to what is an energy."""
        super().calculate(atoms, properties, system_changes)
        numbers = self.atoms.numbers
        offsets = self._offsets_of(numbers)
        # What makes it compute most comes first; the rest is then there already.
        asked = sorted({*properties, "energy"}, key=lambda name: name == "energy")
        found = {name: self.calculator.get_property(name, self.atoms) for name in asked}
        others = {name: value for name, value in getattr(self.calculator, "results", {}).items() if name not in found}
        self.results = {**others, **found}
        for name in ("energy", "free_energy"):
            if name in self.results:
                self.results[name] = float(self.results[name]) + float(offsets.sum())
        if "energies" in self.results:
            self.results["energies"] = np.asarray(self.results["energies"]) + offsets

    def _offsets_of(self, numbers: np.ndarray) -> np.ndarray:
        """Offset of each atom, eV; raise for elements without one."""
        inside = (numbers >= 1) & (numbers <= N_ELEMENTS)
        offsets = np.full(len(numbers), np.nan)
        offsets[inside] = self.offsets_ev[numbers[inside] - 1]
        lacking = np.unique(numbers[np.isnan(offsets)])
        if len(lacking):
            named = ", ".join(ELEMENT_SYMBOLS[z - 1] if 1 <= z <= N_ELEMENTS else f"atomic number {z}" for z in lacking)
            raise CalculatorError(
                f"{self.atoms.get_chemical_formula()}: no element reference for {named}; fit on data that hold it, or "
                "with a prior (fit_atomref(..., prior=..., absent='prior'))."
            )
        return offsets


def with_references(calculator, references, *, inside=None) -> ReferencedCalculator:
    """Return a calculator with corrected element references, for use in ASE like any other.

    Parameters
    ----------
    calculator : ASE Calculator, AseModel or CHGNet
        Left as it is.
    references : AtomRefFit, or array_like of shape (94,)
        eV for each atom. What to add to the calculator (as `Verdict.offsets` holds it); or, together with `inside`, the
        references that it is to have.
    inside : AtomRefFit or array_like, shape (94,), optional
        The references that the calculator has in it now: the difference is added.

    Returns
    -------
    ReferencedCalculator
        Forces, stresses and all else are the calculator's own.

    Raises
    ------
    CalculatorError
        References of another shape, or infinite; on calculation, atoms of an element without one.

    Examples
    --------
    >>> import crossfunc as xf
    >>> atoms.calc = xf.with_references(calculator, xf.verdict(calculator, "my-data").offsets)
    """
    model = as_model(calculator)
    if isinstance(model, AseModel):
        calculator = model.calculator
    elif hasattr(model, "model_args"):
        from crossfunc.potential.calculator import CHGNetCalculator

        calculator = CHGNetCalculator(model)
    else:
        raise CalculatorError(f"a {type(calculator).__name__} is no ASE calculator.")
    wanted, present = _energies(references), np.zeros(N_ELEMENTS) if inside is None else _energies(inside)
    return ReferencedCalculator(calculator, wanted - present)


def _energies(references) -> np.ndarray:
    values = np.asarray(getattr(references, "energies_ev", references), dtype=np.float64)
    if values.shape != (N_ELEMENTS,) or np.isinf(values).any():
        raise CalculatorError(f"references have shape {values.shape}: give {N_ELEMENTS} energies or NaN, H to Pu.")
    return values
