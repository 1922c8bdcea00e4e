"""Which public datasets there are, and what their sources say about the files: names, sizes, checksums, licence."""

import fnmatch
import os
import re
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import quote, urlsplit

import yaml

from crossfunc.datasets.transfer import RemoteFile
from crossfunc.datasets.web import PATIENCE, FetchError, Patience, check_url, read_json, shown

REGISTRY_FILE = Path(__file__).with_name("registry.yml")
RECORD_FILE = "fetch.json"
FIGSHARE = "https://api.figshare.com/v2"
HUGGINGFACE = "https://huggingface.co"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,200}")
_HEX = {"md5": 32, "sha256": 64}


@dataclass(frozen=True)
class PublicDataset:
    """One entry of `registry.yml`; `source` says which interface to ask for the files."""

    name: str
    title: str
    source: dict
    files: list[str]
    max_bytes: int
    licence: str
    citation: str
    functionals: dict[str, str]
    import_command: str


@dataclass(frozen=True)
class Record:
    """What a source says about a dataset just now; written beside the files, where it also serves a mirror."""

    name: str
    title: str
    licence: str
    citation: str
    source: str
    files: list[RemoteFile] = field(default_factory=list)

    @property
    def n_bytes(self) -> int:
        """The size of all files."""
        return sum(file.size for file in self.files)

    def to_dict(self) -> dict:
        """Return plain values for JSON; equal records give equal text, whichever mirror they came from."""
        files = [{"name": f.name, "size": f.size, "checksums": f.checksums} for f in self.files]
        return {**asdict(self), "files": files}


@cache
def public_datasets() -> dict[str, PublicDataset]:
    """Return the public datasets that can be fetched, by name."""
    entries = yaml.safe_load(REGISTRY_FILE.read_text(encoding="utf-8"))
    return {
        name: PublicDataset(name=name, import_command=entry.pop("import"), **entry) for name, entry in entries.items()
    }


def find_public_dataset(name: str) -> PublicDataset:
    """Return a registry entry.

    Raises
    ------
    FetchError
        Lists the names there are.
    """
    if name not in public_datasets():
        raise FetchError(f"no public dataset {name!r} is known; there are {', '.join(public_datasets())}.")
    return public_datasets()[name]


def mirrors() -> list[str]:
    """Return the addresses in CROSSFUNC_MIRROR, which are separated by blanks and tried in this order."""
    return [mirror.rstrip("/") for mirror in os.environ.get("CROSSFUNC_MIRROR", "").split()]


def ask_source(dataset: PublicDataset, *, mirror: str | None = None, patience: Patience = PATIENCE) -> Record:
    """Ask a dataset's source, or a mirror, which files there are.

    A mirror serves folders that `crossfunc data fetch` wrote: `MIRROR/NAME/fetch.json` and the files beside it.

    Raises
    ------
    FetchError
        Unreachable, or a record that lacks what is needed, names files outside its folder, or asks for too many bytes.
    """
    ask = {"figshare": _ask_figshare, "huggingface": _ask_huggingface}[dataset.source["kind"]]
    record = _ask_mirror(dataset, mirror, patience) if mirror else ask(dataset, patience)
    if not record.files:
        raise FetchError(
            f"{record.source}: has no file like {', '.join(dataset.files)}; the source was rearranged, and a newer "
            "crossfunc may know how."
        )
    if record.n_bytes > dataset.max_bytes:
        raise FetchError(
            f"{record.source}: asks for {record.n_bytes:,} bytes where {dataset.name} is expected to stay below "
            f"{dataset.max_bytes:,} (registry.yml): not downloaded."
        )
    return record


def _ask_figshare(dataset: PublicDataset, patience: Patience) -> Record:
    url = f"{FIGSHARE}/articles/{dataset.source['article']}/versions/{dataset.source['version']}"
    article = _expect(read_json(url, patience=patience), dict, url)
    files = []
    for entry in _expect(article.get("files"), list, url):
        if isinstance(entry, dict) and _is_wanted(entry.get("name"), dataset) and not entry.get("is_link_only"):
            md5 = entry.get("computed_md5") or entry.get("supplied_md5")
            files.append(_remote(entry["name"], entry.get("download_url"), entry.get("size"), {"md5": md5}, url))
    licence = article.get("license")
    return Record(
        name=dataset.name,
        title=dataset.title,
        licence=_licence(dataset, licence.get("name") if isinstance(licence, dict) else None),
        citation=dataset.citation,
        source=url,
        files=files,
    )


def _ask_huggingface(dataset: PublicDataset, patience: Patience) -> Record:
    """Ask for the revision first, so that all files are of one revision, whatever is pushed meanwhile."""
    repository, revision = dataset.source["repository"], dataset.source["revision"]
    url = f"{HUGGINGFACE}/api/datasets/{repository}/revision/{revision}"
    info = _expect(read_json(url, patience=patience), dict, url)
    commit = info.get("sha")
    if not (isinstance(commit, str) and re.fullmatch(r"[0-9a-f]{40}", commit)):
        raise FetchError(f"{url}: names no revision; try again later, or set CROSSFUNC_MIRROR.")
    url = f"{HUGGINGFACE}/api/datasets/{repository}/tree/{commit}"
    files = []
    for entry in _expect(read_json(url, patience=patience), list, url):
        if isinstance(entry, dict) and _is_wanted(entry.get("path"), dataset):
            lfs = entry.get("lfs")
            sums = {"sha256": lfs.get("oid") if isinstance(lfs, dict) else None}
            target = f"{HUGGINGFACE}/datasets/{repository}/resolve/{commit}/{quote(entry['path'])}"
            files.append(_remote(entry["path"], target, entry.get("size"), sums, url))
    card = info.get("cardData")
    return Record(
        name=dataset.name,
        title=dataset.title,
        licence=_licence(dataset, card.get("license") if isinstance(card, dict) else None),
        citation=dataset.citation,
        source=url,
        files=files,
    )


def _ask_mirror(dataset: PublicDataset, mirror: str, patience: Patience) -> Record:
    try:
        host = urlsplit(mirror).netloc
    except ValueError:
        host = ""
    if not host:
        raise FetchError(f"CROSSFUNC_MIRROR: {mirror!r} is no address; write https://HOST/FOLDER.")
    url = f"{mirror}/{dataset.name}/{RECORD_FILE}"
    found = read_json(url, patience=patience, trusted_host=host)
    url = shown(url)  # from here on it is only told, and it may hold a password
    found = _expect(found, dict, url)
    files = []
    for entry in _expect(found.get("files"), list, url):
        if isinstance(entry, dict) and _is_wanted(entry.get("name"), dataset):
            target = f"{mirror}/{dataset.name}/{quote(entry['name'])}"
            checksums = _expect(entry.get("checksums"), dict, url)
            files.append(_remote(entry["name"], target, entry.get("size"), checksums, url, host))
    return Record(
        name=dataset.name,
        title=dataset.title,
        licence=str(found.get("licence") or dataset.licence),
        citation=dataset.citation,
        source=str(found.get("source") or url),
        files=files,
    )


def _remote(name, url, size, checksums: dict, source: str, trusted_host: str | None = None) -> RemoteFile:
    """Return a file of a record, if the record says what is needed to fetch it safely."""
    if not _PLAIN_NAME.fullmatch(name) or name == RECORD_FILE or name.endswith((".part", ".part.json")):
        raise FetchError(f"{source}: names a file {name[:80]!r}, which is no plain file name: not downloaded.")
    if isinstance(size, bool) or not (isinstance(size, int) and size > 0) or not isinstance(url, str):
        raise FetchError(f"{source}: gives no size or no address for {name}; try again later, or set CROSSFUNC_MIRROR.")
    good = {}
    for algorithm, value in checksums.items():
        text = value.lower() if isinstance(value, str) else ""
        if algorithm in _HEX and re.fullmatch(f"[0-9a-f]{{{_HEX[algorithm]}}}", text):
            good[algorithm] = text
    if not good:
        raise FetchError(
            f"{source}: gives no md5 or sha256 for {name}, so it could not be checked: not downloaded. Try again "
            "later: sources compute checksums some time after an upload."
        )
    check_url(url, trusted_host)
    return RemoteFile(name, url, size, good, trusted_host)


def _is_wanted(name, dataset: PublicDataset) -> bool:
    return isinstance(name, str) and any(fnmatch.fnmatchcase(name, pattern) for pattern in dataset.files)


def _licence(dataset: PublicDataset, stated) -> str:
    """Return the licence as the source states it now, beside what the registry knew where the two differ."""
    if not (isinstance(stated, str) and stated):
        return dataset.licence
    known = dataset.licence.casefold()
    return stated if known.startswith("as in") or known == stated.casefold() else f"{stated} ({dataset.licence} before)"


def _expect(value, kind: type, url: str):
    if not isinstance(value, kind):
        raise FetchError(f"{url}: not the answer expected from there; try again later, or set CROSSFUNC_MIRROR.")
    return value
