"""Column batches: dictionaries of arrays or lists, pandas DataFrames, pyarrow Tables."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from llama_vision.core.errors import ConfigurationError


class ColumnBatch(Protocol):
    """A batch of named columns of equal length."""

    names: list[str]
    num_rows: int

    def read(self, name: str) -> Sequence[Any]:
        """Read the cells of a column."""
        ...

    def with_columns(self, added: Mapping[str, tuple[type, list[Any]]]) -> Any:
        """Add columns: for each its type (`str`, `int`, `float` or `bool`) and cells, which may be None."""
        ...


def as_column_batch(batch: object) -> ColumnBatch:
    """Wrap a dictionary of arrays or lists of the same length, a pandas DataFrame or a pyarrow Table.

    Raises:
        ConfigurationError: It is something else.
    """
    # A library that is not loaded has made no batch.
    pandas, pyarrow = (cast("Any", sys.modules.get(name)) for name in ("pandas", "pyarrow"))
    if pyarrow is not None and isinstance(batch, pyarrow.Table):
        return _Table(batch, pyarrow)
    if pandas is not None and isinstance(batch, pandas.DataFrame):
        return _Frame(batch, pandas)
    if isinstance(batch, Mapping):
        return _Arrays(cast("Mapping[str, Any]", batch))
    raise ConfigurationError(
        f"A batch is a dictionary of columns, a pandas DataFrame or a pyarrow Table, and not a {type(batch).__name__}."
    )


class _Table:
    def __init__(self, table: Any, pyarrow: Any) -> None:
        self._table = table
        self._types = {
            str: pyarrow.string(),
            int: pyarrow.int64(),
            float: pyarrow.float64(),
            bool: pyarrow.bool_(),
        }
        self._array = pyarrow.array
        self.names: list[str] = table.column_names
        self.num_rows: int = table.num_rows

    def read(self, name: str) -> list[Any]:
        return self._table[name].to_pylist()

    def with_columns(self, added: Mapping[str, tuple[type, list[Any]]]) -> Any:
        table = self._table
        for name, (column_type, cells) in added.items():
            table = table.append_column(name, self._array(cells, self._types[column_type]))
        return table


class _Frame:
    # Nullable dtypes, which keep a missing value apart from zero and False.
    _DTYPES = {str: "object", int: "Int64", float: "float64", bool: "boolean"}  # noqa: RUF012 - never changed

    def __init__(self, frame: Any, pandas: Any) -> None:
        self._frame = frame
        self._series = pandas.Series
        self.names = [str(name) for name in frame.columns]
        self.num_rows = len(frame)

    def read(self, name: str) -> list[Any]:
        return self._frame[name].tolist()

    def with_columns(self, added: Mapping[str, tuple[type, list[Any]]]) -> Any:
        index = self._frame.index
        columns = {
            name: self._series(cells, index=index, dtype=self._DTYPES[column_type])
            for name, (column_type, cells) in added.items()
        }
        return self._frame.assign(**columns)


class _Arrays:
    def __init__(self, batch: Mapping[str, Any]) -> None:
        self._batch = batch
        self.names = list(batch)
        self.num_rows = len(next(iter(batch.values()), ()))

    def read(self, name: str) -> Sequence[Any]:
        return self._batch[name]

    def with_columns(self, added: Mapping[str, tuple[type, list[Any]]]) -> Any:
        columns: dict[str, Any] = {name: cells for name, (_, cells) in added.items()}
        if any(hasattr(column, "__array_interface__") for column in self._batch.values()):
            import numpy as np  # noqa: PLC0415 - arrays come from it

            # dtype=object, so that None stays None.
            columns = {name: np.array(cells, dtype=object) for name, cells in columns.items()}
        return {**self._batch, **columns}
