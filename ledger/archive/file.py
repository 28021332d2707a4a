"""The file of an archived month: Parquet, a row for each event with its payload.

Rows are ordered by project, run and version.

Needs the extra `runfold[archive]` and no database: the file is enough to check its hashes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, Self, TypeAlias
from uuid import UUID

from runfold.ledger.archive.watched import OnStep, unwatched
from runfold.ledger.errors import ArchiveUnusable, ConfigurationError
from runfold.ledger.months import FIRST_RUN, LAST_RUN
from runfold.ledger.proof.chain import ChainCheck
from runfold.ledger.proof.encoding import EVENT_TAG, FIELDS

PART_BYTES: Final = 1_048_576
ROWS_A_GROUP: Final = 5_000
"""What is held in memory at once; and what is read to find one run."""

EVENT: Final = (*FIELDS, ("hash", "bytes"), ("position", "int"), ("txid", "int"))
"""The columns of table `event`, and what each holds."""
_MALFORMED: Final = (
    OSError,
    KeyError,
    ValueError,
    AttributeError,
    IndexError,
    TypeError,
    OverflowError,
)
"""What reading a file of another format, or made to mislead, may raise."""
_PAYLOAD: Final = (("salt", "bytes"), ("body", "text"))
# The first two columns, whose smallest and largest value every row group knows.
_PROJECT, _RUN = 0, 1


Source: TypeAlias = Path | BufferedReader
"""A file by its name, or opened: what is digested and what is read are then one file."""


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file for reading; raise ArchiveUnusable if it is unreadable."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise ArchiveUnusable(str(path), f"cannot be read ({error.strerror})") from error
    with file:
        yield file


def digest(file: BufferedReader, on_step: OnStep = unwatched) -> tuple[int, bytes]:
    """Return a file's size in bytes and its SHA-256; raise ArchiveUnusable if it is unreadable."""
    try:
        file.seek(0)
        taken = sha256()
        while part := file.read(PART_BYTES):
            taken.update(part)
            on_step()
        return file.tell(), taken.digest()
    except OSError as error:
        raise ArchiveUnusable(_name(file), f"cannot be read ({error.strerror})") from error


def put_in_place(written: Path, path: Path) -> None:
    """Rename a written file to its name; the folder is on disk too when this returns."""
    written.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Writer:
    """Writes a new file that only its owner may read.

    The file is whole and on disk when the block ends without an error. Raises FileExistsError if
    the path is taken, also by a link: nobody else may choose where the data goes.
    """

    def __init__(self, path: Path) -> None:
        self._arrow, parquet = _arrow()
        schema = self._arrow.schema([(name, self._type(how)) for name, how in (*EVENT, *_PAYLOAD)])
        self._schema = schema.with_metadata({"runfold": EVENT_TAG})
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(path, flags, 0o600), "wb")
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

    def _type(self, how: str) -> Any:  # noqa: PLR0911  one return for each form
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
            case "flag":
                return arrow.bool_()
            case "list":
                return arrow.list_(arrow.string())
            case _:
                return arrow.string()


def pages(
    source: Source,
    project_id: str | None = None,
    first: UUID | None = None,
    last: UUID | None = None,
) -> Iterator[list[Any]]:
    """Return the rows of a file, group by group; of one project and from run to run if given.

    Raises ArchiveUnusable for anything that is not a file of this format.
    """
    arrow, parquet = _arrow()
    lowest, highest = str(first or FIRST_RUN), str(last or LAST_RUN)
    if isinstance(source, Path):
        with opened(source):
            pass  # what keeps a file from being opened is said in fewer words than the reader's
    try:
        with parquet.ParquetFile(source) as file:
            _check_columns(source, file.schema_arrow.names)
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                if project_id is not None and not _may_hold(group, project_id, lowest, highest):
                    continue
                read = file.read_row_group(number).to_pylist()
                rows = [
                    row
                    for row in ({**row, "run_id": UUID(row["run_id"])} for row in read)
                    if project_id in {None, row["project_id"]}
                    and (first is None or first <= row["run_id"])
                    and (last is None or row["run_id"] <= last)
                ]
                if rows:
                    yield rows
    except (arrow.ArrowException, *_MALFORMED) as error:
        raise ArchiveUnusable(_name(source), f"cannot be read: {error}") from error


def counts(source: Source, on_step: OnStep = unwatched) -> dict[str, int]:
    """Return how many runs, events and payloads a file has, and its last position.

    Raises ArchiveUnusable.
    """
    arrow, parquet = _arrow()
    runs = events = payloads = last = 0
    try:
        with parquet.ParquetFile(source) as file:
            for number in range(file.num_row_groups):
                group = file.read_row_group(number, columns=["version", "position", "body"])
                columns = group.to_pydict()
                runs += columns["version"].count(1)
                events += len(columns["version"])
                payloads += sum(body is not None for body in columns["body"])
                last = max(last, *columns["position"])
                on_step()
    except (arrow.ArrowException, *_MALFORMED) as error:
        raise ArchiveUnusable(_name(source), f"cannot be read: {error}") from error
    return {"runs": runs, "events": events, "payloads": payloads, "last_position": last}


def _check_columns(source: Source, names: Sequence[str]) -> None:
    """Raise ArchiveUnusable for a column that no hash covers, or of which there are two."""
    known = {name for name, _ in (*EVENT, *_PAYLOAD)}
    odd = next((name for name in names if name not in known or names.count(name) > 1), None)
    if odd is not None:
        raise ArchiveUnusable(_name(source), f"has a column {odd!r} that no export writes")


def _may_hold(group: Any, project_id: str, lowest: str, highest: str) -> bool:
    """Whether a row group may hold these runs, by its statistics; without them it may."""
    project, run = group.column(_PROJECT).statistics, group.column(_RUN).statistics
    if project is None or run is None:
        return True
    holds_project = project.min <= project_id <= project.max
    return bool(holds_project and run.min <= highest and lowest <= run.max)


def check_file(source: Source) -> ChainCheck:
    """Check every hash and the order of a file, with nothing but the file.

    Each run must lie in one place: what lies twice would be read as other than it was. Raises
    ArchiveUnusable when the file cannot be read.
    """
    chain = ChainCheck()
    projects: set[str] = set()
    place: tuple[str, UUID] | None = None
    for page in pages(source):
        for row in page:
            here = (row["project_id"], row["run_id"])
            if place is None or here[0] != place[0]:
                misplaced = here[0] in projects
                projects.add(here[0])
            else:
                misplaced = here[1] < place[1]
            if misplaced:
                raise ArchiveUnusable(_name(source), f"has run {here[1]} in more than one place")
            place = here
            try:
                chain.add(row)
            except _MALFORMED as error:
                problem = f"has a row that is not an event, of run {here[1]}: {error}"
                raise ArchiveUnusable(_name(source), problem) from error
    chain.close()
    return chain


def _name(source: Source) -> str:
    return str(source) if isinstance(source, Path) else source.name


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigurationError(
            "archived events are Parquet files: install runfold[archive] to read and write them"
        ) from error
    return pa, parquet
