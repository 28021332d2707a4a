"""Checks of an ID token, by OpenID Connect Core 1.0, section 3.1.3.7 (pure but for the clock)."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Final

import jwt

from runfold.console.web.sign_in_errors import SignInRefused

ALGORITHMS: Final = ("RS256", "ES256")
"""Signatures by the provider's key; never `none`, nor one by a key that this server holds."""
LEEWAY_SECONDS: Final = 60
"""How far the provider's clock may be from this server's."""
_REQUIRED: Final = ["iss", "sub", "aud", "exp", "iat", "nonce"]


def subject_of(
    token: str,
    keys: Mapping[str, Any],
    *,
    issuer: str,
    client: str,
    nonce: str,
    since: int,
) -> str:
    """Return the subject that the token names.

    `keys` is the provider's JWK set, and `since` when the sign-in began, in seconds of Unix time.
    Raises SignInRefused, whose reason has nothing of the token.
    """
    try:
        claims = jwt.decode(
            token,
            _key(token, keys),
            list(ALGORITHMS),
            options={"require": _REQUIRED},
            audience=client,
            issuer=issuer,
            leeway=LEEWAY_SECONDS,
        )
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise SignInRefused(f"its ID token is not valid ({type(error).__name__})") from error
    _check_party(claims, client)
    if not isinstance(claims["nonce"], str) or not hmac.compare_digest(
        claims["nonce"].encode(errors="replace"), nonce.encode()
    ):
        raise SignInRefused("its ID token is of another sign-in (nonce)")
    if not isinstance(claims["iat"], int | float) or claims["iat"] < since - LEEWAY_SECONDS:
        raise SignInRefused("its ID token is older than the sign-in (iat)")
    return str(claims["sub"])


def _key(token: str, keys: Mapping[str, Any]) -> jwt.PyJWK:
    """Return the provider's key that the token says it is signed with."""
    header = jwt.get_unverified_header(token)
    fitting = [
        key
        for key in jwt.PyJWKSet.from_dict(dict(keys)).keys
        if key.algorithm_name == header["alg"]
        and key.algorithm_name in ALGORITHMS
        and key.public_key_use in {None, "sig"}
        and header.get("kid") in {None, key.key_id}
    ]
    if len(fitting) != 1:
        raise jwt.InvalidKeyError
    return fitting[0]


def _check_party(claims: Mapping[str, Any], client: str) -> None:
    """Raise SignInRefused for a token that was made for the use of another client."""
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if several else client) != client:
        raise SignInRefused("its ID token is for another client (azp)")
