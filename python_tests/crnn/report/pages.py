"""What a page of a report holds, for tests."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

TAGS = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "tr", "th", "td", "section",
    "details", "summary", "ul", "li", "figure", "img",
}  # fmt: skip
UNCLOSED = {"meta", "img"}


class Page(HTMLParser):
    """The text and the pictures of a page; fails on unknown tags, and on tags that are not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        self.tags.append((tag, dict(attrs)))
        if tag not in UNCLOSED:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all tags of a name."""
        return [attributes for name, attributes in self.tags if name == tag]

    def check_pictures(self) -> dict[str, tuple[int, int]]:
        """Return the sizes of the pictures by their file names; fail unless the page and the files agree."""
        files = {path.read_bytes(): path for path in self.path.parent.glob("*.png")}
        sizes = {}
        for image in self.all("img"):
            start, _, content = (image["src"] or "").partition(",")
            assert start == "data:image/png;base64" and image["alt"]
            png = base64.b64decode(content, validate=True)
            with Image.open(io.BytesIO(png)) as picture:
                picture.load()
                sizes[files.pop(png).stem] = picture.size
        assert not files
        return sizes
