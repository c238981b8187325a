"""Marian, BART and T5 against transformers and against a restatement in float64: numbers, gradients, folders, texts."""

import json

import numpy as np
import pytest
from tiny_seq2seq import IDS, MODELS, OPTIONS, SIZES, tgt_vocab_size, tiny

import tinyllm as tl

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore"),  # transformers and torch warn about themselves
]

THEIRS = {"bart": "BartForConditionalGeneration", "marian": "MarianMTModel", "t5": "T5ForConditionalGeneration"}
PLAIN = [(kind, {}) for kind in MODELS]
CONFIGS = {"bart": "BartConfig", "marian": "MarianConfig", "t5": "T5Config"}
each_model = pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=IDS)


@pytest.fixture
def torch():
    peer = pytest.importorskip("torch", reason="PyTorch is not installed")
    peer.set_num_threads(1)  # of its threads the smallest models have nothing but the wait
    return peer


@pytest.fixture
def transformers():
    peer = pytest.importorskip("transformers", reason="transformers is not installed")
    peer.utils.logging.set_verbosity_error()
    peer.utils.logging.disable_progress_bar()
    return peer


@pytest.fixture
def pair(torch, transformers, tmp_path):
    """Both libraries' models of one folder, which tinyllm wrote."""

    def make(kind, dtype, **settings):
        ours = tiny(kind, dtype, **settings)
        ours.save_pretrained(tmp_path / dtype)
        theirs = getattr(transformers, THEIRS[kind]).from_pretrained(tmp_path / dtype, output_loading_info=True)
        theirs, info = theirs
        assert not info["unexpected_keys"]
        assert theirs.dtype == getattr(torch, dtype)
        return ours, theirs.eval()

    return make


def batch_for(model, rng):
    """Source, mask and labels of three texts; the second source and the first target are padded at the end."""
    source, labels = rng.integers(13, size=(3, 7)), rng.integers(tgt_vocab_size(model), size=(3, 6))
    mask = np.ones_like(source)
    mask[1, 4:] = 0
    labels[0, 4:] = -100
    return {"input_ids": source, "attention_mask": mask, "labels": labels}


def relative(found, expected):
    """The largest difference, relative to the largest value."""
    found, expected = (np.asarray(x.detach() if hasattr(x, "detach") else x) for x in (found, expected))
    return np.abs(found - expected).max() / np.abs(expected).max()


def gradients_agree(ours, expected, bound):
    """Within `bound` of the largest of all gradients."""
    largest = max(np.abs(g).max() for g in expected.values())
    trained = {name: p for name, p in ours.named_parameters() if p.requires_grad}
    assert trained.keys() == expected.keys()
    for name, p in trained.items():
        assert np.abs(p.grad.data - expected[name]).max() < bound * largest, name


@pytest.mark.parametrize(
    ("kind", "options", "dtype", "bound"),
    [
        *((kind, options, "float32", 1e-5) for kind, options in OPTIONS),
        # In float64 they compute BART alone as it is written: not T5's norms, nor Marian's sinusoids.
        *((kind, options, "float64", 1e-9 if kind == "bart" else 1e-5) for kind, options in PLAIN),
    ],
)
def test_logits_loss_and_every_gradient_are_theirs(pair, torch, kind, options, dtype, bound, rng):
    ours, theirs = pair(kind, dtype, **options)
    batch = batch_for(ours, rng)
    expected = theirs(**{name: torch.tensor(a) for name, a in batch.items()})
    expected.loss.backward()
    gradients = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None}
    out = ours(**batch)
    real = batch["labels"] >= 0
    assert relative(out.logits.data[real], expected.logits.detach().numpy()[real]) < bound
    for loss in (out.loss, ours.loss(batch)):
        assert relative(loss.data, expected.loss) < bound
        ours.zero_grad()
        loss.backward()
        gradients_agree(ours, gradients, bound)


@each_model
def test_the_formulas_restated_give_the_same_in_float64(torch, kind, options, rng):
    from seq2seq_torch import restated

    ours = tiny(kind, **options)
    batch = batch_for(ours, rng)
    batch["attention_mask"][2, :3] = 0  # and one text is padded on the left
    w = {name: torch.tensor(p.numpy(), requires_grad=p.requires_grad) for name, p in ours.named_parameters()}
    c = ours.config
    before = np.where(batch["labels"] < 0, c.pad_token_id, batch["labels"])[:, :-1]
    before = np.concatenate([np.full((3, 1), c.decoder_start_token_id), before], axis=1)
    logits = restated(
        kind, w, c, torch.tensor(batch["input_ids"]), torch.tensor(batch["attention_mask"]), torch.tensor(before)
    )
    loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), torch.tensor(batch["labels"]))
    loss.backward()
    out = ours(**batch)
    assert relative(out.logits.data, logits) < 1e-9
    assert relative(out.loss.data, loss) < 1e-9
    out.loss.backward()
    gradients_agree(ours, {name: p.grad.numpy() for name, p in w.items() if p.requires_grad}, 1e-9)


@pytest.mark.parametrize(
    ("kind", "options", "dtype"),
    [*((kind, options, "float32") for kind, options in OPTIONS), *((*plain, "bfloat16") for plain in PLAIN)],
)
def test_what_transformers_saved_is_loaded_and_back(torch, transformers, tmp_path, kind, options, dtype, rng):
    torch.manual_seed(0)
    settings = SIZES[kind] | options
    config = getattr(transformers, CONFIGS[kind])(**settings)
    theirs = getattr(transformers, THEIRS[kind])(config).to(getattr(torch, dtype)).eval()
    if kind != "t5":
        theirs.final_logits_bias.normal_()
    if kind == "t5" and settings.get("tie_word_embeddings") is False:
        theirs.lm_head.weight = torch.nn.Parameter(torch.randn(13, 12).to(getattr(torch, dtype)))
    theirs.save_pretrained(tmp_path)
    ours = tl.models.from_pretrained(tmp_path)
    assert type(ours) is MODELS[kind][0]
    batch = batch_for(ours, rng)
    given = {name: torch.tensor(a) for name, a in batch.items()}
    theirs = type(theirs).from_pretrained(tmp_path, dtype=torch.float32)  # Marian's sinusoids are not rounded then
    expected = theirs(**given).logits.detach().numpy()
    assert relative(ours(**batch).logits.data, expected) < 1e-5
    ours.save_pretrained(tmp_path / "again")
    again = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "again").float()
    assert type(again) is type(theirs)
    np.testing.assert_array_equal(again(**given).logits.detach().numpy(), expected)


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_the_bare_model_is_loaded_too(torch, transformers, tmp_path, kind, rng):
    config = getattr(transformers, CONFIGS[kind])(**SIZES[kind])
    theirs = getattr(transformers, {"bart": "BartModel", "t5": "T5Model"}[kind])(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = tl.models.from_pretrained(tmp_path)
    source = rng.integers(13, size=(2, 5))
    expected = theirs.encoder(torch.tensor(source)).last_hidden_state
    assert relative(ours.encode(source).data, expected) < 1e-5


@pytest.mark.parametrize("kind", MODELS)
def test_every_key_that_transformers_writes_is_known(transformers, tmp_path, kind):
    getattr(transformers, CONFIGS[kind])(num_labels=5, **SIZES[kind]).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    config = MODELS[kind][1].from_dict(settings)
    for name, value in SIZES[kind].items():
        assert getattr(config, name) == value


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("count", "longest"), [(32, 128), (8, 20), (6, 5), (4, 3), (64, 1000)])
def test_the_classes_of_distances_are_theirs(torch, transformers, bidirectional, count, longest):
    from transformers.models.t5.modeling_t5 import T5Attention

    from tinyllm.models.t5 import buckets

    distance = np.arange(-3000, 3001)
    expected = T5Attention._relative_position_bucket(torch.tensor(distance), bidirectional, count, longest)
    np.testing.assert_array_equal(buckets(distance, bidirectional, count, longest), expected.numpy())


@pytest.mark.parametrize(
    ("kind", "options"),
    [*PLAIN, *(case for case in OPTIONS if case[1].keys() & {"decoder_vocab_size", "num_decoder_layers"})],
)
def test_what_is_written_is_theirs(pair, torch, kind, options, rng):
    """Greedily, and with beams the best texts in their order."""
    ours, theirs = pair(kind, "float64", **({} if kind == "t5" else {"max_position_embeddings": 30}), **options)
    batch = batch_for(ours, rng)
    source, mask = batch["input_ids"], batch["attention_mask"]
    theirs.generation_config.forced_eos_token_id = None
    deeper = kind == "t5" and ours.config.num_decoder_layers > ours.config.num_layers
    ids = {"eos_token_id": 3, "pad_token_id": ours.config.pad_token_id}
    for settings in ({"num_beams": 1}, {"num_beams": 4, "num_return_sequences": 3}):
        expected = theirs.generate(
            torch.tensor(source),
            attention_mask=torch.tensor(mask),
            max_new_tokens=9,
            do_sample=False,
            use_cache=not deeper,  # their cache has a place for each layer of T5's encoder
            **settings,
            **ids,
        )
        found = tl.generate(ours, source, 9, attention_mask=mask, **settings, **ids)
        np.testing.assert_array_equal(ended(found, **ids), ended(expected.numpy(), **ids))


def ended(texts, eos_token_id, pad_token_id):
    """The texts (N, T), with padding after their end: theirs goes on with the end where the padding is token 0."""
    texts = np.array(texts).reshape(-1, np.shape(texts)[-1])
    after = np.cumsum(texts == eos_token_id, axis=1) - (texts == eos_token_id) > 0
    return np.where(after, pad_token_id, texts)
