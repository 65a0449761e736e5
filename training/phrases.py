"""Phrasings of questions about an image. The last one of each kind is held out from training.

`{colour}` is the word color or colour; the rest of the braces are filled by `questions`.
"""

from random import Random

PHRASES: dict[str, tuple[str, ...]] = {
    "color": (
        "What {colour} is the {shape}?",
        "Which {colour} is the {shape}?",
        "What is the {colour} of the {shape}?",
        "What {colour} does the {shape} have?",
        "Tell me the {colour} of the {shape}.",
        "The {shape} is what {colour}?",
        "Name the {colour} of the {shape}.",
        "What {colour} is the {shape} in the picture?",
        "Is the {shape} red, green, blue or another {colour}?",
        "Can you tell me which {colour} the {shape} is?",
    ),
    "color_of_all": (
        "What {colour} is it?",
        "What {colour} is this?",
        "What is the {colour}?",
        "What {colour} is the object?",
        "What {colour} is the shape?",
        "Which {colour} do you see?",
    ),
    "shape": (
        "What shape is {color}?",
        "What shape is the {color} object?",
        "What is the {color} shape?",
        "Which shape is {color}?",
        "What shape is the {color} one?",
        "What is the {color} thing?",
        "Name the {color} shape.",
        "What {color} shape is there?",
        "Tell me the shape of the {color} object.",
    ),
    "shape_of_all": (
        "What shape is it?",
        "What shape is this?",
        "What is the shape?",
        "What shape is the object?",
        "Which shape do you see?",
    ),
    "where": (
        "Where is the {thing}?",
        "Where is the {thing} in the image?",
        "In which part of the picture is the {thing}?",
        "What is the position of the {thing}?",
        "Where do you see the {thing}?",
        "Where can I find the {thing}?",
        "The {thing} is where?",
        "Locate the {thing}.",
        "Tell me the position of the {thing}.",
        "Tell me where the {thing} is.",
        "Whereabouts is the {thing}?",
    ),
    "at": (
        "What is in the {place}?",
        "What is at the {place}?",
        "What do you see in the {place}?",
        "Which object is in the {place}?",
        "Name what is in the {place}.",
        "What can be found in the {place}?",
    ),
    "count_all": (
        "How many objects are there?",
        "How many shapes are there?",
        "Count the objects.",
        "Count the shapes.",
        "How many things are in the picture?",
        "How many objects do you see?",
        "How many shapes can you see?",
        "Count everything.",
        "How many are there?",
        "Tell me how many objects there are.",
        "How many things are there in total?",
        "What is the number of objects?",
    ),
    "count": (
        "How many {things} are there?",
        "How many {things} do you see?",
        "Count the {things}.",
        "Count all {things}.",
        "What is the number of {things}?",
        "Give the number of {things}.",
        "Tell me how many {things} there are.",
        "Number of {things}?",
        "How many {things}?",
        "Can you count the {things}?",
        "How many {things} are in the image?",
        "How many {things} can you see?",
        "How many {things} does the picture show?",
        "Tell me the number of {things}.",
    ),
    "exists": (
        "Is there {a_thing}?",
        "Is there {a_thing} in the picture?",
        "Do you see {a_thing}?",
        "Can you see {a_thing}?",
        "Does the image show {a_thing}?",
        "Is {a_thing} in the picture?",
        "Is there {a_thing} in this image?",
        "Can {a_thing} be seen?",
        "Is {a_thing} there?",
        "Does this have {a_thing}?",
        "Does the picture have {a_thing}?",
    ),
    "describe": (
        "Describe the image.",
        "What is in the image?",
        "Describe this picture.",
        "What do you see?",
        "Describe the picture.",
        "What does the picture show?",
        "What is this?",
        "What is in this picture?",
        "Caption this image.",
        "Write a caption.",
        "Give a description of the picture.",
        "Tell me what the image shows.",
    ),
    "kind": (
        "What kind of picture is this?",
        "What type of image is this?",
        "What kind of image is it?",
        "Which kind of picture is it?",
    ),
    "json": (
        "List the objects as JSON.",
        "Return a JSON list of the objects.",
        "Give the objects as JSON.",
        "Return the objects as a JSON list.",
        "List everything in JSON.",
        "What objects are there? Answer in JSON.",
        "Return JSON.",
        "Describe the objects in JSON.",
    ),
    "json_of_one": (
        'Return JSON with keys "shape" and "color".',
        "Give the shape and color as JSON.",
        "Return the shape and the color as JSON.",
        "Answer with JSON: shape and color.",
    ),
    "read": (
        "What does the sign say?",
        "Read the sign.",
        "What is written in the image?",
        "What text is shown?",
        "What {noun} is shown?",
        "Read the {noun}.",
        "Read the text in the image.",
        "What does it say?",
        "What is on the sign?",
        "Which {noun} is on the sign?",
        "What {noun} do you see?",
        "What is written on the sign?",
        "What is the text?",
        "Transcribe the text.",
        "Can you read the sign?",
    ),
    "says": (
        'Does the sign say "{word}"?',
        "Does the sign say {word}?",
        "Is the {noun} {word}?",
        "Is {word} written on the sign?",
    ),
    "sign_color": (
        "What {colour} is the sign?",
        "Which {colour} is the sign?",
        "What is the {colour} of the sign?",
        "What {colour} is it?",
        "Tell me the {colour} of the sign.",
    ),
    "json_of_sign": (
        'Return JSON with keys "text" and "color".',
        "Give the text and color as JSON.",
        "Return the text and the color as JSON.",
        "Answer with JSON: text and color.",
    ),
    "bars": (
        "How many bars are there?",
        "Count the bars.",
        "How many bars does the chart have?",
        "How many bars do you see?",
    ),
    "tallest": (
        "Which bar is the tallest?",
        "What {colour} is the tallest bar?",
        "Which bar is the highest?",
        "What is the {colour} of the highest bar?",
        "Which {colour} has the tallest bar?",
    ),
    "shortest": (
        "Which bar is the shortest?",
        "What {colour} is the shortest bar?",
        "Which bar is the lowest?",
        "What is the {colour} of the lowest bar?",
        "Which {colour} has the shortest bar?",
    ),
    "bar_at": (
        "What {colour} is the {which} bar?",
        "Which {colour} is the {which} bar?",
        "What is the {colour} of the {which} bar?",
        "Tell me the {colour} of the {which} bar.",
    ),
}

_BEFORE = (
    "Look at the picture. ",
    "Please answer: ",
    "In this picture: ",
    "Hi! ",
    "Question: ",
    "About the image: ",
)
_AFTER = (
    " Answer with one word.",
    " Answer briefly.",
    " Be brief.",
    " Answer in one word.",
    " Thanks!",
    " Please.",
)


def phrase(chance: Random, kind: str, *, unheard: bool = False, **words: str) -> str:
    """Choose a phrasing.

    Args:
        chance: Draws the lots.
        kind: Which question.
        unheard: Take the phrase that training leaves out.
        words: What goes into the braces.

    Returns:
        The question; one in training may have a few words around it.
    """
    colour = chance.choice(("color", "colour"))
    if unheard:
        return PHRASES[kind][-1].format(colour=colour, **words)
    return chance.choice(PHRASES[kind][:-1]).format(colour=colour, **words)


def carelessly(chance: Random, question: str) -> str:
    """Vary a question as people do: text around it, lower case, or no question mark."""
    lot = chance.random()
    if lot < 0.1:
        return chance.choice(_BEFORE) + question
    if lot < 0.2:
        return question + chance.choice(_AFTER)
    if lot < 0.27:
        return question[0].lower() + question[1:]
    if lot < 0.34:
        return question.rstrip("?.")
    return question
