"""Cleaning: what is removed, what must survive, and that a step done twice is a step done once."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm import text as tt


def test_clean_composes_the_steps():
    raw = "<h1>Tom &amp; Jerry\u2122</h1>\r\n<p>caf\u0065\u0301\x07 \u2605  now</p><script>if (a < b) x()</script>"
    assert tt.clean(raw) == "Tom & Jerry\n\ncafé now"


def test_each_step_can_be_left_out():
    raw = "<b>x</b> &lt; y\x07\u2605  e\u0301"
    left_out = {
        "html": "<b>x</b> < y é",
        "entities": "x &lt; y é",
        "control": "x < y\x07 é",
        "unicode": "x < y e\u0301",
        "symbols": "x < y\u2605 é",
        "white_space": "x < y   é",
    }
    for step, expected in left_out.items():
        assert tt.clean(raw, **{step: False}) == expected
    assert tt.clean(raw, **dict.fromkeys(left_out, False)) == raw


@pytest.mark.parametrize(
    ("html", "plain"),
    [
        ("<b>bold</b>face", "boldface"),
        ('<a href="http://x.org/?q=1&r=2" target=_blank>link</a>', "link"),
        ("one<br/>two<BR>three", "one\ntwo\nthree"),
        ("<p class='a>b'>One</p>", "\nOne\n"),
        ("<tr><td>1</td><td>2</td></tr>", "\n 1  2 \n"),
        ("<!DOCTYPE html><?xml version='1.0'?>x", "x"),
        ("a<!-- <b> -- > -->b<!-- never closed", "ab<!-- never closed"),
        ("a<STYLE type='text/css'>b > i {}</style >b", "ab"),
        ("a<script>x < y</script>b<script>never closed", "ab<script>never closed"),
        ("<doc id=3>text</doc>", "text"),
        ("<input type=text disabled />", ""),
    ],
)
def test_strip_html(html, plain):
    assert tt.strip_html(html) == plain


@pytest.mark.parametrize(
    "kept",
    [
        "if a < b and c > d:",
        "if a<b and c>d:",
        "x<y",
        "0 <= i <n",
        "std::vector<int> v; map<string, list<T>> m;",
        "#include <stdio.h>",
        "<- arrow ->",
        "i <3 you",
        "for (i=0;i<n;i++) a[i]>>=1",
        "1<2>1",
        "<",
        "<>",
    ],
)
def test_what_only_looks_like_a_tag_survives(kept):
    assert tt.strip_html(kept) == kept
    assert tt.clean(kept) == kept


def test_strip_html_is_linear_on_hostile_text():
    for piece in ("<!--", "<a ", "<script>", '<a b="', "<a b=c ", "<p" + " " * 50):
        assert len(tt.strip_html(piece * 20_000)) == len(piece) * 20_000


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("&lt;b&gt; &amp;amp; &#65;&#x4e2d;", "<b> &amp; A中"),
        ("/?a=1&copy=2 AT&T &nosuch; &;", "/?a=1&copy=2 AT&T &nosuch; &;"),
    ],
)
def test_decode_entities(text, plain):
    assert tt.decode_entities(text) == plain


def test_controls_go_and_joiners_stay():
    assert tt.remove_control_characters("a\x00b\x1bc\x7fd\x9f\ufeff\u200be\ud800\tf\r\n") == "abcde\tf\r\n"
    assert tt.remove_control_characters("a\x0bb\x85c\x1fd") == "a\nb\nc d"
    assert tt.remove_control_characters("می\u200cخواهم") == "می\u200cخواهم"


def test_special_symbols_go_and_signs_stay():
    assert tt.remove_special_symbols("★a ☎️ b👩‍💻👍🏽c 🇫🇷 1️⃣") == " a   b c   1 "
    kept = "a+b=c €5 $3 «x» “q” — … 20°C 50% ±∞ 中文，。 क्‍ष # @ ^ ` ~"
    assert tt.remove_special_symbols(kept) == kept
    assert tt.remove_special_symbols("©®", keep="©") == "© "
    assert tt.remove_special_symbols("20°", keep="") == "20 "


def test_white_space():
    assert tt.normalize_white_space("  a \t b\u3000c\r\n\r\n\r\n\r\nd\re\u2028f \n g\n") == "a b c\n\nd\ne\nf\ng"


@given(st.text())
def test_steps_reach_their_end_in_one_go(text):
    for step in (
        tt.remove_control_characters,
        tt.normalize_unicode,
        tt.remove_special_symbols,
        tt.normalize_white_space,
    ):
        once = step(text)
        assert step(once) == once


@given(st.text())
def test_clean_text_has_no_controls_and_can_be_written(text):
    cleaned = tt.clean(text)
    cleaned.encode("utf-8")
    assert not any(unicodedata.category(c) == "Cc" and c not in "\n" for c in cleaned)
    assert "  " not in cleaned


@given(st.text(alphabet="ab <>/=\"'pb!-", max_size=30))
def test_strip_html_removes_only(text):
    stripped = tt.strip_html(text).replace("\n", "").replace(" ", "")
    rest = iter(text)
    assert all(c in rest for c in stripped)  # a subsequence
