"""Materials Project thermo data in GGA/GGA+U and r²SCAN, through mp-api: the same pairs table as the CSV of them."""

import contextlib
import itertools
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from crossfunc.datasets.functionals import describe_functionals
from crossfunc.datasets.importers.page_cache import PageCache
from crossfunc.datasets.importers.thermo_documents import (
    ENERGY_KIND,
    THERMO_TYPES,
    Document,
    build_tables,
    read_document,
)
from crossfunc.datasets.schema import DatasetError
from crossfunc.datasets.store import Dataset, check_target, write_dataset
from crossfunc.symbols import ATOMIC_NUMBERS

NAME = "materials-project"
PAGE = 100
"""Documents per request: their ids fit into an address, and a page is a few MB."""
_LISTED_AT_ONCE = 60
_MOST_LISTED = 6
"""Up to so many elements their subsystems are asked for by name; beyond, all materials are listed and filtered."""
_CLIENT_LIMIT = 9
_PAUSES_S = (2.0, 10.0, 30.0)
_FIELDS = [
    *("material_id", "thermo_type", "energy_type", "energy_per_atom", "uncorrected_energy_per_atom"),
    *("formation_energy_per_atom", "entries", "builder_meta"),
]


class MaterialsProjectError(DatasetError):
    """The Materials Project could not be asked; what was read before stays for the next attempt."""


@dataclass(frozen=True)
class Query:
    """Which materials to ask for.

    Attributes
    ----------
    chemsys : tuple of str
        Systems such as "Li-Fe-O", each with all its subsystems, as a hull needs them.
    elements : tuple of str
        All materials made of these elements alone.
    everything : bool
        The whole collection.
    """

    chemsys: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()
    everything: bool = False

    def __post_init__(self):
        if sum(map(bool, (self.chemsys, self.elements, self.everything))) != 1:
            raise MaterialsProjectError("choose one of --chemsys, --elements and --all.")
        for symbol in itertools.chain(self.elements, *(system.split("-") for system in self.chemsys)):
            if symbol not in ATOMIC_NUMBERS:
                raise MaterialsProjectError(f"{symbol!r} is no element symbol; write Li-Fe-O, or Li,Fe,O for elements.")
        for system in self.chemsys:
            if len(system.split("-")) > _CLIENT_LIMIT:
                raise MaterialsProjectError(f"{system}: more than {_CLIENT_LIMIT} elements; use --elements for these.")

    @property
    def text(self) -> str:
        """The query in words, as it stands in the dataset's provenance."""
        if self.everything:
            return "all materials"
        return f"systems {' '.join(self.chemsys)}" if self.chemsys else f"elements {' '.join(sorted(self.elements))}"

    @property
    def systems(self) -> list[str] | None:
        """Every chemical system to list by name; None where the whole collection is listed and filtered."""
        roots = [system.split("-") for system in self.chemsys]
        if self.elements and len(self.elements) <= _MOST_LISTED:
            roots = [list(self.elements)]
        if not roots:
            return None
        return sorted({"-".join(sorted(part)) for root in roots for part in _parts(root)})

    def holds(self, chemsys: str) -> bool:
        """Whether a listed material belongs to the query."""
        return not self.elements or set(chemsys.split("-")) <= set(self.elements)


def import_materials_project(
    out: str | os.PathLike,
    query: Query,
    *,
    endpoint: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
    report: Callable[[str], None] | None = None,
) -> Dataset:
    """Import energies and structures of the same materials in both functionals as a dataset folder.

    GGA/GGA+U and r²SCAN documents are asked for separately: the mixed ones sit on neither scale. Pages are kept beside
    the folder until it is written, so an interrupted import goes on where it stopped; they are of one version of the
    database, and a new version starts anew. The key is read by mp-api itself, from `MP_API_KEY` or its own
    configuration file, and appears nowhere else.

    Parameters
    ----------
    out : str or path
        Folder to write.
    query : Query
    endpoint : str, optional
        Another server with the same interface; default: what mp-api uses (`MP_API_ENDPOINT`).
    overwrite : bool
        Replace a dataset that is there.
    progress : bool
        Draw a bar, on a terminal.
    report : callable, optional
        Takes what else is worth telling.

    Returns
    -------
    Dataset
        `pairs` (materials with both), `frames` (each entry's structure and energy), `elements` (ground states), and
        the ledger of what was left out.

    Raises
    ------
    MaterialsProjectError
        mp-api or the key is missing, or the server cannot be asked.
    DatasetError
        `out` is taken, or nothing usable was found.
    """
    out = Path(out)
    check_target(out, overwrite)
    source = _Source(endpoint)
    pages = PageCache(
        out.parent / f".{out.name}-pages", {"query": query.text, "database": source.version, "page": PAGE}
    )
    if pages.note and report:
        report(pages.note)
    documents: list[Document] = []
    for functional in THERMO_TYPES:
        documents += _read_functional(source, query, functional, pages, progress)
    tables = build_tables(documents)
    meta = _meta(query, source.version, tables["pairs"], tables["frames"])
    dataset = write_dataset(out, meta=meta, strict=False, overwrite=overwrite, **tables)
    pages.remove()
    return dataset


def _read_functional(source: "_Source", query: Query, functional: str, pages: PageCache, progress: bool):
    """Return all documents of one functional: their ids first, then page by page whatever is not on disk yet."""
    from tqdm import tqdm

    ids = pages.get(f"{functional}-ids", lambda: source.list_ids(query, functional))
    batches = [ids[k : k + PAGE] for k in range(0, len(ids), PAGE)]
    hidden = not (progress and sys.stderr.isatty())
    documents = []
    for k, batch in enumerate(tqdm(batches, desc=functional, unit="page", disable=hidden)):
        read = pages.get(f"{functional}-{k:05d}", partial(source.read, batch, functional))
        documents += [Document(**document) for document in read]
    return documents


class _Source:
    """The real client, with every error in our words and without the key."""

    def __init__(self, endpoint: str | None):
        self._key = _find_key()
        with self._own_words(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mp-api warns of its own defaults
            from mp_api.client import MPRester
            from mp_api.client.core.utils import validate_endpoint

            _check_endpoint(validate_endpoint(endpoint))
            self._client = MPRester(endpoint=endpoint, use_document_model=False, mute_progress_bars=True)
            self.version = str(self._client.db_version or "unknown")

    def list_ids(self, query: Query, functional: str) -> list[str]:
        """Return the ids of the materials that have a document of this functional, sorted."""
        systems = query.systems
        groups = (
            [None]
            if systems is None
            else [systems[k : k + _LISTED_AT_ONCE] for k in range(0, len(systems), _LISTED_AT_ONCE)]
        )
        found: set[str] = set()
        for group in groups:
            chemsys = list(group) if group else None
            listed = self._search(functional, ["material_id", "chemsys"], chemsys=chemsys, chunk_size=1000)
            found |= {str(d["material_id"]) for d in listed if query.holds(str(d.get("chemsys", "")))}
        return sorted(found, key=_natural)

    def read(self, material_ids: list[str], functional: str) -> list[dict]:
        """Return the documents of some materials, reduced to what the tables need, in the order of the ids."""
        found = self._search(functional, _FIELDS, material_ids=material_ids, chunk_size=len(material_ids))
        documents = {str(d.get("material_id")): read_document(d, functional) for d in found}
        lost = [
            Document(material_id=m, functional=functional, reason="listed, but not given when asked for")
            for m in material_ids
            if m not in documents
        ]
        wanted = [documents[m] for m in material_ids if m in documents]
        return [document.to_dict() for document in [*wanted, *lost]]

    def _search(self, functional: str, fields: list[str], **criteria) -> list[dict]:
        """Search, and search again after a pause: the client itself repeats 429, 502 and 504 only, and at once."""
        for pause_s in (*_PAUSES_S, None):
            try:
                with self._own_words(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    return self._client.materials.thermo.search(
                        thermo_types=[THERMO_TYPES[functional][0]], fields=fields, **criteria
                    )
            except MaterialsProjectError as error:
                if pause_s is None or not _may_pass(str(error)):
                    raise
                time.sleep(pause_s)
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def _own_words(self):
        """Turn what the client raises into our error; the chain is cut, since it may hold the request with its key."""
        try:
            yield
        except (DatasetError, KeyboardInterrupt):
            raise
        except ImportError:
            raise MaterialsProjectError(
                "mp-api is not installed; install it with: pip install 'crossfunc[mp]'"
            ) from None
        except Exception as error:  # the client lets through requests', boto3's and its own
            raise MaterialsProjectError(self._explain(error)) from None

    def _explain(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        if self._key:
            text = text.replace(self._key, "<your key>")
        if re.search(r"\b(401|403)\b|Invalid authentication|No API key", text):
            remedy = "Check the key in MP_API_KEY: it is on your dashboard at materialsproject.org."
        elif re.search(r"Connection|resolve|timed out|Max retries|ProxyError|SSLError", text):
            remedy = "Is there a network? Behind a proxy, set HTTPS_PROXY; the pages read so far are kept."
        else:
            remedy = "The pages read so far are kept: run the same command again to go on."
        return f"Materials Project: {type(error).__name__}: {text[:600]}\n{remedy}"


def _find_key() -> str:
    """Return the key where mp-api itself looks for it; only ever used to strike it out of messages."""
    try:
        from mp_api.client.core.exceptions import MPRestError
        from mp_api.client.core.utils import validate_api_key
    except ImportError:
        raise MaterialsProjectError(
            "mp-api is not installed, or not whole; install it with: pip install 'crossfunc[mp]'"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            key = validate_api_key()
    except MPRestError:
        raise MaterialsProjectError(
            "the key in MP_API_KEY (or PMG_MAPI_KEY in pymatgen's configuration) does not have 32 characters; copy it "
            "again from your dashboard at materialsproject.org."
        ) from None
    if not key:
        raise MaterialsProjectError(
            "no key for the Materials Project: set MP_API_KEY, or PMG_MAPI_KEY in ~/.config/.pmgrc.yaml. It is free, "
            "on your dashboard at materialsproject.org. There is no option for it: options end up in histories."
        )
    return key


def _check_endpoint(endpoint: str) -> None:
    """Refuse to send the key unprotected."""
    parts = urlsplit(endpoint)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise MaterialsProjectError(f"{parts.scheme}://{parts.hostname}: not https, so the key is not sent there.")


def _may_pass(message: str) -> bool:
    """Whether an error may be over after a pause."""
    return bool(re.search(r"\b(429|500|502|503|504)\b|Connection|timed out|Max retries|Timeout", message))


def _meta(query: Query, version: str, pairs, frames) -> dict:
    n_closed = 0 if frames is None else sum("NC" in licence for licence in frames["licence"].to_pylist())
    closed = f"; {n_closed} frames CC-BY-NC-4.0, marked in the column licence" if n_closed else ""
    return {
        "name": NAME,
        "version": version,
        "licence": f"CC-BY-4.0 (Materials Project data){closed}",
        "citation": "A. Jain et al., APL Materials 1, 011002 (2013)",
        "provenance": f"Materials Project, database version {version}, {query.text}, through mp-api: thermo documents "
        "of GGA_GGA+U and of R2SCAN, queried separately",
        "functionals": describe_functionals(
            "GGA/GGA+U", "r²SCAN", energy_kinds=(ENERGY_KIND["gga"], ENERGY_KIND["r2scan"])
        ),
        "labelled_by": "DFT, VASP",
        "label_notice": "DFT labels: Materials Project, GGA/GGA+U with MP2020 corrections and r²SCAN",
        "differs_from_paper": f"{0 if pairs is None else len(pairs)} materials of database version {version}",
    }


def _parts(elements: Iterable[str]) -> Iterable[tuple[str, ...]]:
    elements = list(elements)
    return itertools.chain.from_iterable(itertools.combinations(elements, n + 1) for n in range(len(elements)))


def _natural(material_id: str) -> tuple[int, int, str]:
    """Sort mp-9 before mp-10, and numbers before the newer letters."""
    number = re.search(r"-(\d+)$", material_id)
    return (0, int(number[1]), material_id) if number else (1, 0, material_id)
