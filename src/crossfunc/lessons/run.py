"""Run the lessons: py:percent source -> papermill -> an executed notebook that records what it was made from.

The executed notebook is `build/<profile>/notebooks/NN_topic.ipynb`. It holds no time, no path of the machine that
made it, and two runs of an unchanged lesson write the same bytes.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from crossfunc.endings import describe_ending
from crossfunc.files import locked_folder, write_atomically
from crossfunc.lessons.freshness import check_lesson, find_fault
from crossfunc.lessons.kept_units import fetch_units
from crossfunc.lessons.plans import ABSENT, Plan, check_dataset
from crossfunc.lessons.sources import FIGURES_VARIABLE, RESULTS_PARAMETER, import_book_tool, shown
from crossfunc.lessons.timings import TIMINGS_FILE, read_timings, record_timing
from crossfunc.lessons.traces import hide_secrets, remove_traces
from crossfunc.waiting import SLEEP_WHILE_WAITING

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class LessonRun:
    """What happened to one lesson: `status` is "done", "fresh", "failed" or "not run"."""

    lesson: str
    status: str
    seconds: float = 0.0
    message: str = ""

    @property
    def ok(self) -> bool:
        """True when the executed notebook may be shown."""
        return self.status in {"done", "fresh"}


def run_lessons(
    plans: Sequence[Plan],
    *,
    force: bool = False,
    jobs: int = 1,
    show_bars: bool | None = None,
    report: Callable[[LessonRun], None] | None = None,
) -> list[LessonRun]:
    """Execute lessons; those that are fresh are left alone, and a failure does not stop lessons that do not need it.

    Parameters
    ----------
    plans : list of Plan
        From `plan_run`.
    force : bool
        Run also what is fresh.
    jobs : int
        Processes; a lesson waits for those it needs.
    show_bars : bool, optional
        One progress bar per lesson over its cells; default: on a terminal, one lesson at a time.
    report : callable, optional
        Called with every LessonRun as it ends.

    Returns
    -------
    list of LessonRun, in the order of `plans`

    Raises
    ------
    LessonError
        Another dataset than the profile's was asked for, and it is not here.
    FolderInUse
        Another process runs lessons into the same folder at this moment.
    """
    _check_datasets(plans)
    nothing_is_written = not force and all(_is_done(plan) for plan in plans)
    with contextlib.nullcontext() if nothing_is_written else locked_folder(plans[0].folder):
        return _run_all(plans, force=force, jobs=jobs, show_bars=show_bars, report=report)


def _is_done(plan: Plan) -> bool:
    """Whether a lesson is fresh and its time is known, which the book tells; a run may have been killed in between."""
    if check_lesson(plan) is not None or not (plan.folder / TIMINGS_FILE).is_file():
        return False
    return plan.lesson.stem in read_timings(plan.folder)


def _find_stale_need(plan: Plan, selected: Set[str]) -> str:
    """Say which lesson has left results that this one would read, and that are not of these sources and values."""
    for needed in plan.needed:
        stem = needed.lesson.stem
        problem = None if stem in selected or needed.executed_now() == ABSENT else check_lesson(needed)
        if problem:
            both = " ".join(one.split("_")[0] for one in (stem, plan.lesson.stem))
            return (
                f"reads what lesson {stem} left, and that is {problem.kind} ({problem.message}); "
                f"name both: `crossfunc run {both}` with the same options"
            )
    return ""


def _check_datasets(plans: Sequence[Plan]) -> None:
    """Refuse a dataset that was asked for and is not here, before any kernel starts."""
    for plan in plans:
        if "dataset" in plan.overridden:
            check_dataset(plan.parameters.get("dataset"), f"lesson {plan.lesson.stem}: ")


def _run_all(plans: Sequence[Plan], *, force: bool, jobs: int, show_bars, report) -> list[LessonRun]:
    from joblib import Parallel, delayed

    bars = jobs == 1 and (sys.stderr.isatty() if show_bars is None else show_bars)
    waiting = list(plans)
    stems = {plan.lesson.stem for plan in plans}
    finished: dict[str, LessonRun] = {}

    folders = {plan.lesson.stem: plan.folder for plan in plans}

    def finish(run: LessonRun) -> None:
        finished[run.lesson] = run
        if run.status == "done":
            record_timing(folders[run.lesson], run.lesson, run.seconds, jobs)
        if report:
            report(run)

    while waiting:
        ready = [p for p in waiting if not (set(p.lesson.needs) & stems) - finished.keys()]
        if jobs == 1:
            ready = ready[:1]
        waiting = [p for p in waiting if p not in ready]
        todo = []
        for plan in ready:
            broken = [need for need in plan.lesson.needs if need in finished and not finished[need].ok]
            if broken:
                finish(LessonRun(plan.lesson.stem, "not run", message=f"needs {', '.join(broken)}, which failed"))
            elif not force and _is_done(plan):
                finish(LessonRun(plan.lesson.stem, "fresh", message="nothing changed since it was run"))
            elif stale := _find_stale_need(plan, stems):
                finish(LessonRun(plan.lesson.stem, "not run", message=stale))
            else:
                todo.append(plan)
        workers = Parallel(n_jobs=jobs, return_as="generator_unordered")
        for run in workers(delayed(run_lesson)(plan, show_bar=bars) for plan in todo):
            finish(run)
    return [finished[plan.lesson.stem] for plan in plans]


def run_lesson(plan: Plan, *, show_bar: bool = False) -> LessonRun:
    """Execute one lesson and save the notebook, or, if a cell fails, keep what ran as `*.failed.ipynb`."""
    started = time.monotonic()
    folder = plan.lesson.path.parent
    for stale in (plan.notebook, plan.failed_notebook, *plan.results_files):
        stale.unlink(missing_ok=True)  # whatever happens now, the book cannot show the old run
    shutil.rmtree(plan.figures, ignore_errors=True)
    plan.results.mkdir(parents=True, exist_ok=True)
    fetch_units(plan)
    before = _visible_files(folder)
    with tempfile.TemporaryDirectory(prefix="lesson-") as scratch:
        notebook, message = _execute(plan, Path(scratch).resolve(), show_bar)
        strays = _visible_files(folder) - before
        if not message and strays:
            message = (
                f"lesson {plan.lesson.stem} wrote into {folder.name}/: {', '.join(sorted(strays))}. "
                f"Lessons write to `{RESULTS_PARAMETER}` only."
            )
        message = message or _find_secret(plan)
        remove_traces(notebook, plan, Path(scratch).resolve())
    if message:
        for stale in plan.results_files:
            stale.unlink()
        _write_notebook(notebook, plan.failed_notebook)
        message += f"\n\nWhat ran is kept in {shown(plan.failed_notebook)}."
        return LessonRun(plan.lesson.stem, "failed", time.monotonic() - started, message)
    _write_notebook(notebook, plan.notebook)
    return LessonRun(plan.lesson.stem, "done", time.monotonic() - started, shown(plan.notebook))


def _find_secret(plan: Plan) -> str:
    """Say which results file holds a key or a token; they are offered for download."""
    for file in plan.results_files:
        if file.suffix in (".json", ".csv"):
            text = file.read_text(encoding="utf-8", errors="replace")
            if hide_secrets(text) != text:
                return f"lesson {plan.lesson.stem} wrote a key, a token or a user of an address into {file.name}."
    return ""


def _visible_files(folder: Path) -> set[str]:
    names = (path.name for path in folder.iterdir())
    return {name for name in names if not name.startswith((".", "__")) and not name.endswith(("~", ".py"))}


def _execute(plan: Plan, scratch: Path, show_bar: bool):
    """Run the lesson in a kernel of this interpreter; return the notebook and, if it failed, what to tell people."""
    papermill, nbformat = import_book_tool("papermill"), import_book_tool("nbformat")
    logging.getLogger("papermill").setLevel(logging.ERROR)  # its chatter has our paths; its warnings are our errors
    source, output = scratch / "source.ipynb", scratch / "executed.ipynb"
    nbformat.write(plan.lesson.notebook(), source)
    message = ""
    manager = kernel_manager_class(scratch, plan.figures)
    try:
        _beside_signals(
            lambda: papermill.execute_notebook(
                source,
                output,
                parameters=plan.injected,
                progress_bar={"desc": plan.lesson.stem, "disable": not show_bar, "leave": False, "file": sys.stderr},
                cwd=plan.lesson.path.parent,
                kernel_manager_class=manager,
                record_timing=False,
                coalesce_streams=True,
                store_widget_state=False,
            ),
            manager.end_kernels,
        )
    except papermill.exceptions.PapermillExecutionError as error:
        message = _describe_failure(plan, error)
    except RuntimeError as error:  # nbclient's DeadKernelError, or a kernel that never answered
        message = _describe_dead_kernel(plan, output, error)
    notebook = nbformat.read(output if output.exists() else source, as_version=4)
    if not message and (fault := find_fault(notebook.cells)):
        message = f"lesson {plan.lesson.stem} failed: {fault}"
    return notebook, message


def _beside_signals(execute: Callable[[], object], end_kernels: Callable[[], None]) -> None:
    """Execute in a thread of its own, so that a signal ends the run.

    In the main thread nbclient would take the signal for its own: end this lesson's kernel, call the lesson failed, and
    let the next one start.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="lesson") as pool:
        execution = pool.submit(execute)
        try:
            execution.result()
        except KeyboardInterrupt:
            end_kernels()  # the thread ends when it notices
            raise


class _KernelManager(Protocol):
    @classmethod
    def end_kernels(cls) -> None:
        """End the kernels' processes at once."""


def kernel_manager_class(scratch: Path, figures: Path | None = None) -> type[_KernelManager]:
    """Return a kernel manager that starts this interpreter, whatever kernels are registered on the machine."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    folders = os.environ.get("CROSSFUNC_DATA", "").split(os.pathsep)
    spec = KernelSpec(
        # A kernel is interrupted before it ends, and calls that an error; its failures reach us by other ways.
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"],
        display_name="Python 3",
        language="python",
        env={name: os.environ.get(name, value) for name, value in SLEEP_WHILE_WAITING.items()}
        | {
            # Relative folders are meant from where the command was given, not from the lesson's folder.
            FIGURES_VARIABLE: str(figures or ""),
            "CROSSFUNC_DATA": os.pathsep.join(str(Path(f).expanduser().resolve()) for f in folders if f),
            "IPYTHONDIR": str(scratch / "ipython"),  # no one's start-up files
            "PYTHONSTARTUP": "",
            "PYTHONWARNINGS": "",  # the warnings a reader sees are those Python shows by default
            "PYTHONHASHSEED": "0",  # sets print in the same order every time
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "SOURCE_DATE_EPOCH": "0",  # no date inside figures
            "TQDM_DISABLE": "1",  # bars print times
        },
    )

    class ThisInterpreter(AsyncKernelManager):
        started: ClassVar[list] = []

        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.started.append(self)

        @property
        def kernel_spec(self):
            return spec

        @classmethod
        def end_kernels(cls) -> None:
            """End the kernels' processes at once."""
            for manager in cls.started:
                process = getattr(manager.provisioner, "process", None)
                if process is not None:
                    process.kill()

    return ThisInterpreter


def _describe_failure(plan: Plan, error) -> str:
    text = f"{_ANSI.sub('', chr(10).join(error.traceback))}".strip() or f"{error.ename}: {error.evalue}"
    where = _locate(plan, error.source)
    return f"{where} failed{_describe_lack(error)}:\n\n{_indent(error.source)}\n\n{text}"


def _describe_lack(error) -> str:
    """What the machine lacked, in a few words, where that is why a cell failed."""
    found = re.search(r"\[Errno (\d+)\] ([^:]*)", error.evalue)
    said = describe_ending(OSError(int(found[1]), found[2])) if found else None
    if said:
        return f" ({said.rstrip('.')})"
    return " (not enough memory)" if error.ename == "MemoryError" else ""


def _describe_dead_kernel(plan: Plan, output: Path, error: RuntimeError) -> str:
    cells = json.loads(output.read_text(encoding="utf-8"))["cells"] if output.exists() else []
    begun = [c for c in cells if c["metadata"].get("papermill", {}).get("start_time") and c["cell_type"] == "code"]
    if not begun:
        return (
            f"lesson {plan.lesson.stem} failed: its kernel did not start ({error}). "
            f"Is ipykernel installed for {sys.executable}, and is there memory enough?"
        )
    source = "".join(begun[-1]["source"])
    return (
        f"{_locate(plan, source)} failed: the kernel died ({error}). The usual cause is too little memory.\n\n"
        f"{_indent(source)}"
    )


def _locate(plan: Plan, source: str) -> str:
    cells = [cell.source for cell in plan.lesson.notebook().cells]
    number = cells.index(source) + 1 if source in cells else "?"
    line = plan.lesson.line_of(source)
    place = f"{plan.lesson.source_name}, line {line}" if line else plan.lesson.source_name
    return f"lesson {plan.lesson.stem}, cell {number} of {len(cells)} ({place})"


def _indent(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


def _write_notebook(notebook, path: Path) -> None:
    import nbformat

    path.parent.mkdir(parents=True, exist_ok=True)
    notebook.nbformat_minor = max(notebook.nbformat_minor, 5)
    write_atomically(path, nbformat.writes(notebook, version=4) + "\n")
