"""A reader of pages, for several tests."""

from html.parser import HTMLParser

EMPTY = {"meta", "line", "polyline", "polygon", "circle"}


class Checked(HTMLParser):
    """Raises where a tag is closed that is not open; collects what the page refers to."""

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.links, self.shown = [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.shown.append(data)
