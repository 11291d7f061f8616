"""What figures say, in words."""

from __future__ import annotations

from collections.abc import Sequence


def spoken(title: str, told: Sequence[str]) -> str:
    """Return what a figure says as a text, for who can't see it.

    Args:
        title: What it shows.
        told: What it says, a part each without a full stop.

    Example:
        >>> from edgemin_hf.report.words import spoken
        >>> spoken("Size on disk", ["teacher: 90.8 MB", "student: 6.3 MB"])
        'Size on disk. teacher: 90.8 MB; student: 6.3 MB.'
    """
    return f"{title}. {'; '.join(told)}."
