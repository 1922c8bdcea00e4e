"""Whether an executed notebook may be shown: it is there, it did not fail, and its inputs are what they were."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossfunc.lessons.plans import Plan, plan_run, public_dataset, public_parameters
from crossfunc.lessons.profiles import DEFAULT_PROFILE
from crossfunc.lessons.sources import LessonError, shown


@dataclass(frozen=True)
class Problem:
    """Why an executed notebook must not be shown: `kind` is "missing", "failed" or "stale"."""

    lesson: str
    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.lesson}: {self.kind}: {self.message}"


def check_fresh(
    root: str | os.PathLike,
    profile: str = DEFAULT_PROFILE,
    *,
    names: Iterable[str] = (),
    overrides: Mapping[str, Any] | None = None,
    out: Path | None = None,
    notebooks: Path | None = None,
    package: Path | None = None,
) -> list[Problem]:
    """Return why the executed notebooks of a profile must not be shown: missing, failed, or older than their inputs.

    Parameters
    ----------
    root : path
        The checkout.
    profile, names, overrides, out, notebooks, package
        As for `plan_run`.

    Returns
    -------
    list of Problem
        At most one per lesson (also for one whose source is gone), empty when all is fresh; `str(problem)` is a line
        for people.
    """
    names = list(names)
    plans = plan_run(Path(root), profile, names, overrides, out=out, notebooks=notebooks, package=package)
    found = [problem for plan in plans if (problem := check_lesson(plan))]
    return found if names else found + _find_orphans(plans)


def _find_orphans(plans: Sequence[Plan]) -> list[Problem]:
    """Executed notebooks whose lesson is gone; `plans` holds all lessons."""
    stems = {plan.lesson.stem for plan in plans}
    executed = sorted(plans[0].notebook.parent.glob("*.ipynb"))
    gone = [path for path in executed if path.name.split(".")[0] not in stems]
    return [Problem(p.name.split(".")[0], "stale", f"its lesson is gone; delete {shown(p)}") for p in gone]


def require_fresh(plans: Iterable[Plan], what: str) -> None:
    """Refuse to make something of lessons that are not fresh.

    Raises
    ------
    LessonError
        Says what is made of fresh lessons only, and lists what is wrong with each that is not.
    """
    if found := [str(problem) for plan in plans if (problem := check_lesson(plan))]:
        raise LessonError(f"{what} from fresh lessons only:\n" + "\n".join(found))


def check_lesson(plan: Plan) -> Problem | None:
    """Return what is wrong with the executed notebook of one lesson, or None."""
    stem = plan.lesson.stem
    if plan.failed_notebook.exists():
        return Problem(stem, "failed", f"see {shown(plan.failed_notebook)}")
    if not plan.notebook.exists():
        return Problem(stem, "missing", f"{shown(plan.notebook)} does not exist; run `crossfunc run {stem}`")
    try:
        notebook = json.loads(plan.notebook.read_text(encoding="utf-8"))
        record = notebook["metadata"]["crossfunc"]
        fault = find_fault(notebook["cells"])
        before, parameters, results = record["inputs"], record["parameters"], record["results"]
    except (ValueError, KeyError, TypeError):
        return Problem(stem, "stale", f"{shown(plan.notebook)} was not written by `crossfunc run`")
    if fault:
        return Problem(stem, "failed", fault)
    changed = [_describe_change(key, plan, parameters) for key in plan.inputs if before.get(key) != plan.inputs[key]]
    changed += [f"input {key} is gone" for key in before.keys() - plan.inputs.keys()]
    read, there = record.get("needed", {}), plan.needed_now()
    changed += [f"what lesson {other} left" for other in there if read.get(other) != there[other]]
    now = plan.hash_results()
    if now != results:
        changed.append("results (" + ", ".join(sorted(k for k in now | results if now.get(k) != results.get(k))) + ")")
    return Problem(stem, "stale", "changed since it was run: " + ", ".join(changed)) if changed else None


def _describe_change(key: str, plan: Plan, before: Mapping[str, Any]) -> str:
    if key == "source":
        return f"source ({plan.lesson.source_name})"
    if key == "data":
        return f"data ({public_dataset(plan.parameters['dataset'])})"
    if key == "needs":
        return f"needs ({', '.join(plan.lesson.needs)})"
    if key != "parameters":
        return key
    now = public_parameters(plan.parameters)
    differing = [k for k in now | dict(before) if now.get(k) != before.get(k)]
    return "parameters (" + ", ".join(f"{k}: {before.get(k)!r} -> {now.get(k)!r}" for k in differing) + ")"


def find_fault(cells: Sequence[Mapping]) -> str | None:
    """Name the first code cell that raised or never ran."""
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, start=1):
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                return f"code cell {number} raised {output['ename']}: {output['evalue']}"
        if "".join(cell["source"]).strip() and cell["execution_count"] is None:
            return f"code cell {number} was never executed"
    return None
