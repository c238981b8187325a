"""Every formula, procedure, code sample and fault of the five documents, executable and tied to code, test and chapter.

``get("F-ATTN")`` gives one entry, `all_formulas` all of them; ``ladder("F-ATTN")`` shows one from the formula down to
the kernels, `listing` has a line for each. Each concept has a file; its functions are literal loops over nested lists
of Python floats (float64), written to look like the sums they compute, and take NumPy arrays as well.
"""

from tinyllm.formulas.registry import Erratum, Formula, FormulaError, all_formulas, gaps, get, resolve
from tinyllm.formulas.show import ladder, listing

__all__ = ["Erratum", "Formula", "FormulaError", "all_formulas", "gaps", "get", "ladder", "listing", "resolve"]
