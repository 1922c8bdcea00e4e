"""What the second task of each group's lesson 6 comes to: executed once, and kept beside the executed lessons.

A kept outcome says what it was made from, and is taken only where that is the same; any other file is made anew.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any, NamedTuple

from crossfunc.files import locked_folder, remove_drafts, write_atomically
from crossfunc.lessons.plans import Plan, sha256_of
from crossfunc.lessons.run import kernel_manager_class
from crossfunc.lessons.slides import cell_text
from crossfunc.lessons.sources import LessonError, import_book_tool, spoken_number

__all__ = ["FOLDER", "Outcome", "find_outcomes", "outcome_of"]

FOLDER = "groups"
"""Beside the executed notebooks of the students' profile: a file for each group."""
_FILLED = "points[name] ="
"""What the last cell that the second task needs has in it."""
_ASKED = {
    "second-task": "print(verdicts.close_calls(points).to_string())",
    "second-task-rows": 'print(verdicts.close_calls(points).to_json(orient="index"))',
}
_LIMIT_S = 1800
"""Seconds after which a cell is given up; all cells of a group's lesson take a minute or two at the students' sizes."""
_AT_A_TIME = 2
"""Groups at most: each has a kernel of 2 GB."""
_LOOK_S = 0.2


class Outcome(NamedTuple):
    """What `verdicts.close_calls` says in a group's notebook: as it is printed, and as a row per model."""

    printed: str
    calls: Mapping[str, Mapping[str, Any]]


def find_outcomes(
    plan: Plan,
    notebooks: Mapping[str, Mapping[str, Any]],
    *,
    run: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Outcome]:
    """Return what the second task comes to in each group: kept outcomes that are fresh, and if wanted the others too.

    Parameters
    ----------
    plan : Plan
        The lesson of the groups at the students' sizes; outcomes are kept in its folder.
    notebooks : mapping of str to mapping
        Letter of a group to its notebook, as the group gets it.
    run : bool
        Execute the notebooks whose outcome is not known, as far as the task needs; takes minutes.
    report : callable
        Called with a line for people when the work begins and as each group is done.

    Returns
    -------
    dict of str to Outcome
        In the order of `notebooks`, without those that are not known.

    Raises
    ------
    LessonError
        Notebooks that do not come as far, once all others are done and kept; names the groups.
    FolderInUse
        Another process executes the groups at this moment.
    """
    from joblib import cpu_count

    tasks = {letter: task for letter, notebook in notebooks.items() if (task := _second_task(notebook))}
    if run and (lacking := [letter for letter in notebooks if letter not in tasks]):
        raise LessonError(
            f"group {', '.join(lacking)}: no cell of the lesson fills `points`, which the second task needs. {_WITHOUT}"
        )
    files = {letter: plan.folder / FOLDER / f"{letter}.json" for letter in tasks}
    origins = {letter: _origin(plan, task) for letter, task in tasks.items()}
    found = {letter: kept for letter in tasks if (kept := _read_kept(files[letter], origins[letter]))}
    if run and found:
        report(f"second task of group {', '.join(found)}: kept from an earlier call")
    if run and (todo := {letter: task for letter, task in tasks.items() if letter not in found}):

        def keep(letter: str, outcome: Outcome) -> None:
            _write_kept(files[letter], origins[letter], outcome)
            found[letter] = outcome

        with locked_folder(plan.folder / FOLDER) as folder:
            remove_drafts(folder)
            jobs = min(_AT_A_TIME, len(todo), cpu_count())
            report(_beginning(plan, todo, jobs))
            _run_all(todo, jobs, keep, report)
    return {letter: found[letter] for letter in notebooks if letter in found}


_WITHOUT = "With --no-groups the course is made without what this task comes to."


def _beginning(plan: Plan, todo: Iterable[str], jobs: int) -> str:
    at_a_time = "two at a time" if jobs > 1 else "one after another"
    return (
        f"executing lesson {spoken_number(plan.lesson.number)} for group {', '.join(todo)}, {at_a_time}, a minute or "
        "two for each; what is finished is kept (--no-groups leaves this out)"
    )


# --- what is kept ---


def _origin(plan: Plan, task: Mapping[str, Any]) -> str:
    """A sha256 of all that decides an outcome: package, data and values of the plan, and the cells that are run."""
    return sha256_of([dict(plan.inputs), [cell_text(cell) for cell in task["cells"] if cell["cell_type"] == "code"]])


def _write_kept(file: Path, origin: str, outcome: Outcome) -> None:
    content = {"made_from": origin, **outcome._asdict()}
    text = json.dumps({**content, "sha256": sha256_of(content)}, indent=1, ensure_ascii=False)
    write_atomically(file, text + "\n")


def _read_kept(file: Path, origin: str) -> Outcome | None:
    """The outcome that a file keeps; None for a file that is of other inputs, damaged, or somebody else's."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        whole = content.pop("sha256") == sha256_of(content)
        if not whole or content["made_from"] != origin or not isinstance(content["printed"], str):
            return None
        return Outcome(content["printed"], content["calls"]) if _are_calls(content["calls"]) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _are_calls(given: Any) -> bool:
    """Whether this is a table of `verdicts.close_calls` by rows."""
    return isinstance(given, dict) and all(isinstance(row, dict) and _is_call(row) for row in given.values())


def _is_call(row: Mapping[str, Any]) -> bool:
    from crossfunc.lessons.verdicts import CALLS, CLOSEST

    closest, *energies = (row.get(column) for column in CLOSEST)
    if not all(isinstance(row.get(column), str) for column in CALLS):
        return False
    if closest is None:
        return energies == [None, None]
    return isinstance(closest, str) and all(type(energy) in {int, float} for energy in energies)


# --- running ---


def _second_task(notebook: Mapping[str, Any]) -> dict[str, Any] | None:
    """A group's notebook as far as its second task needs, and what asks for it; None where nothing fills `points`."""
    cells = notebook["cells"]
    last = next((k for k, cell in enumerate(cells) if _FILLED in cell_text(cell)), None)
    if last is None:
        return None
    asked = [{**cells[last], "id": name, "source": source} for name, source in _ASKED.items()]
    return {**notebook, "cells": [*cells[: last + 1], *asked]}


def _run_all(
    todo: Mapping[str, Mapping[str, Any]],
    jobs: int,
    keep: Callable[[str, Outcome], None],
    report: Callable[[str], None],
) -> None:
    """Execute tasks side by side and keep each outcome as it comes; one that fails does not stop the others."""
    failed = []
    with tempfile.TemporaryDirectory(prefix="groups-") as scratch, ThreadPoolExecutor(jobs) as pool:
        managers = {letter: kernel_manager_class(Path(scratch)) for letter in todo}
        runs = {pool.submit(_timed, todo[letter], letter, managers[letter]): letter for letter in todo}
        try:
            for run in as_completed(runs):
                letter = runs[run]
                try:
                    outcome, seconds = run.result()
                except LessonError as error:
                    failed.append(str(error))
                    report(f"group {letter}: failed")
                else:
                    keep(letter, outcome)
                    report(f"group {letter}: done in {seconds:.0f} s")
        except BaseException:
            _end(pool, runs, list(managers.values()))
            raise
    if failed:
        raise LessonError("\n".join([*sorted(failed), _WITHOUT]))


def _end(pool: ThreadPoolExecutor, runs: Iterable[Future], managers: Iterable[Any]) -> None:
    """End the kernels until no run is left: one may start its kernel late, and a second signal may come meanwhile."""
    while left := [run for run in runs if not run.done()]:
        with contextlib.suppress(KeyboardInterrupt):
            pool.shutdown(wait=False, cancel_futures=True)
            for manager in managers:
                manager.end_kernels()
            wait(left, timeout=_LOOK_S)


def _timed(task: Mapping[str, Any], letter: str, manager: type) -> tuple[Outcome, float]:
    started = time.monotonic()
    return outcome_of(task, letter, manager), time.monotonic() - started


def outcome_of(task: Mapping[str, Any], letter: str, manager: type) -> Outcome:
    """Execute a group's notebook that ends in its second task, and return what that comes to.

    Parameters
    ----------
    task : mapping
        The notebook; its last two cells print the table, as text and as JSON.
    letter : str
        The group, for messages.
    manager : type
        From `run.kernel_manager_class`.

    Raises
    ------
    LessonError
        A notebook that does not run to its end, or prints something else; names the group.
    """
    nbclient, nbformat = import_book_tool("nbclient"), import_book_tool("nbformat")
    # As a file has it: texts may be lists of lines, which reading joins.
    notebook = nbformat.reads(json.dumps(task), as_version=4)
    try:
        with tempfile.TemporaryDirectory(prefix="group-") as folder:
            own = {"timeout": _LIMIT_S, "kernel_manager_class": manager}
            nbclient.NotebookClient(notebook, resources={"metadata": {"path": folder}}, **own).execute()
    except (nbclient.exceptions.CellExecutionError, TimeoutError, RuntimeError) as error:
        raise LessonError(
            f"group {letter}: its notebook does not run as far as the second task: {_first_words(error)}"
        ) from error
    printed, rows = (_printed(cell) for cell in notebook.cells[-2:])
    try:
        calls = json.loads(rows)
    except ValueError:
        calls = None
    if not _are_calls(calls):
        raise LessonError(f"group {letter}: `verdicts.close_calls` of its notebook is another table than crossfunc's.")
    return Outcome(printed, calls)


def _first_words(error: Exception) -> str:
    """What a cell raised, or how its kernel ended, in a line without colours."""
    if name := getattr(error, "ename", ""):
        return f"{name}: {getattr(error, 'evalue', '')}"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _printed(cell: Any) -> str:
    return "".join(output["text"] for output in cell.outputs if output.get("name") == "stdout").rstrip()
