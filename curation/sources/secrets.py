"""Keeps secrets out of messages."""

from __future__ import annotations

import re

HIDDEN = "***"

_NAMES = (
    r"x-amz-[a-z0-9-]+|awsaccesskeyid|signature|sig|se|sp|sv|skoid|accountkey|account_key"
    r"|sharedaccesssignature|sharedaccesskey|secret|[a-z_]*secret[a-z_]*|password|passwd"
    r"|(?:[a-z_]*_)?token|sas_token|x-goog-[a-z-]+|googleaccessid|api_?key|access_?key(?:_?id)?"
)
_PATTERNS = (
    # s3://user:password@host, also within a longer text
    (
        re.compile(r"(?P<kept>\b[a-z][a-z0-9+.-]*://)[^/\s@'\"]+@", re.IGNORECASE),
        rf"\g<kept>{HIDDEN}@",
    ),
    # sig=..., "token": "...", AccountKey=...;
    (
        re.compile(
            rf"(?P<kept>(?<![\w-])['\"]?(?:{_NAMES})['\"]?\s*[=:]\s*)"
            # in quotes, to the other quote: it may hold what would end it elsewhere
            r"(?:(?P<quote>['\"])(?:\\.|(?!(?P=quote))[^\\])*|[^\s'\"&;,<>)}\]]+)",
            re.IGNORECASE | re.DOTALL,
        ),
        rf"\g<kept>\g<quote>{HIDDEN}",
    ),
    # Authorization: Bearer ..., AWS4-HMAC-SHA256 Credential=...
    (
        re.compile(r"(?P<kept>authorization['\"]?\s*[=:]\s*['\"]?)[^'\"\r\n]+", re.IGNORECASE),
        rf"\g<kept>{HIDDEN}",
    ),
    (
        re.compile(r"(?P<kept>\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE),
        rf"\g<kept>{HIDDEN}",
    ),
    # Keys of AWS, by the way they begin.
    (re.compile(r"(?P<kept>)\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
)
# Shorter ones would tear common words out of messages, and protect nothing.
_LEAST = 4

_known: set[str] = set()


def remember(value: str) -> None:
    """Let `redact` hide a value from now on, wherever it appears."""
    if len(value) >= _LEAST:
        _known.add(value)


def redact(text: str) -> str:
    """Return `text` without secrets.

    Hidden are the user's part of addresses, signatures and tokens (``X-Amz-...``, ``sig=``,
    ``AccountKey=``, ``token=`` and the like), headers of authorization, and every value that was
    remembered because a setting named its environment variable.
    """
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    for pattern, put in _PATTERNS:
        text = pattern.sub(put, text)
    return text
