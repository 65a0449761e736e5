"""Texts of others as HTML and on terminals."""

import pytest

from llama_vision import PROVIDERS, Reply, ToolCall, Usage
from llama_vision.core.formatting import (
    MAX_CHARACTERS,
    escape_html,
    format_cost,
    format_reply,
    format_usage,
    html_note,
    html_table,
    html_text,
    sanitize,
)

ATTACK = "<script>alert('1')</script><img src=x onerror=\"alert(2)\"> & $x$"
HARMLESS = "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&lt;img src=x onerror=&quot;alert(2)&quot;&gt; &amp; $x$"


@pytest.mark.parametrize(
    "shown", [escape_html, html_text, html_note, lambda text: html_table([text], [[text]])]
)
def test_markup_in_a_text_is_shown_and_never_taken_for_markup(shown):
    html = shown(ATTACK)
    assert HARMLESS in html
    assert "<script" not in html
    assert "<img" not in html


def test_formulas_are_looked_for_nowhere():
    assert html_text("$1").startswith("<pre")  # where notebooks leave dollars alone
    assert 'class="mathjax_ignore"' in html_note("$1")
    assert 'class="mathjax_ignore"' in html_table((), [["$1 to $2"]])


def test_control_characters_are_spelt_out():
    assert sanitize("a\x1b[31m\r\x00\x9bb\n\tc") == "a\\x1b[31m\\x0d\\x00\\x9bb\n\tc"
    assert escape_html("\x1b<") == "\\x1b&lt;"


def test_long_texts_end_and_say_so():
    assert sanitize("x" * MAX_CHARACTERS) == "x" * MAX_CHARACTERS
    assert sanitize("x" * (MAX_CHARACTERS + 1_234)) == "x" * MAX_CHARACTERS + "... (1,234 characters more)"
    assert sanitize("abcdef", 3) == "abc... (3 characters more)"
    assert len(html_text("<" * 1_000_000)) < 5 * MAX_CHARACTERS


def test_a_reply_in_words_has_its_calls():
    calls = [ToolCall("1", "add", '{"a": 1}'), ToolCall(None, "<b>\x1b", "x" * 600)]
    assert format_reply("Let me see.", calls).splitlines() == [
        "Let me see.",
        '-> add({"a": 1})',
        f"-> <b>\\x1b({'x' * 500}... (100 characters more))",
    ]
    assert format_reply("", []) == ""
    assert format_reply("", calls[:1]) == '-> add({"a": 1})'


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        (Usage(), "tokens not told, cost not told"),
        (Usage(1_234, 5), "1,234 tokens in, 5 out, cost not told"),
        (Usage(None, 5), "? tokens in, 5 out, cost not told"),
        (Usage(1, 2, cost_usd=0.0), "1 tokens in, 2 out, 0.000000 USD"),
        (Usage(1, 2, None, 0.00012, True), "1 tokens in, 2 out, about 0.000120 USD"),
    ],
)
def test_usage_in_words_never_makes_nothing_of_what_nobody_told(usage, words):
    assert format_usage(usage) == words


@pytest.mark.parametrize(
    ("usage", "decimals", "text"),
    [
        (Usage(), 6, "cost not told"),
        (Usage(cost_usd=0.00012), 6, "$0.000120"),
        (Usage(cost_usd=0.0000268, cost_is_estimate=True), 7, "$0.0000268 (estimated)"),
    ],
)
def test_a_cost_on_the_command_line_has_a_dollar_sign(usage, decimals, text):
    assert format_cost(usage, dollar_sign=True, decimals=decimals) == text


def test_a_reply_shows_itself():
    html = Reply(ATTACK, (ToolCall("1", "look", "{}"),), Usage(12, 3))._repr_html_()
    assert f"{HARMLESS}\n-&gt; look({{}})" in html
    assert "12 tokens in, 3 out, cost not told" in html


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
def test_a_provider_shows_itself(provider):
    html = provider._repr_html_()
    assert provider.title in html
    assert all(name in html for name in provider.key_env)
    assert all(model.name in html for model in provider.models)
    assert ("address" in html) == (provider.base_url is not None)


def test_tables_put_numbers_at_the_right():
    html = html_table(["who", "seconds"], [["a", "1.0"]], numbers=["seconds"])
    assert html.count("text-align: right") == 2
    assert html.count("text-align: left") == 2
    assert "<thead>" in html
    assert "<thead>" not in html_table((), [["a", "b"]])


def test_a_row_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="longer"):
        html_table(["a", "b"], [["1"]])
