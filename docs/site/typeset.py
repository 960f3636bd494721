"""Docstrings and formulas as HTML that needs no script: symbols in text as Unicode, LaTeX as MathML."""

from __future__ import annotations

import html
import re

GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "eps": "ε", "eta": "η", "lambda": "λ", "pi": "π",
         "rho": "ρ", "sigma": "σ", "mu": "μ"}
SYMBOL = "|".join(GREEK)
CODE = re.compile(r"(`[^`]+`)")
LATEX = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def docstring(text: str) -> str:
    """A docstring as HTML: paragraphs, indented tables as they stand, names in backticks as code, symbols as symbols,
    papers as links.

    A line ends where its sentence does; other line breaks are those of the source's width.
    """
    parts = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        if all(line.startswith("    ") for line in paragraph.splitlines()):
            parts.append(f"<pre>{symbols(html.escape(paragraph), tables=True)}</pre>")
        else:
            lines = re.sub(r"(?<![.:;])\n", " ", paragraph).splitlines()
            parts.append("<p>" + "<br>\n".join(line_of_text(line) for line in lines) + "</p>")
    return "\n".join(parts)


def line_of_text(text: str) -> str:
    """One line: code in backticks is left alone."""
    pieces = CODE.split(html.escape(text, quote=False))
    done = [f"<code>{piece[1:-1]}</code>" if piece.startswith("`") and piece.endswith("`") and len(piece) > 2
            else symbols(piece) for piece in pieces]
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r'<a href="https://arxiv.org/abs/\1">arXiv:\1</a>', "".join(done))


def symbols(text: str, tables: bool = False) -> str:
    """alpha_s, x0_hat, eps_hat, beta_start, n_i^(1/rho), alpha(t)**2 and sqrt(...) as they are written on paper."""
    text = text.replace("x0_hat", "x̂<sub>0</sub>").replace("eps_hat", "ε̂").replace("score_hat", "ŝcore").replace(
        "v_hat", "v̂").replace("u_hat", "û")
    text = re.sub(r"\balpha_bar", "ᾱ", text)
    text = re.sub(rf"\b({SYMBOL})(?=[_'²(^]|\b)", lambda match: GREEK[match[1]], text)
    text = re.sub(r"(?<!\w)([A-Za-zαβγδεησμλρπᾱ]|ᾱ)_\{?((?:[a-z]+|[A-Z]|\d+|\([^)]*\))(?:_\d)?(?:-\d)?)\}?(?![\w=])",
                  r"\1<sub>\2</sub>", text)
    text = re.sub(r"\*\*2\b", "²", text)
    text = re.sub(r"\^(\([^)]*\)|-?\w+)", r"<sup>\1</sup>", text)
    text = text.replace("sqrt(", "√(").replace("&lt;=", "≤").replace("&gt;=", "≥")
    return text if tables else text.replace(" * ", " · ")


def mathml(page: str) -> str:
    """LaTeX that the Markdown extension marked, as MathML, which browsers show without a script."""
    from latex2mathml.converter import convert

    return LATEX.sub(lambda found: convert(html.unescape(found[3]), display="inline" if found[2] == "(" else "block"),
                     page)
