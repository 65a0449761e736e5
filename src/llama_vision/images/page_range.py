"""Which pages of a document are asked for: `2-4`, `1,3`, `5-`."""

import re

from llama_vision.core.errors import DocumentError

_PART = re.compile(r"\s*(?:(\d{1,9})(?:\s*(-)\s*(\d{1,9})?)?|-\s*(\d{1,9}))\s*", re.ASCII)


def select_pages(pages: str | None, page_count: int, *, name: str, max_pages: int | None) -> list[int]:
    """Choose the numbers of pages, from 1, in the order asked for.

    Args:
        pages: Numbers and ranges, separated by commas; None for all.
        page_count: How many pages there are.
        name: The document's name, for the errors.
        max_pages: How many pages may be chosen; None for no limit.

    Returns:
        The numbers, each once.

    Raises:
        DocumentError: It is no such list, names a page that there is not, or chooses too many.
    """
    ranges = _ranges(pages, page_count)
    for first, last in ranges:
        if not 1 <= first <= last <= page_count:
            raise DocumentError(
                f"{name} has {_count(page_count)}, and pages={pages!r} asks for others. Pages are numbered from 1."
            )
    total = sum(last - first + 1 for first, last in ranges)
    if max_pages is not None and total > max_pages:
        raise DocumentError(
            f"{total} pages of {name} are asked for, more than the limit of {max_pages}. Choose some, such as "
            f"pages='1-{max_pages}', ask about them in several requests, or raise the limit."
        )
    return list(dict.fromkeys(number for first, last in ranges for number in range(first, last + 1)))


def _ranges(pages: str | None, page_count: int) -> list[tuple[int, int]]:
    if pages is None:
        return [(1, page_count)]
    ranges: list[tuple[int, int]] = []
    for part in pages.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise DocumentError(
                f"pages={pages!r} can't be read. Write numbers and ranges, such as '2-4', '1,3' or '5-'."
            )
        first, dash, last, only_last = match.groups()
        if only_last:
            ranges.append((1, int(only_last)))
        elif dash:
            ranges.append((int(first), int(last) if last else page_count))
        else:
            ranges.append((int(first), int(first)))
    return ranges


def _count(page_count: int) -> str:
    return "one page" if page_count == 1 else f"{page_count} pages"
