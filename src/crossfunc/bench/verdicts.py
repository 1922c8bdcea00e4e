"""Verdicts on published models, for the page on other potentials: a JSON file each, made again when the data change."""

import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossfunc.advice import verdict
from crossfunc.advice.spoken import LabelSet
from crossfunc.datasets import open_dataset
from crossfunc.datasets.store import dataset_fingerprint
from crossfunc.files import write_atomically
from crossfunc.potential import load_calculator, load_model

_DIGITS = 6


@dataclass(frozen=True)
class Published:
    """A published model: a checkpoint of CHGNet, or a calculator of a package that ships its weights.

    Attributes
    ----------
    checkpoint : str
        Name for `load_model`; empty for a calculator.
    calculator, arguments : str, dict
        For `load_calculator`.
    package : str
        That must be installed.
    """

    checkpoint: str = ""
    calculator: str = ""
    arguments: dict | None = None
    package: str = "chgnet"

    def load(self, n_jobs: int = 1):
        """Return the model."""
        if self.checkpoint:
            return load_model(self.checkpoint)
        return load_calculator(self.calculator, self.arguments, n_jobs=n_jobs)


_SEVENNET = "sevenn.calculator:SevenNetCalculator"
MODELS = {
    "CHGNet 0.3.0": Published("0.3.0"),
    "CHGNet r2scan": Published("r2scan"),
    "SevenNet-MF-0, PBE": Published("", _SEVENNET, {"model": "7net-mf-0", "modal": "PBE"}, "sevenn"),
    "SevenNet-MF-0, R2SCAN": Published("", _SEVENNET, {"model": "7net-mf-0", "modal": "R2SCAN"}, "sevenn"),
    "DIEP, MatPES r2SCAN": Published("", "diep.pretrained:make_calculator", {}, "diep"),
}
"""Models whose weights come with a package, so that nothing is downloaded. In code: no file names what is imported."""


def run(
    dataset: str,
    out: Path,
    *,
    functional: str | None = None,
    n_jobs: int = 1,
    models: dict[str, Published] | None = None,
    report: Callable[[str], object] = str,
) -> list[Path]:
    """Write a verdict on every model that is installed; those there already for the same data are kept.

    Parameters
    ----------
    dataset : str
        Name or folder.
    out : Path
        Folder to write, made if it is not there.
    functional : str, optional
        As of `verdict`.
    n_jobs : int
        Processes of each calculator.
    models : dict of str to Published, optional
        Default: `MODELS`.
    report : callable
        Gets a line per model.

    Returns
    -------
    list of Path
        The files that are there now.
    """
    opened, fingerprint = open_dataset(dataset), dataset_fingerprint(dataset)
    labels = LabelSet(opened.functional(functional or "high").key, "mp2020", np.empty(0)).name
    files = []
    for name, published in (MODELS if models is None else models).items():
        file = out / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
        if _is_of(file, fingerprint, labels):
            report(f"{name}: there already, {file}")
        elif importlib.util.find_spec(published.package) is None:
            report(f"{name}: left out, {published.package} is not installed")
            continue
        else:
            found = verdict(published.load(n_jobs), opened, functional=functional, name=name)
            plain = json.loads(found.to_json()) | {"dataset_sha256": fingerprint}
            out.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(rounded(plain), indent=1, ensure_ascii=False) + "\n")
            report(f"{name}: {found.advice}")
        files.append(file)
    return files


def _is_of(file: Path, fingerprint: str, labels: str) -> bool:
    """Whether a verdict on these data and on labels of this functional is there, of whatever kind its energies are."""
    if not file.is_file():
        return False
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return False
    there, asked = (str(name).split(",")[0] for name in (found.get("labels"), labels))
    return (found.get("dataset_sha256"), there) == (fingerprint, asked)


def rounded(value):
    """Round numbers to six digits: more are noise, and would change the file with every run."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
