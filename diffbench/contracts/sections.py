"""What plug-ins add to the page of results: titled paragraphs, tables and pictures, never markup,
so that nothing of it runs in a reader's browser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp", b"<svg": "image/svg+xml",
         b"<?xml": "image/svg+xml"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image file: PNG, JPEG, WebP or SVG."""

    data: bytes
    alt: str                          # what it shows, for those who do not see it

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError("a picture needs alternative text: say in `alt` what it shows")
        if self.type is None:
            raise ValueError(f"a picture is a PNG, JPEG, WebP or SVG file; this one begins with {self.data[:8]!r}")

    @property
    def type(self) -> str | None:
        """The media type, by the first bytes; None for no image."""
        return next((name for start, name in TYPES.items() if self.data.startswith(start)), None)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page."""

    title: str
    body: Sequence[str | pandas.DataFrame | Picture]      # paragraphs, tables and pictures, in their order

    def __post_init__(self) -> None:
        import pandas

        strange = next((part for part in self.body if not isinstance(part, str | pandas.DataFrame | Picture)), None)
        if strange is not None:
            raise TypeError("a section holds texts, pandas.DataFrames and diffbench.Pictures, got "
                            f"{type(strange).__name__}")
