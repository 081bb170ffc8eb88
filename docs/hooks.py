"""Hooks of mkdocs: the pages of `generate.py`, the pages that live elsewhere, and links to files of the repository."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

# This folder has no package: mkdocs puts it on the path only while it loads this file.
import generate
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(generate.ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join([str(generate.ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
PAGES = {
    "configuration.md": generate.configuration,
    "measurements.md": generate.measurements,
    "cli.md": generate.command_line,
    "contributing.md": (generate.ROOT / "CONTRIBUTING.md").read_text,
}
RESULTS = "benchmarks/results"
FILE_LIST = "<!-- generated: files -->"


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages and the results of the benchmarks, which pages link to."""
    try:
        for name, make in PAGES.items():
            files.append(File.generated(config, name, content=make()))
    except generate.Undocumented as error:
        raise PluginError(str(error)) from error
    for path in sorted((generate.ROOT / RESULTS).rglob("*")):
        if path.suffix in (".json", ".csv", ".png"):
            name = str(path.relative_to(generate.ROOT))
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Insert the list of files, and make links of the repository links of the site."""
    if FILE_LIST in markdown:
        try:
            markdown = markdown.replace(FILE_LIST, generate.files())
        except generate.Undocumented as error:
            raise PluginError(str(error)) from error
    markdown = markdown.replace(f"](../{RESULTS}/", f"]({RESULTS}/").replace("](docs/", "](")
    return re.sub(r"\[([^]]*)\]\(\.\./([^)#]+)\)", _repository_file, markdown)


def _repository_file(link: re.Match[str]) -> str:
    """A file that the site does not have is named, not linked."""
    text, path = link[1].strip("`"), link[2]
    if not (generate.ROOT / path).exists():
        raise PluginError(f"a link leads to {path}, which does not exist")
    return f"`{path}`" if text == path else f"{text} (`{path}`)"
