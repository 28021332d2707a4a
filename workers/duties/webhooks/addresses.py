"""Which addresses a webhook may lead to: public ones, so that no URL reaches our own network."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, TypeAlias

from runfold.ledger.threads import in_thread

Address: TypeAlias = IPv4Address | IPv6Address
_TRANSLATED: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
"""IPv6 networks whose last 32 bits a gateway takes for an IPv4 address (RFC 6052, RFC 8215)."""

_NO_HOSTS: Final = tuple(map(ip_network, ("192.88.99.0/24", "3fff::/20", "5f00::/16", "fec0::/10")))
"""Relays, documentation, segments and sites, which not every Python takes for private."""


class AddressRefused(Exception):
    """A host has an address that is not public, or none."""


class Names:
    """Looks names up, each in one thread at a time: no call of the system's resolver can be ended.

    So a name whose servers are silent delays no other, however often it is asked for, and no
    process that ends.
    """

    def __init__(self) -> None:
        self._asked: dict[tuple[str, int], asyncio.Task[list[Any]]] = {}

    async def public_addresses(self, host: str, port: int, *, loopback: bool = False) -> list[str]:
        """Return the addresses of a host, all of which are public.

        With `loopback` those of this machine are taken, too. Raises AddressRefused.
        """
        try:
            answers = await self._looked_up(host, port)
        except (OSError, UnicodeError) as error:
            raise AddressRefused(f"{host} has no address: {error}") from error
        addresses = [ip_address(str(entry[4][0]).split("%")[0]) for entry in answers]
        for address in addresses:
            if not (is_public(address) or (loopback and address.is_loopback)):
                why = f"{host} leads to {address}, which is not a public address"
                remedy = "; `webhooks run --allow-loopback` sends there"
                raise AddressRefused(why + (remedy if address.is_loopback else ""))
        return list(dict.fromkeys(map(str, addresses)))

    async def _looked_up(self, host: str, port: int) -> list[Any]:
        name = host, port
        asked = self._asked.get(name)
        if asked is None:
            kind = {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP}
            look_up = in_thread("look up", socket.getaddrinfo, host, port, **kind)
            asked = self._asked[name] = asyncio.create_task(look_up)
            asked.add_done_callback(lambda _: self._asked.pop(name))
        return await asyncio.shield(asked)


def is_public(address: Address) -> bool:
    """Whether an address is public, and so is any address that it translates to."""
    if isinstance(address, IPv6Address):
        meant = _within(address)
        if meant is not None and not is_public(meant):
            return False
    if any(address in network for network in _NO_HOSTS):
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
    ) or (isinstance(address, IPv6Address) and _within(address) is not None)


def _within(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address is translated to on its way."""
    if any(address in network for network in _TRANSLATED):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)
