"""Asking a web server: https only, redirects checked one by one, busy servers asked again, errors that help."""

import email.utils
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from crossfunc.datasets.schema import DatasetError

CHUNK = 1 << 18
LARGEST_JSON = 8_000_000
_BUSY = {408, 425, 429, 500, 502, 503, 504}
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_REDIRECTS = 6


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

    `tell` takes a line for each pause that a person would notice.
    """

    n_attempts: int = 6
    first_pause_s: float = 1.0
    longest_pause_s: float = 300.0
    connect_timeout_s: float = 20.0
    read_timeout_s: float = 60.0
    tell: Callable[[str], None] | None = None

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

    def attempt():
        with open_url(url, {}, patience, trusted_host) as response:
            check_status(response, url, trusted_host)
            body = b"".join(read_body(response, LARGEST_JSON + 1))
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
    parts = urlsplit(url)
    local = parts.hostname in _LOCAL or (trusted_host is not None and parts.netloc == trusted_host)
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise FetchError(
            f"{shown(url)}: not https, so what arrives could be anybody's. "
            "Only this machine and the mirror in CROSSFUNC_MIRROR may use http."
        )


def persist(attempt, url: str, patience: Patience, kept: str, progressed=lambda: False):
    """Repeat an attempt until it succeeds, or until too many in a row brought nothing new."""
    n_failed = 0
    while True:
        try:
            return attempt()
        except Interrupted as error:
            n_failed = 1 if progressed() else n_failed + 1
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


def read_body(response, limit: int) -> Iterator[bytes]:
    """Yield the bytes of a body as they arrive, at most `limit` of them."""
    from urllib3.exceptions import HTTPError

    while limit > 0:
        try:
            chunk = response.raw.read1(min(CHUNK, limit), decode_content=False)
        except (HTTPError, OSError) as error:
            raise Interrupted(f"the connection broke ({type(error).__name__})") from error
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
    if text.isdigit():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


@contextmanager
def open_url(url: str, headers: dict[str, str], patience: Patience, trusted_host: str | None):
    """Open an address, following redirects by hand so that each one is checked; proxies as the environment says."""
    import requests

    headers = {"Accept-Encoding": "identity", "User-Agent": "crossfunc", **headers}
    timeout = (patience.connect_timeout_s, patience.read_timeout_s)
    with requests.Session() as session:
        for _ in range(_REDIRECTS):
            check_url(url, trusted_host)
            try:
                response = session.get(url, headers=headers, stream=True, timeout=timeout, allow_redirects=False)
            except requests.RequestException as error:
                raise _explain(error, url) from None
            with response:
                target = response.headers.get("Location")
                if not (response.is_redirect and target):
                    yield response
                    return
            url = urljoin(url, target)
    raise FetchError(f"{shown(url)}: redirected more than {_REDIRECTS} times; try again later.")


def _explain(error: Exception, url: str) -> Exception:
    """Return the error to raise for a request that got no answer."""
    import requests

    host = urlsplit(url).hostname
    if isinstance(error, requests.exceptions.SSLError):
        return FetchError(
            f"{host}: its certificate is not accepted. If your network inspects https, name its certificate file in "
            "REQUESTS_CA_BUNDLE; certificates are never left unchecked."
        )
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return FetchError(f"{shown(url)}: not an address that can be opened ({type(error).__name__}).")
    if isinstance(error, requests.exceptions.ProxyError):
        return Interrupted(f"the proxy in HTTPS_PROXY or HTTP_PROXY gives no way to {host}")
    if isinstance(error, requests.exceptions.Timeout):
        return Interrupted(f"no answer from {host} in time")
    return Interrupted(f"{host} cannot be reached; is there a network?")


def shown(url: str) -> str:
    """Return an address as it may be shown: no user, password or signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
