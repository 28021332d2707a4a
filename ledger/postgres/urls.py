"""URLs of databases: read once, as libpq reads them, for whatever connects (pure).

Every parameter of libpq is honoured or refused by its name, and no error shows a password:
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

from __future__ import annotations

import random
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode

from runfold.ledger.errors import InvalidValue

CONNECT_SECONDS: Final = 10.0
"""How long a connection may take when the URL does not say."""
LEAST_CONNECT_SECONDS: Final = 2.0
"""What libpq makes of a shorter `connect_timeout`."""
HIDDEN: Final = "postgresql://***"
"""A URL that cannot be read: any part of it may be a password."""

_URL: Final = re.compile(
    r"(?P<scheme>postgresql|postgres|postgresql\+asyncpg)://"
    r"(?:(?P<user>[^:@/?]*)(?::(?P<password>[^@/?]*))?@)?"
    r"(?P<hosts>[^/?@]*)(?:/(?P<database>[^?@/]*))?(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_HOST: Final = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{0,5}))?")
_NAME: Final = re.compile(r"[A-Za-z_]{1,40}")
_SHOWN: Final = frozenset(
    {
        "application_name", "connect_timeout", "database", "dbname", "host", "port", "sslmode",
        "sslrootcert", "target_session_attrs",
    }
)  # fmt: skip
"""The parameters whose values are shown: no secret can stand in them."""
_OF_THE_DRIVER: Final = frozenset(
    {
        "sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation",
        "ssl_min_protocol_version", "ssl_max_protocol_version", "service",
    }
)  # fmt: skip
"""Parameters that asyncpg takes in its own URL only."""
_ARGUMENTS: Final = frozenset({"passfile", "target_session_attrs", "krbsrvname", "gsslib"})
"""Parameters that asyncpg takes as arguments of the same name."""
_OURS: Final = frozenset(
    {"application_name", "fallback_application_name", "connect_timeout", "options"}
)
_PLACES: Final = frozenset({"host", "port", "dbname", "user", "password"})
_KEEP_ALIVE: Final[Mapping[str, str]] = {
    "keepalives_idle": "idle",
    "keepalives_interval": "interval",
    "keepalives_count": "count",
    "tcp_user_timeout": "user_timeout",
}
_HARMLESS: Final[Mapping[str, frozenset[str]]] = {
    "channel_binding": frozenset({"disable", "prefer"}),
    "client_encoding": frozenset({"utf8", "utf-8", "unicode", "auto"}),
    "gssdelegation": frozenset({"0"}),
    "gssencmode": frozenset({"disable", "prefer"}),
    "load_balance_hosts": frozenset({"disable", "random"}),
    "min_protocol_version": frozenset({"3.0"}),
    "max_protocol_version": frozenset({"3.0", "3.2", "latest"}),
    "replication": frozenset({"0", "false", "off", "no"}),
    "sslcertmode": frozenset({"allow"}),
    "sslcompression": frozenset({"0"}),
    "sslsni": frozenset({"1"}),
}
"""Values that ask for what happens anyway; any other value of these parameters is refused."""
_REMEDIES: Final[Mapping[str, str]] = {
    "channel_binding": (
        "cannot be required, because the driver binds no channels: leave it out and set "
        "sslmode=verify-full, with sslrootcert=system for a public certificate"
    ),
    "client_encoding": "can only be UTF8",
    "hostaddr": "is not supported: give the address as host",
    "replication": "is not supported: a ledger needs ordinary connections",
}
_UNSUPPORTED: Final = frozenset(
    {
        *_HARMLESS, "hostaddr", "requirepeer", "require_auth", "sslcrldir", "sslkeylogfile",
        "scram_client_key", "scram_server_key", "oauth_issuer", "oauth_client_id",
        "oauth_client_secret", "oauth_scope", "requiressl", "servicefile",
    }
)  # fmt: skip
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

NOTHING_PINNED: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """When a silent peer is given up: seconds, probes, and milliseconds without acknowledgement."""

    enabled: bool = True
    idle: int = 10
    interval: int = 5
    count: int = 3
    user_timeout: int = 30_000


@dataclass(frozen=True, slots=True)
class Address:
    """A database as a URL names it: where, as whom, and how to connect."""

    hosts: Sequence[str]
    ports: Sequence[int]
    user: str | None
    password: str | None = field(repr=False)
    database: str | None
    parameters: Mapping[str, str] = field(repr=False)
    """The other parameters, decoded."""
    keep_alive: KeepAlive

    def arguments(
        self, application_name: str, pinned: Mapping[str, str] = NOTHING_PINNED
    ) -> dict[str, Any]:
        """Return the arguments of `asyncpg.connect` and `asyncpg.create_pool`.

        `application_name`: the name of the connection in the server unless the URL names it.
        `pinned`: settings of the session, whatever the role or the database is set to.
        """
        own = self.parameters
        name = own.get("application_name") or own.get("fallback_application_name")
        settings = {"application_name": name or application_name, "TimeZone": "UTC"}
        settings |= pinned
        if "options" in own:
            settings["options"] = own["options"]
        driver = {name: own[name] for name in sorted(_OF_THE_DRIVER & own.keys())}
        arguments: dict[str, Any] = {name: own[name] for name in sorted(_ARGUMENTS & own.keys())}
        if driver.get("sslrootcert") == "system":
            del driver["sslrootcert"]
            driver.pop("sslmode", None)
            arguments["ssl"] = ssl.create_default_context()
        return arguments | {
            "dsn": f"postgresql://?{urlencode(driver, quote_via=quote)}" if driver else None,
            "host": list(self.hosts) or None,
            "port": list(self.ports) or None,
            "user": self.user,
            "password": self.password,
            "database": self.database,
            "timeout": _connect_seconds(own),
            "server_settings": settings,
        }


def parse(url: str) -> Address:
    """Read a URL of a database as libpq reads it, percent-encodings included.

    Raises InvalidValue that names the part or parameter at fault and the remedy, never a password.
    """
    match = _URL.fullmatch(str(url))
    if match is None:
        raise _invalid(
            "must look like postgresql://user@host/database, or be left out for the built-in one; "
            "in a user or password write @ : / ? and % percent-encoded"
        )
    parameters = _parameters(match["query"] or "")
    keep_alive = _keep_alive(parameters)
    hosts, ports = _hosts(
        parameters.pop("host", "") or unquote(match["hosts"]), parameters.pop("port", "")
    )
    if parameters.get("load_balance_hosts") == "random":
        order = random.sample(range(len(hosts)), len(hosts))
        hosts = [hosts[place] for place in order]
        ports = [ports[place] for place in order] if len(ports) > 1 else ports
    address = Address(
        hosts=hosts,
        ports=ports,
        user=parameters.pop("user", "") or _decoded(match["user"]),
        password=parameters.pop("password", "") or _decoded(match["password"]),
        database=parameters.pop("dbname", "") or _decoded(match["database"]),
        keep_alive=keep_alive,
        parameters=parameters,
    )
    _connect_seconds(parameters)
    return address


def driver_url(url: str) -> str:
    """Return the URL with the scheme that asyncpg and libpq take; raise InvalidValue as `parse`."""
    parse(url)
    return "postgresql" + url[url.index("://") :]


def shown(url: str) -> str:
    """Return the URL for people, without a password wherever it stands; a bad URL is hidden."""
    try:
        parse(url)
    except InvalidValue:
        return HIDDEN
    address, _, query = re.sub(r"://([^@/?]*)@", _shown_login, url).partition("?")
    parameters = "&".join(_shown(part) for part in query.split("&") if part)
    return unquote(address) + (f"?{parameters}" if parameters else "")


def _shown_login(match: re.Match[str]) -> str:
    """Return the login for people: what follows a colon, encoded or not, is hidden."""
    user, colon, _ = unquote(match[1]).partition(":")
    return f"://{user}{':***' if colon else ''}@"


def _shown(parameter: str) -> str:
    """Return a parameter for people: its value where no secret can stand."""
    name, _, value = map(unquote, parameter.partition("="))
    return f"{name}={value if name in _SHOWN else '***'}"


def _invalid(remedy: str) -> InvalidValue:
    return InvalidValue("database URL", HIDDEN, remedy)


def _decoded(text: str | None) -> str | None:
    return unquote(text) if text else None


def _parameters(query: str) -> dict[str, str]:
    """Return the parameters, decoded; raise InvalidValue for one that cannot be honoured."""
    parameters: dict[str, str] = {}
    for part in query.split("&") if query else ():
        encoded, equals, value = part.partition("=")
        name = unquote(encoded)
        if not equals or not _NAME.fullmatch(name):
            raise _invalid("has a parameter that is not name=value")
        name = "dbname" if name == "database" else name
        parameters[name] = unquote(value)
    if parameters.pop("ssl", "true") != "true":  # the form of JDBC, which libpq takes too
        raise _invalid("parameter ssl can only be true: use sslmode")
    for name, value in parameters.items():
        _check_parameter(name, value)
    _check_tls(parameters)
    return parameters


def _check_parameter(name: str, value: str) -> None:
    if name in _HARMLESS and value.lower() in _HARMLESS[name]:
        return
    if name in _UNSUPPORTED:
        raise _invalid(f"parameter {name} {_REMEDIES.get(name, 'is not supported: leave it out')}")
    if name not in _PLACES | _OURS | _OF_THE_DRIVER | _ARGUMENTS | {*_KEEP_ALIVE, "keepalives"}:
        raise _invalid(
            f"parameter {name} is unknown: write a setting of the server as options=-c%20name=value"
        )


def _check_tls(parameters: Mapping[str, str]) -> None:
    mode = parameters.get("sslmode")
    if mode is not None and mode not in _SSL_MODES:
        raise _invalid(f"parameter sslmode must be one of {', '.join(_SSL_MODES)}")
    if parameters.get("sslrootcert") == "system" and mode not in {None, "verify-full"}:
        raise _invalid("parameter sslrootcert=system needs sslmode=verify-full")


def _hosts(hosts: str, ports: str) -> tuple[list[str], list[int]]:
    """Return hosts or socket folders with a port each; one port may stand for all."""
    if not hosts:
        return [], [_port(ports)] if ports else []
    matches = [_HOST.fullmatch(part) for part in hosts.split(",")]
    names, numbers = [], []
    for match in matches:
        if match is None:
            raise _invalid("has a host that is not a name, an address or a folder, with its port")
        names.append(match["host"].strip("[]") or "localhost")
        numbers.append(match["port"] or "")
    listed = ports.split(",") if ports else [""]
    if len(listed) not in {1, len(names)}:
        raise _invalid(f"has {len(names)} hosts and {len(listed)} ports")
    listed = listed * len(names) if len(listed) == 1 else listed
    return names, [
        _port(own or given or "5432") for own, given in zip(numbers, listed, strict=True)
    ]


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65_535:  # noqa: PLR2004  TCP
        raise _invalid("has a port that is not a number from 1 to 65535")
    return int(text)


def _connect_seconds(parameters: Mapping[str, str]) -> float:
    seconds = _whole(parameters, "connect_timeout")
    if seconds is None:
        return CONNECT_SECONDS
    if seconds <= 0:
        raise _invalid("parameter connect_timeout must be a number of seconds above 0")
    return max(LEAST_CONNECT_SECONDS, float(seconds))


def _keep_alive(parameters: dict[str, str]) -> KeepAlive:
    values = {ours: _whole(parameters, name) for name, ours in _KEEP_ALIVE.items()}
    enabled = _whole(parameters, "keepalives") != 0
    for name in (*_KEEP_ALIVE, "keepalives"):
        parameters.pop(name, None)
    # libpq: 0 is the default, here this code's, so that no wait is without a bound.
    return KeepAlive(enabled, **{name: value for name, value in values.items() if value})


def _whole(parameters: Mapping[str, str], name: str) -> int | None:
    text = parameters.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise _invalid(f"parameter {name} must be a whole number")
    return int(text)
