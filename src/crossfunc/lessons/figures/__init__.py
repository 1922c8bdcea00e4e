"""One look for every figure of the book, and one function for each kind of figure.

A lesson calls :func:`use_style` once, draws with the functions below (each takes tables and an ``ax`` and returns the
``ax``, except where the library underneath needs a whole figure), and hands the result to :func:`show`, which carries
the alternative text, the caption and the dataset's label notice into JupyterLab and into the book alike.
"""

from crossfunc.lessons.figures.display import caption, show, write_interactive
from crossfunc.lessons.figures.elements import periodic_table, periodic_table_interactive, reference_scheme
from crossfunc.lessons.figures.energies import joint_energy_plot, parity_hover
from crossfunc.lessons.figures.style import COLORS, LABELS, MARKERS, FigureError, use_style, wide

__all__ = [
    "COLORS",
    "LABELS",
    "MARKERS",
    "FigureError",
    "caption",
    "joint_energy_plot",
    "parity_hover",
    "periodic_table",
    "periodic_table_interactive",
    "reference_scheme",
    "show",
    "use_style",
    "wide",
    "write_interactive",
]
