"""The Materials Project importer: the real mp-api client against a server here that speaks the documented interface."""

import contextlib
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from typer.testing import CliRunner

from crossfunc.cli import app
from crossfunc.datasets import DatasetError, open_dataset
from crossfunc.datasets.importers import materials_project, mp_thermo_csv
from crossfunc.datasets.importers.materials_project import MaterialsProjectError, Query, import_materials_project
from crossfunc.datasets.importers.page_cache import PageCache
from crossfunc.datasets.importers.thermo_documents import build_tables, read_document
from crossfunc.datasets.schema import PAIRS

KEY = "k3yK3yk3yK3yk3yK3yk3yK3yk3yK3y42"
VERSION = "2026.08.01"
THERMO = "/materials/thermo/"


def structure(symbols, magmoms=None):
    sites = [
        {
            "species": [{"element": s, "occu": 1}],
            "abc": [k / 10, 0.0, 0.5],
            "xyz": [0.0, 0.0, 0.0],
            "label": s,
            "properties": {"magmom": magmoms[k]} if magmoms else {},
        }
        for k, s in enumerate(symbols)
    ]
    return {"@class": "Structure", "lattice": {"matrix": [[4, 0, 0], [0, 4, 0], [0, 0, 4]]}, "sites": sites}


def document(material_id, symbols, thermo_type, energy, *, correction=0.0, formation=None, **changes):
    """A thermo document as the interface gives it; energies per atom."""
    run_type = "r2SCAN" if thermo_type == "R2SCAN" else "GGA"
    n = len(symbols)
    entry = {
        "@class": "ComputedStructureEntry",
        "energy": (energy - correction) * n,
        "correction": correction * n,
        "entry_id": f"{material_id}-{run_type}",
        "structure": structure(symbols),
    }
    return {
        "material_id": material_id,
        "chemsys": "-".join(sorted(set(symbols))),
        "thermo_type": thermo_type,
        "energy_type": run_type,
        "energy_per_atom": energy,
        "uncorrected_energy_per_atom": energy - correction,
        "formation_energy_per_atom": formation,
        "energy_above_hull": 0.0,
        "entries": {run_type: entry},
        "builder_meta": {"license": "BY-C"},
    } | changes


GGA, R2SCAN = "GGA_GGA+U", "R2SCAN"
DOCUMENTS = [
    document("mp-135", ["Li"], GGA, -1.9, formation=0.0),
    document("mp-135", ["Li"], R2SCAN, -2.3, formation=0.0),
    document("mp-1018134", ["Li", "Li"], GGA, -1.8, formation=0.1),
    document("mp-12957", ["O", "O"], GGA, -4.9, formation=0.0),
    document("mp-12957", ["O", "O"], R2SCAN, -8.1, formation=0.0),
    document("mp-1960", ["Li", "Li", "O"], GGA, -4.8, correction=-0.2, formation=-1.9),
    document("mp-1960", ["Li", "Li", "O"], R2SCAN, -6.3, formation=-2.0),
    document("mp-841", ["Li", "Li", "O", "O"], GGA, -4.7, correction=-0.3, formation=-1.6),
    document("mp-13", ["Fe"], GGA, -8.5, formation=0.0),
    document("mp-22", ["Fe", "O"], GGA, -7.0, correction=-1.0, formation=-1.2),
    document("mp-22", ["Fe", "O"], R2SCAN, -9.0, formation=-1.4, builder_meta={"license": "BY-NC"}),
]


class Handler(BaseHTTPRequestHandler):
    """The parts of the interface that the client uses; `server.faults` come first, one per request for documents."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, (path, query) = self.server, (urlsplit(self.path).path, parse_qs(urlsplit(self.path).query))
        asked = {name: values[0] for name, values in query.items()}
        if path == "/heartbeat":
            body = {
                "status": "OK",
                "version": "0.87.1",
                "db_version": server.version,
                "access_controlled_batch_ids": [],
            }
            self.answer(200, body)
            return
        server.seen.append(asked)
        if self.headers.get("x-api-key") != KEY:
            self.answer(403, {"detail": f"Invalid authentication credentials: {self.headers.get('x-api-key')}"})
        elif server.faults:
            status, headers = server.faults.pop(0)
            self.answer(status, {"detail": f"no, {self.headers['x-api-key']}"}, headers)
        elif path != THERMO:
            self.answer(404, {"detail": "Not Found"})
        else:
            time.sleep(server.pause_s)
            self.answer(200, self.search(asked))

    def search(self, asked):
        found = self.server.documents
        for name, key in (("chemsys", "chemsys"), ("material_ids", "material_id")):
            if name in asked:
                wanted = set(asked[name].split(","))
                found = [d for d in found if d[key] in wanted]
        types = [t.lower() for t in asked["thermo_types"].split(",")]
        found = [d for d in found if d["thermo_type"].lower() in types]
        skip, limit = int(asked.get("_skip", 0)), int(asked.get("_limit", 100))
        fields = asked["_fields"].split(",")
        data = [{name: d[name] for name in fields if name in d} for d in found[skip : skip + limit]]
        return {"data": data, "meta": {"total_doc": len(found)}}

    def answer(self, status, body, headers=None):
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server(monkeypatch):
    pytest.importorskip("mp_api.client", reason="the client of the Materials Project: pip install 'crossfunc[mp]'")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a killed client breaks its connection
    server.documents, server.faults, server.seen, server.pause_s, server.version = DOCUMENTS, [], [], 0, VERSION
    server.url = f"http://127.0.0.1:{server.server_address[1]}/"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("MP_API_KEY", KEY)
    monkeypatch.setattr(materials_project, "_PAUSES_S", (0.01, 0.01))
    yield server
    server.shutdown()
    server.server_close()


def run(server, out, query=None, **options):
    return import_materials_project(out, query or Query(("Li-O",)), endpoint=server.url, progress=False, **options)


def everything_written(folder):
    """The bytes of every file under a folder, as they are and unpacked."""
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            yield path, content
            if path.suffix == ".gz":
                yield path, gzip.decompress(content)


def assert_no_key(folder, *texts):
    for path, content in everything_written(folder):
        assert KEY.encode() not in content, path
    for text in texts:
        assert KEY not in text


# --- what is imported ---


def test_materials_with_both_functionals_become_pairs(server, tmp_path):
    pairs = run(server, tmp_path / "mp").pairs.set_index("material_id")
    assert pairs.index.tolist() == ["mp-135", "mp-1960", "mp-12957"]
    row = pairs.loc["mp-1960"]
    assert row["composition"] == "Li2O1"
    assert row["n_atoms"] == 3
    assert row["low_energy_per_atom_ev"] == -4.8
    assert row["low_uncorrected_energy_per_atom_ev"] == pytest.approx(-4.6)
    assert row["high_energy_per_atom_ev"] == -6.3
    assert row["low_formation_energy_per_atom_ev"] == -1.9
    assert row["low_uncorrected_formation_energy_per_atom_ev"] == pytest.approx(-1.7)
    assert row["high_formation_energy_per_atom_ev"] == -2.0


def test_the_pairs_have_the_columns_and_types_of_those_from_the_csv(server, tmp_path):
    header = "mp_id,formula,composition,gga_mp2020_energy_per_atom_ev,r2scan_energy_per_atom_ev,"
    header += "gga_mp2020_formation_energy_per_atom_ev,r2scan_formation_energy_per_atom_ev,chemistry"
    csv = tmp_path / mp_thermo_csv.FILE_NAME
    csv.write_text(f"{header}\nmp-1960,Li2O,Li2O1,-4.8,-6.3,-1.9,-2.0,oxide\n")
    from_csv, from_server = open_dataset(csv).pairs, run(server, tmp_path / "mp").pairs
    for column in PAIRS:
        assert from_server[column.name].dtype == from_csv[column.name].dtype
    ours, theirs = (p.set_index("material_id").loc["mp-1960"] for p in (from_server, from_csv))
    in_both = [c.name for c in PAIRS if c.name.startswith(("low_energy", "low_formation", "high"))]
    for name in ("composition", "formula", *in_both):
        assert ours[name] == theirs[name]


def test_each_structure_becomes_a_frame_with_its_energy_and_no_made_up_labels(server, tmp_path):
    frames = run(server, tmp_path / "mp").frames.to_pandas().set_index("frame_id")
    assert len(frames) == 8
    row = frames.loc["mp-1960/gga"]
    assert row["energy_kind"] == "mp2020"
    assert row["energy_per_atom_ev"] == -4.8
    assert row["atomic_numbers"].tolist() == [3, 3, 8]
    assert row["lattice_a"].tolist() == [4, 0, 0, 0, 4, 0, 0, 0, 4]
    assert row["frac_coords"].tolist() == [0, 0, 0.5, 0.1, 0, 0.5, 0.2, 0, 0.5]
    assert row["source"] == "materials-project mp-1960-GGA"
    assert frames.loc["mp-1960/r2scan", "energy_kind"] == "raw"
    for name in ("forces_ev_per_a", "stress_gpa", "magmoms_mub"):
        assert frames[name].isna().all()


def test_the_ground_state_of_an_element_is_its_lowest_energy_in_each_functional(server, tmp_path):
    elements = run(server, tmp_path / "mp").elements.set_index(["element", "functional"])["energy_per_atom_ev"]
    assert elements.to_dict() == {
        ("Li", "gga"): -1.9,
        ("Li", "r2scan"): -2.3,
        ("O", "gga"): -4.9,
        ("O", "r2scan"): -8.1,
    }


def test_formation_energies_are_those_of_the_ground_states(server, tmp_path):
    server.documents = [d for d in DOCUMENTS if d["material_id"] in ("mp-135", "mp-12957")] + [
        document("mp-1", ["Li", "O"], GGA, -4.0, correction=-0.1, formation=-4.0 + (1.9 + 4.9) / 2),
        document("mp-1", ["Li", "O"], R2SCAN, -6.0, formation=-6.0 + (2.3 + 8.1) / 2),
    ]
    dataset = run(server, tmp_path / "mp")
    row = dataset.pairs.set_index("material_id").loc["mp-1"]
    ground = dataset.elements.set_index(["functional", "element"])["energy_per_atom_ev"]
    for functional, column in (("gga", "low"), ("r2scan", "high")):
        expected = row[f"{column}_energy_per_atom_ev"] - ground[functional][["Li", "O"]].mean()
        assert row[f"{column}_formation_energy_per_atom_ev"] == pytest.approx(expected)


def test_what_has_no_partner_is_in_the_ledger(server, tmp_path):
    ledger = run(server, tmp_path / "mp").rejected.set_index("id")["reason"]
    assert ledger.to_dict() == {
        "mp-841": "no usable r2scan document",
        "mp-1018134": "no usable r2scan document",
    }


def test_the_two_functionals_are_asked_for_separately_and_nothing_mixed_comes_in(server, tmp_path):
    mixed = document("mp-1960", ["Li", "Li", "O"], "GGA_GGA+U_R2SCAN", -99.0)
    server.documents = [mixed, *DOCUMENTS]
    dataset = run(server, tmp_path / "mp")
    asked = {request["thermo_types"] for request in server.seen}
    assert asked <= {"GGA_GGA+U", "R2SCAN", "r2SCAN"}
    assert len(asked) == 2
    assert dataset.pairs["low_energy_per_atom_ev"].min() > -10


def test_provenance_names_database_version_query_and_licence(server, tmp_path):
    meta = run(server, tmp_path / "mp", Query(("Fe-O",))).meta
    assert meta["version"] == VERSION
    assert "systems Fe-O" in meta["provenance"]
    assert meta["licence"] == "CC-BY-4.0 (Materials Project data); 1 frames CC-BY-NC-4.0, marked in the column licence"
    assert meta["label_notice"].startswith("DFT labels: Materials Project")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(("Li-O",)), {"mp-135", "mp-12957", "mp-1960"}),
        (Query(("Li", "Fe-O")), {"mp-135", "mp-12957", "mp-22"}),
        (Query(elements=("O", "Fe")), {"mp-12957", "mp-22"}),
        (Query(elements=("O", "Fe", "Na", "K", "Mg", "Ca", "Ba")), {"mp-12957", "mp-22"}),  # listed and filtered
        (Query(everything=True), {"mp-135", "mp-12957", "mp-1960", "mp-22"}),
    ],
)
def test_queries_by_system_by_elements_and_for_everything(server, tmp_path, query, expected):
    assert set(run(server, tmp_path / "mp", query).pairs["material_id"]) == expected


def test_many_pages_give_the_same_tables_as_one(server, tmp_path, monkeypatch):
    run(server, tmp_path / "one")
    monkeypatch.setattr(materials_project, "PAGE", 2)
    run(server, tmp_path / "many")
    for name in ("pairs.parquet", "frames.parquet", "elements.parquet", "rejected.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_more_materials_than_one_answer_holds_are_all_listed(server, tmp_path):
    server.documents = [document(f"mp-{k}", ["Li"], t, -2.0 - k / 1e4) for k in range(1200) for t in (GGA, R2SCAN)]
    assert len(run(server, tmp_path / "mp", Query(("Li",))).pairs) == 1200


def test_lessons_one_to_three_find_what_they_read(server, tmp_path):
    from crossfunc.energies import composition_matrix
    from crossfunc.energies.corrections import add_raw_gga

    pairs = run(server, tmp_path / "mp").pairs
    assert composition_matrix(pairs).shape == (3, 94)
    filled = add_raw_gga(pairs)
    filled = filled[0] if isinstance(filled, tuple) else filled
    assert np.isfinite(filled["low_uncorrected_formation_energy_per_atom_ev"]).all()


# --- documents that are not as they should be ---


def reason(functional="gga", **changes):
    base = document("mp-1", ["Li", "O"], GGA if functional == "gga" else R2SCAN, -5.0)
    return read_document(base | changes, functional).reason


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"thermo_type": "GGA_GGA+U_R2SCAN"}, "thermo type GGA_GGA+U_R2SCAN where GGA_GGA+U was asked for"),
        ({"energy_type": "SCAN"}, "no entry of its energy type SCAN"),
        ({"uncorrected_energy_per_atom": -4.0}, "its entry says -5.00000 eV/atom without corrections, the document -4"),
        ({"energy_per_atom": None}, "document not as documented"),
        ({"entries": None}, "document not as documented"),
        ({"entries": {"GGA": {"energy": -10.0}}}, "document not as documented"),
        ({"entries": {"GGA": {"energy": -10.0, "structure": structure(["Li", "Xx"])}}}, "KeyError: 'Xx'"),
        ({"uncorrected_energy_per_atom": float("nan")}, "its entry says"),
    ],
)
def test_a_document_that_contradicts_itself_is_left_out_with_the_reason(changes, said):
    assert said in reason(**changes)


def test_an_r2scan_energy_with_a_correction_is_left_out():
    assert not reason("r2scan")
    corrected = document("mp-1", ["Li"], R2SCAN, -5.0, correction=-0.3)
    assert "a correction of -0.30000 eV/atom" in read_document(corrected, "r2scan").reason


def test_sites_that_are_not_one_atom_are_refused():
    mixed = structure(["Li"])
    mixed["sites"][0]["species"] = [{"element": "Li", "occu": 0.5}]
    assert "not fully occupied" in reason(entries={"GGA": {"energy": -5.0, "structure": mixed}})
    mixed["sites"][0]["species"] *= 2
    assert "document not as documented" in reason(entries={"GGA": {"energy": -5.0, "structure": mixed}})


def test_magnetic_moments_are_kept_only_where_every_atom_has_one():
    for magmoms, expected in (([1.0, -1.0], [1.0, -1.0]), ([1.0, None], None)):
        entry = {"energy": -10.0, "structure": structure(["Li", "O"], magmoms)}
        read = read_document(document("mp-1", ["Li", "O"], GGA, -5.0) | {"entries": {"GGA": entry}}, "gga")
        assert read.magmoms_mub == expected


def test_another_composition_in_the_other_functional_is_no_pair():
    given = [("gga", document("mp-1", ["Li", "O"], GGA, -5.0)), ("r2scan", document("mp-1", ["Li"], R2SCAN, -5.0))]
    tables = build_tables([read_document(d, functional) for functional, d in given])
    assert tables["pairs"] is None
    assert tables["rejected"]["reason"].tolist() == ["another composition in r²SCAN than in GGA/GGA+U"]


def test_a_doubled_cell_in_the_other_functional_is_a_pair():
    given = [("gga", document("mp-1", ["Li", "O"], GGA, -5)), ("r2scan", document("mp-1", ["Li", "O"] * 2, R2SCAN, -6))]
    (row,) = build_tables([read_document(d, functional) for functional, d in given])["pairs"].to_dict("records")
    assert (row["composition"], row["n_atoms"]) == ("Li1O1", 2)


def test_a_material_that_is_listed_but_not_given_is_in_the_ledger(server, tmp_path, monkeypatch):
    monkeypatch.setattr(materials_project, "PAGE", 1)
    search = Handler.search

    def forgetful(self, asked):
        answer = search(self, asked)
        return {"data": [], "meta": {"total_doc": 0}} if asked.get("material_ids") == "mp-841" else answer

    monkeypatch.setattr(Handler, "search", forgetful)
    ledger = run(server, tmp_path / "mp").rejected.set_index("id")["reason"]
    assert ledger["mp-841/gga"] == "listed, but not given when asked for"


def test_nothing_found_is_an_error_and_writes_nothing(server, tmp_path):
    with pytest.raises(DatasetError, match="at least one table"):
        run(server, tmp_path / "mp", Query(("Xe",)))
    assert not (tmp_path / "mp").exists()


# --- queries ---


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "choose one of --chemsys, --elements and --all"),
        ({"chemsys": ("Li-O",), "everything": True}, "choose one of"),
        ({"chemsys": ("Li-Xx",)}, "'Xx' is no element symbol"),
        ({"elements": ("li",)}, "'li' is no element symbol"),
        ({"chemsys": ("H-He-Li-Be-B-C-N-O-F-Ne",)}, "more than 9 elements; use --elements"),
    ],
)
def test_a_query_that_cannot_be_meant_is_refused(arguments, said):
    with pytest.raises(MaterialsProjectError, match=said):
        Query(**arguments)


def test_a_system_is_asked_for_with_all_its_subsystems():
    assert Query(("O-Li",)).systems == ["Li", "Li-O", "O"]
    assert len(Query(("Li-Fe-O-F",)).systems) == 15
    assert Query(everything=True).systems is None


# --- servers and networks ---


def test_a_server_that_is_busy_is_asked_again(server, tmp_path):
    server.faults = [(429, {"Retry-After": "1"}), (429, {}), (502, {}), (503, {}), (500, {})]
    started = time.monotonic()
    assert len(run(server, tmp_path / "mp").pairs) == 3
    assert time.monotonic() - started >= 1
    assert server.faults == []


def test_a_server_that_stays_busy_ends_the_import_and_keeps_the_pages(server, tmp_path, monkeypatch):
    monkeypatch.setattr(materials_project, "PAGE", 1)
    n_documents = len(DOCUMENTS)
    search = Handler.search

    def breaking(self, asked):
        if len(server.seen) == 5:
            server.faults = [(503, {})] * 50
        return search(self, asked)

    monkeypatch.setattr(Handler, "search", breaking)
    with pytest.raises(MaterialsProjectError, match=r"503[\s\S]*run the same command again to go on"):
        run(server, tmp_path / "mp")
    kept = sorted(p.name for p in (tmp_path / ".mp-pages").glob("*.json.gz"))
    assert kept == [
        "gga-00000.json.gz",
        "gga-00001.json.gz",
        "gga-00002.json.gz",
        "gga-00003.json.gz",
        "gga-ids.json.gz",
    ]
    server.faults, server.seen, told = [], [], []
    monkeypatch.setattr(Handler, "search", search)
    assert len(run(server, tmp_path / "mp", report=told.append).pairs) == 3
    assert told[0].startswith("going on with 5 pages in ")
    assert len(server.seen) < n_documents  # the kept pages were not asked for again
    assert not (tmp_path / ".mp-pages").exists()


def test_pages_of_another_database_version_are_not_glued_to_new_ones(server, tmp_path):
    PageCache(
        tmp_path / ".mp-pages", {"query": "systems Li-O", "database": "2020.01.01", "page": materials_project.PAGE}
    )
    (tmp_path / ".mp-pages" / "gga-ids.json.gz").write_bytes(gzip.compress(b"{}"))
    told = []
    run(server, tmp_path / "mp", report=told.append)
    assert told[0].endswith("pages of another query or database version; starting anew")


@pytest.mark.parametrize(
    "damage",
    [b"", b"x", gzip.compress(b'{"content": [], "sha256": ""}'), gzip.compress(b"[]")],
    ids=["empty", "no gzip", "wrong checksum", "no page"],
)
def test_a_damaged_page_is_asked_for_again(tmp_path, damage):
    cache = PageCache(tmp_path / "pages", {})
    assert cache.get("a", lambda: [1]) == [1]
    assert cache.get("a", lambda: pytest.fail("asked again")) == [1]
    (tmp_path / "pages" / "a.json.gz").write_bytes(damage)
    assert cache.get("a", lambda: [2]) == [2]


def test_no_network_says_so(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(MaterialsProjectError, match=r"Is there a network\? Behind a proxy, set HTTPS_PROXY"):
        run(server, tmp_path / "mp")


def test_an_existing_folder_is_not_replaced_unasked_and_nothing_is_asked_for(server, tmp_path):
    run(server, tmp_path / "mp")
    server.seen = []
    with pytest.raises(DatasetError, match="exists; choose another folder"):
        run(server, tmp_path / "mp")
    assert server.seen == []
    assert len(run(server, tmp_path / "mp", overwrite=True).pairs) == 3


# --- the key ---


def test_without_a_key_it_says_where_to_put_one(server, tmp_path, monkeypatch):
    monkeypatch.delenv("MP_API_KEY")
    monkeypatch.setattr("pymatgen.core.SETTINGS", {})
    with pytest.raises(MaterialsProjectError, match=r"set MP_API_KEY, or PMG_MAPI_KEY"):
        run(server, tmp_path / "mp")


def test_the_key_may_be_in_the_configuration_file_of_the_client(server, tmp_path, monkeypatch):
    monkeypatch.delenv("MP_API_KEY")
    monkeypatch.setattr("pymatgen.core.SETTINGS", {"PMG_MAPI_KEY": KEY})
    assert len(run(server, tmp_path / "mp").pairs) == 3
    assert_no_key(tmp_path)


def test_a_key_of_the_wrong_length_is_not_repeated(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MP_API_KEY", "secret-but-short")
    with pytest.raises(MaterialsProjectError, match="does not have 32 characters") as told:
        run(server, tmp_path / "mp")
    assert "secret" not in str(told.value)


def test_a_wrong_key_is_struck_out_of_what_the_server_says(server, tmp_path, monkeypatch):
    wrong = "w" * 32
    monkeypatch.setenv("MP_API_KEY", wrong)
    with pytest.raises(MaterialsProjectError, match=r"<your key>[\s\S]*Check the key in MP_API_KEY") as told:
        run(server, tmp_path / "mp")
    assert wrong not in str(told.value)
    assert told.value.__suppress_context__  # nor in a traceback of what came before


def test_the_key_is_not_sent_without_https(server, tmp_path):
    with pytest.raises(MaterialsProjectError, match=r"http://example\.org: not https, so the key is not sent there"):
        import_materials_project(tmp_path / "mp", Query(("Li",)), endpoint="http://example.org/")


def test_the_key_is_in_no_file_and_no_output_of_the_command(server, tmp_path, monkeypatch):
    from mp_api.client.core.settings import MAPI_CLIENT_SETTINGS

    monkeypatch.setattr(MAPI_CLIENT_SETTINGS, "ENDPOINT", server.url)
    done = CliRunner().invoke(
        app, ["data", "import", "materials-project", "--chemsys", "Li-O", "--out", str(tmp_path / "mp")]
    )
    assert done.exit_code == 0, done.output
    assert "3 materials in both functionals, 8 structures with energy, 2 rows left out" in done.output
    assert "licence CC-BY-4.0 (Materials Project data); cite A. Jain" in done.output
    assert_no_key(tmp_path, done.output)


def test_the_key_is_not_in_the_traceback_of_a_failed_command(server, tmp_path):
    server.faults = [(418, {})] * 20
    call = [Path(sys.executable).with_name("crossfunc"), "--debug", "data", "import", "materials-project"]
    call += ["--elements", "Li,O", "--out", str(tmp_path / "home" / "mp")]
    (tmp_path / "home").mkdir()
    environment = os.environ | {"MP_API_ENDPOINT": server.url, "MP_API_KEY": KEY, "HOME": str(tmp_path / "home")}
    done = subprocess.run(call, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "error: Materials Project: MPRestError: REST query returned with error status code 418" in done.stderr
    assert "<your key>" in done.stderr  # the server repeated it
    assert_no_key(tmp_path, done.stdout, done.stderr)


def test_killed_at_any_time_it_completes_to_the_same_bytes(server, tmp_path, monkeypatch):
    monkeypatch.setattr(materials_project, "PAGE", 15)
    rng = random.Random(0)
    server.documents = [
        document(f"mp-{k}", ["Li", "O"], t, -4.0 - rng.random(), formation=-1.0)
        for k in range(1, 91)
        for t in (GGA, R2SCAN)
    ]
    run(server, tmp_path / "whole")
    n_requests, server.seen = len(server.seen), []
    assert n_requests == 14  # two lists, and 6 pages of each functional
    for _ in range(int(os.environ.get("CROSSFUNC_KILLS", "4"))):
        if (tmp_path / "killed").exists():
            break
        until = len(server.seen) + rng.randint(2, 4)
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                run(server, tmp_path / "killed")
            os._exit(0)
        while len(server.seen) < until and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    server.seen = []
    if not (tmp_path / "killed").exists():
        run(server, tmp_path / "killed")
        assert len(server.seen) < n_requests  # it went on, and did not begin again
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "killed" / file.name).read_bytes() == file.read_bytes()
    assert not (tmp_path / ".killed-pages").exists()
    assert_no_key(tmp_path)


def test_mp_api_missing_is_said_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mp_api.client.core.utils", None)
    monkeypatch.setitem(sys.modules, "mp_api.client.core.exceptions", None)
    monkeypatch.setitem(sys.modules, "mp_api", SimpleNamespace())
    with pytest.raises(MaterialsProjectError, match=r"pip install 'crossfunc\[mp\]'"):
        import_materials_project(tmp_path / "mp", Query(("Li",)))
