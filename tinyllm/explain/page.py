"""One HTML page with everything in it: text, pictures and the words for them; it needs no other file and no network."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_STYLE = """
body { font-family: system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.5;
       color: #1a1a1a; background: #ffffff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; }
.tokens span { padding: 0.1rem 0.15rem; border-radius: 0.2rem; white-space: pre-wrap; }
table { border-collapse: collapse; } td, th { padding: 0.15rem 0.8rem 0.15rem 0; text-align: left; }
summary { cursor: pointer; }
"""


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, and pictures as PNG, each with what it shows; the later ones are folded away."""

    title: str
    text: str
    pictures: Sequence[tuple[str, bytes]]


def page(
    title: str, facts: dict[str, str], tokens: Sequence[str], values: np.ndarray, sections: Sequence[Section]
) -> str:
    """The page.

    Parameters
    ----------
    title : str
    facts : dict
        What is told in a table at the top.
    tokens : sequence of T strings
        The text, whose tokens are coloured by
    values : (T,)
        what they did for (blue) and against (orange) the answer.
    sections : sequence of Section
    """
    rows = "\n".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in facts.items())
    body = "\n".join(map(_section, sections))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
<table>
{rows}
</table>
<p class="tokens">{_coloured(tokens, values)}</p>
{body}
</body>
</html>
"""


def _coloured(tokens: Sequence[str], values: np.ndarray) -> str:
    """The tokens, the stronger coloured the more they count; each tells its number."""
    most = max(float(np.abs(values).max()), 1e-12)
    spans = []
    for token, value in zip(tokens, values.tolist(), strict=True):
        colour = "0, 114, 178" if value >= 0 else "213, 94, 0"
        strength = 0.75 * abs(value) / most
        shown = html.escape(token).replace("\n", "\u21b5\n")
        spans.append(f'<span title="{value:+.4f}" style="background: rgba({colour}, {strength:.2f})">{shown}</span>')
    return "".join(spans)


def _section(section: Section) -> str:
    first, *rest = [_picture(caption, png) for caption, png in section.pictures]
    folded = "\n".join(
        f"<details><summary>{html.escape(c)}</summary>{p}</details>"
        for (c, _), p in zip(section.pictures[1:], rest, strict=True)
    )
    return f"<h2>{html.escape(section.title)}</h2>\n<p>{html.escape(section.text)}</p>\n{first}\n{folded}"


def _picture(caption: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    alt = html.escape(caption, quote=True)
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"><figcaption>{alt}</figcaption></figure>'
