"""Redaction: secrets in content become a mark before the content is hashed and stored (pure).

A secret is known by the name of its field or by its shape. One native pattern, which needs linear
time, tells whether a text may hold any; only then do Python's expressions, which take a hundred
times as long, find where. See docs/howto/secrets.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache, partial
from typing import Any, Final

MARK: Final = "[redacted]"
"""What stands in the place of a secret."""
NAMES: Final = (
    "*password", "*passwd", "*passphrase", "pwd", "*secret", "*secret_key", "token",
    "*access_token", "*refresh_token", "id_token", "*auth_token", "*session_token",
    "*bearer_token", "*api_token", "*csrf_token", "*api_key", "*access_key", "*private_key",
    "authorization", "proxy_authorization", "cookie", "set_cookie",
)  # fmt: skip
"""Names whose value is a secret; `*`: longer names that end so, too.

Case does not count, nor which of `-`, `_`, `.`, a blank or nothing stands between words.
"""
SHAPES: Final = (
    ("an API token of Runfold", r"\brunfold_[0-9a-f]{12}_[0-9A-Za-z_-]{20,}", MARK),
    ("an AWS access key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", MARK),
    ("a token of GitHub", r"\b(?:gh[opsur]_|github_pat_)[0-9A-Za-z_]{30,}", MARK),
    ("a token of GitLab", r"\bglpat-[0-9A-Za-z_-]{20,}", MARK),
    ("a token of Slack", r"\bxox[abeoprs]-[0-9A-Za-z-]{10,}", MARK),
    ("a secret key", r"\b[rs]k(?:-|_live_|_test_)[0-9A-Za-z_-]{20,}", MARK),
    ("a key of Google", r"\bAIza[0-9A-Za-z_-]{35}", MARK),
    ("a JSON web token", r"\beyJ[0-9A-Za-z_-]{8,400}\.eyJ[0-9A-Za-z_-]{8,}[0-9A-Za-z_.-]*", MARK),
    ("credentials of a header", r"\b((?i:bearer|basic) +)[0-9A-Za-z._~+/=-]{16,}", rf"\1{MARK}"),
    ("the password of a URL", r"""(://[^\s/@:"'\\]*:)[^\s/@"'\\]+@""", rf"\1{MARK}@"),
    (
        "a private key",
        r"(-----BEGIN [0-9A-Z ]{0,40}PRIVATE KEY-----)[0-9A-Za-z+/=\s\\:,.-]+",
        rf"\1{MARK}",
    ),
)
"""Secrets that have a shape of their own: the rule's name, its pattern, the replacement.

Two engines read the patterns, Rust's and Python's, and in both they need linear time.
"""
MAX_LEVELS: Final = 64
"""Levels that are searched: content that is nested deeper is refused before it is stored."""
SMALLEST_SECRET: Final = 1_000
"""Smaller numbers are not secrets, whatever their name: a PIN has four digits."""
_NAME: Final = re.compile(r"\*?[a-z0-9]+(_[a-z0-9]+)*")
_VALUE: Final = (
    r"""\\+["'][^"'\\]*(?:\\+["'])?"""  # in quotes that are escaped: JSON within JSON
    r"""|"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?"""
    r"""|(?!(?:null|none|true|false)\b)[^\s,;&"'\\(){}\[\]<>]+"""
)
_FLAGS: Final = re.IGNORECASE | re.DOTALL
_QUOTE: Final = re.compile(r"""\\*["']""")

Report = Callable[[str], None]
"""Called once for each secret, with the rule that matched."""


class Redaction:
    """Replaces secrets by a mark."""

    def __init__(self, names: str = "", tell: Callable[[str, str], None] | None = None) -> None:
        """Look for `NAMES`, for those that `names` adds, and not for those after a `-` there.

        `tell` is called once for each pair of an event's field and a rule that matched in it.
        Raises ValueError for a word that cannot be a name.
        """
        self._patterns = _patterns(chosen_names(names))
        self._tell, self._told = tell, set[tuple[str, str]]()

    def suspects(self, text: str) -> bool:
        """Whether text, JSON too, may hold a secret; never False where `content` finds one."""
        return self._patterns.native.isinstance_python(text)

    def content(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of an event's content without secrets."""
        return {
            field: self._value(value, partial(self._report, field), 0)
            for field, value in content.items()
        }

    def value(self, value: Any, field: str) -> Any:
        """Return JSON for a field of an event without secrets."""
        return self.content({field: value})[field]

    def text(self, text: str, field: str) -> str:
        """Return text for a field of an event without secrets."""
        if not self.suspects(text):
            return text
        return self._patterns.redacted(text, partial(self._report, field))

    def _value(self, value: Any, report: Report, level: int) -> Any:
        match value:
            case str():
                return self._patterns.redacted(value, report)
            case dict() if level < MAX_LEVELS:
                members = [self._member(*item, report, level + 1) for item in value.items()]
                return dict(members)
            case list() | tuple() if level < MAX_LEVELS:
                return [self._value(member, report, level + 1) for member in value]
        if hasattr(type(value), "get_secret_value"):  # SecretStr and the like of Pydantic
            report("its type")
            return MARK
        return value

    def _member(self, name: Any, value: Any, report: Report, level: int) -> tuple[Any, Any]:
        if not isinstance(name, str):  # which is refused later
            return name, value
        secret = self._patterns.secret_name(name)
        if secret is None:
            return self._patterns.redacted(name, report), self._value(value, report, level)
        if value is None or value in ("", MARK) or _is_small(value):
            return name, value
        report(f"the name {secret}")
        return name, MARK

    def _report(self, field: str, what: str) -> None:
        if self._tell is not None and (field, what) not in self._told:
            self._told.add((field, what))
            self._tell(field, what)


def _is_small(value: Any) -> bool:
    """Whether a value is too small a number to be a secret, such as a count of tokens."""
    return isinstance(value, int | float) and abs(value) < SMALLEST_SECRET


def scrubbed(text: str) -> str:
    """Return the text of a message without secrets."""
    return _by_default().text(text, "")


@lru_cache(maxsize=1)
def _by_default() -> Redaction:
    return Redaction()


def chosen_names(names: str) -> tuple[str, ...]:
    """Return `NAMES` with the changes of a setting: `pin,*_code,-token`. Raises ValueError."""
    chosen = dict.fromkeys(NAMES)
    for part in filter(None, (part.strip().lower() for part in names.split(","))):
        name = part.removeprefix("-").replace("-", "_").replace("*_", "*")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{part[:80]!r} is not a name: use words of letters and digits with _")
        if not part.startswith("-"):
            chosen[name] = None
        elif name in chosen:
            del chosen[name]
        else:
            raise ValueError(f"{part[:80]!r} takes out a name that is not looked for")
    return tuple(chosen)


@lru_cache(maxsize=16)
def _patterns(names: tuple[str, ...]) -> _Patterns:
    return _Patterns(names)


class _Patterns:
    """The patterns for one choice of names; those of Python are compiled when they are needed."""

    def __init__(self, names: tuple[str, ...]) -> None:
        from pydantic_core import SchemaValidator, core_schema  # errors must load fast

        self._words = {name: name.removeprefix("*").replace("_", "[-_. ]?") for name in names}
        name = self._any_name(r"\b")
        beside = rf"""(?i:{name}(?:\\*["']\s*:|\s?=))"""
        pattern = "|".join([beside, *(shape for _, shape, _ in SHAPES)])
        self.native = SchemaValidator(
            core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True)
        )

    def secret_name(self, name: str) -> str | None:
        """Return which of the names says that a value is a secret; None for any other name."""
        return next((known for known, words in self._exact.items() if words.fullmatch(name)), None)

    def redacted(self, text: str, report: Report) -> str:
        """Return text without secrets."""
        if not self.native.isinstance_python(text):
            return text

        def beside(match: re.Match[str]) -> str:
            if match["value"].strip("\\\"'") in ("", MARK):
                return match[0]
            report("a name in text")
            quoted = _QUOTE.match(match["value"]) or _QUOTE.search(match["name"])
            quote = quoted[0] if quoted else ""
            return f"{match['name']}{quote}{MARK}{quote}"

        text = self._beside.sub(beside, text)
        for what, shape, written in self._shapes:
            text, count = shape.subn(written, text)
            if count:
                report(what)
        return text

    def _any_name(self, begin: str) -> str:
        """Return a pattern for any of the names; `begin` stands before those without a `*`."""
        ends = [words for name, words in self._words.items() if name.startswith("*")]
        whole = [words for name, words in self._words.items() if not name.startswith("*")]
        both = [*ends, *([f"{begin}(?:{'|'.join(whole)})"] if whole else [])]
        return f"(?:{'|'.join(both) or 'a^'})"

    @cached_property
    def _exact(self) -> dict[str, re.Pattern[str]]:
        return {
            name: re.compile((".*" if name.startswith("*") else "") + words, _FLAGS)
            for name, words in self._words.items()
        }

    @cached_property
    def _beside(self) -> re.Pattern[str]:
        name = self._any_name(r"(?<![\w.-])")
        between = r"""\\*["']\s*:\s*|=(?!=)|\s?=\s?(?=["'])"""
        return re.compile(rf"(?P<name>{name}(?:{between}))(?P<value>{_VALUE})", _FLAGS)

    @cached_property
    def _shapes(self) -> list[tuple[str, re.Pattern[str], str]]:
        return [(what, re.compile(shape), written) for what, shape, written in SHAPES]
