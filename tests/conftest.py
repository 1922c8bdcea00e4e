"""Fixtures that several test files share. Small crystals and tables are built in the tests that use them."""

import ctypes
import os
import shutil
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SECRETS = {
    "MP_API_KEY": "kEyOfTheMaterialsProject0123456789",
    "HF_TOKEN": "tokenOfAModelHub987654321",
    "HTTPS_PROXY": "http://somebody:pAsSwOrD42@localhost:9/",
}
"""What is in the environment while lessons and book are made, and must be in nothing that they write."""
NUMPY = {"empty": np.empty, "empty_like": np.empty_like}
NUMPY_ERRORS = np.geterr()


# Files that train, relax or execute lessons, or start a process for each test: `make check` leaves them to `make test`.
SLOW = {
    *("test_ase_model", "test_baselines", "test_batches", "test_bootstrap", "test_calculator", "test_checkpoints"),
    *("test_cli", "test_cluster", "test_evaluate", "test_exports", "test_fetch", "test_fit", "test_fit_parallel"),
    *("test_fit_resume", "test_forgetting", "test_frozen", "test_gradients", "test_graphs", "test_importance"),
    *("test_kernels", "test_lessons_on_own_data", "test_lessons_on_real_data", "test_methods", "test_own_pair"),
    *(
        "test_parallel",
        "test_parity",
        "test_parity_recorder",
        "test_physics",
        "test_potential",
        "test_priors",
        "test_real_data_page",
    ),
    *("test_real_pairs", "test_relax", "test_run", "test_strategies", "test_strategies_runs", "test_surrogate"),
    *("test_label_checks", "test_twins", "test_verdict", "test_verdicts", "test_figures_forgetting"),
    *("test_advise", "test_import_materials_project", "test_inference", "test_judging", "test_kills", "test_native"),
    *("test_import_mp_r2scan", "test_units", "test_laboratory", "test_learning_curves", "test_teachers"),
}


def pytest_collection_modifyitems(items):
    """Mark what `make check` leaves out: by file, so that a newcomer sees one list and not a hundred marks."""
    for item in items:
        if item.path.stem in SLOW or item.path.stem.startswith(("test_bench_", "test_book", "test_dft_")):
            item.add_marker(pytest.mark.slow)


def pytest_runtest_teardown(item, nextitem):
    """Give the memory that a file of tests has freed back to the machine, which other workers share."""
    if sys.platform == "linux" and (nextitem is None or nextitem.path != item.path):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not every C library has it
        if trim:
            trim(0)


@pytest.fixture(autouse=True)
def numpy_as_it_was():
    """Take back what GPAW does to NumPy where it sees pytest: empty arrays of NaN and raised warnings, for all code."""
    yield
    for name, function in NUMPY.items():
        setattr(np, name, function)
    np.seterr(**NUMPY_ERRORS)


@pytest.fixture
def fresh_style():
    """Draw without a screen, and leave neither settings nor open figures behind."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    with mpl.rc_context():
        yield
    plt.close("all")


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

    with mock.patch.dict(os.environ, SECRETS):
        failed = [run for run in run_lessons(plan_run(root, "smoke"), jobs=2) if not run.ok]
    assert not failed, "\n".join(f"{run.lesson}: {run.message}" for run in failed)
    return root / "build" / "smoke"


BROWSER_FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1300,1000"),
]


def _find_program(variable, *names):
    found = os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        message = f"no {names[0]}: install it or name it in {variable} to have each page opened in a browser"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium with an empty profile that logs its console and every request."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = _find_program("CHROMIUM", "chromium", "chromium-browser", "google-chrome")
    for flag in [*BROWSER_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=_find_program("CHROMEDRIVER", "chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(300)  # axe on the longest page takes half a minute where the machine is slow
    driver.get("about:blank")  # leave the browser's own first page, and forget what it loaded
    driver.get_log("performance")
    yield driver
    driver.quit()
