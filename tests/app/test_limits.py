"""Limits as the environment sets them."""

from __future__ import annotations

import pytest

from monai_medclip.app.limits import Refused, limits


def test_defaults() -> None:
    assert (limits().upload_bytes, limits().seconds) == (1 << 30, 120)
    assert limits().expanded_bytes == 4 << 30


def test_the_environment_changes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCLIP_MAX_UPLOAD_MB", "0.5")
    monkeypatch.setenv("MEDCLIP_TIMEOUT_S", "7")
    assert (limits().upload_bytes, limits().seconds) == (1 << 19, 7)


@pytest.mark.parametrize("name", ["MEDCLIP_MAX_UPLOAD_MB", "MEDCLIP_TIMEOUT_S"])
@pytest.mark.parametrize("value", ["0", "-1", "many", "inf", "nan"])
def test_what_is_no_positive_number_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name}='{value}'"):
        limits()


def test_a_refusal_is_an_error_of_the_asker() -> None:
    assert isinstance(Refused("too long"), ValueError)
    assert Refused("too long").status == 422
