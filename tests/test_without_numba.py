"""Everything works where Numba is not installed; it only takes longer."""

import subprocess
import sys

PROGRAM = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numba", "llvmlite", "matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import numpy as np
import tinyllm as tl

rng = np.random.default_rng(0)
config = tl.models.GPTConfig(n_layer=2, n_head=2, n_embd=64, n_positions=64, vocab_size=65,
                             resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1)
model = tl.models.GPT(config, rng=rng)
model.train()
ids = rng.integers(0, 65, size=(4, 64))
optimizer = tl.optim.AdamW(model.parameters(), lr=1e-3)
losses = []
for step in range(3):
    with tl.random_scope(0, step):
        loss = model(ids, labels=ids).loss
    loss.backward()
    tl.optim.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
batches = tl.data.Batches(rng.integers(0, 65, 1000), 4, 32)
tl.train.Trainer(model, batches, optimizer, tl.train.Plan(steps=2, rate=lambda t: 1e-3, clip=1.0)).step()
model.eval()
assert tl.generate(model, ids[:, :5], max_new_tokens=5).shape == (4, 10)
assert losses[-1] < losses[0], losses
assert tl.models.Word2Vec(8, min_count=1, sample=0).fit([["a", "cat", "sat"], ["a", "dog", "sat"]]).loss > 0
assert not [name for name in sys.modules if name.startswith(("numba", "llvmlite"))]
print("done")
"""


def test_training_and_generation() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done"
