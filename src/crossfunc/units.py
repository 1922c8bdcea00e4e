"""Conversions between units; the only place with a bare factor."""

EV_PER_A3_TO_GPA = 160.21766208
"""1 eV/Å³ in GPa, the value CHGNet was trained with (CODATA 2014)."""


def mev_per_atom(energy_per_atom_ev):
    """Energy in meV/atom = 1000 x energy in eV/atom."""
    return energy_per_atom_ev * 1000.0


def gpa_from_vasp_kbar(stress_kbar):
    """Stress in GPa, tension positive = -0.1 x VASP's stress in kBar, where compression is positive."""
    return stress_kbar * -0.1


def gpa_from_ev_per_a3(stress_ev_per_a3):
    """Stress in GPa = 160.21766208 x stress in eV/Å³; the sign stays."""
    return stress_ev_per_a3 * EV_PER_A3_TO_GPA


def ev_per_a3_from_gpa(stress_gpa):
    """Stress in eV/Å³ = stress in GPa / 160.21766208; the sign stays."""
    return stress_gpa / EV_PER_A3_TO_GPA
