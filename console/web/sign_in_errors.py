"""Errors of a sign-in by an identity provider; their reasons hold no secret."""

from __future__ import annotations


class SignInRefused(Exception):
    """The provider's answer lets nobody in."""


class ProviderDown(Exception):
    """The provider breaks OpenID Connect, or the server's login may not begin sessions by it."""
