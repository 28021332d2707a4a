"""A sign-in that is under way at an identity provider, as the browser that began it keeps it."""

from __future__ import annotations

import hmac
import secrets
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import jwt

from runfold.console.web.sign_in_errors import SignInRefused

FLOW_SECONDS: Final = 600
"""How long a person may take at the provider."""
MAX_COOKIE: Final = 3_500


@dataclass(frozen=True, slots=True)
class Flow:
    """One sign-in; all values that bind the provider's answer to it come from one random secret."""

    secret: str
    begun_at: int
    """Seconds of Unix time."""
    to: str
    """The path to which the sign-in leads."""

    @property
    def state(self) -> str:
        """The value that the provider sends back with the browser."""
        return self._derived("state")

    @property
    def nonce(self) -> str:
        """The value that the ID token must hold."""
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        """The secret without which the code is worthless (PKCE)."""
        return self._derived("verifier")

    @property
    def challenge(self) -> str:
        """The digest of the verifier, which the provider gets first (S256)."""
        return _text(sha256(self.verifier.encode()).digest())

    def has_state(self, state: str) -> bool:
        """Whether the state is this sign-in's."""
        return hmac.compare_digest(state.encode(errors="replace"), self.state.encode())

    def _derived(self, purpose: str) -> str:
        return _text(hmac.digest(self.secret.encode(), purpose.encode(), "sha256"))


class Flows:
    """Begins sign-ins, and recognizes those that any server with the same client secret began."""

    def __init__(self, client_secret: str) -> None:
        """Derive the key that signs cookies from the client secret."""
        self._key = hmac.digest(client_secret.encode(), b"runfold sign-in", "sha256")

    def begin(self, to: str) -> Flow:
        """Return a new sign-in that leads to a path, or to `/` if a cookie cannot hold the path."""
        kept = to if len(to.encode()) <= MAX_COOKIE // 2 else "/"
        return Flow(secrets.token_urlsafe(32), int(time.time()), kept)

    def cookie(self, flow: Flow) -> str:
        """Return the sign-in as a signed text, which is valid for ten minutes."""
        facts = {"secret": flow.secret, "iat": flow.begun_at, "to": flow.to}
        return jwt.encode(facts | {"exp": flow.begun_at + FLOW_SECONDS}, self._key, "HS256")

    def known(self, cookie: str) -> Flow:
        """Return the sign-in of a cookie. Raises SignInRefused."""
        try:
            facts = jwt.decode(
                cookie[: MAX_COOKIE + 1], self._key, ["HS256"], options={"require": ["exp"]}
            )
        except jwt.InvalidTokenError as error:
            raise SignInRefused("this browser began no sign-in in the last ten minutes") from error
        return Flow(facts["secret"], facts["iat"], facts["to"])


def _text(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()
