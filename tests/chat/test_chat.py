"""Chat templates in their sandbox, and a conversation that keeps what was computed."""

import io
import json
import re

import numpy as np
import pytest

import tinyllm as tl
from tinyllm.chat import ChatTemplate, Conversation
from tinyllm.chat.terminal import talk
from tinyllm.errors import CheckpointError, ConfigError, TokenizerError
from tinyllm.generation.text import text_of
from tinyllm.models import Llama, LlamaConfig
from tinyllm.text import ByteLevelBPE

pytest.importorskip("jinja2", reason="chat templates need Jinja2")

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HELLO = [{"role": "user", "content": "Hi <there>"}]


# -- templates ---------------------------------------------------------------------------------------------------------


def test_a_template_is_filled_in():
    assert ChatTemplate(CHATML).render(HELLO) == "<|im_start|>user\nHi <there><|im_end|>\n<|im_start|>assistant\n"
    assert ChatTemplate(CHATML).render(HELLO, add_generation_prompt=False).endswith("<|im_end|>\n")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ messages[0].content }}", "<s>Hi <there>"),
        ("  {% if true %}\nx\n  {% endif %}\ny", "x\ny"),  # blocks take their line with them
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hi <there>"}]'),
        ("{{ {'b': 'é', 'a': 1} | tojson(indent=1) }}", '{\n "b": "é",\n "a": 1\n}'),
        (
            "{% for i in range(9) %}{% if i > 3 %}{% break %}{% endif %}{% if i == 2 %}{% continue %}"
            "{% endif %}{{ i }}{% endfor %}",
            "013",
        ),
        ("{% generation %}{{ 'a' }}{% endgeneration %}", "a"),
        ("{{ 'Hello'.upper() }}{{ ' x '.strip() }}{{ [1, 2] | length }}", "HELLOx2"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "1"),
        ("{{ 'ab' * 3 }}{{ tools is none }}{{ undefined_thing is defined }}", "abababTrueFalse"),
    ],
)
def test_what_templates_of_the_field_use(source, text):
    assert ChatTemplate(source, {"bos_token": "<s>"}).render(HELLO) == text


def test_the_date():
    assert re.fullmatch(r"\d{4}-\d\d", ChatTemplate("{{ strftime_now('%Y-%m') }}").render(HELLO))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ ''.__class__ }}", "attribute '__class__' of a str"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "attribute '__class__'"),
        ("{{ messages['__class__'] }}", "attribute '__class__' of a list"),
        ("{{ ''|attr('__class__') }}", "attribute '__class__'"),
        ("{{ raise_exception.__globals__ }}", "attribute '__globals__'"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "attribute '__init__'"),
        ("{{ '{0.__class__}'.format(messages) }}", "attribute '__class__'"),
        ("{{ messages.append(1) }}", "may not do"),
        ("{{ 'a' * 99999999 }}", "too large"),
        ("{{ 9 ** 9 ** 9 }}", "too large"),
        ("{% for i in range(999999) %}x{% endfor %}", "Range too big"),
        ("{% include '/etc/passwd' %}", "failed"),
        ("{% import 'os' as os %}", "failed"),
        ("{{ raise_exception('Roles must alternate') }}", "failed: Roles must alternate"),
        ("{{ messages[7].content }}", "failed"),
        ("{{ 1 / 0 }}", "failed"),
    ],
)
def test_what_a_template_may_not_do(source, said):
    with pytest.raises(ConfigError, match=r"the chat template .*" + re.escape(said)):
        ChatTemplate(source).render(HELLO)


@pytest.mark.parametrize("source", ["{% if %}", "{{ 'a", "{% endfor %}", "{% generation %}", "{{" * 2000])
def test_a_damaged_template(source):
    with pytest.raises(ConfigError, match="the chat template is damaged"):
        ChatTemplate(source)


def test_where_the_template_of_a_folder_lies(tmp_path):
    with pytest.raises(ConfigError, match="has no chat template"):
        ChatTemplate.load(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    for found, text in (("a", "a"), ([{"name": "x", "template": "b"}, {"name": "default", "template": "c"}], "c")):
        config.write_text(json.dumps({"chat_template": found}))
        assert ChatTemplate.load(tmp_path).render(HELLO) == text
    (tmp_path / "chat_template.jinja").write_text("d")
    assert ChatTemplate.load(tmp_path).render(HELLO) == "d"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="byte 0: not UTF-8"):
        ChatTemplate.load(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    config.write_text('{"chat_template": 3}')
    with pytest.raises(CheckpointError, match="should be a text"):
        ChatTemplate.load(tmp_path)
    config.write_text('{"chat')
    with pytest.raises(CheckpointError, match="not valid JSON"):
        ChatTemplate.load(tmp_path)


# -- conversations -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    names = ["<|im_start|>", "<|im_end|>"]
    return ByteLevelBPE.train(["user assistant the cat sat on the mat 猫😀"] * 3, 290, names)


@pytest.fixture(scope="module")
def model(tokenizer):
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=200,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
    )
    model = Llama(config, rng=np.random.default_rng(3), dtype="float64").eval()
    for p in model.parameters():
        p.assign_(p.data + np.random.default_rng(4).normal(scale=0.3, size=p.shape))
    return model


@pytest.fixture
def conversation(model, tokenizer):
    return Conversation(model, tokenizer, ChatTemplate(CHATML), max_new_tokens=12)


def answer_without_a_cache(conversation, messages):
    """The answer to `messages`, everything computed anew."""
    ids = conversation.tokenizer.encode(conversation.template.render(messages))
    end = conversation.tokenizer.token_to_id("<|im_end|>")
    out = tl.generate(conversation.model, ids, max_new_tokens=conversation.max_new_tokens, eos_token_id=end)
    return conversation.tokenizer.decode(out[0][len(ids) :])


def test_several_turns_are_those_without_a_cache(conversation):
    for text in ("the cat", "on the mat?", "猫😀"):
        asked = [*conversation.messages, {"role": "user", "content": text}]
        assert "".join(conversation.say(text)) == answer_without_a_cache(conversation, asked)
    assert [m["role"] for m in conversation.messages] == ["user", "assistant"] * 3


def test_only_what_is_new_is_read(conversation, monkeypatch):
    lengths = []
    forward = Llama.forward
    monkeypatch.setattr(
        Llama, "forward", lambda self, ids, **k: (lengths.append(ids.shape[1]), forward(self, ids, **k))[1]
    )
    list(conversation.say("the cat sat on the mat, the cat sat on the mat"))
    first = lengths[0]
    lengths.clear()
    list(conversation.say("ok"))
    asked = conversation.template.render(conversation.messages[:3])
    assert lengths[0] <= len(conversation.tokenizer.encode(asked)) - first


def test_reset_and_the_system_message(model, tokenizer):
    talk = Conversation(model, tokenizer, ChatTemplate(CHATML), "be kind", max_new_tokens=5, seed=1, temperature=1.0)
    first = "".join(talk.say("the cat"))
    assert [m["role"] for m in talk.messages] == ["system", "user", "assistant"]
    "".join(talk.say("the mat"))
    talk.reset()
    assert talk.messages == [{"role": "system", "content": "be kind"}]
    assert "".join(talk.say("the cat")) == first


def test_an_answer_that_is_stopped_is_kept(conversation):
    pieces = conversation.say("the cat")
    first = next(pieces)
    pieces.close()
    assert conversation.messages[-1] == {"role": "assistant", "content": first}
    asked = [*conversation.messages, {"role": "user", "content": "go on"}]
    assert "".join(conversation.say("go on")) == answer_without_a_cache(conversation, asked)


def test_the_oldest_messages_give_way(conversation):
    for number in range(12):
        list(conversation.say(f"the cat sat on the mat {number}"))
    assert len(conversation.messages) == 24  # nothing that was said is lost
    with pytest.raises(ConfigError, match="this message is too long"):
        list(conversation.say("a b c " * 200))
    with pytest.raises(ConfigError, match="leaves no room"):
        Conversation(conversation.model, conversation.tokenizer, conversation.template, max_new_tokens=200)


def test_text_of_another_encoding(conversation):
    with pytest.raises(TokenizerError, match="not UTF-8: the byte 0xFF at character 2"):
        list(conversation.say(b"ab\xff".decode("utf-8", "surrogateescape")))
    assert conversation.messages == []


def test_a_cache_that_does_not_fit_is_refused(model, tokenizer):
    ids = tokenizer.encode("the cat")
    cache = model.new_cache()
    tl.generate(model, ids, max_new_tokens=3, cache=cache)
    with pytest.raises(ConfigError, match="crop the cache"):
        tl.generate(model, ids, max_new_tokens=3, cache=cache)
    with pytest.raises(ConfigError, match="cache is for a causal model"):
        tl.generate(model, ids, num_beams=2, cache=model.new_cache())


def test_characters_come_whole(tokenizer):
    text = "the 猫😀 sat 😀😀😀😀😀😀 on 猫"
    ids = [i for c in text for i in tokenizer.encode(c)]
    pieces = list(text_of((np.array([i]) for i in ids), tokenizer))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(text_of([np.array([i]) for i in tokenizer.encode("🙂")[:-1]], tokenizer)) == "\ufffd"


# -- the terminal ------------------------------------------------------------------------------------------------------


def spoken(conversation, *given):
    """What is printed for these lines; an exception among them is raised in its place."""
    out, lines = io.StringIO(), iter(given)

    def read(_):
        line = next(lines, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    talk(conversation, read, out)
    return out.getvalue()


def test_commands(conversation, tmp_path):
    file = tmp_path / "talk.json"
    out = spoken(conversation, "/help", "the cat", f"/save {file}", "/save", "/sve x", "/reset", "", "/exit", "never")
    answer = json.loads(file.read_text("utf-8"))[1]["content"]
    assert "/reset" in out
    assert f"{answer}\nSaved in {file}.\n" in out
    assert "needs the name of a file" in out
    assert "no command /sve; did you mean '/save'?" in out
    assert conversation.messages == []
    assert "cannot be written" in spoken(conversation, f"/save {tmp_path / 'none' / chr(0)}")


def test_control_c_keeps_the_conversation(conversation, monkeypatch):
    class Interrupting(io.StringIO):
        def flush(self):
            if self.getvalue():
                raise KeyboardInterrupt

    out = Interrupting()
    lines = iter(["the cat"])
    talk(conversation, lambda _: next(lines, None) or (_ for _ in ()).throw(EOFError), out)
    assert out.getvalue().endswith(" [stopped]\n")
    assert [m["role"] for m in conversation.messages] == ["user", "assistant"]
    assert "ends the conversation" in spoken(conversation, KeyboardInterrupt())
    assert len(conversation.messages) == 2


def test_a_line_of_another_encoding_does_not_end_the_conversation(conversation):
    out = spoken(conversation, UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "x"), "\udcff", "the cat")
    assert "that line is not UTF-8 (byte 0xFF)" in out
    assert "not UTF-8: the byte 0xFF at character 0" in out
    assert len(conversation.messages) == 2
