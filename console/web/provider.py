"""An identity provider: where it signs people in, and whom its ID token names (OpenID Connect).

The authorization code flow with PKCE (RFC 7636), by OpenID Connect Core 1.0, section 3.1.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

import httpx

from runfold.console.web.flows import Flow, Flows
from runfold.console.web.id_tokens import subject_of
from runfold.console.web.sign_in_errors import ProviderDown, SignInRefused
from runfold.ledger.settings import Settings
from runfold.ledger.validation import is_secure

SECONDS: Final = 10.0
"""How long one answer of the provider may take."""
MAX_BYTES: Final = 262_144
MAX_PARAMETER: Final = 2_000
"""Characters of a code or a state."""
DESCRIPTION_SECONDS: Final = 600.0
"""How long the provider's description of itself is remembered."""
_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")


@dataclass(frozen=True, slots=True)
class _Description:
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    takes_basic: bool
    """Whether the client names itself in a header; else in the form."""


class Provider:
    """The identity provider of the settings."""

    def __init__(self, issuer: str, client: tuple[str, str], redirect: str, *, near: bool) -> None:
        """`client` is its id and secret; `near` allows http on this machine's own address."""
        self.issuer, self.flows = issuer, Flows(client[1])
        self._client, self._redirect, self._near = client, redirect, near
        # The certificates of the system, to which an organization can add its own.
        self._ssl = ssl.create_default_context()
        self._described: tuple[float, _Description] | None = None

    @classmethod
    def of(cls, settings: Settings) -> Provider | None:
        """Return the provider of the settings; None if they have none."""
        issuer, client, redirect = (
            settings.oidc_issuer, settings.oidc_client_id, settings.oidc_redirect,
        )  # fmt: skip
        secret = settings.oidc_client_secret
        if issuer is None or client is None or secret is None or redirect is None:
            return None
        near = settings.env == "development" and issuer.startswith("http:")
        return cls(issuer, (client, secret.get_secret_value()), redirect, near=near)

    async def address(self, flow: Flow) -> str:
        """Return the address at which the provider signs a person in. Raises ProviderDown."""
        parameters = {
            "response_type": "code",
            "scope": "openid",
            "client_id": self._client[0],
            "redirect_uri": self._redirect,
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": flow.challenge,
            "code_challenge_method": "S256",
        }
        endpoint = (await self._description()).authorization_endpoint
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(parameters)}"

    async def subject(self, flow: Flow, parameters: Mapping[str, str]) -> str:
        """Return the provider's name for the person whom it sent back with these parameters.

        Raises SignInRefused and ProviderDown.
        """
        code = parameters.get("code", "")
        if not flow.has_state(parameters.get("state", "")):
            raise SignInRefused("the answer belongs to another sign-in")
        if parameters.get("iss", self.issuer) != self.issuer:
            raise SignInRefused("the answer is another provider's")
        if "error" in parameters or not 0 < len(code) <= MAX_PARAMETER:
            raise SignInRefused("the provider let nobody in")
        description = await self._description()
        token = await self._token(description, flow, code)
        keys = await self._asked("GET", description.jwks_uri)
        return subject_of(
            token, keys, issuer=self.issuer, client=self._client[0], nonce=flow.nonce,
            since=flow.begun_at,
        )  # fmt: skip

    async def _description(self) -> _Description:
        """Return the provider's description of itself (OpenID Connect Discovery 1.0)."""
        now = time.monotonic()
        if self._described is None or now - self._described[0] > DESCRIPTION_SECONDS:
            url = self.issuer.rstrip("/") + "/.well-known/openid-configuration"
            self._described = now, self._read(await self._asked("GET", url))
        return self._described[1]

    def _read(self, document: Mapping[str, Any]) -> _Description:
        if document.get("issuer") != self.issuer:
            raise ProviderDown("its description names another issuer than RUNFOLD_OIDC_ISSUER")
        urls = [document.get(name) for name in _ENDPOINTS]
        for name, url in zip(_ENDPOINTS, urls, strict=True):
            bare = url.partition("?")[0] if isinstance(url, str) else ""
            if not is_secure(bare, loopback=self._near):
                raise ProviderDown(f"its description has no {name} with https")
        basic = "client_secret_basic"
        methods = document.get("token_endpoint_auth_methods_supported", [basic])
        if not isinstance(methods, list):
            raise ProviderDown("its description has no list of its ways to name a client")
        authorization, token, keys = map(str, urls)
        return _Description(authorization, token, keys, takes_basic=basic in methods)

    async def _token(self, description: _Description, flow: Flow, code: str) -> str:
        """Return the ID token for a code, which the provider takes once."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect,
            "code_verifier": flow.verifier,
        }
        basic = None
        if description.takes_basic:  # each part encoded first, by RFC 6749, section 2.3.1
            basic = httpx.BasicAuth(quote_plus(self._client[0]), quote_plus(self._client[1]))
        else:
            form |= {"client_id": self._client[0], "client_secret": self._client[1]}
        answer = await self._asked("POST", description.token_endpoint, form, basic)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise ProviderDown("its answer has no ID token")
        return token

    async def _asked(
        self,
        method: str,
        url: str,
        form: Mapping[str, str] | None = None,
        basic: httpx.BasicAuth | None = None,
    ) -> dict[str, Any]:
        """Return the JSON object that an address answers with."""
        try:
            async with (
                asyncio.timeout(SECONDS),
                httpx.AsyncClient(
                    verify=self._ssl, trust_env=False, follow_redirects=False, timeout=SECONDS
                ) as client,
            ):
                headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
                async with client.stream(
                    method, url, data=form, auth=basic, headers=headers
                ) as response:
                    body = await _body(response)
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderDown(f"it does not answer ({type(error).__name__})") from error
        if form is not None and response.status_code in {400, 401}:
            raise SignInRefused(
                f"the provider refused the code that it had sent ({response.status_code})"
            )
        if response.status_code != httpx.codes.OK:
            raise ProviderDown(f"it answered {response.status_code}")
        return _object(body)


async def _body(response: httpx.Response) -> bytes:
    parts, size = [], 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > MAX_BYTES:
            raise ProviderDown(f"its answer has more than {MAX_BYTES:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProviderDown("its answer is not JSON") from error
    if not isinstance(document, dict):
        raise ProviderDown("its answer is not a JSON object")
    return document
