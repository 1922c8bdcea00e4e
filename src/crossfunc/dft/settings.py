"""Every numerical setting of our DFT, with its reason and its source; all other modules take them from here.

Which crystals are computed, and how they are displaced, is in `crossfunc.dft.plan`. What the settings leave out is
measured by `crossfunc.dft.checks` and shown on the page "Our own DFT" of the book. Where a reason is a number without a
source, it was measured with this code. GPAW's defaults are those of its documentation (gpaw.readthedocs.io) and code,
release 25.7.
"""

__all__ = [
    "ATOM_BOX_A",
    "ATOM_CONVERGENCE",
    "BOX_A",
    "CAREFUL_MIXING",
    "CONVERGENCE",
    "CUTOFF_EV",
    "CUTOFF_STEP_EV",
    "EMPTY_BANDS",
    "EMPTY_BANDS_PER_ATOM",
    "FULL",
    "FUNCTIONALS",
    "GPAW_RELEASE",
    "GRID_SPACING_A",
    "HARD",
    "K_LENGTH_A",
    "LONG_A",
    "LOWEST_DENSITY",
    "MAX_ITERATIONS",
    "METALLIC",
    "METAL_K_LENGTH_A",
    "MIXING",
    "OLDEST_LIBXC",
    "SYMMETRY_TOLERANCE",
    "WIDTH_EV",
]

# Plane waves, grid, broadening

HARD = frozenset("B C N O F".split())
"""Elements whose 2p states need the higher cutoff; with all others 500 eV changes no energy difference by 0.5 meV."""
CUTOFF_EV = {True: 700.0, False: 500.0}
"""Of the plane waves, with one of `HARD` and without. What 200 eV more change in differences stands in lesson 10."""
GRID_SPACING_A = {True: 0.155, False: 0.175}
"""Along each cell vector. At 0.18 r2SCAN's forces in barium fluoride were 16 meV/Å off, at 0.155 1.5; PBE's 4 and 0."""
WIDTH_EV = {
    "insulator": 0.05,
    "semiconductor": 0.05,
    "semimetal": 0.1,
    "metal": 0.1,
    "molecule": 0.0,
    "atom": 0.0,
}
"""Width of the Fermi function. Metals have GPAW's default for periodic cells, 0.1 eV; where there is a gap half of it,
with which states on either side of a gap of 1 eV are filled wrongly by exp(-0.5/0.05) = 5e-5; in a box orbitals are
full or empty. Energies are extrapolated to no width; forces are derivatives of the free energy."""

# k-points

METALLIC = ("semimetal", "metal")
"""Crystals with partly filled bands."""
K_LENGTH_A = {"insulator": 9.0, "semiconductor": 19.5, "semimetal": 30.0, "metal": 20.0}
"""Number of k-points along an axis times the distance of the lattice planes there: at least this, or what the plan's
table has for a material. All meshes hold the zone's centre: what shifted ones leave out cancels in cubic cells only; in
a sheared NaCl they left 1.4 GPa. At 10 to 13 Å denser meshes changed forces by 160 meV/Å in rattled BAs, 210 in TiS2
and 70 in sulphur; at 9 Å by 330 in KTaO3 and 60 in TiO2, at 13.5 by 65 and at most 10: perovskites of small gaps are
"semiconductors" here, and insulators that the checks found far off have 13.5 Å. Lesson 10 lists what is left."""
METAL_K_LENGTH_A = {1: 36.0, 2: 30.0}
"""For metals of so many atoms per cell, which cost little: at 16 the volume of barium came out 10 % too large, at 26
E(V) of barium and tantalum still scattered by 2.6 meV/atom; at 20 stresses of LiAu and magnesium were 0.9 GPa off."""
LONG_A = 6.5
"""Along axes with lattice planes closer than this there are at least two k-points: a floor for a material's own length,
as those above give so many anyway."""

# Boxes

BOX_A = (8.0, 8.2, 8.4)
"""Sides of the box of a molecule; all differ, so that no symmetry of the box holds an open shell."""
ATOM_BOX_A = (9.0, 9.2, 9.4)
"""Of an isolated atom; larger, for the outer orbital of an alkali atom is wide."""

# Functionals and convergence

FUNCTIONALS = {"pbe": "PBE", "r2scan": "MGGA_X_R2SCAN+MGGA_C_R2SCAN"}
"""GPAW's names. r2SCAN starts from the converged PBE density; both use the PBE datasets, as the Materials Project's
r2SCAN calculations use PBE pseudopotentials (there is no r2SCAN set)."""
CONVERGENCE = {"density": 1e-5, "eigenstates": 5e-7, "energy": 1e-4}
"""GPAW's default density criterion (1e-4 electrons per electron) left net forces of 39 meV/Å in NaCl; this one leaves
0.5. The energy's is tighter than GPAW's (5e-4 eV per electron), that of eigenstates looser (4e-8 eV² per electron):
forces follow the density, which has its own."""
MIXING = (0.5, 5, 1.0)
"""Share of the new density, densities remembered, weight of long waves. GPAW's default in periodic cells is
(0.05, 5, 50), with a small share and damping of long waves; its documentation ("Convergence issues") names them as what
to tune. Small cells need no damping: 8 to 12 iterations instead of 15 to 19."""
CAREFUL_MIXING = (0.05, 8, 50.0)
"""GPAW's default, with a longer memory: for the few frames that the fast mixing does not bring to convergence."""
MAX_ITERATIONS = (80, 250)
"""Of the fast mixing, several times what converges takes; of the careful one and of free atoms."""
ATOM_CONVERGENCE = {"density": 1e-4, "eigenstates": 1e-5, "energy": 1e-5}
"""Of free atoms, which have no forces: energies are exact to 0.1 meV, and the criteria stay above the noise that vacuum
leaves in r2SCAN, where caesium's orbitals got no better than 3e-6 eV² and then worse."""
SYMMETRY_TOLERANCE = 1e-5
"""Start cells are rounded to 8 digits; GPAW's default of 1e-7 would miss symmetries by that rounding."""
EMPTY_BANDS, EMPTY_BANDS_PER_ATOM = 4, 3
"""Empty bands of a metal. GPAW's own rule is a fifth more than the electrons fill, and four, but no more bands than its
datasets have bound orbitals (gpaw/calculator.py): barium, strontium and calcium get five for their ten electrons, all
full, as if they were insulators. So the four are kept, three for each atom stand for the fifth, and a frame whose
highest band holds electrons all the same is refused (`FULL`)."""
FULL = 1e-4
"""Share of a band's electrons in the highest band of a metal above which higher ones are missing."""
CUTOFF_STEP_EV = 25.0
"""Half the difference of the two cutoffs that give dE/dcutoff, the Pulay part of the stress: wide, because plane waves
come one by one as a cutoff grows."""
GPAW_RELEASE = "25.7"
"""Labels come from it; the extra `dft` of pyproject.toml asks pip for the same one."""
OLDEST_LIBXC = "5.1.0"
"""The first with r2SCAN (2021-01-19): its ChangeLog adds X_R2SCAN and C_R2SCAN."""

# Vacuum

LOWEST_DENSITY = 1e-6
"""Electrons per bohr³; below it no exchange and correlation is counted, in a hydrogen molecule's box 0.03 meV."""
