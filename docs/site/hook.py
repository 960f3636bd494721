"""What the site has beyond the pages of docs/: component pages, formulas without a script, and a place for every page.

    pip install 'diffbench[docs]' && mkdocs build --strict          # writes dist/site, which any server or browser
    shows as files
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import component_pages
import torch
import typeset
from figures import built_in, figure
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

import diffbench

REGISTRY = diffbench.load_registry()


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Gives every component its place, and pages that the navigation does not name a place at its end."""
    assert config.nav is not None
    tree = [
        {kind: [f"components/{kind}/index.md", *({ref.name: f"components/{kind}/{ref.name}.md"}
                                                 for ref in built_in(REGISTRY, kind))]}
        for kind in REGISTRY.kinds if built_in(REGISTRY, kind)]
    config.nav = [{name: ["components/index.md", *tree]} if content == "components" else {name: content}
                  for entry in config.nav for name, content in entry.items()]
    kinds = [f"reference/{kind}.md" for kind in REGISTRY.kinds if built_in(REGISTRY, kind)]
    for pages in (content for entry in config.nav for content in entry.values() if isinstance(content, list)):
        pages[:] = [{name: kinds for name in page} if isinstance(page, dict) and "reference" in page.values() else page
                    for page in pages]
    named = set(re.findall(r"[\w./-]+\.md", str(config.nav)))
    more = sorted(path.name for path in Path(config.docs_dir).glob("*.md") if path.name not in named)
    if more:
        config.nav.append({"More": more})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each kind and each component, with its figure."""
    torch.set_num_threads(1)
    orders = component_pages.measured_orders((Path(config.docs_dir) / "orders.md").read_text())

    def add(path: str, content: str | bytes) -> None:
        files.append(File.generated(config, path, content=content))

    add("components/index.md", component_pages.index(REGISTRY))
    for kind in REGISTRY.kinds:
        refs = built_in(REGISTRY, kind)
        if refs:
            add(f"components/{kind}/index.md", component_pages.kind_page(REGISTRY, kind))
        for ref in refs:
            drawn = figure(REGISTRY, ref)
            if drawn is not None:
                add(f"components/{kind}/{ref.name}.svg", drawn)
            add(f"components/{kind}/{ref.name}.md", component_pages.page(REGISTRY, ref, drawn is not None, orders))
    return files


def on_page_content(html: str, **facts: Any) -> str:
    """LaTeX becomes MathML."""
    return typeset.mathml(html)


def on_post_page(output: str, page: Page, **facts: Any) -> str:
    """The one script that the theme would fetch from elsewhere comes with the site."""
    return output.replace("https://unpkg.com/iframe-worker/shim", get_relative_url("assets/iframe-worker.js", page.url))


def on_post_template(output_content: str, template_name: str, **facts: Any) -> str:
    """The same on the page of what is not found, which may stand at any depth."""
    return output_content.replace("https://unpkg.com/iframe-worker/shim", "/assets/iframe-worker.js")
