"""Asking a web server: https only, redirects checked one by one, busy servers asked again, errors that help."""

import email.utils
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from crossfunc.datasets.schema import DatasetError
from crossfunc.plain_text import visible

CHUNK = 1 << 18
LARGEST_JSON = 8_000_000
_BUSY = {408, 425, 429, 500, 502, 503, 504}
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_REDIRECTS = 6
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")


class FetchError(DatasetError):
    """A download that did not succeed; the message says what is kept and what to do."""


class Interrupted(Exception):  # noqa: N818
    """What a later attempt may well mend."""

    def __init__(self, reason: str, wait_s: float | None = None):
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Patience:
    """How long to put up with a server: attempts without a new byte, and pauses in seconds between them.

    `tell` takes a line for each pause that a person would notice. However a server drips, it is given up after
    `longest_total_s` and the time that the bytes take at `slowest_bytes_per_s`.
    """

    n_attempts: int = 6
    first_pause_s: float = 1.0
    longest_pause_s: float = 300.0
    connect_timeout_s: float = 20.0
    read_timeout_s: float = 60.0
    tell: Callable[[str], None] | None = None
    longest_total_s: float = 1800.0
    slowest_bytes_per_s: float = 20_000.0

    def total_s(self, n_bytes: int = 0) -> float:
        """Return the longest time that so many bytes may take, attempts and pauses together."""
        return self.longest_total_s + n_bytes / self.slowest_bytes_per_s

    def pause(self, n_failed: int, asked_s: float | None) -> float:
        """Return the pause after so many failures in a row: what the server asked for, else twice the last."""
        doubled = min(self.first_pause_s * 2 ** (n_failed - 1), self.longest_pause_s)
        return doubled if asked_s is None else asked_s


PATIENCE = Patience()


def read_json(url: str, *, patience: Patience = PATIENCE, trusted_host: str | None = None):
    """Return the JSON document at an address, of at most 8 MB; busy servers are asked again.

    Raises
    ------
    FetchError
        Unreachable, refused, too long, or no JSON.
    """

    def attempt(deadline: float):
        with open_url(url, {}, patience, trusted_host, deadline) as response:
            check_status(response, url, trusted_host)
            if response.status_code == 206:
                raise Interrupted("the server sends a part where the whole was asked for")
            body = b"".join(read_body(response, LARGEST_JSON + 1, deadline))
            if len(body) > LARGEST_JSON:
                raise FetchError(
                    f"{shown(url)}: the answer is longer than {LARGEST_JSON:,} bytes; this is no record of a file."
                )
            try:
                return json.loads(body)
            except (ValueError, RecursionError) as error:
                raise FetchError(
                    f"{shown(url)}: the answer is not JSON ({error}); a proxy or a login page may stand between."
                ) from error

    return persist(attempt, url, patience, "")


def check_url(url: str, trusted_host: str | None = None) -> None:
    """Raise FetchError unless an address is https, or http on this machine or on the mirror that the user named."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # read only here: beyond 65535 it raises
    except ValueError as error:
        raise FetchError(f"{shown(url)}: not an address that can be opened ({error}).") from None
    local = parts.hostname in _LOCAL or (trusted_host is not None and parts.netloc == trusted_host)
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise FetchError(
            f"{shown(url)}: not https, so what arrives could be anybody's. "
            "Only this machine and the mirror in CROSSFUNC_MIRROR may use http."
        )


def persist(attempt, url: str, patience: Patience, kept: str, progressed=lambda: False, n_bytes: int = 0):
    """Repeat an attempt until it succeeds, until too many in a row brought nothing new, or until it takes too long.

    `attempt` is given the time, on the monotonic clock, at which it has to end.
    """
    n_failed, deadline = 0, time.monotonic() + patience.total_s(n_bytes)
    while True:
        try:
            return attempt(deadline)
        except Interrupted as error:
            n_failed = 1 if progressed() else n_failed + 1
            if time.monotonic() > deadline:
                error = Interrupted(f"{error}; it took more than {patience.total_s(n_bytes):,.0f} s in all")
                raise FetchError(_give_up(url, error, n_failed, kept, patience)) from None
            if n_failed >= patience.n_attempts or (error.wait_s or 0) > patience.longest_pause_s:
                raise FetchError(_give_up(url, error, n_failed, kept, patience)) from None
            pause_s = patience.pause(n_failed, error.wait_s)
            if patience.tell and pause_s >= 1:
                patience.tell(f"{error}; next attempt in {pause_s:.0f} s")
            time.sleep(pause_s)


def _give_up(url: str, error: Interrupted, n_failed: int, kept: str, patience: Patience) -> str:
    lines = [f"{shown(url)}: {error}"]
    if (error.wait_s or 0) > patience.longest_pause_s:
        lines.append(f"The server asks to come back in {error.wait_s:.0f} s: run the same command again then.")
    else:
        lines.append(f"Given up after {n_failed} attempts; run the same command again to go on.")
        lines.append(
            "Behind a proxy: set HTTPS_PROXY. With a copy nearer by: set CROSSFUNC_MIRROR. Without a network: fetch on "
            "another machine and name its folder here with --out; it is checked and used as it is."
        )
    if kept and Path(kept).exists():
        lines.append(f"Kept: {Path(kept).stat().st_size:,} bytes in {kept}.")
    return "\n".join(lines)


def read_body(response, limit: int, deadline: float = float("inf")) -> Iterator[bytes]:
    """Yield the bytes of a body as they arrive, at most `limit` of them, until the deadline."""
    from urllib3.exceptions import HTTPError

    while limit > 0:
        try:
            chunk = response.raw.read1(min(CHUNK, limit), decode_content=False)
        except (HTTPError, OSError, ValueError) as error:
            raise Interrupted(f"the connection broke ({type(error).__name__})") from error
        if time.monotonic() > deadline:
            raise Interrupted("the server sends too slowly")
        if not chunk:
            return
        limit -= len(chunk)
        yield chunk


def check_status(response, url: str, trusted_host: str | None) -> None:
    """Return for an answer that can be used; raise Interrupted for a busy server and FetchError for a refusal."""
    status = response.status_code
    if status in (200, 206):
        return
    where = shown(url)
    if status in _BUSY:
        raise Interrupted(f"the server is busy or out of order (HTTP {status})", _retry_after(response))
    if status in (404, 410):
        hint = "the mirror does not have it; check CROSSFUNC_MIRROR" if trusted_host else "it has been moved or removed"
        raise FetchError(f"{where}: not found (HTTP {status}): {hint}. A newer crossfunc may know the new address.")
    if status in (401, 403, 407, 451):
        raise FetchError(
            f"{where}: access refused (HTTP {status}). A proxy or a firewall may be in between (HTTPS_PROXY), or the "
            "source asks for an agreement on its web page first; or name a copy of your own in CROSSFUNC_MIRROR."
        )
    raise FetchError(f"{where}: unexpected answer (HTTP {status}); open the address in a browser to see why.")


def _retry_after(response) -> float | None:
    """Return the seconds of a Retry-After header, which may hold a number or a date."""
    text = response.headers.get("Retry-After", "").strip()
    if _WHOLE_NUMBER.fullmatch(text):
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def announced_length(response) -> int | None:
    """Return the Content-Length of an answer, None where there is none."""
    text = response.headers.get("Content-Length")
    if text is not None and not _WHOLE_NUMBER.fullmatch(text.strip()):
        raise Interrupted(f"the server announces a length that is no number ({text[:40]!r})")
    return None if text is None else int(text)


@contextmanager
def open_url(
    url: str, headers: dict[str, str], patience: Patience, trusted_host: str | None, deadline: float = float("inf")
):
    """Open an address, following redirects by hand so that each one is checked; proxies as the environment says."""
    import requests
    from urllib3.exceptions import HTTPError

    headers = {"Accept-Encoding": "identity", "User-Agent": "crossfunc", **headers}
    timeout = (patience.connect_timeout_s, patience.read_timeout_s)
    with requests.Session() as session:
        for _ in range(_REDIRECTS):
            check_url(url, trusted_host)
            try:
                response = _until(
                    deadline,
                    session.get,
                    url,
                    headers=headers,
                    stream=True,
                    timeout=timeout,
                    allow_redirects=False,
                )
            except (requests.RequestException, HTTPError, ValueError) as error:
                raise _explain(error, url) from None
            with response:
                target = response.headers.get("Location")
                if not (response.is_redirect and target):
                    yield response
                    return
            try:
                url = urljoin(url, target)
            except ValueError as error:
                raise FetchError(f"{shown(url)}: redirected to what is no address ({error}).") from None
    raise FetchError(f"{shown(url)}: redirected more than {_REDIRECTS} times; try again later.")


def _until(deadline: float, ask: Callable, *arguments, **options):
    """Call in a thread of its own, and wait until the deadline: a server may drip its headers for ever."""
    outcome: list = []

    def call() -> None:
        try:
            outcome.append((ask(*arguments, **options), None))
        except Exception as error:  # raised where it is waited for
            outcome.append((None, error))

    thread = threading.Thread(target=call, daemon=True, name="ask")
    thread.start()
    thread.join(min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX))
    if not outcome:
        raise Interrupted("the server answers too slowly")
    answer, error = outcome[0]
    if error is not None:
        raise error
    return answer


def _explain(error: Exception, url: str) -> Exception:
    """Return the error to raise for a request that got no answer."""
    import requests
    from urllib3.exceptions import LocationValueError

    host = urlsplit(url).hostname
    if isinstance(error, requests.exceptions.SSLError):
        return FetchError(
            f"{host}: its certificate is not accepted. If your network inspects https, name its certificate file in "
            "REQUESTS_CA_BUNDLE; certificates are never left unchecked."
        )
    wrong = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, LocationValueError, UnicodeError)
    if isinstance(error, wrong):
        return FetchError(f"{shown(url)}: not an address that can be opened ({type(error).__name__}).")
    if isinstance(error, requests.exceptions.ProxyError):
        return Interrupted(f"the proxy in HTTPS_PROXY or HTTP_PROXY gives no way to {host}")
    if isinstance(error, requests.exceptions.Timeout):
        return Interrupted(f"no answer from {host} in time")
    return Interrupted(f"{host} cannot be reached; is there a network?")


def shown(url: str) -> str:
    """Return an address as it may be shown: no user, password or signature."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return visible(f"{parts.scheme}://{host}{parts.path}")
    except ValueError:
        return "an address that cannot be read"
