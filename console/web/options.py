"""Options of the web server: to whom it is open, and how much it serves."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of the web server, beside the settings of the ledger.

    `open`: serve callers without an API token, with the rights of the server's own login. It is for
    development on one machine, to which only its own users can connect.
    """

    open: bool = False
    requests_a_second: int = 200
    """Requests a second of each token; bursts of twice as many. Heartbeats count apart."""
    strangers_a_second: int = 10
    """Requests a second of one address with unknown secrets; bursts of twice as many."""
    max_streams: int = 100
    """Streams of events that are served at a time; one caller has at most half of them."""
    url: str | None = None
    project: str | None = None
    """The project of the ledger that the application opens, and of requests that name none."""


def is_open(host: str, env: str) -> bool:
    """Whether a console at this address serves one machine in development, without tokens."""
    return env == "development" and is_loopback(host)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
