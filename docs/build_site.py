"""Build the site: README, rules, models, engines, matrix and estimates as static pages with search.

    python docs/build_site.py [FOLDER]       (make site: site/; its pages in Markdown are then in site_pages/)

Every link is checked: of the pages before they are built, also those to files of the repository, and of what was built.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from posixpath import normpath
from urllib.parse import unquote

ROOT = Path(__file__).parents[1]
HOME = "https://github.com/omni-config/omni-config/blob/main/"
#: Pages that stand elsewhere in the repository, by their place on the site.
_MOVED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
_CODE = re.compile(r"^(```|~~~).*?^\1|^(?: {4}|\t).*?$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def main(folder: Path) -> None:
    """Build the site in a folder, and its pages in Markdown in one beside it."""
    from matrix import pages as of_matrix
    from omni_config.output import pages as of_rules
    from omni_config.output import published

    pages = site(of_rules.pages() | of_matrix.pages() | published.pages())
    dead = dead_links(pages)
    if not dead:
        written = folder.with_name(f"{folder.name}_pages")
        shutil.rmtree(written, ignore_errors=True)
        for path, content in pages.items():
            (written / path).parent.mkdir(parents=True, exist_ok=True)
            (written / path).write_bytes(content)
        command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--clean", "--site-dir", str(folder)]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"SITE_PAGES": str(written)}, check=True)
        dead = list(dead_in(folder))
    for one in dead:
        print(f"docs/build_site.py: a link that leads nowhere: {one}", file=sys.stderr)
    if dead:
        sys.exit(1)
    print(f"{len(pages)} files in {folder}")


def site(generated: Mapping[str, str]) -> dict[str, bytes]:
    """The files of the site by their path: those of docs/, those that are generated, and README and its like."""
    docs = ROOT / "docs"
    kept = {path.relative_to(docs).as_posix(): path for path in docs.rglob("*") if path.is_file()}
    files = {
        name: path.read_bytes()
        for name, path in kept.items()
        if path.suffix in (".md", ".svg", ".png", ".json", ".css")
    }
    files |= {name: text.encode() for name, text in generated.items()}
    files |= {to: (ROOT / name).read_bytes() for name, to in _MOVED.items()}
    stands = {to: name for name, to in _MOVED.items()}
    return {
        name: _moved(content.decode(), stands.get(name, f"docs/{name}"), name).encode()
        if name.endswith(".md")
        else content
        for name, content in files.items()
    }


def _moved(text: str, stands: str, name: str) -> str:
    """The text of a page with its links as they are on the site: to a page there, else to a file of the repository."""

    def moved(found: re.Match[str]) -> str:
        link, anchor = found[1], found[2] or ""
        if "://" in link or link.startswith("mailto:"):
            return found[0]
        target = normpath(f"{Path(stands).parent.as_posix()}/{link}")
        if target in _MOVED:
            target = f"docs/{_MOVED[target]}"
        elif not target.startswith("docs/"):
            return f"{HOME}{target}{anchor}"
        up = "../" * name.count("/")
        return f"{up}{target.removeprefix('docs/')}{anchor}"

    return _LINK.sub(moved, text)


def dead_links(pages: Mapping[str, bytes]) -> list[str]:
    """Links of pages in Markdown to pages that are not there, or to files that the repository does not have."""
    dead = []
    for name, content in pages.items():
        if name.endswith(".md"):
            text = _CODE.sub("", content.decode())
            for link in {found[1] for found in _LINK.finditer(text)}:
                if link.startswith(HOME):
                    there = (ROOT / link.removeprefix(HOME)).exists()
                else:
                    there = "://" in link or normpath(f"{Path(name).parent.as_posix()}/{link}") in pages
                if not there:
                    dead.append(f"{name}: {link}")
    return dead


class _Page(HTMLParser):
    """What a page links to, and the places in it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what a tag links to, and its id."""
        for name, value in attrs:
            if value and name in ("id", "name"):
                self.ids.add(value)
            elif value and (name, tag) in (("href", "a"), ("href", "link"), ("src", "img"), ("src", "script")):
                self.links.add(value)


def dead_in(folder: Path) -> Iterator[str]:
    """Links of built pages that lead nowhere, to files and to places in them; links to elsewhere are not followed."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    for path, page in pages.items():
        for link in sorted(page.links):
            if "://" in link or link.startswith(("data:", "mailto:", "javascript:")):
                continue
            where, _, place = unquote(link).partition("#")
            base = folder if where.startswith("/") else path.parent
            target = (base / where.partition("?")[0].removeprefix("/")).resolve() if where else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (place and target in pages and place not in pages[target].ids):
                yield f"{path.relative_to(folder)}: {link}"


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else ROOT / "site").absolute())
