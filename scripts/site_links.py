"""A hook of mkdocs: links to files outside docs/, which the site does not have, become their names."""

import posixpath
import re

LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)\s]*)\)")


def on_page_markdown(markdown: str, *, page, **_more) -> str:
    def unlinked(match: re.Match[str]) -> str:
        folder = posixpath.dirname(page.file.src_uri)
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        return match[1] if target.startswith("..") else match[0]

    return LINK.sub(unlinked, markdown)
