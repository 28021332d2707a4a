"""A pipeline of documents: `runfold worker examples.documents`.

    runfold submit collection folder=docs

One run for the collection asks for a child for each document; each child reads, measures and sums
up its own, and may be retried by itself.
"""

from __future__ import annotations

import re
from collections import Counter
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel

from runfold import Backoff, Context, Fail, handler

COMMON = frozenset({
    "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "in", "is", "it", "its",
    "may", "not", "of", "on", "or", "so", "that", "the", "then", "this", "to", "was", "which",
    "with",
})  # fmt: skip


class Folder(BaseModel):
    """Where the documents are."""

    folder: str
    suffix: str = ".md"


class Document(BaseModel):
    """What is known of one document."""

    path: str
    sha256: str
    words: int
    headings: list[str]
    summary: str
    frequent: dict[str, int]


class Collection(BaseModel):
    """What is known of all of them."""

    documents: int
    words: int
    frequent: list[str]
    duplicates: int


@handler("collection")
async def collection(ctx: Context, given: Folder) -> Collection | Fail:
    """Find the documents, let a child look at each, and put together what they found."""
    paths = await ctx.step("find", find, given)
    if not paths:
        return Fail("E-EMPTY", {"folder": given.folder})
    found = [
        Document.model_validate(one)
        for one in await ctx.children("document", paths, tags=[given.folder])
    ]
    total: Counter[str] = Counter()
    for document in found:
        total.update(document.frequent)
    return Collection(
        documents=len(found),
        words=sum(document.words for document in found),
        frequent=[word for word, _ in total.most_common(5)],
        duplicates=len(found) - len({document.sha256 for document in found}),
    )


@handler("document", retry=Backoff(first=0.5, limit=30))
async def document(ctx: Context, path: str) -> Document:
    """Read one document and sum it up; each stage is a step, so a crash costs one stage."""
    text = await ctx.step("read", read, path)
    frequent = await ctx.step("measure", measure, text)
    return Document(
        path=path,
        sha256=sha256(text.encode()).hexdigest(),
        words=len(words(text)),
        headings=re.findall(r"^#+ (.+)$", text, re.MULTILINE),
        summary=await ctx.step("sum up", first_sentence, text),
        frequent=frequent,
    )


def find(given: Folder) -> list[str]:
    """Name the documents, in order."""
    return sorted(
        str(path) for path in Path(given.folder).rglob(f"*{given.suffix}") if path.is_file()
    )


def read(path: str) -> str:
    """Read a document, the first 50,000 characters of it."""
    return Path(path).read_text(errors="replace")[:50_000]


def words(text: str) -> list[str]:
    """Return the words of a text."""
    return re.findall(r"[a-z']+", text.lower())


def measure(text: str) -> dict[str, int]:
    """Count the words that say something."""
    return dict(
        Counter(word for word in words(text) if len(word) > 1 and word not in COMMON).most_common(
            20
        )
    )


def first_sentence(text: str) -> str:
    """Sum a document up by its first sentence."""
    body = re.sub(r"^#.*$|[`*_|]", "", text, flags=re.MULTILINE).strip()
    return " ".join(re.split(r"(?<=[.!?])\s", body, maxsplit=1)[0].split())[:300]
