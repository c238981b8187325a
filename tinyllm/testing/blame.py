from tinyllm.testing.report import Mismatch
import numpy as np
def mismatch(bench, outcome, g, order):
    w = max(outcome.wrong, key=lambda w: w.severity)
    return Mismatch(bench.problem.name, order, bench.problem.label(outcome.argument),
        tuple(int(i) for i in np.unravel_index(w.index, outcome.claimed.shape)),
        None if w.output is None else tuple(int(i) for i in np.unravel_index(w.output, bench.y.shape)),
        w.claimed, w.value, w.error, len(outcome.wrong), outcome.compared, ())
