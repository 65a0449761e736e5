"""The reference has every public name, and every public name says what it takes, gives and is."""

import subprocess
import sys
import zlib
from pathlib import Path

import griffe
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser import needs_browser, open_browser
from tests.docs.markdown import ROOT

SOURCE = ROOT / "src"


def public_modules(module):
    """Give all modules that say what is public in them."""
    if module.exports is not None:
        yield module
    for inner in module.modules.values():
        if not inner.is_alias:
            yield from public_modules(inner)


PACKAGE = griffe.load("llama_vision", search_paths=[str(SOURCE)], docstring_parser="google")
NAMES = sorted(
    (module.path, name)
    for module in public_modules(PACKAGE)
    for name in map(str, module.exports)
    if not name.startswith("__")
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The documentation, as `make docs` makes it: any warning fails it."""
    folder = tmp_path_factory.mktemp("docs")
    command = ("-W", "error", "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder))
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        check=False,
        text=True,
        cwd=ROOT,
        env={"NO_MKDOCS_2_WARNING": "1"},  # about the future of the tool, for who runs it by hand
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


def listed(folder):
    """Read which names the reference has."""
    inventory = (folder / "objects.inv").read_bytes()
    lines = zlib.decompress(inventory[inventory.index(b"zlib.\n") + 6 :]).decode().splitlines()
    return {line.split()[0] for line in lines}


def test_every_public_name_is_in_the_reference(built):
    """What has no docstring isn't listed either."""
    assert len(NAMES) > 60
    missing = {f"{module}.{name}" for module, name in NAMES} - listed(built)
    assert not missing, f"add `::: {min(missing).rpartition('.')[0]}` to a page of docs/reference"


def test_every_error_is_in_the_reference(built):
    errors = PACKAGE["core.errors"]
    classes = {member.path for member in errors.members.values() if not member.is_alias and member.is_class}
    assert len(classes) > 20
    assert classes <= listed(built)


def test_nothing_is_fetched_while_reading(built):
    """No font, script, style or image of another host."""
    for page in built.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        for start in ('src="http', "src=http", '<link rel="stylesheet" href="http', 'rel="preconnect"'):
            assert start not in html, page.name
        assert 'class="mermaid"' not in html, "Material fetches Mermaid from another host"


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("page", ["index.html", "reference/core.html"])
def test_the_pages_are_searched_when_they_are_opened_from_the_disk(built, tmp_path, page):
    with open_browser(tmp_path / "profile") as browser:
        browser.set_window_size(1400, 900)
        browser.get((built / page).as_uri())
        browser.find_element(By.CSS_SELECTOR, "input.md-search__input").send_keys("proxy")
        found = WebDriverWait(browser, 60).until(
            lambda page: page.find_elements(By.CSS_SELECTOR, ".md-search-result__item a")
        )
        assert found[0].get_attribute("href") == (built / "connections.html").as_uri()
        assert browser.get_log("browser") == []


def documented(module, name):
    """Give an object and what is public in it."""
    thing = PACKAGE[f"{module}.{name}".removeprefix("llama_vision.")]
    thing = thing.final_target if thing.is_alias else thing
    yield thing
    if thing.is_class:
        yield from (
            member
            for inner, member in thing.members.items()
            if not inner.startswith("_") and member.is_function and not _overrides(member)
        )


def _overrides(function):
    """Tell whether its base explains it."""
    return any(str(decorator.value).endswith("override") for decorator in function.decorators)


@pytest.mark.parametrize(("module", "name"), NAMES, ids=lambda part: part.removeprefix("llama_vision."))
def test_a_public_name_says_what_it_takes_and_gives(module, name):
    for thing in documented(module, name):
        assert thing.docstring, f"{thing.path} has no docstring"
        if not thing.is_function or "ee `" in thing.docstring.value:  # "see `Backend.stream`" says it all
            continue
        sections = {section.kind.value for section in thing.docstring.parsed}
        takes = [given.name for given in thing.parameters if given.name not in {"self", "cls"}]
        assert not takes or "parameters" in sections, f"{thing.path} doesn't say what it takes"
        gives = str(thing.returns or None) != "None"
        assert not gives or sections & {"returns", "yields"}, f"{thing.path} doesn't say what it gives"


def test_a_name_without_a_docstring_is_noticed(tmp_path: Path):
    """The checks above are no better than what they look at."""
    (tmp_path / "bare.py").write_text('__all__ = ["f"]\ndef f(x: int) -> int: return x\n')
    module = griffe.load("bare", search_paths=[str(tmp_path)])
    assert [str(name) for name in module.exports] == ["f"]
    assert not module["f"].docstring
