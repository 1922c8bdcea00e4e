"""Fixtures that several test files share. Small crystals and tables are built in the tests that use them."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root():
    """Folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def real_data_folder():
    """Folder with real DFT tables: in CROSSFUNC_DATA, or ../shared/data beside the checkout."""
    given = [Path(folder) for folder in os.environ.get("CROSSFUNC_DATA", "").split(os.pathsep) if folder]
    for folder in [*given, ROOT.parent / "shared" / "data"]:
        if (folder / "mp_thermo_pairs.csv").is_file():
            return folder
    pytest.skip("real DFT tables: set CROSSFUNC_DATA to a folder with mp_thermo_pairs.csv")


@pytest.fixture(scope="session")
def smoke_run(root):
    """Execute every lesson in its smallest form, once per session; what is fresh is left alone."""
    from crossfunc.lessons.plans import plan_run
    from crossfunc.lessons.run import run_lessons

    failed = [run for run in run_lessons(plan_run(root, "smoke"), jobs=2) if not run.ok]
    assert not failed, "\n".join(f"{run.lesson}: {run.message}" for run in failed)
    return root / "build" / "smoke"
