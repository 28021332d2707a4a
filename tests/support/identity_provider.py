"""A small OpenID Connect provider on loopback: real HTTP, real keys, and lies that a test asks."""

from __future__ import annotations

import hmac
import json
import secrets
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

CLIENT: Final = "runfold"
CLIENT_SECRET: Final = "the client's secret: 100%"  # noqa: S105  of the tests alone


def new_key() -> RSAPrivateKey:
    """Return a key for signatures."""
    return generate_private_key(65_537, 2_048)


class IdentityProvider:
    """What the provider holds, and how its next ID tokens differ from right ones."""

    def __init__(self, port: int, key: RSAPrivateKey) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.key: RSAPrivateKey | EllipticCurvePrivateKey = key
        self.kid, self.subject = "first", "248289761001"
        self.claims: dict[str, Any] = {}
        """Claims in place of the right ones."""
        self.signed: tuple[Any, str] | None = None
        """Another key and algorithm."""
        self.described: dict[str, Any] = {}
        self.exchanged: bytes | None = None
        """What a code is exchanged for, in place of the right answer."""
        self.redirects = False
        self._codes: dict[str, dict[str, str]] = {}

    def authorize(self, address: str) -> str:
        """Return where a browser is sent after its person has agreed."""
        asked = {n: values[0] for n, values in parse_qs(urlsplit(address).query).items()}
        assert asked["response_type"] == "code"
        assert asked["scope"] == "openid"
        assert asked["client_id"] == CLIENT
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        return f"{asked['redirect_uri']}?code={code}&state={asked['state']}"

    def answer(self, path: str) -> dict[str, Any] | None:
        """Answer a GET."""
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
            } | self.described
        if path == "/keys":
            public: dict[str, Any]
            if isinstance(self.key, RSAPrivateKey):
                public = jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
            else:
                public = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
            return {"keys": [public | {"kid": self.kid, "use": "sig"}]}
        return None

    def exchange(self, form: dict[str, str], basic: str) -> dict[str, Any] | None:
        """Answer with an ID token for a code, once."""
        asked = self._codes.pop(form["code"], None)
        name, _, secret = b64decode(basic.removeprefix("Basic ")).decode().partition(":")
        assert (name, secret) == (CLIENT, "the+client%27s+secret%3A+100%25")
        if asked is None or form["redirect_uri"] != asked["redirect_uri"]:
            return None
        digest = sha256(form["code_verifier"].encode()).digest()
        if urlsafe_b64encode(digest).rstrip(b"=").decode() != asked["code_challenge"]:
            return None
        now = int(time.time())
        claims = {
            "iss": self.issuer, "sub": self.subject, "aud": CLIENT, "exp": now + 300, "iat": now,
            "nonce": asked["nonce"],
        } | self.claims  # fmt: skip
        own = "RS256" if isinstance(self.key, RSAPrivateKey) else "ES256"
        key, algorithm = (self.key, own) if self.signed is None else self.signed
        if algorithm == "HS256":
            return {"id_token": _confused(claims, key, self.kid)}
        return {"id_token": jwt.encode(claims, key, algorithm, headers={"kid": self.kid})}


def _confused(claims: dict[str, Any], key: Any, kid: str) -> str:
    """Return a token by HMAC with any key; the library refuses to make one with a public key."""
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "kid": kid}, claims)]
    signed = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    mark = urlsafe_b64encode(hmac.digest(key, signed, "sha256")).rstrip(b"=")
    return f"{signed.decode()}.{mark.decode()}"


@contextmanager
def serving(key: RSAPrivateKey) -> Iterator[IdentityProvider]:
    """Yield a provider that answers until the end."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(provider.answer(self.path), missing=404)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self._send(provider.exchange(form, self.headers["Authorization"]), missing=400)

        def _send(self, answer: dict[str, Any] | None, missing: int) -> None:
            body = json.dumps(answer or {"error": "invalid_grant"}).encode()
            if self.command == "POST" and provider.exchanged is not None:
                body = provider.exchanged
            self.send_response(302 if provider.redirects else 200 if answer else missing)
            self.send_header("Location", "/.well-known/openid-configuration")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider = IdentityProvider(server.server_port, key)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()
