"""What is printed and written: a table with the failures below it, JSON, JUnit XML."""

from __future__ import annotations

import re
import textwrap
from typing import Any
from xml.etree import ElementTree

from tinyllm.testing.suite.run import FAILURES, Check, Result

_MARKS = {"passed": "ok", "failed": "FAILED", "error": "ERROR", "blocked": "ERROR", "skipped": "-"}
# What XML 1.0 cannot hold.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text(result: Result) -> str:
    """The table, and for each failure what came, what was expected, and the likely mistake."""
    width = max(len(c.name) for c in result.checks) + 2
    lines = [f"{result.path}", ""]
    for check in result.checks:
        note = check.message if check.status in ("skipped", "passed", "blocked") else check.says
        lines.append(f"  {check.name:<{width}}{_MARKS[check.status]:<8}{note.splitlines()[0] if note else ''}".rstrip())
    for check in result.checks:
        if check.status in ("failed", "error"):
            lines += ["", *failure(check)]
    points, total = result.score
    counts = f"{result.count('passed')} passed, {result.count(*FAILURES)} failed, {result.count('skipped')} skipped"
    if any(c.weight != 1 for c in result.checks):
        counts += f"; {points:g} of {total:g} points"
    if result.printed:
        counts += f"; the file printed {result.printed:,} bytes"
    return "\n".join([*lines, "", counts])


def failure(check: Check) -> list[str]:
    """One failure, as lines."""
    lines = [f"{_MARKS[check.status]} {check.name}: {check.says}"]
    lines += [f"    {line}" for line in check.message.splitlines()]
    for i, said in enumerate(check.likely):
        head = "    likely mistake: " if i == 0 else " " * 20
        lines += textwrap.wrap(said, 116, initial_indent=head, subsequent_indent=" " * 20)
    return lines


def as_json(result: Result) -> dict[str, Any]:
    """The same as one object."""
    points, total = result.score
    return {
        "file": result.path,
        "ok": result.ok,
        "passed": result.count("passed"),
        "failed": result.count(*FAILURES),
        "skipped": result.count("skipped"),
        "points": points,
        "of": total,
        "printed": result.printed,
        "output": result.output,
        "checks": [
            {
                "function": c.function,
                "law": c.law,
                "says": c.says,
                "status": c.status,
                "message": c.message,
                "likely": c.likely,
                "seconds": c.seconds,
                "weight": c.weight,
            }
            for c in result.checks
        ],
    }


def junit(result: Result) -> bytes:
    """The same in the XML that continuous integration reads: one test case for each check."""
    suite = ElementTree.Element(
        "testsuite",
        name=_clean(result.path),
        tests=str(len(result.checks)),
        failures=str(result.count("failed")),
        errors=str(result.count("error", "blocked")),
        skipped=str(result.count("skipped")),
        time=f"{sum(c.seconds for c in result.checks):.3f}",
    )
    for c in result.checks:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_clean(c.function), name=_clean(c.law), time=f"{c.seconds:.3f}"
        )
        if c.status in FAILURES:
            first = c.message.splitlines()[0] if c.message else ""
            outcome = ElementTree.SubElement(
                case, "failure" if c.status == "failed" else "error", message=_clean(first)
            )
            outcome.text = _clean("\n".join(failure(c)))
        elif c.status == "skipped":
            ElementTree.SubElement(case, "skipped", message=_clean(c.message))
    if result.output:
        ElementTree.SubElement(suite, "system-out").text = _clean(result.output)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
