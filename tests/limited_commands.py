"""Call every command on a machine that gives little, and write down how each ends.

    python tests/limited_commands.py INPUTS PLACE LIMIT [COMMAND ...]     # a line of JSON for each command

One process calls all of them, so that what they load is loaded once; the limit is set before anything else is.
"""

import json
import os
import resource
import sys
import time
import traceback
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_BYTES, OPEN_FILES, ADDRESS_BYTES = 4096, 64, 3 * 2**30
READ_ONLY = "/sys/crossfunc"  # nothing can be made there, by root neither


def set_limit(name: str) -> None:
    """Limit this process."""
    if name == "one core":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    elif name in _LIMITS:
        which, value = _LIMITS[name]
        resource.setrlimit(which, (value, resource.getrlimit(which)[1]))


_LIMITS = {
    "full disk": (resource.RLIMIT_FSIZE, FILE_BYTES),
    "ulimit -n": (resource.RLIMIT_NOFILE, OPEN_FILES),
    "ulimit -v": (resource.RLIMIT_AS, ADDRESS_BYTES),
}
LIMITS = (*_LIMITS, "one core", "read-only")
WITHOUT_FILES = ("data list", "data check", "data migrate", "atomref", "evaluate", "advise", "hull", "units")
"""Commands that write no file here."""


def command_lines(inputs: Path, place: Path, out: str) -> dict[str, list[str]]:
    """A short call of every command; `out` is the folder or file that those write which write one."""
    data, pairs, old = (str(inputs / name) for name in ("data", "pairs", "old"))
    checkout = ["--profile", "smoke", "--root", str(inputs / "checkout")]
    imports = ["--out", out, "--no-check"]
    folder = out if out == READ_ONLY else str(place / "not there" / "yet")
    small = ["--dataset", data, "--model", "0.3.0"]
    return {
        "run": ["run", "01", *checkout, "--out", out],
        "figures": ["figures", *checkout, "--static", "--out", out],
        "book": ["book", "--profile", "smoke", "--out", out],
        "course": ["course", "--profile", "smoke", "--root", str(inputs / "course"), "--out", out],
        "data list": ["data", "list"],
        "data check": ["data", "check", pairs, "--no-model"],
        "data migrate": ["data", "migrate", old if out != READ_ONLY else READ_ONLY],
        "data fetch": ["data", "fetch", "mp-r2scan", "--out", out],
        "data make-surrogate": ["data", "make-surrogate", "--limit", "1", "--out", out],
        "data make-dft": ["data", "make-dft", "--only", "Nosuch", "--out", out],
        "data check-dft": ["data", "check-dft", "nosuch"],
        "data drop-twins": ["data", "drop-twins", pairs, "--out", out],
        "data import materials-project": ["data", "import", "materials-project", "--chemsys", "Li-O", "--out", out],
        "data import mp-r2scan": ["data", "import", "mp-r2scan", str(inputs / "mp.json"), *imports],
        "data import mptrj": ["data", "import", "mptrj", str(inputs / "mptrj.json"), *imports],
        "data import matpes": ["data", "import", "matpes", str(inputs / "matpes.json"), *imports],
        "data import extxyz": ["data", "import", "extxyz", "-", str(inputs / "frames.extxyz"), *imports],
        "atomref": ["atomref", pairs],
        "evaluate": ["evaluate", *small],
        "verdict": ["verdict", data, "--model", "0.3.0", "--references", f"{out}.json"],
        "advise": ["advise", "0.3.0", data],
        "units": ["units", "04", "--profile", "smoke", "--status", "--root", str(ROOT), "--out", out],
        "finetune": ["finetune", "--method", "4", "--dataset", data, "--epochs", "1", "--out", out],
        "hull": ["hull", str(inputs / "entries.csv"), "--functional", "r2scan", "--energy-kind", "raw"],
        "bench memory": ["bench", "memory", "--frames", "40", "--steps", "1", "--folder", folder],
        "bench import": ["bench", "import", "--frames", "100", "--slice-frames", "10", "--folder", folder],
        "bench relax": ["bench", "relax", "--structures", "1"],
        "bench calculators": ["bench", "calculators"],
        "bench gpu": ["bench", "gpu", "--device", "cpu", "--seconds", "1"],
        "bench growth": ["bench", "growth", "--folder", folder],
        "bench verdicts": ["bench", "verdicts", data, "--out", out],
        "bench students": ["bench", "students", data, "--out", out, "--steps", "1"],
        "bench train": ["bench", "train", "--repeats", "1"],
        "bench graphs": ["bench", "graphs"],
        "bench atomref": ["bench", "atomref"],
        "bench predict": ["bench", "predict"],
        "bench forecasts": ["bench", "forecasts"],
        "bench hull": ["bench", "hull", "--jobs", "1"],
    }


LONG = (
    "book",
    "bench calculators",
    "bench growth",
    "bench gpu",
    "bench train",
    "bench graphs",
    "bench atomref",
    "bench hull",
    "bench relax",
    "bench predict",
    "bench forecasts",
)
"""Measurements, and the whole book: minutes; they are called only where asked for by name."""
LONG_WORK = ("data make-surrogate",)
"""What takes a minute before it writes; called where writing is what cannot be done."""


def short_names(limit: str) -> list[str]:
    """Commands that are called under a limit if none is named."""
    left_out = LONG if limit in ("full disk", "read-only") else (*LONG, *LONG_WORK)
    return [name for name in command_lines(ROOT, ROOT, "") if name not in left_out]


def main(inputs: Path, place: Path, limit: str, names: list[str]) -> None:
    """Set the limit, then call the commands one after another."""
    set_limit(limit)
    from typer.testing import CliRunner

    from crossfunc.cli import app
    from crossfunc.datasets import web

    web.time = types.SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: None)  # no server to spare here
    for name in names or short_names(limit):
        out = READ_ONLY if limit == "read-only" else str(place / name.replace(" ", "-"))
        called = CliRunner().invoke(app, command_lines(inputs, place, out)[name])
        trace = ""
        if called.exception is not None and not isinstance(called.exception, SystemExit):
            trace = "".join(traceback.format_exception(called.exception))
        ending = {"command": name, "status": called.exit_code, "said": called.output, "trace": trace}
        sys.__stdout__.write(json.dumps(ending) + "\n")
        sys.__stdout__.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
