"""A page that says how far the units of a lesson are: a file beside them that a browser reads again by itself."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crossfunc.files import write_atomically
from crossfunc.plain_text import in_html
from crossfunc.training.units import STATES, UnitState

__all__ = ["PAGE", "seconds_left", "write_progress_page"]

PAGE = "progress.html"
_READ_AGAIN_S = 30
_STYLE = (
    "body{font:16px system-ui;margin:2em;max-width:60em}table{border-collapse:collapse;width:100%}"
    "td,th{padding:.2em .6em;text-align:left;border-bottom:1px solid #8886}"
    "td+td+td,th+th+th{text-align:right}:root{color-scheme:light dark}"
)


def seconds_left(states: Sequence[UnitState]) -> float | None:
    """Seconds of one core that the units still need: each what a whole one took in the mean, less what it has had.

    Returns
    -------
    float or None
        None while no unit that trains is whole.
    """
    took = [state.seconds for state in states if state.state == STATES[0] and state.step]
    if not took:
        return None
    return float(sum(max(0.0, np.mean(took) - s.seconds) for s in states if s.state != STATES[0]))


def write_progress_page(folder: Path, title: str, states: Sequence[UnitState]) -> Path:
    """Write `progress.html` into the folder of the units; return its path.

    Parameters
    ----------
    folder : path
        Gets the page; is made where it is missing.
    title : str
        Heading of the page, such as "07_scaling_laws, profile converged".
    states : sequence of UnitState
        See `crossfunc.training.units.progress`.
    """
    n_whole = sum(state.state == STATES[0] for state in states)
    left = seconds_left(states)
    summary = f"{n_whole} of {len(states)} units are whole"
    if left:
        summary += f"; about {left / 3600:.1f} hours of one core are left"
    rows = "".join(_row(state) for state in states)
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{in_html(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="{_READ_AGAIN_S}">'
        f"<style>{_STYLE}</style></head><body><h1>{in_html(title)}</h1><p>{summary}. "
        f'<progress max="{len(states)}" value="{n_whole}">{n_whole} of {len(states)}</progress></p>'
        "<table><thead><tr><th>unit</th><th>state</th><th>steps</th><th>minutes</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></body></html>\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    return write_atomically(folder / PAGE, page)


def _row(state: UnitState) -> str:
    steps = f"{state.step}" + (f" of {state.n_steps}" if state.n_steps else "")
    return (
        f"<tr><td>{in_html(state.name)}</td><td>{in_html(state.state)}</td>"
        f"<td>{steps}</td><td>{state.seconds / 60:.1f}</td></tr>"
    )
