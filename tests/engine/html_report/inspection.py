"""A page as a careful reader takes it apart: only what a page of ours may hold, well nested."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

_VOID = {"meta"}
_INLINE = {"bdi", "mark", "small", "code", "strong", "span", "a"}
_TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "main",
        "footer",
        "nav",
        "section",
        "aside",
        "h1",
        "h2",
        "h3",
        "p",
        "ul",
        "li",
    ),
    *("a", "dl", "dt", "dd", "div", "span", "strong", "code", "small", "bdi", "mark", "details", "summary", "figure", "figcaption"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "g", "path", "use", "text", "defs", "clippath", "rect"),
}
_ATTRIBUTES = {
    *(
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "class",
        "id",
        "href",
        "aria-label",
        "aria-labelledby",
        "role",
        "tabindex",
        "scope",
    ),
    *("viewbox", "d", "x", "y", "width", "height", "transform", "clip-path"),
}


class Page(HTMLParser):
    """Asserts while it reads; afterwards says what is there."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html = html
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[int] = []
        self.plots: list[str] = []
        self.meta: dict[str, str] = {}
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open
        assert len({*self.ids}) == len(self.ids), "an id is used twice"
        assert {link.removeprefix("#") for link in self.links} <= {*self.ids}, "all links lead into the page"
        style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
        assert style
        digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        policy = self.meta["Content-Security-Policy"]
        assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        assert not re.search(r"url\(|@import|@font-face", style[1])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _TAGS, tag
        assert {name for name, _ in attrs} <= _ATTRIBUTES, (tag, attrs)
        found = {name: value or "" for name, value in attrs}
        if tag not in _VOID:
            self._open.append(tag)
        if "id" in found:
            self.ids.append(found["id"])
        if "href" in found:
            assert found["href"].startswith("#"), found
            self.links.append(found["href"])
        if "http-equiv" in found:
            self.meta[found["http-equiv"]] = found["content"]
        if tag in ("h1", "h2", "h3"):
            level = int(tag[1])
            assert level <= (self.headings[-1] if self.headings else 0) + 1, "a heading skips a level"
            self.headings.append(level)
        if tag == "svg":
            assert found["role"] == "img"
            self.plots.append(found["aria-label"])

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag not in _INLINE:
            self.text += " "

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data
