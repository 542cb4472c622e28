"""Files of the repository's root that are pages of the site; mkdocs.yml loads this."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
}
PICTURE = "tuning/results/population_scaling.png"


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add README.md as the first page, the other pages, and the picture of the benchmarks."""
    for name, uri in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, uri, content=text))
    files.append(File.generated(config, PICTURE, abs_src_path=str(ROOT / PICTURE)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to the root lead to what `on_files` has added."""
    return markdown.replace("](../README.md", "](index.md").replace("](../tuning/", "](tuning/")
