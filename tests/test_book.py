"""The book is built strictly, from fresh lessons only, and every page of it works in a browser without a network."""

import base64
import functools
import http.server
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import numpy as np
import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("book_build", ROOT / "book" / "build.py")
book_build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(book_build)  # puts book/_ext on the path

import book_api  # noqa: E402
import book_benchmarks  # noqa: E402
import book_datasheet  # noqa: E402
import book_fresh  # noqa: E402
import book_results  # noqa: E402
from sphinx.errors import ExtensionError  # noqa: E402

LESSONS = book_fresh.lessons(ROOT)
TOC = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]


# --- what the directives write ---


def test_docstrings_meant_to_be_read_become_restructured_text():
    line = "c = argmin ||X c - y||, see `fit`: |r|, ``code`` and :func:`fit`"
    assert book_api.plain_to_rst(line) == r"c = argmin \|\|X c - y\|\|, see ``fit``: \|r\|, ``code`` and :func:`fit`"


def test_a_module_without_a_list_of_public_names_cannot_be_on_the_api_page():
    with pytest.raises(ExtensionError, match="bare has no __all__"):
        book_api.public_names(SimpleNamespace(__name__="bare"))


def results_file(folder, **changes):
    row = {"key": "r", "title": "Pearson", "value": 0.5, "unit": "", "paper": 0.09, "interval": None}
    row |= {"why": "other\nmaterials", "note": ""} | changes
    content = {"lesson": "01_x", "dataset": "surrogate", "label_notice": "not DFT", "results": [row]}
    path = folder / "build" / "p" / "results" / "01_x.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    return content


def test_claims_table_has_lesson_data_notice_both_values_and_the_reason(tmp_path):
    results_file(tmp_path)
    content = book_results.read_results(tmp_path, "p", "01_x")
    text = "\n".join(book_results.claims_table("01_x", content, content["results"]))
    assert "{doc}`/notebooks/01_x`" in text
    assert "Dataset `surrogate` (not DFT)." in text
    row = text[text.index("* - Pearson") :]
    assert [float(cell.split()[1]) for cell in row.splitlines()[1:3]] == [0.5, 0.09]
    assert "\n  - other materials\n" in row  # one line, or the table would end here


def test_claims_table_says_when_the_paper_has_no_number():
    content = {"dataset": "d", "label_notice": "", "results": []}
    row = {"title": "t", "value": 3, "unit": "eV", "paper": None, "interval": None, "why": "", "note": "1 seed"}
    assert "* - t\n  - 3 eV (1 seed)\n  - —\n  - —" in "\n".join(book_results.claims_table("01_x", content, [row]))


def test_a_missing_results_file_or_key_stops_the_build(tmp_path):
    content = results_file(tmp_path)
    with pytest.raises(ExtensionError, match=r"02_y\.json: the results file is missing"):
        book_results.read_results(tmp_path, "p", "02_y")
    with pytest.raises(ExtensionError, match="lesson '01_x' has no result 'slope'; it has: r"):
        book_results.find_result(content, "slope", "01_x")


def executed_cell(*notes):
    outputs = [
        {"output_type": "display_data", "data": {"image/png": "AAAA"}, "metadata": {"crossfunc": n}} for n in notes
    ]
    return {"cell_type": "code", "metadata": {}, "source": "show()", "outputs": outputs}


def test_a_shown_figure_becomes_a_numbered_figure_with_alternative_text():
    note = {"alt": "A plot.", "caption": "Energies", "name": "fig-1", "width": "400px"}
    cell = executed_cell(note, {"role": "caption"})
    book_build.dress_figures(cell, "01_x.ipynb")
    assert cell["metadata"]["mystnb"] == {
        "image": {"alt": "A plot.", "width": "400px"},
        "figure": {"caption": "Energies", "name": "fig-1"},
    }
    assert len(cell["outputs"]) == 1  # the caption line is for JupyterLab


def test_two_figures_in_one_cell_are_refused():
    note = {"alt": "A plot.", "caption": "", "name": ""}
    with pytest.raises(book_build.BuildError, match=r"01_x\.ipynb: one cell shows 2 figures"):
        book_build.dress_figures(executed_cell(note, note), "01_x.ipynb")


def test_a_figure_that_no_lesson_shows_is_refused_with_the_names_there_are(tmp_path):
    path = tmp_path / "build" / "p" / "notebooks" / "01_x.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"cells": [executed_cell({"alt": "a", "caption": "c", "name": "fig-1"})]}))
    png, note = book_results.lesson_figure(tmp_path, "p", "01_x", "fig-1")
    assert (png, note["alt"]) == (b"\0\0\0", "a")
    with pytest.raises(LookupError, match="under the name 'fig-2'; named figures: fig-1"):
        book_results.lesson_figure(tmp_path, "p", "01_x", "fig-2")


def test_datasheet_counts_what_the_tables_hold():
    reference = {"Li": -1.0, "O": -4.0, "Na": -2.0, "Cl": -3.0}
    counts = [{"Li": 2, "O": 1}, {"Li": 1}, {"O": 1}, {"Li": 1, "O": 1}, {"Li": 3, "O": 1}]
    counts += [{"Na": 1, "Cl": 1}, {"Na": 1}, {"Cl": 1}, {"Na": 2, "Cl": 1}, {"Na": 1, "Cl": 2}]
    pairs = pd.DataFrame(
        {
            "material_id": [f"m-{k}" for k in range(10)],
            "composition": ["".join(f"{e}{n}" for e, n in c.items()) for c in counts],
            "n_atoms": [sum(c.values()) for c in counts],
            "r2scan_energy_per_atom_ev": [
                sum(n * reference[e] for e, n in c.items()) / sum(c.values()) for c in counts
            ],
            "tier": ["wide", "dense"] * 5,
        }
    )
    dataset = SimpleNamespace(
        label_notice="not DFT",
        meta={
            "licence": "MIT",
            "files": {"pairs.parquet": {}},
            "functionals": {"gga": "GGA/GGA+U", "r2scan": "r²SCAN"},
            "generator": {"seed": 7, "max_steps": 500, "elements": ["Li", "O"]},
        },
        pairs=pairs,
        elements=pd.DataFrame({"element": ["Li", "Li", "O"]}),
        frames=None,
        rejected=pd.DataFrame({"id": ["x"]}),
    )
    facts = dict(book_datasheet.datasheet_rows(dataset))
    assert facts["Labels"] == "not DFT"
    assert facts["Materials with both functionals"] == "10"
    assert facts["Elements in them"] == "4"
    assert facts["Atoms per cell"] == "1 to 4"
    known = facts["r²SCAN references fitted on 80 % of the materials, pairs"]
    assert known == "rank 4 for 4 elements; mean error 0.000 eV/atom on 2 held-out materials"  # exactly linear
    assert facts["Elemental ground states"] == "2 elements"
    assert facts["Rows left out, with a reason each"] == "1"
    assert (facts["Licence"], facts["Functionals"]) == ("MIT", "gga: GGA/GGA+U; r2scan: r²SCAN")
    assert (facts["Generator: `seed`"], facts["Generator: `elements`"]) == ("7", "Li, O")
    assert "Files" not in facts


def test_a_benchmark_shows_what_was_measured_and_how_to_measure_it(tmp_path):
    path = tmp_path / "atomref.json"
    with pytest.raises(ExtensionError, match="crossfunc bench atomref --json"):
        book_benchmarks.benchmark_tables(path)
    path.write_text('{"n_frames": 238247, "seconds_fit": 0.0246754, "backend": "numpy"}')
    rows = [("n frames", "238,247"), ("seconds fit", "0.0247"), ("backend", "numpy")]
    assert book_benchmarks.benchmark_tables(path) == [("", ("measured", ""), rows)]


def test_a_benchmark_with_figures_by_batch_and_step_has_a_table_for_each(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(
        '{"speedup": 4.5, "ms_per_frame": {"MgO": {"chgnet": 60.0, "ours": 15.0}}, "gpu": {"peak_gb": null}}'
    )
    single, by_batch = book_benchmarks.benchmark_tables(path)
    assert single[2] == [("speedup", "4.5"), ("gpu", "peak gb not measured")]
    assert by_batch == ("ms per frame", ("", "chgnet", "ours"), [("MgO", "60", "15")])


# --- the build ---


def build(root):
    command = [sys.executable, str(ROOT / "book" / "build.py"), "--profile", "smoke", "--root", str(root)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="session")
def site(smoke_run, root):
    """Folder of the smoke book, built strictly from lessons executed just now."""
    done = build(root)
    assert done.returncode == 0, done.stdout + done.stderr
    return smoke_run / "html"


@pytest.fixture
def checkout(smoke_run, root, tmp_path):
    """What the build reads, in a place where it may be broken."""
    for name in ("book", "notebooks"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_config.yml", "CHANGELOG.md"):
        shutil.copy2(root / name, tmp_path / name)
    for name in ("notebooks", "results"):
        shutil.copytree(smoke_run / name, tmp_path / "build" / "smoke" / name)
    assert book_fresh.complaint(tmp_path, "smoke") is None  # whatever fails below, fails for its own reason
    return tmp_path


def edit_source(root):
    source = root / "notebooks" / f"{LESSONS[0]}.py"
    source.write_text(source.read_text(encoding="utf-8") + "\n# %%\nseed\n", encoding="utf-8")


def remove_notebook(root):
    (root / "build" / "smoke" / "notebooks" / f"{LESSONS[0]}.ipynb").unlink()


def fail_last_cell(root):
    path = root / "build" / "smoke" / "notebooks" / f"{LESSONS[0]}.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    last = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"][-1]
    last["outputs"] = [{"output_type": "error", "ename": "AssertionError", "evalue": "r is 0.1", "traceback": []}]
    path.write_text(json.dumps(notebook), encoding="utf-8")


def edit_results(root):
    path = root / "build" / "smoke" / "results" / f"{LESSONS[0]}.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"value": ', '"value": 1'), encoding="utf-8")


def forget_lesson(root):
    toc = root / "book" / "_toc.yml"
    toc.write_text(toc.read_text(encoding="utf-8").replace(f"      - file: notebooks/{LESSONS[0]}\n", ""))


@pytest.mark.book
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (edit_source, "stale"),
        (remove_notebook, "missing"),
        (fail_last_cell, "AssertionError: r is 0.1"),
        (edit_results, "stale"),
        (forget_lesson, "book/_toc.yml does not list it"),
    ],
)
def test_a_book_is_not_built_from_lessons_that_are_not_fit_to_print(checkout, damage, reason):
    damage(checkout)
    done = build(checkout)
    assert done.returncode != 0
    assert LESSONS[0] in done.stderr
    assert reason in done.stderr
    assert not (checkout / "build" / "smoke" / "html").exists()
    # Sphinx itself refuses as well, however it is started.
    config = SimpleNamespace(crossfunc_root=str(checkout), crossfunc_profile="smoke")
    with pytest.raises(ExtensionError, match="not fit to print"):
        book_fresh.refuse_stale(None, config)


def test_a_build_that_bypasses_the_staging_is_refused():
    with pytest.raises(ExtensionError, match="make book"):
        book_fresh.refuse_stale(None, SimpleNamespace(crossfunc_root="", crossfunc_profile=""))


@pytest.mark.book
def test_every_broken_reference_fails_the_strict_build(checkout):
    page = checkout / "book" / "rerun.md"
    broken = [
        *("{term}`no such term`", "{cite:p}`nobody1900`", "{numref}`fig-none`", "[a link](nowhere.md)"),
        "{py:func}`crossfunc.no_such_function`",
    ]
    page.write_text("\n\n".join([page.read_text(encoding="utf-8"), *broken]), encoding="utf-8")
    done = build(checkout)
    assert done.returncode != 0
    named = ("no such term", "nobody1900", "fig-none", "nowhere.md", "crossfunc.no_such_function")
    assert [name for name in named if name not in done.stderr] == []
    assert not (checkout / "build" / "smoke" / "html").exists()


@pytest.mark.book
def test_the_smoke_book_leaves_the_readers_book_alone(site, root):
    assert site == book_build.site(root, "smoke")
    assert site != book_build.site(root, "laptop") == root / "build" / "html"


@pytest.mark.book
def test_every_page_of_the_table_of_contents_is_built(site):
    assert [page for page in PAGES if not (site / f"{page}.html").is_file()] == []


@pytest.mark.book
def test_internal_links_lead_to_pages_and_places_that_exist(site):
    from bs4 import BeautifulSoup

    soups = {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in site.rglob("*.html")}
    anchors = {path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in soups.items()}
    broken = []
    for path, soup in soups.items():
        for link in soup.find_all("a", href=True):
            target, anchor = urldefrag(urljoin(path.as_uri(), link["href"]))
            if urlsplit(target).scheme != "file":
                continue
            file = Path(unquote(urlsplit(target).path))
            if not file.is_file() or (anchor and file in anchors and unquote(anchor) not in anchors[file]):
                broken.append(f"{path.relative_to(site)}: {link['href']}")
    assert broken == []


@pytest.mark.book
def test_every_lesson_page_says_what_its_labels_are(site, smoke_run):
    for lesson in LESSONS:
        notice = json.loads((smoke_run / "results" / f"{lesson}.json").read_text(encoding="utf-8"))["label_notice"]
        assert notice in (site / "notebooks" / f"{lesson}.html").read_text(encoding="utf-8")


# --- in a browser ---

FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1300,1000"),
]
READY = """
const done = arguments[arguments.length - 1];
const figures = [...document.querySelectorAll('.plotly-graph-div')];
const images = [...document.images];
images.forEach(image => { image.loading = 'eager'; });
(async () => {
  if (window.MathJax && MathJax.startup) { await MathJax.startup.promise; }
  for (let i = 0; i < 200; i++) {
    if (figures.every(f => f.querySelector('.main-svg')) && images.every(m => m.complete)) { break; }
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  done(true);
})();
"""
BLANK_IMAGES = """
return [...document.images].filter(image => {
  if (!image.naturalWidth) { return true; }
  const canvas = document.createElement('canvas');
  const w = canvas.width = Math.min(image.naturalWidth, 400);
  const h = canvas.height = Math.min(image.naturalHeight, 400);
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0, w, h);
  const pixels = new Uint32Array(context.getImageData(0, 0, w, h).data.buffer);
  return pixels.every(pixel => pixel === pixels[0]);
}).map(image => image.src);
"""
EMPTY_IMAGES = "return [...document.images].filter(image => !image.naturalWidth).map(image => image.src);"
SILENT_IMAGES = """
return [...document.querySelectorAll('article img')].filter(image => !image.alt).map(image => image.src).concat(
  [...document.querySelectorAll('.plotly-graph-div')].filter(f => !f.ariaLabel || f.role !== 'img').map(f => f.id));
"""
RAW_MATH = """
return [...document.querySelectorAll('.math')].filter(element => {
  const drawn = element.querySelector('mjx-container svg');
  return !drawn || drawn.getBoundingClientRect().width < 2 || element.querySelector('[data-mml-node="merror"]');
}).map(element => element.textContent.slice(0, 80));
"""

PLACE = """
arguments[0].scrollIntoView({block: 'center', behavior: 'instant'});
const box = arguments[0].getBoundingClientRect();
return {x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height};
"""
TOO_WIDE = """
const clipped = e => e && (getComputedStyle(e).overflowX !== 'visible' || clipped(e.parentElement));
const wide = e => e.getBoundingClientRect().right > screen.width + 1 && !clipped(e.parentElement);
return [...document.querySelectorAll('article *')].filter(wide).map(e => e.outerHTML.slice(0, 120));
"""


@dataclass
class Visit:
    """What opening one page in the browser brought to light."""

    complaints: list = field(default_factory=list)
    remote: list = field(default_factory=list)
    blank_images: list = field(default_factory=list)
    silent_images: list = field(default_factory=list)
    blank_figures: list = field(default_factory=list)
    raw_math: list = field(default_factory=list)
    images: int = 0
    figures: int = 0
    equations: int = 0


def find_program(variable, *names):
    found = os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        message = f"no {names[0]}: install it or name it in {variable} to have each page opened in a browser"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium with an empty profile that logs its console and every request."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = find_program("CHROMIUM", "chromium", "chromium-browser", "google-chrome")
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=find_program("CHROMEDRIVER", "chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(60)
    driver.get("about:blank")  # leave the browser's own first page, and forget what it loaded
    driver.get_log("performance")
    yield driver
    driver.quit()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A file server that keeps its log to itself."""

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address(site):
    """Address of a local server of the book."""
    handler = functools.partial(QuietHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def logged(browser, home):
    """Return console complaints and requests to other hosts since the last look."""
    complaints = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith(home) for url in urls), "the log of requests is empty: nothing was checked"
    return complaints, [url for url in urls if not url.startswith((home, "data:", "blob:"))]


def ink(png):
    """Share of the pixels that are not ground: an empty plot has its frame and buttons, some thousandths."""
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=int)
    ground = np.bincount(pixels.ravel()).argmax()
    return np.mean(np.abs(pixels - ground) > 20)


def picture(browser, element):
    """PNG of one element, as the reader sees it."""
    place = browser.execute_script(PLACE, element)
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": place | {"scale": 1}})
    return base64.b64decode(shot["data"])


def visit(browser, home, page):
    from selenium.webdriver.common.by import By

    browser.get(f"{home}{page}.html")
    browser.execute_async_script(READY)
    figures = browser.find_elements(By.CSS_SELECTOR, ".plotly-graph-div")
    blank = [figure.get_attribute("id") for figure in figures if ink(picture(browser, figure)) < 0.01]
    result = Visit(
        # An image read from disk may not be put on a canvas; only that it has a size can be seen then.
        blank_images=browser.execute_script(BLANK_IMAGES if home.startswith("http") else EMPTY_IMAGES),
        silent_images=browser.execute_script(SILENT_IMAGES),
        blank_figures=blank,
        raw_math=browser.execute_script(RAW_MATH),
        images=browser.execute_script("return document.querySelectorAll('article img').length"),
        figures=len(figures),
        equations=browser.execute_script("return document.querySelectorAll('.math').length"),
    )
    result.complaints, result.remote = logged(browser, home)
    return result


@pytest.fixture(scope="module")
def visits(browser, address):
    """Every page opened once, wide."""
    return {page: visit(browser, address, page) for page in [*PAGES, "genindex", "search"]}


def faults(visits, kind):
    return {page: getattr(seen, kind) for page, seen in visits.items() if getattr(seen, kind)}


@pytest.mark.book
def test_no_page_complains_in_the_console(visits):
    assert faults(visits, "complaints") == {}


@pytest.mark.book
def test_no_page_asks_another_host_for_anything(visits):
    assert faults(visits, "remote") == {}


@pytest.mark.book
def test_every_image_is_there_and_not_blank(visits):
    assert faults(visits, "blank_images") == {}
    assert sum(seen.images for seen in visits.values()) >= 1 + len(LESSONS)  # the story, and one a lesson at least


@pytest.mark.book
def test_every_image_and_figure_has_alternative_text(visits):
    assert faults(visits, "silent_images") == {}


@pytest.mark.book
def test_every_interactive_figure_is_drawn(visits):
    assert faults(visits, "blank_figures") == {}
    assert sum(seen.figures for seen in visits.values()) >= 1


@pytest.mark.book
def test_all_math_is_typeset(visits):
    assert faults(visits, "raw_math") == {}
    assert visits["notation"].equations > 5


@pytest.mark.book
def test_pages_fit_a_phone(browser, address):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wide = {}
    for page in PAGES:
        browser.get(f"{address}{page}.html")
        browser.execute_async_script(READY)
        assert browser.execute_script("return screen.width") == size["width"]
        if browser.execute_script("return document.documentElement.scrollWidth") > size["width"]:
            wide[page] = browser.execute_script(TOO_WIDE)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide == {}


@pytest.mark.book
def test_search_finds_a_word(browser, address):
    from selenium.webdriver.common.by import By

    browser.get(f"{address}search.html?q=formation")
    for _ in range(100):
        found = [item.get_attribute("href") for item in browser.find_elements(By.CSS_SELECTOR, "ul.search li a")]
        if any("glossary.html" in href for href in found):
            break
        time.sleep(0.05)
    assert any("glossary.html" in href for href in found), found
    complaints, remote = logged(browser, address)
    assert (complaints, remote) == ([], [])


@pytest.mark.book
def test_the_book_can_be_read_from_disk_without_a_server(browser, site):
    home = f"{site.as_uri()}/"
    seen = {page: visit(browser, home, page) for page in ("notation", f"notebooks/{LESSONS[0]}") if page in PAGES}
    # The theme preloads its icon fonts in a way that browsers refuse from disk, and says so in the console; the icons
    # come from its script. What the reader came for must be there.
    found = {page: (v.remote, v.raw_math, v.blank_images, v.blank_figures) for page, v in seen.items()}
    assert found == dict.fromkeys(seen, ([], [], [], []))
