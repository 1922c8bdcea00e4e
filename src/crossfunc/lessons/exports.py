"""Figures of executed lessons for slides and print: one file per figure and format, and their captions."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from crossfunc.files import write_atomically
from crossfunc.lessons.freshness import require_fresh
from crossfunc.lessons.plans import Plan
from crossfunc.lessons.sources import LessonError

FORMATS = ("svg", "pdf")
PLOTLY = "application/vnd.plotly.v1+json"


def export_figures(
    plans: Iterable[Plan], out: Path, *, formats: Sequence[str] = FORMATS, interactive: bool = True
) -> list[Path]:
    """Write every named figure of executed lessons, and `captions.md` with the words that belong to them.

    Parameters
    ----------
    plans : iterable of Plan
        From `plan_run`; their lessons must be fresh.
    out : path
        Folder to write; made if it is not there.
    formats : sequence of str
        File formats, of "svg" and "pdf".
    interactive : bool
        Write interactive figures as well, which takes a Chromium or Chrome on this machine.

    Returns
    -------
    list of Path
        The figures written, in the order in which the lessons show them.

    Raises
    ------
    LessonError
        A lesson that is not fresh, or whose figures were not kept; the message says how to renew it.
    """
    plans = list(plans)
    require_fresh(plans, "figures are exported")
    out.mkdir(parents=True, exist_ok=True)
    written, specs = [], {}
    captions = ["# Captions", ""]
    for plan in plans:
        for note, data in named_figures(plan.notebook):
            name, spec = note["name"], data.get(PLOTLY)
            if spec is not None and not interactive:
                continue
            if spec is None:
                _copy(plan, name, out, formats)
            else:
                specs[name] = spec
            caption = note["caption"].rstrip(".")
            captions += [f"**{name}** ({plan.lesson.stem}): {caption}.", "", f"Shown: {note['alt']}", ""]
            written += [out / f"{name}.{suffix}" for suffix in formats]
    if specs:
        from crossfunc.lessons.figures import write_interactive

        write_interactive(specs, out, formats)
    write_atomically(out / "captions.md", "\n".join(captions))
    return written


def named_figures(notebook: Path) -> Iterator[tuple[dict, dict]]:
    """Yield the note (name, alternative text, caption ...) and the output data of each named figure of a notebook."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            note = output.get("metadata", {}).get("crossfunc", {})
            if note.get("name"):
                yield note, output["data"]


def _copy(plan: Plan, name: str, out: Path, formats: Sequence[str]) -> None:
    for suffix in formats:
        kept = plan.figures / f"{name}.{suffix}"
        if not kept.is_file():
            raise LessonError(
                f"{kept}: missing; run the lesson again: "
                f"crossfunc run {plan.lesson.stem} --profile {plan.profile} --force"
            )
        write_atomically(out / kept.name, kept.read_bytes())
