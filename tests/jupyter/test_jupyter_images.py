"""Images beside each other."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from llama_vision.core.errors import ImageError
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.jupyter import ImageGrid, show_images

ATTACK = '"><script>alert(1)</script>'


def images_in(html):
    """The images that a page shows, decoded."""
    found = re.findall(r'src="data:(image/\w+);base64,([^"]+)"', html)
    return [(kind, Image.open(io.BytesIO(base64.b64decode(data)))) for kind, data in found]


def noise(width, height):
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8))


def test_each_image_is_shown_with_its_name():
    html = ImageGrid(list(SAMPLE_IMAGES.values()))._repr_html_()
    assert [kind for kind, _ in images_in(html)] == ["image/png"] * 3
    assert re.findall(r"<figcaption[^>]*>([^<]*)<", html) == ["circle.png", "shapes.png", "sign.png"]


def test_all_kinds_of_images_are_taken():
    path = SAMPLE_IMAGES["circle"]
    data = path.read_bytes()
    address = "data:image/png;base64," + base64.b64encode(data).decode()
    grid = ImageGrid([path, str(path), data, Image.open(path), np.zeros((20, 30, 3), np.uint8), address])
    assert len(images_in(grid._repr_html_())) == 6
    assert grid.captions == ["circle.png", "circle.png", *[f"image {number}" for number in (3, 4, 5, 6)]]


@pytest.mark.parametrize(
    "one", [SAMPLE_IMAGES["sign"], str(SAMPLE_IMAGES["sign"]), SAMPLE_IMAGES["sign"].read_bytes()]
)
def test_one_image_needs_no_list(one):
    assert len(images_in(ImageGrid(one)._repr_html_())) == 1


def test_a_mapping_has_captions():
    assert ImageGrid({"a": SAMPLE_IMAGES["sign"], "b": SAMPLE_IMAGES["circle"]}).captions == ["a", "b"]
    assert ImageGrid(SAMPLE_IMAGES.values(), "xyz").captions == ["x", "y", "z"]


def test_captions_are_never_taken_for_html():
    html = ImageGrid([SAMPLE_IMAGES["sign"]], [ATTACK])._repr_html_()
    assert "<script" not in html
    assert (
        html.count("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    )  # the caption, and the alternative text


def test_names_of_files_are_never_taken_for_html(tmp_path):
    path = tmp_path / "<b onclick=x>.png"
    path.write_bytes(SAMPLE_IMAGES["sign"].read_bytes())
    assert "<b " not in ImageGrid([path])._repr_html_()


def test_long_captions_end():
    html = ImageGrid([SAMPLE_IMAGES["sign"]], ["x" * 1_000_000])._repr_html_()
    assert len(html) < 20_000


@pytest.mark.parametrize("width", [50, 200])
def test_large_images_are_kept_small(width):
    (kind, shown), *_ = images_in(ImageGrid(noise(3000, 1500), width=width)._repr_html_())
    assert shown.size == (1.5 * width, 0.75 * width // 1)
    assert kind == "image/jpeg"


def test_many_photographs_make_no_large_page():
    photograph = noise(800, 800)
    assert len(ImageGrid([photograph] * 3, width=500)._repr_html_()) < 3 * 60_000


def test_small_images_are_not_scaled_up():
    (_, shown), *_ = images_in(ImageGrid(noise(30, 20))._repr_html_())
    assert shown.size == (30, 20)


def test_nothing_of_a_photographs_exif_data_is_shown():
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    noise(600, 600).save(file, "JPEG", exif=exif)
    (_, shown), *_ = images_in(ImageGrid(file.getvalue())._repr_html_())
    assert not shown.getexif()


def test_more_than_a_hundred_are_counted():
    grid = ImageGrid([SAMPLE_IMAGES["circle"]] * 103)
    assert len(images_in(grid._repr_html_())) == 100
    assert "... and 3 more" in grid._repr_html_()
    assert repr(grid).splitlines()[99:] == ["[circle.png] circle.png", "... and 3 more"]


def test_columns():
    assert "repeat(auto-fill, 200px)" in ImageGrid([SAMPLE_IMAGES["sign"]])._repr_html_()
    assert "repeat(2, 90px)" in ImageGrid([SAMPLE_IMAGES["sign"]], columns=2, width=90)._repr_html_()


def test_a_terminal_gets_a_line_for_each(capsys):
    show_images([SAMPLE_IMAGES["sign"], SAMPLE_IMAGES["circle"]], captions=["a\x1b[31m sign", 7])
    assert capsys.readouterr().out == "[sign.png] a\\x1b[31m sign\n[circle.png] 7\n"


def test_a_broken_image_is_named():
    with pytest.raises(ImageError, match=r"^Image 2: This is not an image"):
        ImageGrid([SAMPLE_IMAGES["sign"], b"nothing"])


def test_addresses_are_never_fetched():
    with pytest.raises(ImageError, match=r"^Image 1: It is given by its address"):
        ImageGrid(["https://127.0.0.1:1/x.png"])


@pytest.mark.parametrize("wrong", [{"captions": ["a", "b"]}, {"columns": 0}, {"width": 0}])
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match=r"captions for 1 images|1 or more"):
        ImageGrid([SAMPLE_IMAGES["sign"]], **wrong)
