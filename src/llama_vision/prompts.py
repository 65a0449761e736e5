"""Prompts and schemas for documents: charts, tables, forms and text.

    from llama_vision.langchain import ChatLlamaVision, human
    from llama_vision.prompts import CHART_PROMPT, Chart

    chart = ChatLlamaVision().with_structured_output(Chart).invoke([human(CHART_PROMPT, "sales.png")])

    from llama_vision.llamaindex import LlamaVision

    llm = LlamaVision()
    markdown = llm.complete(TABLE_PROMPT, image_documents=["table.png"]).text
    captions = caption_images("scans", llm, prompt=OCR_PROMPT, max_tokens=2000)

The schemas hold what all methods of structured output can express: objects, lists, strings, numbers, booleans and null.
"""

from typing import Literal

from pydantic import BaseModel, Field

__all__ = [
    "CHART_PROMPT",
    "FORM_PROMPT",
    "OCR_PROMPT",
    "TABLE_PROMPT",
    "Chart",
    "ChartPoint",
    "ChartSeries",
    "Form",
    "FormField",
    "Table",
]

CHART_PROMPT = (
    "Read the chart: its type, its title, the titles of its axes, and every series with all its points. Give values as they can be read from labels or "
    "gridlines, and null where one can't be read. Invent nothing."
)
"""For a chart; the schema is `Chart`."""

TABLE_PROMPT = (
    "Write the table in this image as a Markdown table. Keep the order of rows and columns, the wording and the number format. "
    "Leave empty cells empty, and write ? in a cell that can't be read. Answer with the table only."
)
"""For a table as Markdown; `Table` is a schema for its cells."""

FORM_PROMPT = (
    "Read the form: its title, and each field with its label and what was filled in, exactly as written. A field that is empty has the value null; of "
    "a checkbox the value is whether it is checked. Invent nothing."
)
"""For a form, an invoice or a receipt; the schema is `Form`."""

OCR_PROMPT = (
    "Write down all text in this image, line by line, in reading order, exactly as it is written. Write [illegible] for what "
    "can't be read. Answer with the text only."
)
"""For text as it stands; the answer is plain text."""


class ChartPoint(BaseModel):
    """A point of a chart.

    Attributes:
        label: Its place on the category axis, such as `March`, or the name of a slice.
        value: Its value; None if it can't be read.
    """

    label: str = Field(description="place on the category axis, or name of a slice")
    value: float | None = Field(description="value, null if it can't be read")


class ChartSeries(BaseModel):
    """A series of a chart.

    Attributes:
        name: As in the legend; empty where there is none.
        points: Its points, from left to right.
    """

    name: str = Field(description="name in the legend, empty if there is none")
    points: list[ChartPoint]


class Chart(BaseModel):
    """A chart, for `with_structured_output` or `as_structured_llm`.

    Attributes:
        kind: What sort of chart it is.
        title: Its title, or None.
        x_axis: Title and unit of the horizontal axis, or None.
        y_axis: The same of the vertical axis.
        series: All series.
    """

    kind: Literal["bar", "line", "pie", "scatter", "area", "other"]
    title: str | None
    x_axis: str | None
    y_axis: str | None
    series: list[ChartSeries]


class Table(BaseModel):
    """A table by its cells.

    Attributes:
        title: Its title, or None.
        header: The cells of its header; empty where there is none.
        rows: The cells of each row.
    """

    title: str | None
    header: list[str]
    rows: list[list[str]]

    def to_markdown(self) -> str:
        """Format as a Markdown table; a short row is filled up with empty cells.

        Returns:
            The table, without its title.
        """
        width = max(map(len, [self.header, *self.rows]), default=0)
        lines = [self.header, ["---"] * width, *self.rows]
        return "\n".join(_markdown_row(cells, width) for cells in lines)


def _markdown_row(cells: list[str], width: int) -> str:
    escaped = [" ".join(cell.split()).replace("|", r"\|") for cell in cells]
    return f"| {' | '.join([*escaped, *[''] * (width - len(cells))])} |"


class FormField(BaseModel):
    """A field of a form.

    Attributes:
        label: As printed.
        value: What was filled in, of a checkbox whether it is checked, or None where it is empty.
    """

    label: str
    value: str | bool | None = Field(description="what was filled in, null if the field is empty")


class Form(BaseModel):
    """A form, an invoice or a receipt.

    Attributes:
        title: Its title, or None.
        fields: Its fields, in reading order.
    """

    title: str | None
    fields: list[FormField]
