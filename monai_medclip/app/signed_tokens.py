"""MONAI Label's login, made to work: version 0.8.5 refuses every token, because it names no signature algorithm."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

from monailabel.endpoints.user import auth

__all__ = ["accept_signed_tokens"]

# Signatures that a realm's public key can check. None that use a shared secret: the key is public.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]


def accept_signed_tokens() -> None:
    """Let MONAI Label's endpoints, and ours, check tokens by a public RSA key; PyJWT 2 refuses to guess algorithms."""
    auth.jwt = SimpleNamespace(decode=partial(auth.jwt.decode, algorithms=_ALGORITHMS))
