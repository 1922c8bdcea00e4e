"""One look for every figure of the book, and one function for each kind of figure.

A lesson calls :func:`use_style` once, draws with the functions below (each takes tables and an ``ax`` and returns the
``ax``, except where the library underneath needs a whole figure), and hands the result to :func:`show`, which carries
the alternative text, the caption and the dataset's label notice into JupyterLab and into the book alike.
"""

from crossfunc.lessons.figures.display import caption, show, write_interactive
from crossfunc.lessons.figures.elements import periodic_table, periodic_table_interactive, reference_scheme
from crossfunc.lessons.figures.energies import before_and_after, joint_energy_plot, parity_hover, shift_against_z
from crossfunc.lessons.figures.forgetting import dimer_curves, gained_and_lost, lost_by_kind
from crossfunc.lessons.figures.hulls import (
    errors_by_distance,
    experiment_parity,
    hull_plot,
    hulls_side_by_side,
    ternary_hull,
    two_hulls_scheme,
    verdict_panel,
    verdict_panels,
)
from crossfunc.lessons.figures.importance import importance_map, measure_shares, share_bars
from crossfunc.lessons.figures.stages import error_stages
from crossfunc.lessons.figures.style import COLORS, LABELS, MARKERS, FigureError, use_style, wide

__all__ = [
    "COLORS",
    "LABELS",
    "MARKERS",
    "FigureError",
    "before_and_after",
    "caption",
    "dimer_curves",
    "error_stages",
    "errors_by_distance",
    "experiment_parity",
    "gained_and_lost",
    "hull_plot",
    "hulls_side_by_side",
    "importance_map",
    "joint_energy_plot",
    "lost_by_kind",
    "measure_shares",
    "parity_hover",
    "periodic_table",
    "periodic_table_interactive",
    "reference_scheme",
    "share_bars",
    "shift_against_z",
    "show",
    "ternary_hull",
    "two_hulls_scheme",
    "use_style",
    "verdict_panel",
    "verdict_panels",
    "wide",
    "write_interactive",
]
