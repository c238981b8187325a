"""BERT and its heads against transformers, and against the same function written in PyTorch alone."""

import json

import numpy as np
import pytest
from tiny_bert import tiny_bert

import tinyllm as tl
from tinyllm import models

pytestmark = [
    pytest.mark.peers,
    # transformers and torch warn about themselves
    pytest.mark.filterwarnings("ignore"),
]

HEADS = {
    "BERTForMaskedLM": {"labels": ("tokens", 23)},
    "BERTForPreTraining": {"labels": ("tokens", 23), "next_sentence_label": ("texts", 2)},
    "BERTForNextSentencePrediction": {"labels": ("texts", 2)},
    "BERTForSequenceClassification": {"labels": ("texts", 4)},
    "BERTForTokenClassification": {"labels": ("tokens", 4)},
    "BERTForQuestionAnswering": {"start_positions": ("texts", 9), "end_positions": ("texts", 9)},
}
LOGITS = ("logits", "prediction_logits", "seq_relationship_logits", "start_logits", "end_logits", "last_hidden_state")


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture
def transformers():
    peer = pytest.importorskip("transformers", reason="transformers is not installed")
    peer.utils.logging.set_verbosity_error()
    return peer


def relative(found, expected):
    """The largest difference, relative to the largest value."""
    return np.abs(found - expected).max() / np.abs(expected).max()


def theirs_of(transformers, ours, folder):
    """transformers' model of the folder that `ours` writes."""
    ours.save_pretrained(folder)
    return getattr(transformers, ours.architecture).from_pretrained(folder, attn_implementation="eager").eval()


def a_batch(rng, targets, T=8):
    """Padded texts of two types; labels of which one in three is not to be told."""
    ids, mask = rng.integers(1, 23, size=(3, T)), np.ones((3, T), int)
    mask[1, 5:], ids[1, 5:] = 0, 0
    types = (np.arange(T) > rng.integers(2, T, size=(3, 1))).astype(int)
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    for name, (what, classes) in targets.items():
        if what == "texts":
            batch[name] = rng.integers(classes, size=3)
        else:
            batch[name] = np.where(
                (mask == 1) & (rng.random(ids.shape) < 0.7), rng.integers(classes, size=(3, T)), -100
            )
    return batch


def compare(torch, ours, theirs, batch, bound):
    """Outputs, loss and gradients of both; the largest gradient of all is the measure for every one of them."""
    given = {name: torch.tensor(value) for name, value in batch.items()}
    out, expected = ours(**batch), theirs(**given)
    real = batch["attention_mask"] == 1
    for name in LOGITS:
        if hasattr(out, name):
            found, wanted = getattr(out, name).data, getattr(expected, name).detach().numpy()
            if found.shape[:2] == real.shape:
                found, wanted = found[real], wanted[real]
            assert relative(found, wanted) < bound, name
    assert relative(out.loss.item(), expected.loss.item()) < bound
    assert relative(ours.loss(batch).item(), expected.loss.item()) < bound
    ours.loss(batch).backward()
    expected.loss.backward()
    gradients = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None}
    decoder_bias = gradients.pop("cls.predictions.decoder.bias", None)
    if decoder_bias is not None:  # ours has one bias; theirs leaves the other one unused where nothing is tied
        gradients["cls.predictions.bias"] = decoder_bias
    own = {name: p.grad.data for name, p in ours.named_parameters() if p.grad is not None}
    assert gradients.keys() == own.keys()
    largest = max(np.abs(g).max() for g in gradients.values())
    for name, g in own.items():
        assert np.abs(g - gradients[name]).max() < bound * largest, name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("head", HEADS)
def test_outputs_loss_and_every_gradient_are_theirs(torch, transformers, tmp_path, head, dtype, rng):
    settings = {"num_labels": 4} if "Classification" in head else {}
    ours = tiny_bert(getattr(models, head), dtype, **settings)
    theirs = theirs_of(transformers, ours, tmp_path)
    assert theirs.dtype == getattr(torch, dtype)
    compare(torch, ours, theirs, a_batch(rng, HEADS[head]), 1e-5 if dtype == "float32" else 1e-9)


@pytest.mark.parametrize(
    "settings",
    [
        {"tie_word_embeddings": False},
        {"hidden_act": "gelu_new", "layer_norm_eps": 1e-2},
        {"hidden_act": "relu", "num_attention_heads": 1, "pad_token_id": None},
        {"hidden_act": "silu", "type_vocab_size": 3, "pad_token_id": 5, "num_attention_heads": 12},
    ],
)
def test_every_setting_is_obeyed(torch, transformers, tmp_path, settings, rng):
    ours = tiny_bert(models.BERTForPreTraining, **settings)
    theirs = theirs_of(transformers, ours, tmp_path)
    compare(torch, ours, theirs, a_batch(rng, HEADS["BERTForPreTraining"]), 1e-9)


@pytest.mark.parametrize("num_labels", [1, 3])
@pytest.mark.parametrize("problem_type", [None, "regression", "multi_label_classification"])
def test_the_loss_follows_the_problem(torch, transformers, tmp_path, num_labels, problem_type, rng):
    ours = tiny_bert(models.BERTForSequenceClassification, num_labels=num_labels, problem_type=problem_type)
    theirs = theirs_of(transformers, ours, tmp_path)
    batch = a_batch(rng, {})
    batch["labels"] = rng.random((3, num_labels))
    compare(torch, ours, theirs, batch, 1e-9)
    if num_labels == 1 and problem_type != "multi_label_classification":
        batch["labels"] = batch["labels"][:, 0]
        compare(torch, tiny_bert(type(ours), num_labels=1), theirs_of(transformers, ours, tmp_path), batch, 1e-9)


def test_a_classifier_of_the_mean_is_their_body_and_modernberts_mean(torch, transformers, tmp_path, rng):
    ours = tiny_bert(models.BERTForSequenceClassification, classifier_pooling="mean", num_labels=4)
    ours.save_pretrained(tmp_path)
    body = transformers.BertModel.from_pretrained(tmp_path, add_pooling_layer=False, attn_implementation="eager")
    batch = a_batch(rng, HEADS["BERTForSequenceClassification"])
    given = {name: torch.tensor(value) for name, value in batch.items()}
    labels, mask = given.pop("labels"), given["attention_mask"].unsqueeze(-1)
    states = body.eval()(**given).last_hidden_state
    mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
    weight, bias = (torch.tensor(p.numpy()) for p in (ours.classifier.weight, ours.classifier.bias))
    loss = torch.nn.functional.cross_entropy(mean @ weight.T + bias, labels)
    loss.backward()
    found = ours.loss(batch)
    found.backward()
    assert relative(found.item(), loss.item()) < 1e-9
    own = {name: p.grad.data for name, p in ours.bert.named_parameters()}
    gradients = {name: p.grad.numpy() for name, p in body.named_parameters()}
    largest = max(np.abs(g).max() for g in gradients.values())
    for name, g in gradients.items():
        assert np.abs(own[name] - g).max() < 1e-9 * largest, name


def test_an_answer_outside_the_input_counts_for_nothing(torch, transformers, tmp_path, rng):
    ours = tiny_bert(models.BERTForQuestionAnswering)
    theirs = theirs_of(transformers, ours, tmp_path)
    batch = a_batch(rng, {}) | {"start_positions": np.array([2, 8, 3]), "end_positions": np.array([4, 100, 3])}
    compare(torch, ours, theirs, batch, 1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("head", ["BERT", *HEADS])
def test_what_transformers_saved_is_loaded(torch, transformers, tmp_path, head, dtype, rng):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=23, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20
    )
    theirs = getattr(transformers, getattr(models, head).architecture)(config).to(getattr(torch, dtype)).eval()
    theirs.save_pretrained(tmp_path)
    ours = models.from_pretrained(tmp_path)
    assert type(ours) is getattr(models, head)
    assert ours.config.hidden_dropout_prob == 0.1
    assert not ours.training
    batch = a_batch(rng, {})
    given = {name: torch.tensor(value) for name, value in batch.items()}
    expected, found = theirs.float()(**given), ours(**batch)
    name = next(name for name in LOGITS if hasattr(found, name))
    # the first text has no padding
    assert relative(getattr(found, name).data[0], getattr(expected, name).detach().numpy()[0]) < 1e-5


def test_every_key_that_transformers_writes_is_known(transformers, tmp_path):
    labels = {0: "sad", 1: "glad", 2: "neither"}
    transformers.BertConfig(vocab_size=23, id2label=labels, pad_token_id=1).save_pretrained(tmp_path)
    config = models.BERTConfig.from_dict(json.loads((tmp_path / "config.json").read_text()))
    assert config.labels == ("sad", "glad", "neither")
    assert config.pad_token_id == 1


def test_the_names_of_labels_reach_them(transformers, tmp_path):
    ours = tiny_bert(models.BERTForSequenceClassification, num_labels=3, id2label={0: "a", 1: "b", 2: "c"})
    theirs = theirs_of(transformers, ours, tmp_path)
    assert theirs.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert theirs.config.num_labels == 3


# -- F-BLOCK once more, in float64, from the paper ---------------------------------------------------------------------


def restated(torch, weights, batch, H):
    """The masked language model's loss from weights by their published names (Devlin 2019; Vaswani 2017)."""
    F = torch.nn.functional

    def affine(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / (variance + 1e-12) ** 0.5 * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def gelu(x):
        return x * (1 + torch.erf(x / 2**0.5)) / 2

    ids = torch.tensor(batch["input_ids"])
    B, T = ids.shape
    table = weights["bert.embeddings.word_embeddings.weight"]
    looked_up = F.embedding(ids, table, padding_idx=0)
    looked_up = looked_up + weights["bert.embeddings.token_type_embeddings.weight"][batch["token_type_ids"]]
    x = norm(looked_up + weights["bert.embeddings.position_embeddings.weight"][:T], "bert.embeddings.LayerNorm")
    hidden = torch.tensor(batch["attention_mask"] == 0)[:, None, None, :]
    for i in range(2):
        at = f"bert.encoder.layer.{i}"
        q, k, v = (
            affine(x, f"{at}.attention.self.{part}").reshape(B, T, H, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(hidden, -torch.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, -1)
        x = norm(x + affine(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = gelu(affine(x, f"{at}.intermediate.dense"))
        x = norm(x + affine(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    y = norm(gelu(affine(x, "cls.predictions.transform.dense")), "cls.predictions.transform.LayerNorm")
    logits = y @ table.T + weights["cls.predictions.bias"]
    return F.cross_entropy(logits.reshape(B * T, -1), torch.tensor(batch["labels"]).reshape(-1))


def test_a_restatement_in_float64_has_the_same_gradients(torch, rng):
    ours = tiny_bert(models.BERTForMaskedLM)
    batch = a_batch(rng, HEADS["BERTForMaskedLM"])
    weights = {name: torch.tensor(value, requires_grad=True) for name, value in ours.state_dict().items()}
    expected = restated(torch, weights, batch, H=3)
    expected.backward()
    loss = ours.loss(batch)
    loss.backward()
    assert relative(loss.item(), expected.item()) < 1e-12
    largest = max(w.grad.abs().max().item() for w in weights.values())
    for name, p in ours.named_parameters():
        assert np.abs(p.grad.data - weights[name].grad.numpy()).max() < 1e-9 * largest, name


def test_gradients_on_every_backend_are_theirs(torch, transformers, tmp_path, rng):
    for backend in ("numpy", "numba"):
        with tl.backend(backend):
            ours = tiny_bert(models.BERTForMaskedLM, max_position_embeddings=40)
            theirs = theirs_of(transformers, ours, tmp_path / backend)
            compare(torch, ours, theirs, a_batch(rng, HEADS["BERTForMaskedLM"], T=33), 1e-9)
