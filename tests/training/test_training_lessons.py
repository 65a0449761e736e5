"""Lessons are written as the package writes prompts, and what they teach is what a user should get."""

import json
import random

import numpy as np
import pytest

from llama_vision.backends.local.chat_template import SpecialToken, apply_chat_template
from llama_vision.core.messages import Image, Message, Text
from llama_vision.core.request import ChatRequest
from training import tools, words
from training.batches import IMAGE_SEQ_LEN, IMAGES, LONG_IMAGES, LONG_ROWS, LONG_SEQ_LEN, BatchMaker
from training.conversations import ConversationWriter
from training.images import scene
from training.phrases import PHRASES, phrase
from training.questions import Asker
from training.train import FIRST


def tokens(tokenizer, pieces):
    ids = []
    for piece in pieces:
        if isinstance(piece, str):
            ids += tokenizer.encode(piece, add_special_tokens=False).ids
        else:
            ids.append(tokenizer.token_to_id(piece.token if isinstance(piece, SpecialToken) else "<|image|>"))
    return ids


def turns_of(tokenizer, lesson):
    """Read a lesson back: who says what."""
    text = tokenizer.decode(lesson.ids, skip_special_tokens=False)
    for turn in text.split("<|start_header_id|>")[1:]:
        role, _, said = turn.partition("<|end_header_id|>\n\n")
        yield role, said.removesuffix("<|eot_id|>")


@pytest.mark.parametrize("seed", range(20))
def test_a_talk_about_a_image_is_the_prompt_of_the_same_talk(seed, tiny_tokenizer):
    chance = random.Random(seed)
    lesson = ConversationWriter(tiny_tokenizer, chance).about_image(scene(chance), 96)
    assert len(lesson.ids) <= 96
    said = []
    for role, text in turns_of(tiny_tokenizer, lesson):
        parts = [Image(data=b"x") if part == "<|image|>" else Text(part) for part in split_image(text)]
        said.append(Message(role, tuple(parts)))
    prompt = tokens(tiny_tokenizer, apply_chat_template(ChatRequest("tiny", tuple(said))))
    assert prompt[: len(lesson.ids)] == lesson.ids


def split_image(text):
    before, mark, after = text.partition("<|image|>")
    return [part for part in (before, mark, after) if part]


@pytest.mark.parametrize("longest", [LONG_SEQ_LEN, 2000])
@pytest.mark.parametrize("seed", range(20))
def test_only_what_the_model_says_is_taught(seed, longest, tiny_tokenizer):
    lesson = ConversationWriter(tiny_tokenizer, random.Random(seed)).with_tools(longest)
    assert len(lesson.ids) <= longest
    taught = tiny_tokenizer.decode(
        [token for token, mine in zip(lesson.ids, lesson.loss_mask, strict=True) if mine],
        skip_special_tokens=False,
    )
    spoken = [text for role, text in turns_of(tiny_tokenizer, lesson) if role == "assistant"]
    said = "".join(f"{text}<|eot_id|>" for text in spoken)
    assert taught
    assert said.startswith(taught)
    assert longest == LONG_SEQ_LEN or (taught == said and len(spoken) > 8), "cut though there was room"


def test_every_call_that_is_taught_stands_in_what_was_asked():
    chance = random.Random(4)
    for _ in range(300):
        offered, errand = tools.wanted(chance, most=3)
        call = json.loads(errand.call)
        assert call["name"] in {tool.name for tool in offered}
        assert list(call["parameters"]) == errand.tool.parameters["required"]
        for value in call["parameters"].values():
            assert str(value) in errand.asked


def test_the_second_call_of_a_chain_takes_what_the_first_returned():
    chance = random.Random(4)
    for _ in range(100):
        offered, _, (first, second), (found, _), _ = tools.chain(chance)
        assert {tool.name for tool in offered} == {first.tool.name, second.tool.name}
        assert list(second.arguments.values()) == list(json.loads(found).values())


def test_a_wish_can_be_had_for_any_tool_that_is_offered():
    chance = random.Random(4)
    for _ in range(300):
        offered, _ = tools.wanted(chance, most=3)
        for tool in offered:
            errand = tools.errand_with(chance, tool)
            assert errand.tool is tool
            assert list(errand.arguments) == tool.parameters["required"]
            assert all(str(value) in errand.asked for value in errand.arguments.values())


def test_the_longest_list_has_room_in_a_talk_about_a_image(tiny_tokenizer):
    """What is never taught whole is never learnt: six different things, asked for as JSON."""
    chance, lengths = random.Random(1), []
    for _ in range(400):
        question = Asker(chance).ask(scene(chance, count=6), "json")
        answer = tiny_tokenizer.encode(question.answer, add_special_tokens=False).ids
        lengths.append(len(answer) + 40)  # for the question and what is around it
    assert max(lengths) <= IMAGE_SEQ_LEN


def test_the_last_phrase_of_each_kind_is_kept_from_training():
    filled = {
        "shape": "star",
        "color": "red",
        "thing": "star",
        "things": "stars",
        "a_thing": "a star",
        "noun": "word",
    }
    filled |= {"place": "top", "word": "EXIT", "which": "first"}
    chance = random.Random(1)
    for kind, phrases in PHRASES.items():
        kept = {phrases[-1].format(colour=colour, **filled) for colour in ("color", "colour")}
        assert phrase(chance, kind, unheard=True, **filled) in kept
        assert not kept & {phrase(chance, kind, **filled) for _ in range(300)}


def test_words_that_are_said_back_stand_in_the_question():
    chance = random.Random(1)
    for _ in range(300):
        asked, answer, kind = words.talk(chance)
        if kind == "echo":
            assert asked.endswith(answer)
        elif kind == "json":
            assert all(str(value) in asked for value in json.loads(answer).values())


def test_batches_have_fixed_shapes_and_the_same_seed_makes_the_same_ones():
    one, other = BatchMaker(FIRST, 3), BatchMaker(FIRST, 3)
    images, talks = one.images(), one.talks()
    assert images.ids.shape == (IMAGES, IMAGE_SEQ_LEN)
    assert talks.ids.shape == (LONG_ROWS, LONG_SEQ_LEN)
    assert talks.tiles.shape[0] == LONG_IMAGES
    np.testing.assert_array_equal(other.images().ids, images.ids)
    np.testing.assert_array_equal(other.talks().tiles, talks.tiles)
    sees = talks.image_mask[:, :, 0].any(1)
    assert sees.tolist() == [True] * LONG_IMAGES + [False] * (LONG_ROWS - LONG_IMAGES)
