"""Why a sign-in by an identity provider came to nothing; the reasons hold no secret."""

from __future__ import annotations


class SignInRefused(Exception):
    """The provider's answer lets nobody in."""


class ProviderDown(Exception):
    """The provider does not answer as OpenID Connect asks, or our login may not pass it on."""
