"""The file of an archived month: Parquet, one row for each event with its payload, ordered by project, run and version.

Needs the extra `runfold[archive]`, and nothing of a database: who has the file can check its hashes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from hashlib import file_digest
from pathlib import Path
from typing import Any, Final, Self
from uuid import UUID

from runfold.ledger.errors import ArchiveUnusable, ConfigurationError
from runfold.ledger.proof.chain import ChainCheck
from runfold.ledger.proof.encoding import EVENT_TAG, FIELDS

ROWS_A_GROUP: Final = 5_000
"""What is held in memory at once; and what is read to find one run."""

EVENT: Final = (*FIELDS, ("hash", "bytes"), ("position", "int"), ("txid", "int"))
"""The columns of table `event`, and what each holds."""
_PAYLOAD: Final = (("salt", "bytes"), ("body", "text"))
_PROJECT, _RUN = (
    0,
    1,
)  # the first two columns, whose smallest and largest value every row group knows


def digest(path: Path) -> tuple[int, bytes]:
    """Give a file's size in bytes and its SHA-256; raise ArchiveUnusable when it cannot be read."""
    try:
        with path.open("rb") as file:
            return path.stat().st_size, file_digest(file, "sha256").digest()
    except OSError as error:
        raise ArchiveUnusable(str(path), f"cannot be read ({error.strerror})") from error


def put_in_place(written: Path, path: Path) -> None:
    """Give a written file its name, for good: the folder is on disk too when this returns."""
    written.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Writer:
    """Writes a file that only its owner may read; it is whole and on disk when the block ends without an error."""

    def __init__(self, path: Path) -> None:
        self._arrow, parquet = _arrow()
        schema = self._arrow.schema([(name, self._type(how)) for name, how in (*EVENT, *_PAYLOAD)])
        self._schema = schema.with_metadata({"runfold": EVENT_TAG})
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
        self._writer = parquet.ParquetWriter(self._file, self._schema, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows of the view `ledger.entry`, as a group of their own."""
        values = [{**row, "run_id": str(row["run_id"])} for row in rows]
        self._writer.write_table(self._arrow.Table.from_pylist(values, schema=self._schema))

    def _type(self, how: str) -> Any:
        arrow = self._arrow
        match how:
            case "int":
                return arrow.int64()
            case "time":
                return arrow.timestamp("us", tz="UTC")
            case "money":
                return arrow.decimal128(18, 6)
            case "bytes":
                return arrow.binary()
            case "list":
                return arrow.list_(arrow.string())
            case _:
                return arrow.string()


def pages(
    path: Path, project_id: str | None = None, first: UUID | None = None, last: UUID | None = None
) -> Iterator[list[Any]]:
    """Give the rows of a file, group by group; of one project and from run to run if these are given.

    Raises ArchiveUnusable.
    """
    arrow, parquet = _arrow()
    lowest, highest = str(first or UUID(int=0)), str(last or UUID(int=2**128 - 1))
    try:
        with parquet.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                project, run = group.column(_PROJECT).statistics, group.column(_RUN).statistics
                if project_id is not None and not project.min <= project_id <= project.max:
                    continue
                if run.max < lowest or highest < run.min:
                    continue
                found = [
                    {**row, "run_id": UUID(row["run_id"])}
                    for row in file.read_row_group(number).to_pylist()
                    if project_id in {None, row["project_id"]}
                    and lowest <= row["run_id"] <= highest
                ]
                if found:
                    yield found
    except (OSError, arrow.ArrowException, KeyError, ValueError) as error:
        raise ArchiveUnusable(str(path), f"cannot be read: {error}") from error


def check_file(path: Path) -> ChainCheck:
    """Check every hash in a file, with nothing but the file; raise ArchiveUnusable when it cannot be read."""
    chain = ChainCheck()
    for page in pages(path):
        for row in page:
            chain.add(row)
    chain.close()
    return chain


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigurationError(
            "archived events are Parquet files: install runfold[archive] to read and write them"
        ) from error
    return pa, parquet
