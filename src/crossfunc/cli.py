"""The command line, `crossfunc`. Everything heavy is imported by the command that needs it."""

import contextlib
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from crossfunc.endings import check_machine, describe_ending, signals_raise, status_of
from crossfunc.plain_text import visible
from crossfunc.waiting import sleep_while_waiting


class _ErrorsInOneBlock(TyperGroup):
    """What the user or the machine can mend is told in one block; anything else is our bug and shows its traceback."""

    def main(self, *args, **options):
        """Run the command line; a help text or a version that cannot be written is told as well."""
        if sys.stdout is None:  # closed (>&-): a result would go nowhere, or into the next file that is opened
            say("error: standard output is closed; send it to a file, or to /dev/null.", err=True)
            sys.exit(1)
        try:
            return super().main(*args, **options)
        except OSError as error:
            message = describe_ending(error)
            if message is None:
                raise
            with contextlib.suppress(OSError):
                say(f"error: {message}", err=True)
            sys.exit(status_of(error))

    def invoke(self, ctx):
        """Run the command; whatever ends it before its work is done, the status is not 0."""
        words = [*ctx._protected_args, *ctx.args]
        sleep_while_waiting()  # before anything heavy is loaded
        try:
            check_machine()
            with signals_raise():
                return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            message = describe_ending(error, how_to_go_on=_how_to_go_on(words))
            if message is None:
                raise
            with contextlib.suppress(OSError):  # a terminal that was closed, a full disk
                if ctx.params.get("debug"):
                    say(traceback.format_exc(), err=True)
                say(f"error: {message}", err=True)
            raise typer.Exit(status_of(error)) from None


_GO_ON = {"course", "finetune", "run", "units", "make-surrogate", "make-dft", "fetch", "materials-project"}
_LOOKS_ONLY = {"hull", "atomref", "evaluate", "verdict", "check", "check-dft", "list", "bench", "advise"}


def _how_to_go_on(words: list[str]) -> str:
    """What to do when a command was ended from outside; `words` is the command line after `crossfunc`."""
    command = set(words[:1] if words[:1] != ["data"] else words[1:3])
    if command & _GO_ON:
        return "What was finished is kept: the same command goes on where it was."
    return "" if command & _LOOKS_ONLY else "Nothing is half-written: give the same command again."


_PLAIN = {"rich_markup_mode": None, "no_args_is_help": True}


def say(text: object, *, err: bool = False) -> None:
    """Print; what files say reaches the terminal as text, never as a command to it."""
    typer.echo(visible(text), err=err)


app = typer.Typer(name="crossfunc", cls=_ErrorsInOneBlock, pretty_exceptions_enable=False, **_PLAIN)
data_app = typer.Typer(**_PLAIN)
bench_app = typer.Typer(**_PLAIN)
import_app = typer.Typer(**_PLAIN)
app.add_typer(data_app, name="data", help="Look at, check and make datasets.")
data_app.add_typer(import_app, name="import", help="Make a dataset from public or your own files.")
app.add_typer(bench_app, name="bench", help="Measure speed and memory on this machine.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
OnCluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="Work on a Dask cluster: tcp://host:8786, its scheduler file, or local (one process per core).",
    ),
]
Model = Annotated[str | None, typer.Option(help="0.3.0, r2scan, or a checkpoint file.")]
CalculatorPath = Annotated[
    str | None,
    typer.Option("--calculator", metavar="MODULE:NAME", help="An ASE calculator, such as ase.calculators.emt:EMT."),
]
CalculatorArgs = Annotated[
    str | None,
    typer.Option("--calculator-args", metavar="JSON", help='Arguments of the calculator: \'{"model": "7net-0"}\'.'),
]


def _check_jobs(jobs: int) -> int:
    if jobs < 1 and jobs != -1:
        raise typer.BadParameter("give 1 or more, or -1 for one per core.")
    return jobs


CalculatorJobs = Annotated[
    int,
    typer.Option("--jobs", callback=_check_jobs, help="Processes, each with a calculator; -1: one per core."),
]
AllowDownload = Annotated[bool, typer.Option("--allow-download", help="Let the calculator reach the network.")]


class _ModelError(ValueError):
    """A model that is not named, or named twice."""


def _model(name: str | None, path: str | None, arguments: str | None, jobs: int, allow_download: bool):
    """The CHGNet or the calculator that the command line names."""
    from crossfunc.potential import load_calculator, load_model
    from crossfunc.potential.calculator_source import parse_arguments

    if path is None and name is not None:
        if arguments is not None:
            raise _ModelError("--calculator-args belongs to --calculator, and --model is given.")
        return load_model(name)
    if path is not None and name is None:
        return load_calculator(path, parse_arguments(arguments), n_jobs=jobs, allow_download=allow_download)
    raise _ModelError("give one model: --model (0.3.0, r2scan, a checkpoint) or --calculator (module:name).")


def _no_arguments_alone(path: str | None, arguments: str | None) -> None:
    """Refuse arguments of a calculator where none is named."""
    if path is None and arguments is not None:
        raise _ModelError("--calculator-args belongs to --calculator, which is not given.")


def _model_name(name: str | None, path: str | None, arguments: str | None) -> str:
    # Without either, `_model` has refused the command.
    return str(name) if path is None else f"{path} {arguments}" if arguments else path


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"crossfunc {version('crossfunc')}")
        raise typer.Exit


_HELP = """Move interatomic potentials from one density functional to another: data, element references, lessons.

\b
First steps:
  crossfunc data list                  which datasets are here
  crossfunc atomref surrogate          fit element references, and learn whether to refit
  crossfunc run 01 --profile smoke     execute the first lesson in its smallest form
"""
_FETCH_HELP = """Download a public dataset: licence and citation first, resumed after interruptions, every byte checked.

\b
CROSSFUNC_MIRROR=URL [URL ...]   copies to take instead: folders this command wrote, served over http(s)
HTTPS_PROXY, NO_PROXY            as everywhere
REQUESTS_CA_BUNDLE               certificates, where a network inspects https
"""


@app.callback(help=_HELP)
def main(
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Show the traceback or the version if asked to; the commands do the rest."""


@app.command()
def run(
    lessons: Annotated[
        list[str] | None,
        typer.Argument(metavar="LESSON", help="Number (03), name or unique beginning of it; all if none is given."),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            help="Scale: smoke, laptop, surrogate, sevennet, real, dft, converged, converged-surrogate, gpu or paper."
        ),
    ] = "laptop",
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            "-p",
            metavar="NAME=VALUE",
            help="Set a lesson's parameter; may be repeated. Unlike the profile's: goes to build/PROFILE-custom.",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Name or folder of a dataset; short for -p dataset=... Other data go to build/PROFILE-DATASET."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write here instead of build/PROFILE; needs no checkout.")] = None,
    notebooks: Annotated[Path | None, typer.Option(help="Take the lessons from here instead of notebooks/.")] = None,
    root: Annotated[Path | None, typer.Option(help="The checkout; default: the one you are in.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Lessons to run at the same time.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Run also lessons that are fresh.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Run nothing; list what is missing, failed or stale (status 1).")
    ] = False,
) -> None:
    """Execute lessons and save the notebooks that the book shows.

    A lesson whose source, parameters and data have not changed since its last run, with the same crossfunc, is fresh
    and left alone. Executed notebooks go to build/PROFILE/notebooks, results to build/PROFILE/results: the book is made
    from these. A run with other values than the profile's has a folder of its own and leaves the book's alone:
    build/PROFILE-DATASET for another dataset, with -custom at its end for any other parameter, or what --out says.
    """
    from crossfunc.lessons.plans import check_dataset, plan_run
    from crossfunc.lessons.sources import LessonError, place_lessons, shown
    from crossfunc.overrides import parse_overrides

    overrides = parse_overrides(parameter or [])
    if dataset is not None:
        if "dataset" in overrides:
            raise LessonError("dataset is given twice: by --dataset and by -p.")
        overrides["dataset"] = dataset
    check_dataset(overrides.get("dataset"))  # before the lessons are read, which takes seconds
    home, folder = place_lessons(root, notebooks, out)
    plans = plan_run(home, profile, lessons or (), overrides, out=out, notebooks=folder)
    first = plans[0]
    if first.overridden and out is None:
        say(
            f"{', '.join(first.overridden)}: not as in profile {profile}, so the folder is {shown(first.folder)}; "
            f"build/{profile} stays as it is (--out names another)"
        )
    if check:
        _check_lessons(plans)
    else:
        _run_lessons(plans, force=force, jobs=jobs)


def _check_lessons(plans) -> None:
    from crossfunc.lessons.freshness import check_lesson

    problems = [problem for plan in plans if (problem := check_lesson(plan))]
    for problem in problems:
        say(problem)
    say(f"{len(plans) - len(problems)} of {len(plans)} lessons are fresh")
    if problems:
        raise typer.Exit(1)


def _run_lessons(plans, *, force: bool, jobs: int) -> None:
    from crossfunc.lessons.run import run_lessons

    width = max(len(plan.lesson.stem) for plan in plans)

    def report(run) -> None:
        seconds = f"{run.seconds:8.1f} s" if run.seconds else " " * 10
        first, *_ = run.message.splitlines() or [""]
        say(f"{run.lesson:{width}}  {run.status:7} {seconds}  {first}")

    runs = run_lessons(plans, force=force, jobs=jobs, report=report)
    failed = [run for run in runs if run.status == "failed"]
    for run in failed:
        say(f"\nerror: {run.message}", err=True)
    if not all(run.ok for run in runs):
        raise typer.Exit(1)


@app.command()
def figures(
    lessons: Annotated[
        list[str] | None, typer.Argument(metavar="LESSON", help="Number or name; all if none is given.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("build/figures"),
    profile: Annotated[str, typer.Option(help="Profile whose executed lessons are taken.")] = "laptop",
    static: Annotated[
        bool, typer.Option("--static", help="Leave out interactive figures, which need Chromium or Chrome.")
    ] = False,
    root: Annotated[Path | None, typer.Option(help="The checkout; default: the one you are in.")] = None,
) -> None:
    """Write every figure of the executed lessons as SVG and PDF, with captions.md, for slides and print."""
    from crossfunc.lessons.exports import export_figures
    from crossfunc.lessons.plans import plan_run
    from crossfunc.lessons.sources import find_root, shown

    plans = plan_run(find_root(root), profile, lessons or ())
    written = export_figures(plans, out.resolve(), interactive=not static)
    say(f"wrote {len(written)} files and captions.md to {shown(out.resolve())}")


@app.command()
def book(
    out: Annotated[Path, typer.Option(help="Folder to write; empty, or made by this command.")],
    profile: Annotated[str, typer.Option(help="Scale of the lessons: smoke takes minutes, laptop a quarter hour.")] = (
        "laptop"
    ),
    jobs: Annotated[int, typer.Option(min=1, help="Lessons to run at the same time.")] = 1,
) -> None:
    """Write the book's sources, execute its lessons and build its pages, with nothing but the installed package.

    Needs what draws and builds: `pip install 'crossfunc[book,train]'`. In a clone, `make book` does the same. Called
    again, it does only what is not done yet.
    """
    from crossfunc.lessons.checkout import build_book, write_checkout
    from crossfunc.lessons.plans import plan_run
    from crossfunc.lessons.sources import shown

    root = write_checkout(out.resolve())
    _run_lessons(plan_run(root, profile), force=False, jobs=jobs)
    say(f"Ready: {shown(build_book(root, profile))}")


@app.command()
def course(
    lessons: Annotated[
        list[str] | None, typer.Argument(metavar="LESSON", help="Lessons that are taught (01 03 04); none: all.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("build/course"),
    profile: Annotated[str, typer.Option(help="Profile whose executed lessons are taken.")] = "laptop",
    students: Annotated[str, typer.Option(help="Profile whose sizes the students' notebooks have.")] = "smoke",
    plan: Annotated[
        str | None,
        typer.Option(help='Plan of notebooks/course.yml ("One day"): its lessons, and sheet and answers for it alone.'),
    ] = None,
    groups: Annotated[
        bool | None,
        typer.Option(
            "--groups/--no-groups",
            help="Execute lesson 6 for each group whose second task has no known outcome yet, in a minute or two each; "
            "default: on with a plan in which groups have that task, else off.",
            show_default=False,
        ),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="The checkout; default: the one you are in.")] = None,
) -> None:
    """Write what a course needs: notebooks without and with solutions, checks, quizzes, slides, sheets, a hand-out."""
    from crossfunc.lessons import course as courses
    from crossfunc.lessons.plans import plan_run
    from crossfunc.lessons.sources import find_root, shown

    checkout = find_root(root)
    about = courses.read_course(checkout / "notebooks" / courses.FILE)
    if plan is not None:
        lessons = lessons or courses.lessons_of(about, plan)
    if groups is None:
        groups = plan is not None and courses.needs_outcomes(about, plan)
    plans, of_students = (plan_run(checkout, name, lessons or ()) for name in (profile, students))
    written, notice = courses.write_course(
        plans, out.resolve(), about, students=of_students, day=plan, run_groups=groups, report=say
    )
    if notice:
        say(f"interactive figures are words on the slides: {notice}")
    say(
        f"wrote {len(written)} files to {shown(out.resolve())}: begin with README.md, hand out students/ and groups/, "
        "print print/, keep instructors/"
    )


@data_app.command("list")
def list_data(as_json: AsJson = False) -> None:
    """List the datasets that open by name here: from the folders in CROSSFUNC_DATA, then those in the package."""
    from crossfunc.datasets import DatasetError, list_datasets, open_dataset

    rows = []
    for name, path in list_datasets().items():
        try:
            licence = open_dataset(path, verify=False).meta["licence"]
        except DatasetError as error:
            licence = f"cannot be opened: {error}"
        rows.append({"name": name, "licence": licence, "path": str(path)})
    if as_json:
        say(json.dumps(rows, indent=1))
    elif rows:
        for row in rows:
            say(f"{row['name']}\n  licence  {row['licence']}\n  found    {row['path']}")
    else:
        say("no datasets here; name folders that hold some in CROSSFUNC_DATA")


@data_app.command("check")
def check_data(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder or name of a dataset.")],
    labels: Annotated[
        bool, typer.Option("--labels/--no-labels", help="Check units, signs and geometry of the frames, too.")
    ] = True,
    use_model: Annotated[
        bool, typer.Option("--model/--no-model", help="Compare a sample with the published models (a minute or so).")
    ] = True,
    calculator: CalculatorPath = None,
    calculator_args: CalculatorArgs = None,
    jobs: CalculatorJobs = 1,
    allow_download: AllowDownload = False,
    as_json: AsJson = False,
) -> None:
    """Check a dataset: files, checksums, columns, every row; units and signs by measurement. Status 1 if unusable."""
    from crossfunc.datasets import check_dataset

    _no_arguments_alone(calculator, calculator_args)
    model = None
    if calculator is not None:
        if not (labels and use_model):
            raise _ModelError("--calculator is what labels are compared with: leave --no-model and --no-labels out.")
        model = _model(None, calculator, calculator_args, jobs, allow_download)
    report = check_dataset(folder)
    if labels and all(finding.level != "error" for finding in report.findings):
        from crossfunc.datasets import open_dataset
        from crossfunc.label_checks import add_label_findings

        add_label_findings(report, open_dataset(folder, verify=False), use_model=use_model, model=model)
    say(json.dumps(report.to_dict(), indent=1) if as_json else str(report))
    if any(finding.level == "error" for finding in report.findings):
        raise typer.Exit(1)


@data_app.command("migrate")
def migrate_data(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a dataset.")],
) -> None:
    """Bring a dataset folder of an older crossfunc up to date: the same data, columns that say what they hold."""
    from crossfunc.datasets.migrate import migrate_dataset

    migrated = migrate_dataset(folder)
    words = ", ".join(f"{one.side} is {one.full_name} ({one.key})" for one in migrated.dataset.functionals)
    say(f"{folder}: {'brought up to date' if migrated.changed else 'up to date already'}; {words}")


@data_app.command("fetch", help=_FETCH_HELP)
def fetch_data(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Public dataset; without one, they are listed.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: build/downloads/NAME.")] = None,
    look: Annotated[
        bool, typer.Option("--look", help="Ask the source and show licence, citation and size; download nothing.")
    ] = False,
) -> None:
    """Fetch, look at, or list public datasets."""
    from crossfunc.datasets import fetch, registry

    if name is None:
        for entry in registry.public_datasets().values():
            say(f"{entry.name}\n  {entry.title}\n  licence  {entry.licence}")
        return
    if look:
        dataset = registry.find_public_dataset(name)
        mirror, *_ = [*registry.mirrors(), None]
        for line in fetch.describe(registry.ask_source(dataset, mirror=mirror), dataset):
            say(line)
        return
    fetched = fetch.fetch_dataset(name, out, report=say)
    say(f"complete and checked: {fetched.folder}")
    say(f"next: {fetched.import_command}")


@data_app.command("make-surrogate")
def make_surrogate(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("build/surrogate"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the chemistry and of the rattles.")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only this many compounds and their elements, for a quick look.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    cluster: OnCluster = None,
    labels: Annotated[
        str,
        typer.Option(
            help="Whose labels: chgnet; sevennet for the same crystals labelled by SevenNet-MF-0; diep to add a third "
            "opinion on formation energies to the dataset at --out."
        ),
    ] = "chgnet",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a dataset that is there already.")] = False,
) -> None:
    """Make the embedded datasets anew: crystals labelled by published networks, not DFT.

    All of it takes about half an hour on two cores (--jobs 2); a run that was stopped goes on where it was. The workers
    of a cluster must see the folder. With --labels sevennet the crystals are those of the dataset `surrogate`, and
    `pip install sevenn` is needed; --seed then has nothing to decide.
    """
    from crossfunc.cluster import use_cluster
    from crossfunc.surrogate import generate, teachers, third_teacher

    with use_cluster(cluster):
        if labels == "chgnet":
            generate.make_surrogate(out, seed=seed, n_limit=limit, n_jobs=jobs, overwrite=overwrite)
        elif labels in teachers.TEACHERS and teachers.TEACHERS[labels].low is None:
            third_teacher.add_teacher(out, labels, n_jobs=jobs)
        else:
            teachers.label_again(out, labels, n_limit=limit, n_jobs=jobs, overwrite=overwrite)
    say(f"wrote {out}; look at it with: crossfunc data check {out}")


@data_app.command("make-dft")
def make_dft(
    out: Annotated[Path, typer.Option(help="Folder of the dataset; what is computed is kept beside it in OUT-run.")],
    steps: Annotated[
        int, typer.Option(min=1, max=10, help="Frames of each material, in the order of the recipe.")
    ] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every strain and rattle.")] = 0,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only materials whose id begins so (MgO), or -atom for free atoms; may be repeated."),
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Begin no frame after this time.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Compute everything, also what the shipped dataset holds.")
    ] = False,
    jobs: Annotated[
        int, typer.Option(min=1, help="Frames at the same time, one core and 1 to 3 GB of memory each.")
    ] = 1,
    cluster: OnCluster = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a dataset that is there already.")] = False,
) -> None:
    """Compute energies, forces and stress in PBE and r²SCAN with GPAW, and write them as a dataset.

    Needs GPAW: `pip install 'crossfunc[dft]'` after `apt-get install libxc-dev libopenblas-dev libfftw3-dev` on Debian,
    or `conda install -c conda-forge gpaw=25.7 gpaw-data`. What the shipped dataset pbe-r2scan holds is taken from it
    and only the rest is computed; a run that was stopped goes on where it was with the same command. Status 1 while
    frames are missing.
    """
    from crossfunc.cluster import use_cluster
    from crossfunc.dft import make

    with use_cluster(cluster):
        progress = make.make_dft(
            out,
            seed=seed,
            n_steps=steps,
            only=tuple(only or ()),
            max_minutes=minutes,
            fresh=fresh,
            n_jobs=jobs,
            overwrite=overwrite,
        )
    say(
        f"{progress.done} of {progress.planned} frames have labels, {progress.failed} are in the ledger; "
        f"{progress.computed} computed now. Wrote {out}; look at it with: crossfunc data check {out}"
    )
    if not progress.complete:
        say("Not all frames are done: the same command goes on.", err=True)
        raise typer.Exit(1)


@data_app.command("check-dft")
def check_dft(
    check: Annotated[
        list[str] | None,
        typer.Argument(
            help="derivatives, convergence, k-points, total-energy, grid, recompute or minima; all if none is given."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the tables as JSON to this file, each case as it ends, and show them.")
    ] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Compute only what the file of --out lacks, and add it there.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="CASE", help="Crystal or frame to check (MgO-rock-salt); several times for several."),
    ] = None,
) -> None:
    """Check the DFT engine: finite differences, convergence, shipped frames computed again, minima of other metals.

    All of it takes between four and five hours on one core, three of them for the k-points of every crystal; the book's
    page "Our own DFT" shows the tables of the last run.
    """
    from crossfunc.dft import checks
    from crossfunc.files import check_writable, write_atomically

    def keep(tables: dict) -> None:
        if out:
            write_atomically(out, json.dumps(tables, indent=1) + "\n")

    if missing and not out:
        raise typer.BadParameter("give the file that is to be completed with --out.", param_hint="--missing")
    if out:
        check_writable(out)
    known = checks.read_tables(out) if missing and out and out.exists() else None
    names = tuple(check or checks.CHECKS)
    tables = checks.run_checks(names, report=say, only=tuple(only or ()), known=known, keep=keep)
    say(checks.as_text(tables))
    if out:
        say(f"wrote {out}")


@data_app.command("drop-twins")
def drop_twins(
    dataset: Annotated[str, typer.Argument(metavar="DIR_OR_NAME", help="Dataset with frames and pairs.")],
    out: Annotated[Path, typer.Option(help="Folder to write; may be the dataset's own with --overwrite.")],
    version: Annotated[str | None, typer.Option(help="Version of the dataset written.  [default: as it was]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a dataset that is there already.")] = False,
) -> None:
    """Write a dataset again in which no two materials are one crystal, so that no split has it on both sides.

    Of each group that pymatgen's StructureMatcher finds alike the first material stays; the others go to the ledger.
    The embedded dataset is made this way already.
    """
    from crossfunc.datasets import open_dataset
    from crossfunc.surrogate import twins

    before = open_dataset(dataset)
    after = twins.drop_twins(before, out, version=version, overwrite=overwrite)
    n_before, n_after = len(before.need_pairs()), len(after.need_pairs())
    say(f"wrote {out}: {n_before - n_after} of {n_before} materials were twins")


@import_app.command("materials-project")
def import_materials_project(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    chemsys: Annotated[
        list[str] | None,
        typer.Option(help="A system such as Li-Fe-O, with all its subsystems; may be repeated."),
    ] = None,
    elements: Annotated[str | None, typer.Option(help="All materials made of these elements alone: Li,Fe,O,F.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole collection: some thousand requests.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a dataset that is there already.")] = False,
) -> None:
    """Import Materials Project energies of the same materials in GGA/GGA+U and r²SCAN, through mp-api.

    Needs `pip install 'crossfunc[mp]'` and a key, which mp-api reads from MP_API_KEY or its own configuration file.
    An import that was stopped goes on where it was.
    """
    from crossfunc.datasets.importers import materials_project

    symbols = (elements or "").replace(",", " ").split()
    query = materials_project.Query(tuple(chemsys or ()), tuple(symbols), everything)
    dataset = materials_project.import_materials_project(out, query, overwrite=overwrite, report=say)
    n_pairs = 0 if dataset.pairs is None else len(dataset.pairs)
    n_frames = dataset.need_frames().num_rows
    say(
        f"wrote {out}: {n_pairs} materials in both functionals, {n_frames} structures with energy, "
        f"{len(dataset.rejected)} rows left out (rejected.parquet)"
    )
    say(f"licence {dataset.meta['licence']}; cite {dataset.meta['citation']}")


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a dataset that is there already.")]
Trusting = Annotated[
    bool, typer.Option("--no-check", help="Import without measuring units and signs on a sample of the frames.")
]
StressUnit = Annotated[
    str,
    typer.Option(
        help="Unit and sign of the stress: vasp-kbar, kbar, gpa, ev/a3 (tension positive), or with -compression."
    ),
]


def _inspection(no_check: bool, stress_unit: str, *, absolute: bool, high: str = "r2scan"):
    """What looks at a sample before an import is put in place; None where it is not wanted."""
    if no_check:
        return None

    def inspect(frames):
        from crossfunc.label_checks import refuse_wrong_labels

        for finding in refuse_wrong_labels(frames, absolute=absolute, stress_unit=stress_unit, high=high):
            if finding.level == "warning":
                say(f"warning: {finding.file}: {finding.message}", err=True)

    return inspect


def _import_mp_layout(file: Path, out: Path, kind: str, stress_unit: str, overwrite: bool, no_check: bool) -> None:
    from crossfunc.datasets.importers.mp_r2scan import import_mp_frames

    inspect = _inspection(no_check, stress_unit, absolute=True)
    summary = import_mp_frames(file, out, kind=kind, stress_unit=stress_unit, overwrite=overwrite, inspect=inspect)
    say(str(summary))


@import_app.command("mp-r2scan")
def import_mp_r2scan(
    file: Annotated[Path, typer.Argument(help="MP-r2SCAN's JSON, or gzipped JSON.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    stress_unit: StressUnit = "vasp-kbar",
    overwrite: Overwrite = False,
    no_check: Trusting = False,
) -> None:
    """Import MP-r2SCAN, whatever its size, in less than 1 GB of memory; bad rows go to rejected.parquet."""
    _import_mp_layout(file, out, "mp-r2scan", stress_unit, overwrite, no_check)


@import_app.command("mptrj")
def import_mptrj(
    file: Annotated[Path, typer.Argument(help="MPtrj's JSON, or gzipped JSON.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    stress_unit: StressUnit = "vasp-kbar",
    overwrite: Overwrite = False,
    no_check: Trusting = False,
) -> None:
    """Import MPtrj (GGA/GGA+U with MP2020 corrections), which has the layout of MP-r2SCAN."""
    _import_mp_layout(file, out, "mptrj", stress_unit, overwrite, no_check)


@import_app.command("matpes")
def import_matpes(
    files: Annotated[list[Path], typer.Argument(help="The PBE release, the r2SCAN release, or both.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    stress_unit: StressUnit = "vasp-kbar",
    magmoms: Annotated[str, typer.Option(help="none, or bader: another quantity than CHGNet's.")] = "none",
    overwrite: Overwrite = False,
    no_check: Trusting = False,
) -> None:
    """Import MatPES; with both releases, structures labelled in both become pairs."""
    from crossfunc.datasets.importers import matpes

    inspect = _inspection(no_check, stress_unit, absolute=False)
    summary = matpes.import_matpes(
        files, out, stress_unit=stress_unit, magmoms=magmoms, overwrite=overwrite, inspect=inspect
    )
    say(str(summary))


@import_app.command("extxyz")
def import_extxyz(
    low: Annotated[
        Path, typer.Argument(help="Frames of the functional to start from: .xyz, .extxyz, .gz, ASE's .db; - for none.")
    ],
    high: Annotated[Path, typer.Argument(help="Frames of the functional to get to.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    low_name: Annotated[str, typer.Option(help="The first functional in prose.")] = "low functional",
    high_name: Annotated[str, typer.Option(help="The second functional in prose.")] = "high functional",
    low_kind: Annotated[
        str, typer.Option(help="What the first functional's energies are: raw, or mp2020 if corrected.")
    ] = "raw",
    energy_key: Annotated[str, typer.Option(help="Entry of the comment line that holds the energy.")] = "energy",
    forces_key: Annotated[str, typer.Option(help="Column of the atom lines that holds the forces.")] = "forces",
    stress_key: Annotated[str, typer.Option(help="Entry of the comment line that holds the stress.")] = "stress",
    magmoms_key: Annotated[str, typer.Option(help="Column that holds the magnetic moments.")] = "magmoms",
    structure_key: Annotated[str | None, typer.Option(help="Entry that names a structure in both files.")] = None,
    material_key: Annotated[
        str | None, typer.Option(help="Entry that names the material, which is never split across sets.")
    ] = None,
    energy_unit: Annotated[
        str, typer.Option(help="Unit of the energy: ev, ev/atom, mev/atom, hartree, rydberg.")
    ] = "ev",
    force_unit: Annotated[str, typer.Option(help="Unit of the forces: ev/a, hartree/bohr, rydberg/bohr.")] = "ev/a",
    stress_unit: Annotated[
        str,
        typer.Option(
            help="Unit and sign of the stress: ev/a3, gpa, kbar (tension positive), or with -compression, vasp-kbar; "
            "ev-virial for a virial of the whole cell, -V x stress, ev-virial-tension with the other sign."
        ),
    ] = "ev/a3",
    stress_order: Annotated[
        str,
        typer.Option(
            help="Order of a stress of six numbers: voigt (xx yy zz yz xz xy, as ASE) or vasp (xx yy zz xy yz zx)."
        ),
    ] = "voigt",
    moments: Annotated[
        str,
        typer.Option(help="What a moment is: number; of three numbers the length, or the axis to read: x, y, z."),
    ] = "number",
    leave_out: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A column that looks like a label and is not wanted; may be repeated."),
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the data.")] = "not stated",
    citation: Annotated[str, typer.Option(help="Text to cite when the data are used.")] = "not stated",
    notice: Annotated[
        str | None, typer.Option(help="Notice that figures and tables print beside these labels.")
    ] = None,
    overwrite: Overwrite = False,
    no_check: Trusting = False,
) -> None:
    """Import your own pair of functionals from extended XYZ files or ASE databases."""
    from crossfunc.datasets.functionals import functional_key
    from crossfunc.datasets.importers import extxyz

    keys = extxyz.Keys(
        energy=energy_key,
        forces=forces_key,
        stress=stress_key,
        magmoms=magmoms_key,
        structure_id=structure_key,
        material_id=material_key,
        energy_unit=energy_unit,
        force_unit=force_unit,
        stress_unit=stress_unit,
        stress_order=stress_order,
        moments=moments,
        leave_out=tuple(leave_out or ()),
    )
    inspect = _inspection(no_check, stress_unit, absolute=False, high=functional_key(high_name))
    summary = extxyz.import_extxyz(
        None if str(low) == "-" else low,
        high,
        out,
        functionals=(low_name, high_name),
        energy_kinds=(low_kind, "raw"),
        keys=keys,
        licence=licence,
        citation=citation,
        label_notice=notice,
        overwrite=overwrite,
        inspect=inspect,
    )
    say(str(summary))


@app.command()
def atomref(
    dataset: Annotated[str, typer.Argument(metavar="DIR_OR_NAME", help="Dataset: a folder, or a name.")],
    functional: Annotated[str, typer.Option(help="low or high, or its key, such as r2scan.")] = "high",
    ridge: Annotated[float, typer.Option(min=0.0, help="Pull towards zero, in rows; 0 is plain least squares.")] = 0.0,
    by_material: Annotated[
        bool,
        typer.Option("--by-material", help="Fit on frames, each material counted once however many frames it has."),
    ] = False,
    model: Model = None,
    calculator: CalculatorPath = None,
    calculator_args: CalculatorArgs = None,
    jobs: CalculatorJobs = 1,
    allow_download: AllowDownload = False,
    as_json: AsJson = False,
) -> None:
    """Fit element references, y = X c, and say whether a model for the other functional needs its own.

    The fit is on the table of pairs where the dataset has one, else on its frames. With a model or a calculator it is
    on what that leaves of the frames' energies: offsets to add to it.
    """
    if model is not None or calculator is not None:
        chosen_model = _model(model, calculator, calculator_args, jobs, allow_download)
        _show_offsets(chosen_model, dataset, functional, ridge, as_json=as_json)
        return
    from crossfunc.datasets import open_dataset
    from crossfunc.energies.atomref import fit_atomref
    from crossfunc.energies.of_datasets import advise_refit, energies_of

    opened = open_dataset(dataset)
    chosen = opened.functional(functional)
    X, energy_per_atom_ev, material_ids = energies_of(opened, chosen, from_frames=by_material)
    fit = fit_atomref(
        X,
        energy_per_atom_ev,
        material_ids=material_ids if by_material else None,
        ridge=ridge,
        source=f"{opened.name}, {chosen.full_name}",
    )
    advice = advise_refit(opened)
    if as_json:
        document = json.loads(fit.to_json())
        document |= {"dataset": opened.name, "functional": chosen.key, "energy_kind": chosen.energy_kind}
        document |= {"label_notice": opened.label_notice}
        say(json.dumps(document | {"refit_advice": advice}, indent=1))
        return
    say(fit.report().to_string(float_format="{:.4f}".format))
    say(f"\n{fit.summary()}")
    say(_advice_line(advice))
    say(f"\n{opened.label_notice}")


def _show_offsets(model, dataset: str, functional: str, ridge: float, *, as_json: bool) -> None:
    """Print what to add to a model for each atom of an element."""
    from crossfunc.advice.offsets import fit_offsets, offset_sample
    from crossfunc.datasets import open_dataset

    opened = open_dataset(dataset)
    sample, refused = offset_sample(model, opened, functional)
    fit = fit_offsets(sample, ridge=ridge)
    for frame_id, reason in refused.items():
        say(f"refused {frame_id}: {reason}", err=True)
    if as_json:
        document = json.loads(fit.to_json()) | {"dataset": opened.name, "label_notice": opened.label_notice}
        say(json.dumps(document | {"refused": refused}, indent=1))
        return
    say(fit.report().to_string(float_format="{:.4f}".format))
    say(f"\n{fit.summary()}\n\n{opened.label_notice}")


def _advice_line(advice: dict[str, Any] | None) -> str:
    if advice is None:
        return "\nNo pairs of both functionals here, so no advice whether to refit."
    return f"\nFrom {advice['from']} to {advice['to']}: {advice['reason']}"


@app.command()
def evaluate(
    dataset: Annotated[str, typer.Option(metavar="DIR_OR_NAME", help="Dataset: a folder, or a name.")],
    model: Model = None,
    calculator: CalculatorPath = None,
    calculator_args: CalculatorArgs = None,
    functional: Annotated[str, typer.Option(help="Whose frames: low, high, or its key, such as r2scan.")] = "high",
    by_element: Annotated[bool, typer.Option("--by-element", help="Add the errors element by element.")] = False,
    by_split: Annotated[
        bool, typer.Option("--by-split", help="Add the errors of the 8:1:1 split by material that training uses.")
    ] = False,
    split_seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Seed of the split that --by-split and --source go by; default: that of the run whose folder --model "
            "is, else 0.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="DIR_OR_NAME",
            help="Add what was forgotten of the functional that the model comes from, on frames of this dataset; auto: "
            "the other functional of --dataset.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_OR_PATH",
            help="With --source: the model before training; default: the one that the run whose folder --model is "
            "started from, else 0.3.0.",
        ),
    ] = None,
    jobs: CalculatorJobs = 1,
    allow_download: AllowDownload = False,
    cluster: OnCluster = None,
    as_json: AsJson = False,
) -> None:
    """Mean absolute errors of a model on the labels of a dataset: energy, forces, stress, magnetic moments.

    Frames that CHGNet has no graph for, as with an isolated atom, or that a calculator fails on, are listed and counted
    by no error. The folder of a run stands for its best model, of --functional where it has one for each of two.
    """
    from crossfunc.cluster import use_cluster
    from crossfunc.datasets import open_dataset, split_by_material
    from crossfunc.training.evaluate import evaluate as measure
    from crossfunc.training.forgetting import forgetting
    from crossfunc.training.labels import LabelledFrames
    from crossfunc.training.run_folder import RunStart, find_model_file, read_start

    begun = RunStart("0.3.0", 0)
    if model is not None and Path(model).is_dir():
        begun = read_start(model)
        model = str(find_model_file(model, open_dataset(dataset).functional(functional or "high").key))
    before = source and begun.find_model(start)
    chosen = _model(model, calculator, calculator_args, jobs, allow_download)
    opened = open_dataset(dataset)
    frames = LabelledFrames.from_dataset(opened, functional)
    seed = begun.split_seed if split_seed is None else split_seed
    split = split_by_material(frames.material_ids, seed=seed) if by_split else None
    if (by_split or source) and split_seed is None and begun.fingerprint:
        is_other = begun.functional not in (None, opened.functional(functional or "high").key)
        trained = LabelledFrames.from_dataset(opened, str(begun.functional)) if is_other else frames
        begun.refuse_other_split(trained, split_by_material(trained.material_ids, seed=seed))
    bars = not as_json and sys.stderr.isatty()
    with use_cluster(cluster):
        measured = measure(chosen, frames, by_element=by_element, split=split, progress=bars)
        lost = source and forgetting(
            chosen, opened, start=before, functional=functional, source=source, split_seed=seed
        )
    if as_json:
        measured |= {"forgetting": lost.to_dict()} if lost else {}
        if by_element:
            measured["by_element"] = json.loads(measured["by_element"].to_json(orient="index"))
        called = _model_name(model, calculator, calculator_args)
        origin = {"model": called, "dataset": opened.name, "functional": opened.functional(functional).key}
        say(json.dumps(measured | origin | {"label_notice": opened.label_notice}, indent=1))
        return
    _show_errors(measured)
    if lost:
        say(f"\n{lost.report()}")
    say(f"\n{opened.label_notice}")


def _show_errors(measured: dict[str, Any]) -> None:
    """Errors as text: the whole first, then the tables asked for, then what was refused."""
    import pandas as pd

    for name, value in measured.items():
        if name not in ("refused", "not_predicted", "by_element", "by_split"):
            why = "not predicted by the model" if name in measured.get("not_predicted", ()) else "no labels"
            say(f"{name:24} {why if value is None else f'{value:.6g}'}")
    if "by_element" in measured:
        say(f"\n{measured['by_element'].to_string(float_format='{:.4f}'.format, na_rep='-')}")
    if "by_split" in measured:
        table = pd.DataFrame.from_dict(measured["by_split"], orient="index")
        say(f"\n{table.to_string(float_format='{:.4f}'.format, na_rep='-')}")
    for frame_id, reason in measured["refused"].items():
        say(f"refused {frame_id}: {reason}", err=True)


@app.command()
def verdict(
    dataset: Annotated[str, typer.Argument(metavar="DIR_OR_NAME", help="Dataset with frames: a folder, or a name.")],
    model: Model = None,
    calculator: CalculatorPath = None,
    calculator_args: CalculatorArgs = None,
    functional: Annotated[str | None, typer.Option(help="Whose labels; default: those of the high functional.")] = None,
    references: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the offsets here as JSON, for xf.with_references.")
    ] = None,
    jobs: CalculatorJobs = 1,
    allow_download: AllowDownload = False,
    cluster: OnCluster = None,
    as_json: AsJson = False,
) -> None:
    """Say which functional a model speaks, what new element references would mend, and what to do before training.

    One prediction per frame and least squares; errors after a fit are of materials that were not fitted.
    """
    from crossfunc.advice import verdict as judge
    from crossfunc.cluster import use_cluster
    from crossfunc.files import check_writable, write_atomically

    if references is not None:
        check_writable(references)
    chosen = _model(model, calculator, calculator_args, jobs, allow_download)
    called = _model_name(model, calculator, calculator_args)
    progress = sys.stderr.isatty() and not as_json
    with use_cluster(cluster):
        found = judge(chosen, dataset, functional=functional, name=called, progress=progress)
    if references is not None:
        write_atomically(references, found.offsets.to_json() + "\n")
    say(found.to_json() if as_json else str(found))


@app.command()
def advise(
    low: Annotated[
        str,
        typer.Argument(
            metavar="LOW", help="Where to start: a functional (PBE), a published model (0.3.0, r2scan) or a checkpoint."
        ),
    ],
    high: Annotated[
        str, typer.Argument(metavar="HIGH", help="A dataset with some labelled frames of the goal, or a functional.")
    ],
    error: Annotated[float, typer.Option(help="Energy error to reach, in meV/atom.")] = 30.0,
    functional: Annotated[str, typer.Option(help="Whose labels of the dataset: low, high or a key.")] = "high",
    candidates: Annotated[
        str | None,
        typer.Option(metavar="DIR_OR_NAME", help="Crystals to choose from; default: those of HIGH without a label."),
    ] = None,
    next_frames: Annotated[int, typer.Option("--next", min=0, help="How many crystals to name.")] = 10,
    pilot: Annotated[
        int, typer.Option(min=0, help="Epochs of short fine-tunings that correct the forecast; 0: none.")
    ] = 0,
    keep_source: Annotated[
        bool, typer.Option("--keep-source", help="The model is to stay good in the functional that it comes from.")
    ] = False,
    calculator: CalculatorPath = None,
    calculator_args: CalculatorArgs = None,
    jobs: CalculatorJobs = 1,
    allow_download: AllowDownload = False,
    as_json: AsJson = False,
) -> None:
    """Advise before training: refit or not, which method, how many frames for an error, which ones, how many hours.

    Forecasts are learning curves of a stand-in for training (regression on the frozen network), with intervals that
    were tested on other data; nothing is trained but a few steps to time them. With --calculator, that is the model and
    LOW only says which functional it speaks: where HIGH is a functional, data that begin with it stand in first.
    """
    from crossfunc.advice import advise as ask

    _no_arguments_alone(calculator, calculator_args)
    if calculator is None:
        model, low_functional = low, None
    else:
        if pilot:
            raise _ModelError("--pilot fine-tunes a CHGNet, and --calculator is none: leave --pilot out.")
        low_functional = _spoken_by_calculator(low)
        model = _model(None, calculator, calculator_args, jobs, allow_download)
    advice = ask(
        model,
        high,
        error_ev_per_atom=error / 1000,
        functional=functional,
        low_functional=low_functional,
        candidates=candidates,
        n_next=next_frames,
        pilot_epochs=pilot,
        keep_source=keep_source,
    )
    say(advice.to_json() if as_json else str(advice))


def _spoken_by_calculator(low: str) -> str:
    """The functional that LOW names beside a calculator; refuses what names a second model."""
    from crossfunc.advice.advise import MODELS
    from crossfunc.datasets.functionals import functional_key

    if functional_key(low) not in MODELS and (low in MODELS.values() or Path(low).exists()):
        raise _ModelError(f"{low} is a model, and so is --calculator: give the calculator's functional, such as PBE.")
    return low


@app.command()
def units(
    lesson: Annotated[str, typer.Argument(metavar="LESSON", help="04, 04b (that adds runs of its own), 07 or 09.")],
    profile: Annotated[str, typer.Option(help="Profile whose sizes are taken.")] = "converged",
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Set a parameter of the lesson; may be repeated."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Units whose name holds this text; may be repeated.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs side by side, one CPU thread each.")] = 1,
    cluster: OnCluster = None,
    status: Annotated[bool, typer.Option("--status", help="Run nothing; list what is done.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Copy whole units to units/PROFILE/LESSON, for git.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write here instead of build/PROFILE; needs no checkout.")] = None,
    root: Annotated[Path | None, typer.Option(help="The checkout; default: the one you are in.")] = None,
) -> None:
    """Make the runs of a lesson one by one, apart from its notebook: each goes on where it was stopped.

    A unit is one method with one seed (and one size). When it is done, its numbers and what its models predict are two
    small files in build/PROFILE/units/LESSON, and nothing else of it is needed; `crossfunc run LESSON --profile
    PROFILE` finds all of them whole and draws the figures. Stop it whenever you like, and call it again, also on
    several machines that share the folder with --only. Units that the checkout keeps are not made again.
    """
    import torch

    from crossfunc.cluster import use_cluster
    from crossfunc.datasets import open_dataset
    from crossfunc.lessons.kept_units import check_keepable, fetch_units, keep_unit
    from crossfunc.lessons.lesson_runs import runs_of
    from crossfunc.lessons.plans import plan_run
    from crossfunc.lessons.progress import write_progress_page
    from crossfunc.lessons.sources import LessonError, place_lessons
    from crossfunc.lessons.units import units_folder
    from crossfunc.overrides import parse_overrides
    from crossfunc.training.units import PRETRAINED, progress, progress_table, run_units

    checkout, notebooks = place_lessons(root, out=out)
    (plan,) = plan_run(checkout, profile, [lesson], parse_overrides(parameter or []), out=out, notebooks=notebooks)
    if keep:
        check_keepable(plan)
    folder = units_folder(plan.results, plan.lesson.stem)
    frames, planned = runs_of(plan.lesson.stem, open_dataset(plan.dataset), plan.parameters)
    chosen = [unit for unit in planned if not only or any(text in unit.name for text in only)]
    if not chosen:
        raise LessonError(
            f"no unit's name holds {' or '.join(only or [])}; there are: {', '.join(u.name for u in planned)}."
        )
    fetch_units(plan)
    pretrained = plan.parameters.get("pretrained", PRETRAINED)
    title = f"{plan.lesson.stem}, profile {plan.profile}"

    def tell_page() -> Path:
        return write_progress_page(folder, title, progress(chosen, frames, folder, pretrained))

    def report(name: str) -> None:
        say(f"{name}: whole")
        tell_page()
        if keep:
            keep_unit(plan, name)

    if not status:
        say(f"A browser shows how far they are: {tell_page()}")
        torch.set_num_threads(1 if jobs > 1 else torch.get_num_threads())
        with use_cluster(cluster):
            run_units(chosen, frames, folder, pretrained=pretrained, n_jobs=jobs, report=report)
    states = progress(chosen, frames, folder, pretrained)
    if not status:
        write_progress_page(folder, title, states)
    for state in states:
        if keep and state.state == "whole":
            keep_unit(plan, state.name)
    say(progress_table(states).to_string())
    n_whole = sum(state.state == "whole" for state in states)
    say(f"{n_whole} of {len(states)} units are whole, in {folder}")


@app.command()
def finetune(
    method: Annotated[
        str,
        typer.Option(
            help="1, 2, 3, 4, references-only or model-aware; or after the paper: model-aware-trained, readout-only, "
            "soft-freezing, lora, l2-sp, ewc, replay, two-readouts, delta."
        ),
    ],
    dataset: Annotated[str, typer.Option(metavar="DIR_OR_NAME", help="Dataset with frames: a folder, or a name.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command again goes on where it was.")],
    functional: Annotated[str, typer.Option(help="Whose frames to train on: high, low, or a key.")] = "high",
    pretrained: Annotated[
        str, typer.Option(metavar="NAME_OR_PATH", help="Model that methods other than 1 start from.")
    ] = "0.3.0",
    references: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help='Other references than the method\'s: "MP-r2SCAN" is the published table of the paper.'
        ),
    ] = None,
    prior: Annotated[
        str, typer.Option(help="What refitted references are pulled to: auto, trend or published (r2SCAN).")
    ] = "auto",
    epochs: Annotated[int | None, typer.Option(min=0, help="Passes over the training frames.  [default: 50]")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Frames per optimiser step.  [default: 16]")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate at the start of its cosine.  [default: 0.001]")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the order of the frames and of method 1's weights.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many validations without a lower loss.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that build graphs ahead.")] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="GPUs, or CPU processes, of each node.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes (torchrun or SLURM starts the processes).")] = None,
    compile_: Annotated[
        bool,
        typer.Option("--compile", help="Let torch.compile fuse the forward pass (for a GPU; a CPU has a library)."),
    ] = False,
    source: Annotated[
        str,
        typer.Option(
            metavar="DIR_OR_NAME",
            help="Frames of the functional that the model comes from, for what is forgotten of it and for ewc, replay "
            "and two-readouts; auto: the dataset's other functional; none: no report.",
        ),
    ] = "auto",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="An option of the method, as rank=4 of lora; repeatable."),
    ] = None,
    other: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any other setting (crossfunc.training.Settings); repeatable."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a CHGNet on the labels of one functional: fit element references, train, keep the best model.

    The folder gets best.pt and last.pt (stock chgnet loads them; of method delta, which has more than a CHGNet, only
    .safetensors), best.safetensors, history.csv, and run.json with method, settings, fingerprints of data and split,
    the metrics, and the errors in the functional that the model comes from, before and after. A run that was killed
    goes on from its last checkpoint; a folder with another run is left alone.
    """
    import sys

    from crossfunc.overrides import parse_overrides
    from crossfunc.training import finetune as train
    from crossfunc.training.fit import is_first_process

    options = {
        "n_epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "early_stopping_patience": patience,
        "n_workers": workers,
        "devices": devices,
        "n_nodes": nodes,
        "compile": compile_ or None,
    }
    settings: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    settings |= parse_overrides(other or [], "--set")
    strategy = parse_overrides(option or [], "--option")
    result = train(
        method,
        dataset,
        out=out,
        functional=functional,
        pretrained=pretrained,
        source=None if source == "none" else source,
        options=strategy,
        references=references,
        prior=prior,
        progress=sys.stdout.isatty() and not as_json,
        **settings,
    )
    if is_first_process():
        say(json.dumps(result.summary(), indent=1) if as_json else result.report())


@app.command()
def hull(
    entries: Annotated[
        str,
        typer.Argument(
            metavar="ENTRIES", help="pymatgen entries as JSON (.gz too), a CSV or parquet table, or a dataset."
        ),
    ],
    targets: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Entries to report on, in the forms that ENTRIES takes; default: every entry."
        ),
    ] = None,
    functional: Annotated[
        str | None,
        typer.Option(help="Which energies of a dataset (low, high or a key); a file's, if unstated."),
    ] = None,
    energy_kind: Annotated[
        str | None,
        typer.Option(help="Kind of a dataset's energies to use (raw or mp2020), or of a file's if unstated."),
    ] = None,
    jobs: Annotated[int, typer.Option(callback=_check_jobs, help="Worker processes; -1: one per core.")] = 1,
    cluster: OnCluster = None,
    model: Model = None,
    calculator: CalculatorPath = None,
    calculator_args: CalculatorArgs = None,
    allow_download: AllowDownload = False,
    as_json: AsJson = False,
) -> None:
    """Print each target's distance to the convex hull, its decomposition energy and its competing phases.

    The decomposition energy is taken against phases of other compositions: negative means stable by that much. A
    target without a result has its reason in `status`; the others keep theirs, and where none has one the command ends
    with status 1. With a model or a calculator, all energies are its own, of the structures in the files.
    """
    from crossfunc.cluster import use_cluster
    from crossfunc.stability import hull_report, read_entries

    progress = sys.stderr.isatty() and not as_json
    if model is not None or calculator is not None:
        if functional is not None or energy_kind is not None:
            raise _ModelError(
                "--functional and --energy-kind say which energies of the files to take, and with --model or "
                "--calculator all energies are the model's own: leave them out."
            )
        named = (model, calculator, calculator_args)
        with use_cluster(cluster):
            table, chosen = _predicted_entries(
                _model(*named, jobs, allow_download), _model_name(*named), entries, targets
            )
    else:
        _no_arguments_alone(calculator, calculator_args)
        table = read_entries(entries, functional=functional, energy_kind=energy_kind)
        chosen = None
        if targets is not None:
            chosen = read_entries(targets, functional=functional, energy_kind=energy_kind, among=table)
    with use_cluster(cluster):
        report = hull_report(chosen, table, n_jobs=jobs, progress=progress)
    failed = int((report["status"] != "ok").sum())
    if as_json:
        rows = report.astype(object).where(report.notna(), None).to_dict("records")
        say(json.dumps(rows, indent=1))
        raise typer.Exit(int(failed == len(report)))
    report["competitors"] = [
        " + ".join(f"{one['amount']:.3f} {one['formula']}" for one in some) or status
        for some, status in zip(report["competitors"], report["status"], strict=True)
    ]
    say(report.drop(columns="status").to_string(index=False, float_format="{:.4f}".format, na_rep="-"))
    if failed:
        say(f"\n{failed} of {len(report)} targets have no result")
    raise typer.Exit(int(failed == len(report)))


def _predicted_entries(model, name: str, entries: str, targets: str | None):
    """Entries and targets with a model's energies; those that it cannot predict are named and left out."""
    from crossfunc.stability import entries_by_model

    tables = []
    for file in (entries, targets):
        table, refused = (None, {}) if file is None else entries_by_model(model, file, name=name)
        for entry, reason in refused.items():
            say(f"refused {entry}: {reason}", err=True)
        tables.append(table)
    return tables


def _report(measured: dict, in_words: Callable[[dict], str], as_json: bool) -> None:
    """Say what a benchmark measured."""
    say(json.dumps(measured, indent=1) if as_json else in_words(measured))


@bench_app.command("atomref")
def bench_atomref(as_json: AsJson = False) -> None:
    """Time composition matrix and element references on 238,247 made-up frames, beside chgnet's `AtomRef.fit`."""
    from crossfunc.bench import atomref as benchmark

    measured = benchmark.run()
    _report(measured, benchmark.format_report, as_json)


@bench_app.command("memory")
def bench_memory(
    frames: Annotated[int, typer.Option(min=20, help="Made-up frames of 31 atoms.")] = 200_000,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps to train for.")] = 20,
    folder: Annotated[Path | None, typer.Option(help="Make the dataset here; default: the temporary folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what training on a large dataset holds in memory besides the page cache, in a fresh process."""
    from crossfunc.bench import memory as benchmark

    measured = benchmark.run(frames, steps, folder=folder)
    _report(measured, benchmark.format_report, as_json)


@bench_app.command("hull")
def bench_hull(
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes for the 20,000 targets.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Time 20,000 targets among 150,000 made-up entries of 89 elements, beside pymatgen's `PhaseDiagram`."""
    from crossfunc.bench import hull as benchmark

    measured = benchmark.run(n_jobs=jobs)
    _report(measured, benchmark.format_report, as_json)


@bench_app.command("relax")
def bench_relax(
    structures: Annotated[int, typer.Option(min=1, help="Crystals to relax; the book's figures are those of 64.")] = 24,
    as_json: AsJson = False,
) -> None:
    """Time relaxing 64 embedded crystals at once, beside chgnet's `StructOptimizer` one after another."""
    from crossfunc.bench import relax as benchmark

    measured = benchmark.run(structures)
    _report(measured, benchmark.format_report, as_json)


@bench_app.command("predict")
def bench_predict(
    full: Annotated[
        bool, typer.Option("--full", help="Measure chgnet at 4,096 atoms as well, which takes 21 GB.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Time energy and forces of one crystal of 2 to 10,000 atoms and molecular dynamics, beside chgnet's calculator."""
    from crossfunc.bench import predict as benchmark

    measured = benchmark.run(full=full)
    _report(measured, benchmark.format_report, as_json)


@bench_app.command("gpu")
def bench_gpu(
    device: Annotated[str, typer.Option(help="Device: cuda, or cpu to try the command.")] = "cuda",
    seconds: Annotated[float, typer.Option(min=1, help="No part begins later than this.")] = 480.0,
    out: Annotated[
        Path | None,
        typer.Option(help="JSON that is written anew after every part."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure on a GPU, in at most eight minutes: the same numbers, training, prediction, relaxation, memory."""
    from crossfunc.bench import gpu as benchmark

    measured = benchmark.run(device, limit_s=seconds, out=out)
    _report(measured, benchmark.format_report, as_json)


@bench_app.command("growth")
def bench_growth(
    full: Annotated[bool, typer.Option("--full", help="Measure the largest sizes, too, in some minutes.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Folder for the files that are made; by default a temporary one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how time and memory grow with size, from import to relaxation."""
    from crossfunc.bench import growth as benchmark

    measured = benchmark.run(full=full, folder=folder)
    _report(measured, benchmark.format_report, as_json)


@bench_app.command("calculators")
def bench_calculators(
    jobs: Annotated[int, typer.Option(min=2, help="Processes.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Time predictions through ASE's interface, beside ASE itself and the flat forward pass."""
    from crossfunc.bench import calculators as benchmark

    measured = benchmark.run(n_jobs=jobs)
    _report(measured, benchmark.format_report, as_json)


@bench_app.command("verdicts")
def bench_verdicts(
    dataset: Annotated[str, typer.Argument(metavar="DIR_OR_NAME", help="Dataset with frames.")],
    out: Annotated[Path, typer.Option(help="Folder to write: book/verdicts/NAME for the book.")],
    functional: Annotated[str | None, typer.Option(help="Whose labels; default: the high functional's.")] = None,
    jobs: CalculatorJobs = 1,
) -> None:
    """Write a verdict on each published model whose package is installed (chgnet, sevenn, diep), for the book."""
    from crossfunc.bench import verdicts as benchmark

    benchmark.run(dataset, out, functional=functional, n_jobs=jobs, report=typer.echo)


@bench_app.command("students")
def bench_students(
    dataset: Annotated[str, typer.Argument(metavar="DIR_OR_NAME", help="Dataset with frames in both functionals.")],
    out: Annotated[Path, typer.Option(help="Folder to write: book/students/NAME for the book.")],
    seeds: Annotated[int, typer.Option(min=1, help="Splits by material, one run per method and split.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of each run.")] = 100,
) -> None:
    """Compare references before training for SevenNet-0, a network that is no CHGNet, for the book.

    Each method with each seed is a run with a file of its own, and the command goes on where it was stopped. It needs
    the package sevenn, whose wheel holds the weights; the book itself shows the kept runs.
    """
    from crossfunc.bench import students as benchmark

    benchmark.run(dataset, out, n_seeds=seeds, n_steps=steps, report=typer.echo)


@bench_app.command("forecasts")
def bench_forecasts(
    datasets: Annotated[
        list[str] | None,
        typer.Argument(metavar="DIR_OR_NAME", help="Datasets, two at least; default: the embedded ones."),
    ] = None,
    pilot: Annotated[
        int, typer.Option(min=0, help="Hold forecasts against fine-tuning, too, of so many epochs; ten minutes.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Test the forecasts of `advise`: errors predicted from an eighth of the materials, against what came out."""
    from crossfunc.bench import forecasts as benchmark

    measured = benchmark.run(datasets or benchmark.DATASETS, pilot_epochs=pilot)
    _report(measured, benchmark.format_report, as_json)


@bench_app.command("train")
def bench_train(
    device: Annotated[str, typer.Option(help="Device: cpu or cuda.")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of PyTorch, as many for either implementation.")
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Steps of each implementation, taken in turns; medians count.")
    ] = 7,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Measure torch.compile as well, without the compiled library.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Measure on the larger batches behind the book's figures.")
    ] = False,
    methods: Annotated[
        bool, typer.Option("--methods", help="Measure instead what a step of every method costs beside a plain one.")
    ] = False,
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure instead beside matgl and MACE, those of them that are installed.")
    ] = False,
    devices: Annotated[
        int, typer.Option(min=1, help="Measure instead so many processes on this machine beside one on all threads.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Time a whole training step on four batches, beside the step of chgnet's own `Trainer`."""
    if methods:
        from crossfunc.bench import methods as of_methods

        measured = of_methods.run(n_steps=repeats, threads=threads)
        _report(measured, of_methods.format_report, as_json)
        return
    if peers:
        from crossfunc.bench import peers as of_peers

        measured = of_peers.run(repeats=repeats, threads=threads)
        _report(measured, of_peers.format_report, as_json)
        return
    if devices > 1:
        from crossfunc.bench import devices as of_devices

        measured = of_devices.run(devices)
        _report(measured, of_devices.format_report, as_json)
        return
    from crossfunc.bench import train as benchmark

    batches = benchmark.BATCHES if full else benchmark.QUICK
    measured = benchmark.run(batches, repeats, device=device, threads=threads, compile=compile_)
    _report(measured, benchmark.format_report, as_json)


@bench_app.command("graphs")
def bench_graphs(as_json: AsJson = False) -> None:
    """Time graph building on cells of 5 to 60 atoms, beside chgnet's converter in C."""
    from crossfunc.bench import graphs as benchmark

    measured = benchmark.run()
    _report(measured, benchmark.format_report, as_json)


@bench_app.command("import")
def bench_import(
    frames: Annotated[int, typer.Option(min=100, help="Made-up frames of 31 atoms; MP-r2SCAN has 238,247.")] = 20_000,
    slice_frames: Annotated[int, typer.Option(min=10, help="Frames given to json.load and pymatgen.")] = 2_000,
    folder: Annotated[Path | None, typer.Option(help="Make the file here; default: the temporary folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Import a made-up MP-r2SCAN: memory, speed, and both beside json.load + Structure.from_dict of every frame."""
    from crossfunc.bench import imports as benchmark

    measured = benchmark.run(frames, slice_frames, folder=folder)
    _report(measured, benchmark.format_report, as_json)
