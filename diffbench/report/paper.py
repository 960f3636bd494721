"""A table of numbers with intervals, as Markdown and as LaTeX with booktabs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from diffbench.report.layout import Key, laid_out
from diffbench.results.quantity import ABSENT

COLUMNS = 8                           # side by side, but at least three of numbers; more are set below
PAGE = 20                             # rows above which a table may break over pages
SPECIAL = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#",
           "$": r"\$", "^": r"\textasciicircum{}",
           "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
           '"': r"{\char34}", "'": r"\textquotesingle{}",
           "`": r"\textasciigrave{}", "-": "-{}", "≈": r"$\approx$", "—": "---", "†": r"$\dagger$", "[": "{[}",
           "]": "{]}", "*": "{*}"}
MARKS = {"≈": r"^{\approx}", "†": r"^{\dagger}"}
HEAD = "% Written by diffbench. In the preamble: \\usepackage{booktabs,textcomp}"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One number of a table; NaN where a row lacks it, NaN ends where it has no interval."""

    value: float
    low: float = math.nan
    high: float = math.nan
    form: str = "{:.3g}"
    is_best: bool = False
    mark: str = ""                    # "≈", "†" or nothing


@dataclass(frozen=True, kw_only=True)
class Table:
    """Entries by the values of `across + down`. What no entry differs in is said in the caption instead of a column."""

    name: str                         # of its file, and of its label
    caption: str                      # plain text
    down: list[str]
    across: list[str]
    entries: dict[Key, Entry]

    def markdown(self) -> str:
        """Caption and table."""
        table = self._telling()
        texts = {key: (f"**{_shown(e)}**" if e.is_best else _shown(e)) + (f" {e.mark}" if e.mark else "")
                 for key, e in table.entries.items()}
        return f"{table.caption}\n\n{laid_out(texts, table.down, table.across)}\n"

    def latex(self) -> str:
        """A `table`, or a `longtable` where it has many rows; an interval stands below its number.
        Needs booktabs, and longtable for the latter.
        """
        table = self._telling()
        heads, lines = table._heads(), list(dict.fromkeys(key[len(table.across):] for key in table.entries))
        is_long = len(lines) > PAGE
        across = max(3, COLUMNS - len(table.down))
        parts = [heads[i : i + across] for i in range(0, len(heads), across)]
        caption, label = (f"\\caption{{{escape(table.caption)}}}",
                          f"\\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', table.name)}}}")
        if is_long:
            titles = [[f"{caption}{label}\\\\" if i == 0 else "\\caption[]{(continued)}\\\\"]
                      for i in range(len(parts))]
            body = ["\n".join(table._tabular(part, lines, "longtable", title))
                    for part, title in zip(parts, titles, strict=True)]
            return "\n".join([HEAD.replace("textcomp", "longtable,textcomp"),
                              "{\\footnotesize\\setlength{\\tabcolsep}{4pt}", *body, "}"]) + "\n"
        body = "\n\n\\medskip\n".join("\n".join(table._tabular(part, lines, "tabular", [])) for part in parts)
        style = "\\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}"
        return ("\n".join([HEAD, "\\begin{table}", style, caption, label, "\\par\\smallskip", body, "\\end{table}"])
                + "\n")

    def _tabular(self, heads: Sequence[Key], lines: Sequence[Key], environment: str, title: list[str]) -> Iterator[str]:
        count, stub = len(heads), len(self.down)
        yield f"\\begin{{{environment}}}{{{'l' * stub}{'r' * count}}}"
        yield from title
        yield "\\toprule"
        for level, name in enumerate(self.across):
            is_last = level == len(self.across) - 1
            spans = [(_head(name, value), len(list(same))) for (*_, value), same
                     in groupby(heads, key=lambda head, level=level: head[: level + 1])]
            cells = ([escape(_words(d.rpartition(".")[2] if self._is_plain(d) else d)) for d in self.down] if is_last
                     else [""] * stub)
            yield " & ".join(
                [*cells, *(escape(text) if is_last else f"\\multicolumn{{{span}}}{{c}}{{{escape(text)}}}"
                           for text, span in spans)]) + " \\\\"
            if not is_last:
                yield "".join(f"\\cmidrule(lr){{{first}-{last}}}" for first, last in _places(spans, stub + 1))
        yield "\\midrule" + ("\\endhead" if environment == "longtable" else "")
        before: Key = ()
        for line in lines:
            entries = [self.entries.get(head + line) for head in heads]
            names = ["" if before[: i + 1] == line[: i + 1] else escape(value) for i, value in enumerate(line)]
            has_intervals = any(entry is not None and not math.isnan(entry.low) for entry in entries)
            yield " & ".join([*names, *(_number(entry) for entry in entries)]) + (
                " \\\\*" if has_intervals and environment == "longtable" else " \\\\")
            if has_intervals:
                yield " & ".join([*[""] * stub, *(_interval(entry) for entry in entries)]) + " \\\\[2pt]"
            before = line
        yield "\\bottomrule"
        yield f"\\end{{{environment}}}"

    def _heads(self) -> list[Key]:
        """Heads in their order, those of one group side by side."""
        heads = list(dict.fromkeys(key[: len(self.across)] for key in self.entries))
        for level in reversed(range(len(self.across) - 1)):
            order = list(dict.fromkeys(head[: level + 1] for head in heads))
            heads.sort(key=lambda head, level=level, order=order: order.index(head[: level + 1]))
        return heads

    def _is_plain(self, name: str) -> bool:
        """Whether the option's own name, without its owner's, is that of no other column."""
        own = name.rpartition(".")[2]
        return sum(other.rpartition(".")[2] == own for other in (*self.down, *self.across)) == 1

    def _telling(self) -> Table:
        """Without the naming columns in which no entry differs, which the caption then says; one of each side stays."""
        naming = [*self.across, *self.down]
        same = {i for i in range(len(naming)) if len({key[i] for key in self.entries}) == 1}
        same -= {0} if len(self.across) == len([i for i in same if i < len(self.across)]) else set()
        same -= {len(self.across)} if len(self.down) == len([i for i in same if i >= len(self.across)]) else set()
        key = next(iter(self.entries))
        values = ", ".join(f"{_words(naming[i])} {key[i]}" for i in sorted(same) if key[i] != "-")
        kept = [i for i in range(len(naming)) if i not in same]
        return Table(name=self.name, caption=f"{self.caption} All rows: {values}." if values else self.caption,
                     across=[naming[i] for i in kept if i < len(self.across)],
                     down=[naming[i] for i in kept if i >= len(self.across)],
                     entries={tuple(key[i] for i in kept): entry for key, entry in self.entries.items()})


def escape(text: str) -> str:
    r"""Plain text as LaTeX that prints it: nothing in it is a command, a comment, mathematics or a ligature.

    What pdflatex has no letter for in its default encoding is spelt as [U+65E5], and control characters are blanks.
    """
    return "".join(SPECIAL.get(c) or (c if " " <= c <= "~" or c in _LETTERS else " " if ord(c) < 160
                                      else f"{{[}}U+{ord(c):04X}{{]}}") for c in text)


# accents that OT1 can compose
_LETTERS = frozenset("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ")


def _shown(entry: Entry) -> str:
    if math.isnan(entry.value):
        return ABSENT
    value = entry.form.format(entry.value)
    return (value if math.isnan(entry.low) else f"{value} ({entry.form.format(entry.low)} to "
                                                f"{entry.form.format(entry.high)})")


def _number(entry: Entry | None) -> str:
    if entry is None or math.isnan(entry.value):
        return "" if entry is None else "---"
    text = _mathematics(entry.form.format(entry.value))
    bold = f"\\mathbf{{{text}}}" if entry.is_best else text
    return f"${bold}{MARKS.get(entry.mark, '')}$"


def _interval(entry: Entry | None) -> str:
    if entry is None or math.isnan(entry.low):
        return ""
    low, high = (_mathematics(entry.form.format(end)) for end in (entry.low, entry.high))
    return f"{{\\scriptsize $[{low},\\,{high}]$}}"


def _mathematics(number: str) -> str:
    """'1.2e+05' as 1.2 times a power of ten; the comma of thousands without its space."""
    mantissa, e, exponent = number.partition("e")
    return mantissa.replace(",", "{,}") + (f"{{\\times}}10^{{{int(exponent)}}}" if e else "")


def _head(name: str, value: str) -> str:
    """'steps 10', but 'ddim': a bare number says nothing."""
    return f"{_words(name)} {value}" if value.replace(".", "").isdigit() else value


def _words(name: str) -> str:
    return name.replace("_", " ").replace(".", " ")


def _places(spans: Sequence[tuple[str, int]], first: int) -> Iterator[tuple[int, int]]:
    for _, span in spans:
        yield first, first + span - 1
        first += span
