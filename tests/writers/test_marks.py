"""Series stay apart."""

from __future__ import annotations

from monai_medclip.writers.marks import mark


def test_twenty_eight_series_look_different_and_colors_come_first() -> None:
    looks = [mark(number) for number in range(28)]
    assert len({(look.color, look.line) for look in looks}) == 28
    assert len({look.color for look in looks[:7]}) == 7
    assert {look.line for look in looks[:7]} == {"-"}
