"""Reads a report as a browser would."""

from __future__ import annotations

import base64
import html.parser
import io

from matplotlib.image import imread


class Page(html.parser.HTMLParser):
    """The tables, the words, the pictures; what is not closed fails."""

    EMPTY = ("meta", "img", "br", "link")

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open, self.pictures, self.tables, self.words = [], [], [], []
        self.headings, self.attributes, self.tags, self.sort_values = [], [], [], []
        self.scripts, self.styles, self.policy = [], [], None
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        self.tags.append(tag)
        attributes = dict(attrs)
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]
        if tag == "img":
            self.pictures.append(attributes)
        if tag == "table":
            self.tables.append([])
            self.sort_values.append([])
        if tag == "tr":
            self.tables[-1].append([])
            self.sort_values[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.sort_values[-1][-1].append(attributes.get("data-value"))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open:
            return
        if self.open[-1] in ("style", "script"):
            (self.styles if self.open[-1] == "style" else self.scripts).append(data)
            return
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data
        if self.open[-1] == "h2":
            self.headings.append(data)
        self.words.append(data)

    def table(self, *head):
        """Return the rows, as dictionaries, of the first table whose head begins so."""
        rows = next(t for t in self.tables if tuple(t[0][: len(head)]) == head)
        return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]

    def values(self, *head):
        """Return what the rows of such a table are sorted by, where it is not their text."""
        place = next(i for i, t in enumerate(self.tables) if tuple(t[0][: len(head)]) == head)
        names = self.tables[place][0]
        return [dict(zip(names, row, strict=True)) for row in self.sort_values[place][1:]]

    def images(self):
        """Return the pixels of every picture within."""
        start = "data:image/png;base64,"
        assert all(picture["src"].startswith(start) for picture in self.pictures)
        code = [picture["src"].removeprefix(start) for picture in self.pictures]
        return [imread(io.BytesIO(base64.b64decode(c, validate=True)), format="png") for c in code]
