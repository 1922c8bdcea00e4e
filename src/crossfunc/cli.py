"""The command line: `crossfunc run|data|atomref|bench`. Everything heavy is imported by the command that needs it."""

import json
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class _ErrorsInOneBlock(TyperGroup):
    """What the user can mend is told in one block; anything else is our bug and shows its traceback."""

    def invoke(self, ctx):
        """Run the command; an error of crossfunc's own kinds ends it with status 1."""
        try:
            return super().invoke(ctx)
        except ValueError as error:
            if not type(error).__module__.startswith("crossfunc."):
                raise
            if ctx.params.get("debug"):
                typer.echo(traceback.format_exc(), err=True)
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None


_PLAIN = {"rich_markup_mode": None, "no_args_is_help": True}
app = typer.Typer(name="crossfunc", cls=_ErrorsInOneBlock, pretty_exceptions_enable=False, **_PLAIN)
data_app = typer.Typer(**_PLAIN)
bench_app = typer.Typer(**_PLAIN)
app.add_typer(data_app, name="data", help="Look at, check and make datasets.")
app.add_typer(bench_app, name="bench", help="Measure speed and memory on this machine.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"crossfunc {version('crossfunc')}")
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    r"""Move interatomic potentials from one density functional to another: data, element references, lessons.

    \b
    First steps:
      crossfunc data list                  which datasets are here
      crossfunc atomref surrogate          fit element references, and learn whether to refit
      crossfunc run 01 --profile smoke     execute the first lesson in its smallest form
    """


@app.command()
def run(
    lessons: Annotated[
        list[str] | None,
        typer.Argument(metavar="LESSON", help="Number (03), name or unique beginning of it; all if none is given."),
    ] = None,
    profile: Annotated[
        str, typer.Option(help="Scale of the run: smoke, laptop, gpu or paper (notebooks/profiles/*.yml).")
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
    out: Annotated[Path | None, typer.Option(help="Write here, whatever the values, instead of build/PROFILE.")] = None,
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
    from crossfunc.lessons.plans import plan_run
    from crossfunc.lessons.profiles import parse_overrides
    from crossfunc.lessons.sources import LessonError, find_root, shown

    overrides = parse_overrides(parameter or [])
    if dataset is not None:
        if "dataset" in overrides:
            raise LessonError("dataset is given twice: by --dataset and by -p.")
        overrides["dataset"] = dataset
    plans = plan_run(
        Path.cwd() if out and notebooks and not root else find_root(root),
        profile,
        lessons or (),
        overrides,
        out=out,
        notebooks=notebooks.resolve() if notebooks else None,
    )
    first = plans[0]
    if first.overridden and out is None:
        typer.echo(
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
        typer.echo(problem)
    typer.echo(f"{len(plans) - len(problems)} of {len(plans)} lessons are fresh")
    if problems:
        raise typer.Exit(1)


def _run_lessons(plans, *, force: bool, jobs: int) -> None:
    from crossfunc.lessons.run import run_lessons

    width = max(len(plan.lesson.stem) for plan in plans)

    def report(run) -> None:
        seconds = f"{run.seconds:8.1f} s" if run.seconds else " " * 10
        first, *_ = run.message.splitlines() or [""]
        typer.echo(f"{run.lesson:{width}}  {run.status:7} {seconds}  {first}")

    runs = run_lessons(plans, force=force, jobs=jobs, report=report)
    failed = [run for run in runs if run.status == "failed"]
    for run in failed:
        typer.echo(f"\nerror: {run.message}", err=True)
    if not all(run.ok for run in runs):
        raise typer.Exit(1)


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
        typer.echo(json.dumps(rows, indent=1))
    elif rows:
        for row in rows:
            typer.echo(f"{row['name']}\n  licence  {row['licence']}\n  found    {row['path']}")
    else:
        typer.echo("no datasets here; name folders that hold some in CROSSFUNC_DATA")


@data_app.command("check")
def check_data(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder or name of a dataset.")], as_json: AsJson = False
) -> None:
    """Check a dataset: its files, checksums, columns, units and every row. Status 1 if it cannot be used."""
    from crossfunc.datasets import check_dataset

    report = check_dataset(folder)
    typer.echo(json.dumps(report.to_dict(), indent=1) if as_json else str(report))
    if any(finding.level == "error" for finding in report.findings):
        raise typer.Exit(1)


@data_app.command("make-surrogate")
def make_surrogate(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("build/surrogate"),
    seed: Annotated[int, typer.Option(help="Draws the chemistry and the rattles.")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only this many compounds and their elements, for a quick look.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a dataset that is there already.")] = False,
) -> None:
    """Make the embedded dataset anew: crystals labelled by two published CHGNet checkpoints, not DFT.

    All of it takes about half an hour on two cores (--jobs 2); a run that was stopped goes on where it was.
    """
    from crossfunc.surrogate import generate

    generate.make_surrogate(out, seed=seed, n_limit=limit, n_jobs=jobs, overwrite=overwrite)
    typer.echo(f"wrote {out}; look at it with: crossfunc data check {out}")


@app.command()
def atomref(
    dataset: Annotated[str, typer.Argument(metavar="DIR_OR_NAME", help="Dataset: a folder, or a name.")],
    functional: Annotated[
        str, typer.Option(help="gga (with MP2020 corrections, where the data have them) or r2scan.")
    ] = "r2scan",
    ridge: Annotated[float, typer.Option(min=0.0, help="Pull towards zero, in rows; 0 is plain least squares.")] = 0.0,
    by_material: Annotated[
        bool, typer.Option("--by-material", help="Fit on frames, each material counted once however many it has.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fit element references, y = X c, and say whether a model for the other functional needs its own.

    The fit is on the table of pairs where the dataset has one, else on its frames.
    """
    from crossfunc.datasets import open_dataset
    from crossfunc.energies.atomref import fit_atomref

    if functional not in ("gga", "r2scan"):
        raise typer.BadParameter(f"{functional!r} is neither gga nor r2scan", param_hint="--functional")
    opened = open_dataset(dataset)
    X, energy_per_atom_ev, material_ids = _labels(opened, functional, frames=by_material)
    fit = fit_atomref(
        X,
        energy_per_atom_ev,
        material_ids=material_ids if by_material else None,
        ridge=ridge,
        source=f"{opened.name}, {opened.meta['functionals'][functional]}",
    )
    advice = _advise(opened)
    if as_json:
        document = json.loads(fit.to_json())
        document |= {"dataset": opened.name, "functional": functional, "label_notice": opened.label_notice}
        typer.echo(json.dumps(document | {"refit_advice": advice}, indent=1))
        return
    typer.echo(fit.report().to_string(float_format="{:.4f}".format))
    typer.echo(f"\n{fit.summary()}")
    typer.echo(_advice_line(advice))
    typer.echo(f"\n{opened.label_notice}")


def _advice_line(advice: dict[str, Any] | None) -> str:
    if advice is None:
        return "\nNo pairs of both functionals here, so no advice whether to refit."
    return f"\nFrom {advice['from']} to {advice['to']}: {advice['reason']}"


_PAIR_COLUMNS = {"gga": "gga_mp2020_energy_per_atom_ev", "r2scan": "r2scan_energy_per_atom_ev"}


def _labels(dataset, functional: str, *, frames: bool):
    """Composition matrix, energies per atom and material ids of one functional, from pairs or from frames."""
    from crossfunc.datasets import DatasetError
    from crossfunc.energies.composition import composition_matrix

    if dataset.pairs is not None and not (frames and dataset.frames is not None):
        pairs = dataset.pairs
        return composition_matrix(pairs), pairs[_PAIR_COLUMNS[functional]].to_numpy(), pairs["material_id"].to_numpy()
    if dataset.frames is None:
        raise DatasetError(f"{dataset.path}: neither pairs nor frames to fit element references to.")
    import pyarrow.compute as pc

    table = dataset.frames.filter(pc.field("functional") == functional)
    if table.num_rows == 0:
        raise DatasetError(f"{dataset.path}: no {functional} frames; choose the other --functional.")
    energy_per_atom_ev = table["energy_per_atom_ev"].to_numpy()
    return composition_matrix(table), energy_per_atom_ev, table["material_id"].to_numpy()


def _advise(dataset) -> dict[str, Any] | None:
    """Whether to refit when going from the low functional to the high one; None unless materials have both."""
    if dataset.pairs is None:
        return None
    from crossfunc.energies.composition import composition_matrix
    from crossfunc.energies.shifts import refit_advice

    pairs = dataset.pairs
    difference_per_atom_ev = (pairs[_PAIR_COLUMNS["r2scan"]] - pairs[_PAIR_COLUMNS["gga"]]).to_numpy()
    advice = refit_advice(
        composition_matrix(pairs), difference_per_atom_ev, material_ids=pairs["material_id"].to_numpy()
    )
    names = dataset.meta["functionals"]
    return {
        "from": names["gga"],
        "to": names["r2scan"],
        "refit": advice.refit,
        "reason": advice.reason,
        "initial_mae_ev_per_atom": advice.initial_mae_ev_per_atom,
        "refitted_mae_ev_per_atom": advice.refitted_mae_ev_per_atom,
        "is_held_out": advice.is_held_out,
        "n_materials": advice.n_materials,
    }


@bench_app.command("atomref")
def bench_atomref(as_json: AsJson = False) -> None:
    """Time composition matrix and element references on 238,247 made-up frames, beside chgnet's `AtomRef.fit`."""
    from crossfunc.bench import atomref as benchmark

    measured = benchmark.run()
    typer.echo(json.dumps(measured, indent=1) if as_json else benchmark.format_report(measured))
