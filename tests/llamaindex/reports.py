"""Forty drawn pages in four PDFs, and sixty questions about them that the tiny model can read the answers to."""

import random
from dataclasses import dataclass

from llama_index.core.prompts import RichPromptTemplate
from PIL import Image, ImageDraw

from tests.drawing import COLORS, SHAPES, SIDE, scene, sign
from tests.pdfs import scan_pdf

TOPICS = """\
coffee harvest in Ethiopia|bicycle sales in Denmark|penguins of Antarctica|school lunches in Japan|repair of church roofs
wind turbines at sea|rents in Lisbon|goals of the football league|bread prices|night trains to Vienna
honey bees and pollen|visitors of the opera|dental care of children|snow in the Alps|wages of nurses
used cars at auction|salmon in Norwegian rivers|library loans|traffic noise near airports|solar panels on barns
tulip bulbs for export|chess tournaments|earthquakes in Chile|vaccination of dogs|cinema tickets on Mondays
forest fires in Portugal|glass recycling|marathon runners|whales near Iceland|cheese dairies in France
piano lessons|water levels of the Rhine|shoe factories in Vietnam|space telescopes|potato diseases
ferry delays|museum thefts|gold mines in Ghana|sleep of teenagers|wedding dresses""".replace("\n", "|").split(
    "|"
)
# One for each topic, without the words of its title.
PARAPHRASES = [
    "How much did growers of arabica around Addis Ababa pick?",
    "How many two-wheelers do shops in Copenhagen and Aarhus sell?",
    "How are the flightless birds on the southern ice doing?",
    "What do pupils in Tokyo get to eat at midday?",
    "What does it cost to mend the tiles over a parish's altar?",
    "How much electricity comes from turning blades off the coast?",
    "What do tenants pay for a flat in Portugal's capital?",
    "Who scored how often in the soccer championship?",
    "How dear has a loaf at the baker's become?",
    "Which sleeper services run to Austria's capital?",
    "What do hives in the meadow collect from flowers?",
    "How many people heard arias at the music theatre?",
    "Who looks after the teeth of kids?",
    "How deep does it lie on the ski slopes this winter?",
    "What does hospital staff at the bedside earn?",
    "What do second-hand vehicles fetch under the hammer?",
    "What swims up the streams of the fjord country?",
    "How many books do readers borrow?",
    "How loud is it for those who live below the flight path?",
    "Which farm sheds make power from daylight?",
    "Which flowers do Dutch growers ship abroad before spring?",
    "Where do grandmasters meet over the board?",
    "Where did the ground shake along the Andes?",
    "Which shots do puppies get from the vet?",
    "What does it cost to see a film at the beginning of the week?",
    "Where did woodland burn on the Iberian coast?",
    "What becomes of empty bottles and jars?",
    "Who ran all the 42 kilometres?",
    "Which giants of the sea surface off Reykjavik?",
    "Who makes Brie and Camembert?",
    "How do beginners learn the keyboard?",
    "How high does the river stand in Cologne?",
    "Which plants near Hanoi stitch sneakers and boots?",
    "Which instruments look at galaxies from orbit?",
    "What makes spuds rot in the field?",
    "Why does the boat to the island arrive late?",
    "What did burglars carry away from the galleries?",
    "Where in West Africa is precious metal dug out?",
    "How long do adolescents stay in bed?",
    "What do brides put on for the ceremony?",
]
# The tiny model knows questions and no instructions: it gets the image and what follows the colon.
TEMPLATE = RichPromptTemplate(
    "{% chat role='user' %}{{ (query_str.split(': ') | last) }}{% endchat %}", template_vars=["query_str"]
)
CELLS = [(column, row) for row in range(3) for column in range(3)]


@dataclass(frozen=True, slots=True)
class Question:
    """A question, once with the page's title and once without, the page it is about, and the right answer."""

    text: str
    paraphrase: str
    citation: str
    truth: str


def draw(folder, seed=11):
    """Write the four PDFs, and give the questions."""
    chance = random.Random(seed)
    numbers = chance.sample(range(100, 1000), 20)
    kinds = [_sign_page] * 20 + [_chart_page] * 10 + [_scene_page] * 10
    chance.shuffle(kinds)
    asked, files = [], [[], [], [], []]
    for place, (topic, paraphrase, kind) in enumerate(zip(TOPICS, PARAPHRASES, kinds, strict=True)):
        image, answers = kind(chance, numbers)
        file = place % 4
        files[file].append((image, f"Report on {topic}"))
        cited = f"report{file + 1}.pdf, p. {len(files[file])}"
        asked += [
            Question(f"Report on {topic}: {question}", f"{paraphrase}: {question}", cited, truth)
            for question, truth in answers
        ]
    for number, pages in enumerate(files, start=1):
        (folder / f"report{number}.pdf").write_bytes(scan_pdf(*pages))
    return asked


def _sign_page(chance, numbers):
    number = str(numbers.pop())
    return sign(number, chance.choice(sorted(COLORS))), [("What does the sign say?", number)]


def chart(bars):
    """Draw bars of (colour, height from 1 to 8)."""
    image = Image.new("RGB", (SIDE, SIDE), (250, 250, 250))
    draw = ImageDraw.Draw(image)
    pitch = (SIDE - 24) / len(bars)
    for place, (color, height) in enumerate(bars):
        left = 16 + (place + 0.15) * pitch
        draw.rectangle([left, SIDE - 16 - height * 23, left + 0.7 * pitch, SIDE - 16], fill=COLORS[color])
    draw.line([14, 6, 14, SIDE - 16, SIDE - 6, SIDE - 16], fill=(60, 60, 60), width=2)
    return image


def _chart_page(chance, _):
    count = chance.randint(2, 5)
    colors, heights = chance.sample(sorted(COLORS), count), chance.sample(range(1, 9), count)
    bars = sorted(zip(heights, colors, strict=True))
    answers = [("Which bar is the tallest?", bars[-1][1]), ("Which bar is the shortest?", bars[0][1])]
    return chart(list(zip(colors, heights, strict=True))), answers


def _scene_page(chance, _):
    shapes, colors = chance.sample(SHAPES, 2), chance.sample(sorted(COLORS), 2)
    cells = chance.sample(CELLS, 2)
    image = scene(*((color, shape, *cell) for color, shape, cell in zip(colors, shapes, cells, strict=True)))
    answers = [(f"What color is the {shape}?", color) for shape, color in zip(shapes, colors, strict=True)]
    return image, answers
