"""Conversions between units; the only place with a bare factor."""

EV_PER_A3_TO_GPA = 160.21766208
"""1 eV/Å³ in GPa, the value CHGNet was trained with (CODATA 2014)."""

EV_PER_HARTREE = 27.211386246
"""1 Hartree in eV (CODATA 2018); a Rydberg is half of it."""

BOHR_A = 0.529177210903
"""1 Bohr in Å (CODATA 2018)."""

EV_TO_KJ_PER_MOL = 96.48533212
"""1 eV a particle in kJ/mol: Faraday's constant (CODATA 2018)."""

EV_TO_KCAL_PER_MOL = EV_TO_KJ_PER_MOL / 4.184
"""1 eV a particle in thermochemical kcal/mol."""


def gpa_from_vasp_kbar(stress_kbar):
    """Stress in GPa, tension positive = -0.1 x VASP's stress in kBar, where compression is positive."""
    return stress_kbar * -0.1


def gpa_from_ev_per_a3(stress_ev_per_a3):
    """Stress in GPa = 160.21766208 x stress in eV/Å³; the sign stays."""
    return stress_ev_per_a3 * EV_PER_A3_TO_GPA


def ev_per_a3_from_gpa(stress_gpa):
    """Stress in eV/Å³ = stress in GPa / 160.21766208; the sign stays."""
    return stress_gpa / EV_PER_A3_TO_GPA


STRESS_UNITS = {
    "vasp-kbar": gpa_from_vasp_kbar(1.0),  # compression positive
    "kbar": -gpa_from_vasp_kbar(1.0),
    "gpa": 1.0,
    "gpa-compression": -1.0,
    "ev/a3": EV_PER_A3_TO_GPA,
    "ev/a3-compression": -EV_PER_A3_TO_GPA,
}
"""GPa (tension positive) per unit that stress is found in; tension is positive there too, unless the name says else."""


VIRIAL_UNITS = {"ev-virial": -EV_PER_A3_TO_GPA, "ev-virial-tension": EV_PER_A3_TO_GPA}
"""GPa x Å³ (tension positive) per eV of a virial of the whole cell: W = -V x stress, or with the other sign."""


def gpa_per_unit(stress_unit: str) -> float:
    """GPa, tension positive, per unit of stress; a name of `STRESS_UNITS`."""
    if stress_unit not in STRESS_UNITS:
        raise UnitError(f"stress unit {stress_unit!r} is none of {', '.join(STRESS_UNITS)}")
    return STRESS_UNITS[stress_unit]


class UnitError(ValueError):
    """A unit that is not known here."""
