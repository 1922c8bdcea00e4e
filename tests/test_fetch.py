"""Fetching over a real connection to a server on this machine that behaves as badly as servers do."""

import contextlib
import email.utils
import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from crossfunc.cli import app
from crossfunc.datasets import fetch_dataset, public_datasets, registry
from crossfunc.datasets.transfer import RemoteFile, download
from crossfunc.datasets.web import FetchError, Patience, check_url

NAME = "matpes-r2scan"
FILE = "MatPES-R2SCAN-2025.2.jsonl"
BODY = random.Random(0).randbytes(700_001)
QUICK = Patience(n_attempts=4, first_pause_s=0.01, longest_pause_s=2, connect_timeout_s=30, read_timeout_s=30)


def digest(body, algorithm="sha256"):
    return hashlib.new(algorithm, body).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files`; each request takes the next of `server.faults`, good behaviour once they are used up."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        path = self.path.partition("?")[0]
        body = server.files.get(path)
        server.seen.append(SimpleNamespace(path=path, headers=dict(self.headers)))
        if body is None:
            self.answer(404, b"nothing here")
            return
        is_data = not path.startswith("/api") and not path.endswith("fetch.json")
        fault = server.faults.pop(0) if is_data and server.faults else {}
        if "status" in fault:
            self.answer(fault["status"], b"no", fault.get("headers", {}))
            return
        body = fault.get("body", body)
        etag = fault.get("etag", f'"{digest(body, "md5")}"')
        start, status, headers = 0, 200, {"ETag": etag} if etag else {}
        asked = self.headers.get("Range")
        if asked and not fault.get("no_range") and self.headers.get("If-Range", etag) == etag:
            start, status = int(asked[6:-1]), 206
            if start >= len(body):
                self.answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                return
            shift = fault.get("shift", 0)
            headers["Content-Range"] = f"bytes {start + shift}-{len(body) - 1}/{len(body)}"
        content = body[start:]
        headers["Content-Length"] = str(len(content) + fault.get("lie", 0))
        headers |= fault.get("headers", {})
        if fault.get("no_length"):
            del headers["Content-Length"]
            self.close_connection = True
        self.answer(status, content[: fault.get("cut", len(content))], headers, cut="cut" in fault or "lie" in fault)

    def answer(self, status, content, headers=(), cut=False):
        self.send_response(status)
        headers = dict(headers)
        for key, value in headers.items():
            self.send_header(key, value)
        if "Content-Length" not in headers and not self.close_connection:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for k in range(0, len(content), 1 << 15):
            try:
                self.wfile.write(content[k : k + (1 << 15)])
            except OSError:
                self.close_connection = True
                return
            time.sleep(self.server.pause_s)
        if cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a killed client breaks its connection
    server.files, server.faults, server.seen, server.pause_s = {}, [], [], 0
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def mirror(server, monkeypatch):
    """A mirror that holds one file of one public dataset."""
    publish(server, BODY)
    monkeypatch.setenv("CROSSFUNC_MIRROR", server.url)
    return server


def publish(server, body, **changes):
    entry = {"name": FILE, "size": len(body), "checksums": {"sha256": digest(body)}} | changes
    record = {"name": NAME, "licence": "BSD-3-Clause", "source": "https://example.org/record", "files": [entry]}
    server.files[f"/{NAME}/fetch.json"] = json.dumps(record).encode()
    server.files[f"/{NAME}/{FILE}"] = body


def remote(server, body=BODY, **changes):
    server.files["/file"] = body
    given = {"name": "file", "url": f"{server.url}/file", "size": len(body), "checksums": {"sha256": digest(body)}}
    return RemoteFile(**given | changes)


def data_requests(server):
    return [r for r in server.seen if not r.path.endswith("fetch.json")]


def leftovers(folder, name="file"):
    return sorted(p.name for p in folder.iterdir() if p.name != name)


# --- one file ---


def test_a_file_arrives_byte_for_byte_and_nothing_is_left_beside_it(server, tmp_path):
    path = download(remote(server), tmp_path, patience=QUICK)
    assert path.read_bytes() == BODY
    assert leftovers(tmp_path) == []


def test_a_connection_that_is_cut_is_taken_up_where_it_broke(server, tmp_path):
    server.faults = [{"cut": 300_000}, {"cut": 200_000}]
    download(remote(server), tmp_path, patience=QUICK)
    assert (tmp_path / "file").read_bytes() == BODY
    asked = [r.headers.get("Range") for r in server.seen]
    assert asked == [None, "bytes=300000-", "bytes=500000-"]
    assert server.seen[1].headers["If-Range"] == f'"{digest(BODY, "md5")}"'


def test_many_cuts_are_borne_as_long_as_each_attempt_brings_something_new(server, tmp_path):
    server.faults = [{"cut": 50_000} for _ in range(12)]  # three times the attempts allowed without progress
    download(remote(server), tmp_path, patience=QUICK)
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_cut_that_brings_nothing_new_is_not_borne_for_ever_and_what_arrived_is_kept(server, tmp_path):
    server.faults = [{"cut": 100_000}, *[{"cut": 0} for _ in range(20)]]
    with pytest.raises(FetchError, match=r"the connection .*\n.*run the same command again[\s\S]*Kept: 100,000 bytes"):
        download(remote(server), tmp_path, patience=QUICK)
    assert (tmp_path / "file.part").stat().st_size == 100_000
    assert not (tmp_path / "file").exists()
    server.faults, server.seen = [], []
    download(remote(server), tmp_path, patience=QUICK)
    assert [r.headers.get("Range") for r in server.seen] == ["bytes=100000-"]
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_server_that_ignores_ranges_sends_the_whole_file_again(server, tmp_path):
    server.faults = [{"cut": 300_000}, {"no_range": True}]
    download(remote(server), tmp_path, patience=QUICK)
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_etag_parts_are_not_glued_together(server, tmp_path, etag):
    server.faults = [{"cut": 300_000, "etag": etag}]
    download(remote(server), tmp_path, patience=QUICK)
    assert [r.headers.get("Range") for r in server.seen] == [None, None]
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_file_that_changed_between_two_parts_is_not_glued_to_the_old_one(server, tmp_path):
    changed = BODY[:-1] + b"?"
    server.faults = [{"cut": 300_000}, {"body": changed}]  # another ETag: If-Range makes the server send all of it
    download(remote(server), tmp_path, patience=QUICK)  # its checksum is wrong, so the third attempt starts afresh
    assert (tmp_path / "file").read_bytes() == BODY
    assert [r.headers.get("Range") for r in server.seen] == [None, "bytes=300000-", None]


def test_a_server_that_ignores_if_range_is_found_out_by_its_etag(server, tmp_path):
    old = f'"{digest(BODY, "md5")}"'
    server.faults = [{"cut": 300_000}, {"body": b"?" * len(BODY), "etag": old, "headers": {"ETag": '"other"'}}]
    download(remote(server), tmp_path, patience=QUICK)
    assert (tmp_path / "file").read_bytes() == BODY


def test_an_answer_with_another_part_than_asked_for_is_not_used(server, tmp_path):
    server.faults = [{"cut": 300_000}, {"shift": 7}]
    download(remote(server), tmp_path, patience=QUICK)
    assert (tmp_path / "file").read_bytes() == BODY


def test_the_part_of_another_version_is_thrown_away(server, tmp_path):
    server.faults = [{"cut": 300_000}, *[{"cut": 0} for _ in range(8)]]
    with pytest.raises(FetchError):
        download(remote(server), tmp_path, patience=QUICK)
    server.faults = []
    newer = BODY[::-1]
    download(remote(server, newer), tmp_path, patience=QUICK)
    assert (tmp_path / "file").read_bytes() == newer


@pytest.mark.parametrize("note", ["", "{", "[]", '{"of": 1}'])
def test_a_part_whose_note_is_damaged_is_thrown_away(server, tmp_path, note):
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    (tmp_path / "file.part.json").write_text(note)
    download(remote(server), tmp_path, patience=QUICK)
    assert (tmp_path / "file").read_bytes() == BODY
    assert leftovers(tmp_path) == []


def test_corrupt_bytes_are_fetched_once_more(server, tmp_path):
    server.faults = [{"body": b"?" + BODY[1:]}]
    download(remote(server), tmp_path, patience=QUICK)
    assert (tmp_path / "file").read_bytes() == BODY


def test_bytes_that_stay_corrupt_are_refused_with_both_checksums_and_nothing_is_kept(server, tmp_path):
    bad = b"?" + BODY[1:]
    server.faults = [{"body": bad}, {"body": bad}]
    expected = rf"downloaded twice in full, and its sha256 is {digest(bad)} where {digest(BODY)} was announced"
    with pytest.raises(FetchError, match=expected):
        download(remote(server), tmp_path, patience=QUICK)
    assert leftovers(tmp_path) == []


def test_md5_is_checked_too(server, tmp_path):
    good = remote(server, checksums={"md5": digest(BODY, "md5")})
    assert download(good, tmp_path, patience=QUICK).read_bytes() == BODY
    with pytest.raises(FetchError, match=r"its md5 is .* was announced"):
        download(remote(server, checksums={"md5": "0" * 32}), tmp_path, patience=QUICK)


def test_a_server_that_announces_too_short_a_length_is_asked_for_the_rest_or_given_up(server, tmp_path):
    server.faults = [{"lie": -1000} for _ in range(8)]
    with pytest.raises(FetchError, match=r"announces 699,001 bytes where 700,001 are due"):
        download(remote(server), tmp_path, patience=QUICK)
    assert leftovers(tmp_path) == []


def test_a_server_that_announces_too_long_a_length_is_not_believed(server, tmp_path):
    server.faults = [{"lie": 10**12} for _ in range(8)]
    with pytest.raises(FetchError, match=r"announces 1,000,000,700,001 bytes where 700,001 are due"):
        download(remote(server), tmp_path, patience=QUICK)
    assert leftovers(tmp_path) == []


def test_a_server_that_sends_without_end_is_stopped_at_the_announced_size(server, tmp_path):
    server.faults = [{"body": BODY * 3, "no_length": True}]
    with pytest.raises(FetchError, match=r"sends more than the 700,001 bytes announced"):
        download(remote(server), tmp_path, patience=QUICK)
    assert leftovers(tmp_path) == []


def test_a_body_without_length_that_ends_early_is_not_taken_for_complete(server, tmp_path):
    server.faults = [{"body": BODY, "no_length": True, "cut": 1000}]
    assert download(remote(server), tmp_path, patience=QUICK).read_bytes() == BODY


def test_a_packed_body_is_refused(server, tmp_path):
    server.faults = [{"headers": {"Content-Encoding": "gzip"}} for _ in range(8)]
    with pytest.raises(FetchError, match="packed the file"):
        download(remote(server), tmp_path, patience=QUICK)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_gets_the_pause_it_asks_for(server, tmp_path, status):
    server.faults = [{"status": status, "headers": {"Retry-After": "1"}}]
    started = time.monotonic()
    download(remote(server), tmp_path, patience=QUICK)
    assert time.monotonic() - started >= 1
    assert len(server.seen) == 2


def test_a_pause_that_a_person_would_notice_is_told(mirror, tmp_path):
    mirror.faults = [{"status": 503, "headers": {"Retry-After": "1"}}]
    told = []
    fetch_dataset(NAME, tmp_path, report=told.append, patience=QUICK)
    assert told[-1] == "the server is busy or out of order (HTTP 503); next attempt in 1 s"


def test_retry_after_may_be_a_date(server, tmp_path):
    later = email.utils.format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
    server.faults = [{"status": 429, "headers": {"Retry-After": later}}]
    with pytest.raises(FetchError, match=r"HTTP 429\)\nThe server asks to come back in [67]\d\d\d s"):
        download(remote(server), tmp_path, patience=QUICK)
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_stays_busy_is_left_alone_after_some_attempts(server, tmp_path, status):
    server.faults = [{"status": status} for _ in range(20)]
    with pytest.raises(FetchError, match=rf"HTTP {status}\)\nGiven up after 4 attempts"):
        download(remote(server), tmp_path, patience=QUICK)
    assert len(server.seen) == 4


def test_pauses_double_and_are_bounded():
    patience = Patience(first_pause_s=1, longest_pause_s=5)
    assert [patience.pause(n, None) for n in (1, 2, 3, 4, 9)] == [1, 2, 4, 5, 5]
    assert patience.pause(1, 3.5) == 3.5


@pytest.mark.parametrize(
    ("status", "said"),
    [(404, "not found"), (410, "not found"), (403, "access refused"), (401, "access refused"), (418, "unexpected")],
)
def test_a_refusal_is_not_repeated(server, tmp_path, status, said):
    server.faults = [{"status": status} for _ in range(5)]
    with pytest.raises(FetchError, match=rf"{said}.*HTTP {status}"):
        download(remote(server), tmp_path, patience=QUICK)
    assert len(server.seen) == 1


def test_redirects_are_followed_with_the_range_but_not_for_ever(server, tmp_path):
    server.faults = [{"status": 302, "headers": {"Location": "/file"}}, {"cut": 1000}]
    server.faults += [{"status": 302, "headers": {"Location": "/file?signature=1"}}]
    assert download(remote(server), tmp_path, patience=QUICK).read_bytes() == BODY
    assert server.seen[-1].headers["Range"] == "bytes=1000-"
    (tmp_path / "file").unlink()
    server.faults = [{"status": 302, "headers": {"Location": "/file"}} for _ in range(20)]
    with pytest.raises(FetchError, match="redirected more than"):
        download(remote(server), tmp_path, patience=QUICK)


@pytest.mark.parametrize("target", ["http://example.org/file", "ftp://example.org/file", "file:///etc/passwd"])
def test_a_redirect_to_an_unprotected_address_is_refused(server, tmp_path, target):
    server.faults = [{"status": 302, "headers": {"Location": target}}]
    with pytest.raises(FetchError, match="not https"):
        download(remote(server), tmp_path, patience=QUICK)


def test_only_https_this_machine_and_the_named_mirror_are_allowed():
    check_url("https://example.org/x")
    check_url("http://localhost:1/x")
    check_url("http://mirror.lan:8000/x", trusted_host="mirror.lan:8000")
    for url in ("http://mirror.lan:8000/x", "ftp://localhost/x", "file:///x", "//x"):
        with pytest.raises(FetchError, match="not https"):
            check_url(url)


def test_a_server_that_hangs_is_given_up_and_says_so(server, tmp_path):
    server.pause_s = 5
    impatient = Patience(n_attempts=1, first_pause_s=0.01, connect_timeout_s=1, read_timeout_s=0.2)
    with pytest.raises(FetchError, match="the connection broke"):
        download(remote(server), tmp_path, patience=impatient)


def test_no_network_says_what_to_do(server, tmp_path):
    file = remote(server)
    server.shutdown()
    server.server_close()
    with pytest.raises(FetchError, match=r"cannot be reached[\s\S]*HTTPS_PROXY[\s\S]*CROSSFUNC_MIRROR[\s\S]*--out"):
        download(file, tmp_path, patience=QUICK)


def test_the_proxy_of_the_environment_is_used_and_its_password_is_not_shown(server, tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:hunter2@127.0.0.1:{port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(
        FetchError, match=r"the proxy in HTTPS_PROXY or HTTP_PROXY gives no way to example\.org"
    ) as told:
        download(remote(server, url="https://example.org/file"), tmp_path, patience=QUICK)
    assert "hunter2" not in str(told.value)


def test_no_room_is_said_before_anything_is_downloaded(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=0, used=0, free=1_000_000))
    with pytest.raises(FetchError, match=r"64,700,001 bytes are needed and 1,000,000 are free.*--out"):
        fetch_dataset(NAME, tmp_path / "out", patience=QUICK)
    assert data_requests(mirror) == []


def test_a_full_disk_keeps_what_arrived(server, tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # a file of ours may not grow beyond
    try:
        with pytest.raises(FetchError, match=r"file\.part: cannot be written \(File too large\); make room"):
            download(remote(server), tmp_path, patience=QUICK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "file.part").read_bytes() == BODY[:100_000]
    assert download(remote(server), tmp_path, patience=QUICK).read_bytes() == BODY
    assert server.seen[-1].headers["Range"] == "bytes=100000-"


def test_two_processes_do_not_write_one_file(server, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(FetchError, match="another process is downloading"):
        download(remote(server), tmp_path, patience=QUICK)
    os.close(handle)
    download(remote(server), tmp_path, patience=QUICK)


# --- a dataset ---


def test_the_registry_names_licence_citation_and_ceiling_of_each_dataset():
    assert {"mp-r2scan", "mptrj", "matpes-pbe", "matpes-r2scan", "matpes-test"} <= set(public_datasets())
    for entry in public_datasets().values():
        assert entry.licence
        assert "doi" in entry.citation or "arXiv" in entry.citation
        assert 0 < entry.max_bytes <= 13_000_000_000
        assert set(entry.functionals) <= {"gga", "pbe", "r2scan"}
        words = shlex.split(entry.import_command.format(files=" ".join(entry.files)))
        assert words[:3] == ["crossfunc", "data", "import"]
        shown = CliRunner().invoke(app, [*words[1:4], "--help"])
        assert shown.exit_code == 0  # a command that exists


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(FetchError, match=r"no public dataset 'mp-scan' is known; there are mp-r2scan, "):
        fetch_dataset("mp-scan", tmp_path)


def test_licence_and_citation_are_told_before_the_first_byte_of_data(mirror, tmp_path):
    told = []

    def report(line):
        assert data_requests(mirror) == []
        told.append(line)

    fetched = fetch_dataset(NAME, tmp_path / "out", report=report, patience=QUICK)
    text = "\n".join(told)
    assert "licence   BSD-3-Clause" in text
    assert "arXiv:2503.04070" in text
    assert f"{FILE} (0.7 MB)" in text
    assert fetched.files[0].read_bytes() == BODY
    assert fetched.import_command == f"crossfunc data import matpes {tmp_path / 'out' / FILE} --out DIR"


def test_what_was_fetched_needs_no_network_and_is_checked_each_time(mirror, tmp_path, monkeypatch):
    fetch_dataset(NAME, tmp_path, patience=QUICK)
    monkeypatch.delenv("CROSSFUNC_MIRROR")
    monkeypatch.setattr(registry, "HUGGINGFACE", "http://127.0.0.1:9")
    again = fetch_dataset(NAME, tmp_path, patience=QUICK)
    assert again.files == [tmp_path / FILE]
    assert again.record.source == "https://example.org/record"
    (tmp_path / FILE).write_bytes(b"?" + BODY[1:])
    with pytest.raises(FetchError, match=r"is there, but its sha256 is .*Move or delete it"):
        fetch_dataset(NAME, tmp_path, patience=QUICK)
    (tmp_path / FILE).write_bytes(BODY[:10])
    with pytest.raises(FetchError, match=r"is there, but it has 10 bytes where 700,001"):
        fetch_dataset(NAME, tmp_path, patience=QUICK)


def test_a_fetched_folder_serves_as_a_mirror(mirror, tmp_path):
    fetch_dataset(NAME, tmp_path / "first", patience=QUICK)
    for file in (tmp_path / "first").iterdir():
        mirror.files[f"/{NAME}/{file.name}"] = file.read_bytes()
    fetch_dataset(NAME, tmp_path / "second", patience=QUICK)
    for file in (tmp_path / "first").iterdir():
        assert (tmp_path / "second" / file.name).read_bytes() == file.read_bytes()


def test_the_next_mirror_is_tried_and_the_reason_told(mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSFUNC_MIRROR", f"{mirror.url}/none {mirror.url}")
    told = []
    fetch_dataset(NAME, tmp_path, report=told.append, patience=QUICK)
    assert any(line.startswith("next mirror, because: ") and "not found" in line for line in told)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "../MatPES-R2SCAN-2025.2.jsonl"}, "has no file like"),
        ({"size": 10**13}, "asks for 10,000,000,000,000 bytes where matpes-r2scan is expected to stay below"),
        ({"size": "700001"}, "gives no size"),
        ({"size": -1}, "gives no size"),
        ({"checksums": {}}, "gives no md5 or sha256"),
        ({"checksums": {"sha256": "abc"}}, "gives no md5 or sha256"),
        ({"checksums": {"crc32": "0" * 8}}, "gives no md5 or sha256"),
        ({"checksums": None}, "not the answer expected"),
    ],
)
def test_a_record_that_cannot_be_trusted_is_refused(mirror, tmp_path, change, said):
    publish(mirror, BODY, **change)
    with pytest.raises(FetchError, match=said):
        fetch_dataset(NAME, tmp_path / "out", patience=QUICK)
    assert data_requests(mirror) == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".hidden", "fetch.json", "x.part", "a\nb", ""])
def test_a_record_cannot_name_a_file_outside_its_folder(name):
    with pytest.raises(FetchError, match="no plain file name"):
        registry._remote(name, "https://example.org/x", 1, {"md5": "0" * 32}, "https://example.org")


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"[]", b"\xff", b"[" * 100_000, b" " * 9_000_000])
def test_a_record_that_is_something_else_is_refused(mirror, tmp_path, body):
    mirror.files[f"/{NAME}/fetch.json"] = body
    with pytest.raises(FetchError, match=r"not JSON|not the answer expected|longer than"):
        fetch_dataset(NAME, tmp_path, patience=QUICK)


def test_a_password_in_the_address_of_a_mirror_is_used_but_neither_told_nor_written(mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSFUNC_MIRROR", mirror.url.replace("http://", "http://reader:hunter2@"))
    record = json.loads(mirror.files[f"/{NAME}/fetch.json"])
    del record["source"]
    mirror.files[f"/{NAME}/fetch.json"] = json.dumps(record).encode()
    told = []
    fetch_dataset(NAME, tmp_path, report=told.append, patience=QUICK)
    assert mirror.seen[-1].headers["Authorization"].startswith("Basic ")
    mirror.files[f"/{NAME}/fetch.json"] = b"[]"
    with pytest.raises(FetchError) as refused:
        fetch_dataset(NAME, tmp_path, patience=QUICK)
    texts = [*told, str(refused.value), (tmp_path / "fetch.json").read_text()]
    assert all("hunter2" not in text for text in texts)


def test_a_mirror_that_is_no_address_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSFUNC_MIRROR", "/data/mirror")
    with pytest.raises(FetchError, match="CROSSFUNC_MIRROR: '/data/mirror' is no address"):
        fetch_dataset(NAME, tmp_path, patience=QUICK)


# --- the sources' interfaces ---


def figshare_article(server, **changes):
    entry = {
        "id": 7,
        "name": "MPr2SCAN.json",
        "size": len(BODY),
        "is_link_only": False,
        "download_url": f"{server.url}/files/7",
        "supplied_md5": "",
        "computed_md5": digest(BODY, "md5"),
    }
    server.files["/files/7"] = BODY
    other = entry | {"name": "readme.txt", "download_url": f"{server.url}/none"}
    return {"title": "t", "license": {"value": 1, "name": "CC BY 4.0"}, "files": [other, entry | changes]}


def test_mp_r2scan_comes_from_figshare_with_its_md5_and_its_licence(server, tmp_path, monkeypatch):
    monkeypatch.delenv("CROSSFUNC_MIRROR", raising=False)
    monkeypatch.setattr(registry, "FIGSHARE", f"{server.url}/api/v2")
    url = "/api/v2/articles/28245650/versions/2"
    server.files[url] = json.dumps(figshare_article(server)).encode()
    told = []
    fetched = fetch_dataset("mp-r2scan", tmp_path, report=told.append, patience=QUICK)
    assert fetched.files == [tmp_path / "MPr2SCAN.json"]
    assert fetched.files[0].read_bytes() == BODY
    assert "  licence   CC BY 4.0" in told
    record = json.loads((tmp_path / "fetch.json").read_text())
    assert record["source"].endswith(url)
    assert record["files"][0]["checksums"] == {"md5": digest(BODY, "md5"), "sha256": digest(BODY)}
    server.files[url] = json.dumps(figshare_article(server, computed_md5="0" * 32)).encode()
    (tmp_path / "again").mkdir()
    with pytest.raises(FetchError, match="its md5 is"):
        fetch_dataset("mp-r2scan", tmp_path / "again", patience=QUICK)


def test_matpes_comes_from_one_revision_with_its_sha256(server, tmp_path, monkeypatch):
    monkeypatch.delenv("CROSSFUNC_MIRROR", raising=False)
    monkeypatch.setattr(registry, "HUGGINGFACE", server.url)
    commit = "a" * 40
    repository = "/api/datasets/materialyze/matpes"
    info = {"sha": commit, "cardData": {"license": "bsd-3-clause"}}
    tree = [
        {"type": "file", "path": "README.md", "size": 3, "oid": "b" * 40},
        {"type": "file", "path": FILE, "size": len(BODY), "oid": "c" * 40, "lfs": {"oid": digest(BODY), "size": 1}},
    ]
    server.files[f"{repository}/revision/main"] = json.dumps(info).encode()
    server.files[f"{repository}/tree/{commit}"] = json.dumps(tree).encode()
    server.files[f"/datasets/materialyze/matpes/resolve/{commit}/{FILE}"] = BODY
    told = []
    fetched = fetch_dataset(NAME, tmp_path, report=told.append, patience=QUICK)
    assert fetched.files[0].read_bytes() == BODY
    assert "  licence   bsd-3-clause" in told
    assert fetched.record.source.endswith(f"/tree/{commit}")


def test_a_licence_that_changed_is_shown_beside_the_one_that_was_known():
    entry = public_datasets()[NAME]
    assert registry._licence(entry, "CC BY 4.0") == "CC BY 4.0 (BSD-3-Clause before)"
    assert registry._licence(entry, None) == "BSD-3-Clause"
    assert registry._licence(public_datasets()["mp-r2scan"], "CC BY 4.0") == "CC BY 4.0"


# --- the command ---


def call(*arguments):
    return CliRunner().invoke(app, ["data", "fetch", *map(str, arguments)])


def test_the_command_lists_looks_fetches_and_says_what_comes_next(mirror, tmp_path):
    assert "mp-r2scan\n  MP-r2SCAN: 238,247 frames" in call().stdout
    looked = call(NAME, "--look")
    assert looked.exit_code == 0, looked.output
    assert "BSD-3-Clause" in looked.stdout
    assert data_requests(mirror) == []
    done = call(NAME, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert f"complete and checked: {tmp_path / 'out'}" in done.stdout
    assert "next: crossfunc data import matpes" in done.stdout
    assert done.stderr == ""  # no bar: this is no terminal


def test_the_command_shows_an_error_in_one_block(mirror):
    mirror.files = {}
    done = call(NAME)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: http://127.0.0.1")
    assert "Traceback" not in done.output


# --- killed ---


def test_killed_at_any_time_it_completes_to_the_same_bytes(mirror, tmp_path):
    n_kills, rng = int(os.environ.get("CROSSFUNC_KILLS", "20")), random.Random(1)
    body = random.Random(2).randbytes(4_000_000)
    publish(mirror, body)
    mirror.pause_s = 0.002  # after each 32 kB
    folder = tmp_path / "out"
    part = folder / f"{FILE}.part"

    def n_bytes():
        with contextlib.suppress(FileNotFoundError):
            return part.stat().st_size
        return 0

    for _ in range(n_kills):
        until = n_bytes() + rng.randint(1, 700_000)
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                fetch_dataset(NAME, folder, progress=False)
            os._exit(0)
        while n_bytes() < until and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.001)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if (folder / FILE).exists():  # only ever whole
            assert (folder / FILE).read_bytes() == body
            shutil.rmtree(folder)
    mirror.pause_s = 0
    # A process of its own: nothing that is kept in memory helps it.
    driver = "import sys; from crossfunc.datasets import fetch_dataset; fetch_dataset(sys.argv[1], sys.argv[2])"
    subprocess.run([sys.executable, "-c", driver, NAME, folder], env=os.environ, check=True)
    assert (folder / FILE).read_bytes() == body
    assert sorted(p.name for p in folder.iterdir()) == sorted([FILE, "fetch.json"])
    assert any("Range" in r.headers for r in data_requests(mirror))


# --- hostile servers get the sentences that broken ones get ---


@pytest.mark.parametrize("text", ["²", "٣", "-5", "soon", "9" * 400, "Mon, 32 Foo 99999 99:99:99", ""])
def test_a_pause_that_is_no_number_is_ignored(server, tmp_path, text):
    server.faults = [{"status": 503, "headers": {"Retry-After": text.encode().decode("latin-1")}}]
    assert download(remote(server), tmp_path, patience=QUICK).read_bytes() == BODY


@pytest.mark.parametrize("text", ["abc", "²", "1" * 5000, "-3", "0x10"])
def test_a_length_that_is_no_number_is_told(server, tmp_path, text):
    server.faults = [{"headers": {"Content-Length": text.encode().decode("latin-1")}}] * 9
    with pytest.raises(
        FetchError, match=r"announces a length that is no number|the connection broke|cannot be reached"
    ):
        download(remote(server), tmp_path, patience=QUICK)
    server.faults = []
    assert download(remote(server), tmp_path, patience=QUICK).read_bytes() == BODY


def test_a_part_that_nobody_asked_for_is_not_taken(server, tmp_path):
    server.faults = [{"status": 206, "headers": {"Content-Range": "bytes 0-1/2"}}] * 9
    with pytest.raises(FetchError, match="sends a part where the whole was asked for"):
        download(remote(server), tmp_path, patience=QUICK)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:65536/x", "https://[::1/x", "http://127.0.0.1:abc/x", "https://" + "a" * 300 + ".org/"]
)
def test_a_redirect_to_what_is_no_address_is_told(server, tmp_path, target):
    server.faults = [{"status": 302, "headers": {"Location": target}}] * 9
    with pytest.raises(FetchError, match=r"not an address that can be opened|to what is no address|cannot be reached"):
        download(remote(server), tmp_path, patience=QUICK)


@pytest.mark.parametrize("mirror", ["http://[", "http://localhost:99999", "http://localhost:port/x"])
def test_a_mirror_with_an_impossible_port_is_named(tmp_path, monkeypatch, mirror):
    monkeypatch.setenv("CROSSFUNC_MIRROR", mirror)
    with pytest.raises(FetchError, match=r"is no address|not an address that can be opened"):
        fetch_dataset(NAME, tmp_path)


def test_a_server_that_drips_is_given_up_and_what_arrived_is_kept(server, tmp_path):
    server.pause_s = 0.2
    hurried = Patience(n_attempts=99, first_pause_s=0.01, longest_total_s=0.5, slowest_bytes_per_s=1e9)
    with pytest.raises(FetchError, match=r"sends too slowly; it took more than .* s in all.*"):
        download(remote(server), tmp_path, patience=hurried)
    assert 0 < (tmp_path / "file.part").stat().st_size < len(BODY)


def test_a_server_that_drips_its_headers_is_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip():
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                while True:
                    connection.sendall(b"H")
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/file"
        hurried = Patience(n_attempts=1, longest_total_s=0.5)
        with pytest.raises(FetchError, match=r"answers too slowly; it took more than"):
            download(RemoteFile("file", url, 10, {"md5": "0" * 32}), tmp_path, patience=hurried)
