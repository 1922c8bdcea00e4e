"""Fetch a public dataset's files: licence and citation first, then bytes that are checked before they count."""

import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from crossfunc.datasets.registry import (
    RECORD_FILE,
    PublicDataset,
    Record,
    ask_source,
    find_public_dataset,
    mirrors,
)
from crossfunc.datasets.transfer import RemoteFile, check_space, download, file_checksum, find_mismatch
from crossfunc.datasets.web import PATIENCE, FetchError, Patience
from crossfunc.files import write_atomically

DEFAULT_FOLDER = Path("build/downloads")


@dataclass(frozen=True)
class Fetched:
    """A dataset's files on this disk, and what their source says about them."""

    folder: Path
    files: list[Path]
    record: Record

    @property
    def import_command(self) -> str:
        """The command that turns the files into a dataset."""
        files = " ".join(shlex.quote(str(file)) for file in self.files)
        return find_public_dataset(self.record.name).import_command.format(files=files)


def fetch_dataset(
    name: str,
    out: str | os.PathLike | None = None,
    *,
    report: Callable[[str], None] | None = None,
    progress: bool = True,
    patience: Patience = PATIENCE,
) -> Fetched:
    """Download the files of a public dataset, or find them complete, and check every byte.

    A download that was interrupted, even killed, goes on where it stopped. A file has its name only once its size and
    checksum agree with what the source announces. `CROSSFUNC_MIRROR` names copies to try instead of the source;
    `HTTPS_PROXY`, `NO_PROXY` and `REQUESTS_CA_BUNDLE` act as everywhere.

    Parameters
    ----------
    name : str
        One of `crossfunc.datasets.registry.public_datasets()`.
    out : str or path, optional
        Folder to write to; default `build/downloads/NAME`.
    report : callable, optional
        Takes each line of what is about to happen: title, licence, citation, size, and what is waited for.
    progress : bool
        Draw a bar, on a terminal.
    patience : Patience, optional
        How often and how long to wait for a busy or broken server.

    Returns
    -------
    Fetched

    Raises
    ------
    FetchError
        No such dataset, no way to its source, no room, a file here that is another one, or a download that does not
        match its record. What has arrived stays for the next attempt.
    """
    dataset, report = find_public_dataset(name), report or (lambda _: None)
    folder = Path(out) if out is not None else DEFAULT_FOLDER / name
    patience = replace(patience, tell=patience.tell or report)
    record = _first_answer(dataset, folder, patience, report)
    for line in describe(record, dataset):
        report(line)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [file for file in record.files if not _is_here(file, folder)]
    check_space(folder, sum(_n_missing(file, folder) for file in missing))
    for file in missing:
        with _bar(file, progress) as bar:
            download(file, folder, patience=patience, bar=bar)
    _write_record(folder, record)
    return Fetched(folder, [folder / file.name for file in record.files], record)


def describe(record: Record, dataset: PublicDataset) -> list[str]:
    """Return what to know before downloading: title, licence, citation, where from, and how much."""
    names = ", ".join(f"{file.name} ({file.size / 1e6:,.1f} MB)" for file in record.files)
    return [
        record.title,
        f"  licence   {record.licence}",
        f"  cite      {record.citation}",
        f"  holds     {', '.join(dataset.functionals.values())}",
        f"  source    {record.source}",
        f"  files     {names}",
    ]


def _first_answer(dataset: PublicDataset, folder: Path, patience: Patience, report) -> Record:
    """Return the record of the first mirror that has one, or else of the source, or of the files already here."""
    named = mirrors()
    for mirror in named:
        try:
            return ask_source(dataset, mirror=mirror, patience=patience)
        except FetchError as error:
            if mirror == named[-1]:
                raise
            report(f"next mirror, because: {str(error).splitlines()[0]}")
    here = _read_record(dataset, folder)
    if here is not None:
        return here
    return ask_source(dataset, patience=patience)


def _read_record(dataset: PublicDataset, folder: Path) -> Record | None:
    """Return the record beside files that are all here and right, which needs no network; else None."""
    try:
        found = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        files = [RemoteFile(f["name"], "", f["size"], dict(f["checksums"])) for f in found.pop("files")]
        record = Record(**found, files=files)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    complete = record.name == dataset.name and files and all(file.checksums for file in files)
    plain = all(Path(file.name).name == file.name for file in files)
    if not (complete and plain and all((folder / file.name).is_file() for file in files)):
        return None
    return record


def _is_here(file: RemoteFile, folder: Path) -> bool:
    path = folder / file.name
    if not path.exists():
        return False
    size = path.stat().st_size
    wrong = f"it has {size:,} bytes where {file.size:,} were announced" if size != file.size else None
    wrong = wrong or find_mismatch(path, file.checksums)
    if wrong:
        raise FetchError(f"{path}: is there, but {wrong}. Move or delete it to fetch it again; it is not replaced.")
    return True


def _n_missing(file: RemoteFile, folder: Path) -> int:
    part = folder / f"{file.name}.part"
    return file.size - min(file.size, part.stat().st_size if part.exists() else 0)


def _write_record(folder: Path, record: Record) -> None:
    """Keep the record beside the files, with a sha256 of each: so the folder serves as a mirror, and checks itself."""
    document = record.to_dict()
    for entry in document["files"]:
        entry["checksums"].setdefault("sha256", file_checksum(folder / entry["name"], "sha256"))
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / RECORD_FILE, text)


def _bar(file: RemoteFile, progress: bool):
    from tqdm import tqdm

    hidden = not (progress and sys.stderr.isatty())
    return tqdm(total=file.size, desc=file.name, unit="B", unit_scale=True, disable=hidden)
