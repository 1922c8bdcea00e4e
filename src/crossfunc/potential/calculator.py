"""CHGNet for ASE, through the flat forward pass."""

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list
from ase.stress import full_3x3_to_voigt_6_stress

from crossfunc.potential.chgnet import load_model, predict
from crossfunc.potential.graphs import ATOM_CUTOFF_A, GraphError
from crossfunc.units import ev_per_a3_from_gpa


class CHGNetCalculator(Calculator):
    """ASE calculator: energy, free energy (eV), forces (eV/Å), stress (Voigt, eV/Å³), magnetic moments (µB).

    Parameters
    ----------
    model : CHGNet, str or path
        From `load_model`, or what `load_model` takes.
    device : str
        Where to put a model that is given by name.

    Raises
    ------
    GraphError
        On calculation: an isolated atom (all are named), two atoms on one spot, a cell without volume.
    CrystalError
        On calculation: atoms that are not periodic in all three directions, no atoms, or an element beyond Pu.

    Notes
    -----
    Named as ASE calculators are, and a drop-in for the class of the same name in chgnet, with its numbers: stress is
    (1/V) dE/dstrain, tension positive; moments are absolute values. Forces and stress are computed only when asked for.

    Examples
    --------
    >>> import crossfunc as xf
    >>> atoms.calc = xf.CHGNetCalculator("r2scan")
    """

    implemented_properties = ("energy", "free_energy", "forces", "stress", "magmoms")

    def __init__(self, model="0.3.0", *, device: str = "cpu", **kwargs):
        super().__init__(**kwargs)
        self.model = model if hasattr(model, "parameters") else load_model(model, device=device)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        """Run the model once for all of `properties`; ASE calls this when the atoms have changed."""
        super().calculate(atoms, properties, system_changes)
        derivatives = not {"forces", "stress"}.isdisjoint(properties)
        try:
            output = predict(self.model, [self.atoms], derivatives=derivatives)
        except GraphError as error:
            raise _explain(error, self.atoms) from None
        energy_ev = float(output["energy_per_atom_ev"][0]) * len(self.atoms)
        # Begun anew: ASE would serve what is left of other atoms' derivatives as those of these atoms.
        self.results = {"energy": energy_ev, "free_energy": energy_ev, "magmoms": output["magmoms_mub"][0]}
        if derivatives:
            stress = full_3x3_to_voigt_6_stress(ev_per_a3_from_gpa(output["stress_gpa"][0]))
            self.results |= {"forces": output["forces_ev_per_a"][0], "stress": stress}


def _explain(error: GraphError, atoms) -> GraphError:
    """Name every isolated atom; leave any other reason as it is."""
    if "isolated" not in str(error):
        return error
    alone = np.setdiff1d(np.arange(len(atoms)), neighbor_list("i", atoms, ATOM_CUTOFF_A))
    named = ", ".join(f"{k} ({atoms.symbols[k]})" for k in alone)
    return GraphError(
        f"{atoms.get_chemical_formula()}: isolated, no neighbour within {ATOM_CUTOFF_A:g} Å: atom {named}; CHGNet has "
        "no message to pass there. Bring them closer, or use a smaller cell."
    )
