"""README and docs: the site builds with every link checked and needs no other site; every command and code block is executed."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
from filelock import FileLock

from diffbench.contracts.options import comments
from diffbench.matrix import loading, yaml_file
from diffbench.matrix.matrix import BLOCKS
from diffbench.registry import admission
from tests.conftest import REGISTRY

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN_ONLY = ("", "text", "console", "html", "json")       # what programs print and what folders hold
BLOCK = re.compile(r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
# The README has no marks of its own: first words of a block, and why it is not run here.
README_NOT_RUN = {
    "python3 -m venv .venv && .venv/bin/pip install -q -e . &&": "it installs everything; tests/test_wheel.py does so from a wheel",
    "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' &&": "it is this test suite",
}
# Few and small, under the name that the pages speak of.
RUN = """\
diffbench: 1
name: quickstart
dataset: digits
axes:
  backbone: {dit: {patch: 4, width: 16, depth: 1, heads: 2}}
  conditioning: [cfg: {inner: film, scale: [1.5, 3.0]}]
  scheduler: [{ddim: {steps: 2}}, {ddpm: {steps: 2}}]
  seed: [0, 1]
train: {steps: 2, batch_size: 8}
sample: {count: 40}
metrics: [fid, class_accuracy]
throughput: {repeats: 3, batch_size: 2}
"""
# `diffbench run FILE` as typed, at the size of --smoke, into the folder where it would be without.
SMALL = """\
#!/bin/sh
if [ "$1" = run ]; then shift; set -- run --smoke --device cpu --threads 1 --out "runs/$(sed -n 's/^name: *//p' "$1")" "$@"; fi
exec {python} -m diffbench "$@"
"""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    reason: str                       # why it is not run; "" where it is

    @property
    def is_signature(self) -> bool:
        """A single `def` without a body, as docs/hooks.md shows hooks."""
        return self.language == "python" and self.text.startswith("def ") and len(self.text.splitlines()) == 1


def blocks(path):
    """The fenced blocks of a page that are code."""
    text, found = path.read_text(), []
    for match in BLOCK.finditer(text):
        marked = {reason for words, reason in README_NOT_RUN.items() if path.name == "README.md" and match["text"].startswith(words)}
        if match["language"] not in SHOWN_ONLY:
            found.append(Block(path.name, text[:match.start()].count("\n") + 1, match["language"], match["text"], match["reason"] or "".join(marked)))
    return found


ALL = [block for path in PAGES for block in blocks(path)]


def needs_a_run(path):
    """Whether its blocks type commands or read a folder of results."""
    return any(not b.reason and (b.language == "bash" or "runs/" in b.text) for b in blocks(path))


@pytest.fixture(scope="module")
def run(shared_folder):
    """A small run, in the folder where the commands of pages are typed, and the environment to type them in; made once for all test workers."""
    folder = shared_folder / "docs"
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}", "DIFFBENCH_HOME": str(folder / "home")}
    with FileLock(shared_folder / "docs.lock"):
        if not folder.exists():
            (folder / "bin").mkdir(parents=True)
            (folder / "bin" / "diffbench").write_text(SMALL.format(python=sys.executable))
            (folder / "bin" / "diffbench").chmod(0o755)
            (folder / "quickstart.yaml").write_text(RUN)
            for name in ("benchmarks", "tests"):
                (folder / name).symlink_to(ROOT / name)
            typed("diffbench run quickstart.yaml", folder, environment)
    return folder, environment


def typed(line, folder, environment, where=""):
    """A line typed into a shell; it must end well. The exit code of `compare` is an answer: 1 where the second side is worse."""
    done = subprocess.run(["bash", "-c", line], env=environment, cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode in ((0, 1) if line.startswith("diffbench compare") else (0,)), f"{where}: {line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("path", [pytest.param(p, id=p.name, marks=pytest.mark.slow if needs_a_run(p) else ()) for p in PAGES if blocks(p)])
def test_every_block_of_a_page_runs(path, request, tmp_path, monkeypatch):
    """In order, in one folder; Python blocks share their names. A block that begins with `# name.py` or the like is that file as well."""
    folder, environment = request.getfixturevalue("run") if needs_a_run(path) else (tmp_path, dict(os.environ))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("DIFFBENCH_HOME", environment.get("DIFFBENCH_HOME", str(folder / ".diffbench")))
    monkeypatch.setattr("diffbench.registry.registry._session", {})
    names = {"__name__": "page"}
    for block in blocks(path):
        if block.reason:
            continue
        if file := re.match(r"# ([\w-]+\.(?:py|yaml|toml))\b", block.text):
            (folder / file[1]).write_text(block.text)
        EXECUTED[block.language](block, names, folder, environment)


def run_python(block, names, folder, environment):
    """A signature is only compiled; tests/registry/test_hooks_documented.py compares it with the hook."""
    text = block.text if not block.is_signature else f"from __future__ import annotations\n{block.text.rstrip()}: ..."
    compiled = compile(text, f"{block.page}:{block.line}", "exec", dont_inherit=True)
    exec(compiled, {} if block.is_signature else names)


def run_bash(block, names, folder, environment):
    """Line by line, as typed."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.strip():
            typed(line, folder, environment, f"{block.page}:{block.line}")


def run_yaml(block, names, folder, environment):
    """A whole matrix must be valid; a part of one must be so inside a small matrix."""
    data = yaml_file.parse(block.text, f"{block.page}:{block.line}").data
    if "diffbench" not in data:
        small = yaml_file.parse(RUN).data
        given = {key: value for key, value in data.items() if key not in REGISTRY.kinds}
        axes = {key: value for key, value in data.items() if key in REGISTRY.kinds and REGISTRY.kinds[key].axis}
        data = {**small, **given, "axes": {**small["axes"], **axes, **given.get("axes", {})}, **{k: v for k, v in data.items() if k == "extractor"}}
    assert loading.load(data, REGISTRY).cells


def run_toml(block, names, folder, environment):
    """Read as TOML; its entry points belong to groups that are read."""
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    groups = tomllib.loads(block.text).get("project", {}).get("entry-points", {})
    assert set(groups) <= {*admission.OTHER_GROUPS, *(kind.group for kind in REGISTRY.kinds.values())} and groups


EXECUTED = {"python": run_python, "bash": run_bash, "yaml": run_yaml, "toml": run_toml}


def test_every_language_is_executed():
    assert {b.language for b in ALL} <= set(EXECUTED), "say how a block of this language is run, or show it as text"


def test_what_is_not_run_says_why():
    """The list of all blocks that are not run; README marks that match nothing are stale."""
    not_run = [b for b in ALL if b.reason]
    for block in not_run:
        print(f"{block.page}:{block.line}: not run: {block.reason}")
        assert len(block.reason.split()) >= 4, block
    assert len(not_run) < len(ALL) / 3
    readme = PAGES[0].read_text()
    assert all(words in readme for words in README_NOT_RUN)


@pytest.mark.parametrize("kind", list(REGISTRY.kinds))
def test_no_option_is_without_meaning(kind):
    for ref in REGISTRY.refs(kind):
        if ref.distribution == "diffbench":
            for option, meaning in comments(REGISTRY.load(ref)).items():
                assert len(meaning) > 3, f"{kind} {ref.name}: {option} has no comment that says what it means"


@pytest.mark.parametrize("name", list(BLOCKS))
def test_no_setting_is_without_meaning(name):
    for option, meaning in comments(BLOCKS[name]).items():
        assert len(meaning) > 3, f"{name}.{option} has no comment that says what it means"


@pytest.mark.slow
def test_file_formats_names_every_file_that_a_run_leaves(run):
    page = (ROOT / "docs" / "file-formats.md").read_text() + (ROOT / "docs" / "store.md").read_text()
    folder, _ = run
    left = [*(p for p in (folder / "runs" / "quickstart").rglob("*") if p.is_file()), *(p for p in (folder / "home" / "store").rglob("*") if p.is_file())]
    assert len(left) > 30
    for path in left:
        known = path.name in page or f"{path.parent.name}/" in page and (path.suffix in (".json", ".jsonl", ".png") or path.parent.name in ("exports", "notebooks"))
        assert known, f"docs/file-formats.md does not name {path.relative_to(folder)}"


class Links(HTMLParser):
    """What a page shows or leads to, and its anchors."""

    def __init__(self, text):
        super().__init__()
        self.shown, self.linked, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        facts = dict(attributes)
        self.anchors |= {facts[name] for name in ("id", "name") if facts.get(name)}
        if tag in ("script", "img", "iframe", "source") and facts.get("src"):
            self.shown.append(facts["src"])
        if tag == "link" and facts.get("href") and facts.get("rel") != "canonical":
            self.shown.append(facts["href"])
        if tag == "a" and facts.get("href"):
            self.linked.append(facts["href"])


def test_the_reference_says_what_the_code_says():
    done = subprocess.run([sys.executable, ROOT / "docs" / "site" / "reference.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run python docs/site/reference.py: {done.stdout}{done.stderr[-1000:]}"


def test_every_attribute_of_a_contract_has_a_sentence():
    lines = [line for path in (ROOT / "docs" / "reference").glob("*.md") for line in path.read_text().splitlines()]
    listed = [line for line in lines if line.startswith("- `")]
    assert len(listed) > 100 and not [line for line in listed if re.match(r"- `.*`[^:]*: *$", line)]


@pytest.fixture(scope="module")
def site(shared_folder):
    """The site as mkdocs builds it, where a broken link is an error; built once for all test workers."""
    folder = shared_folder / "site"
    with FileLock(shared_folder / "site.lock"):
        if not folder.exists():
            typed(f"{sys.executable} -m mkdocs build --strict --site-dir {folder}", ROOT, {**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    return folder


@pytest.mark.slow
def test_the_site_needs_no_other_site_and_no_link_is_broken(site):
    pages = {path: Links(path.read_text()) for path in site.rglob("*.html")}
    assert len(pages) > 80
    for path, found in pages.items():
        if path.name == "404.html":                       # a server shows it at any depth
            assert not any(url.startswith("http") for url in found.shown)
            continue
        for url in found.shown:
            assert not url.startswith(("http", "//")), f"{path.relative_to(site)} fetches {url}"
            assert (path.parent / url.partition("?")[0]).is_file(), f"{path.relative_to(site)} shows {url}"
        for url in found.linked:
            target, _, anchor = url.partition("#")
            if url.startswith(("http:", "https:", "mailto:")):
                continue
            aim = (path.parent / target).resolve() if target else path
            aim = aim / "index.html" if aim.is_dir() else aim
            assert aim.is_file(), f"{path.relative_to(site)} leads to {url}"
            assert not anchor or anchor == "__skip" or anchor in pages[aim].anchors, f"{path.relative_to(site)} leads to {url}"


@pytest.mark.slow
def test_every_component_has_a_page_with_every_option_and_its_meaning(site):
    for kind in REGISTRY.kinds:
        for ref in REGISTRY.refs(kind):
            if ref.distribution != "diffbench":
                continue
            page = (site / "components" / kind / f"{ref.name}.html").read_text()
            for option in comments(REGISTRY.load(ref)):
                row = re.search(rf"<td[^>]*><code>{option}</code></td>(.*?)</tr>", page, re.DOTALL)
                cells = re.findall(r"<td[^>]*>(.*?)</td>", row[1], re.DOTALL) if row else []
                assert len(cells) == 4 and all(re.sub(r"<[^>]+>", "", text).strip() for text in cells), f"{kind} {ref.name}: {option}"


@pytest.mark.slow
def test_formulas_are_shown_without_a_script(site):
    page = (site / "concepts.html").read_text()
    assert page.count("<math") > 20 and "arithmatex" not in page
    figures = list((site / "components").rglob("*.svg"))
    assert {p.parent.name for p in figures} == {"noise_schedule", "scheduler", "spacing", "parameterization", "objective", "dataset"}
    assert all(p.read_text().count("<path") > 3 or "<image" in p.read_text() for p in figures)
