"""The part of a data set's schema that says where its rows come from."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator, model_validator

from curation.schema import Strict

_SCHEMES = ("s3", "gs", "az")
_SECRET_NAME = re.compile(
    r"(^|_)(key|secret|token|password|passwd|passphrase|credentials?|sas|signature)(_|$)"
    r"|connection_string|accountkey|accesskey",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(
    r"x-(amz|goog)-.*|sig|signature|.*token.*|awsaccesskeyid|googleaccessid|.*secret.*|.*key.*"
    r"|se|sp|sv|password",
    re.IGNORECASE,
)
# What gcsfs takes for `token` besides secrets and files with them.
_NO_SECRET = {"token": ("anon", "cloud", "google_default", "cache")}
_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")


def _refuse_secrets(field: str, value: str) -> None:
    """Refuse an address that carries a secret, without repeating it."""
    try:
        parts = urlsplit(value)
        signed = [name for name, _ in parse_qsl(parts.query) if _SIGNATURE.fullmatch(name)]
        inside = "@" in parts.netloc
    except ValueError:
        raise ValueError(f"{field}: not an address") from None
    if inside:
        raise ValueError(
            f"{field}: names a user or password before `@`; leave that out and name $VARIABLES "
            "under source.options, or use the store's own credential chain"
        )
    if signed or parts.fragment.lower().startswith("sig="):
        raise ValueError(
            f"{field}: carries a signature or token; give the plain address, and credentials as "
            "$VARIABLES under source.options or by the store's own credential chain"
        )


class Source(Strict):
    """Where the rows come from: a folder of files, or a file inside an installed package."""

    folder: str | None = Field(
        None, description="A folder; each file in it is one shard. ~ and $VARIABLES are expanded."
    )
    url: str | None = Field(
        None, description="A prefix of an object store: s3://, gs:// or az://; objects are shards."
    )
    options: dict[str, str | int | bool] = Field(
        {},
        description="With `url`: settings of the store's client, such as endpoint_url. Secrets are "
        "never written here: name a $VARIABLE, or use the store's own credential chain.",
    )
    package: str | None = Field(
        None, description="An installed distribution that carries the data."
    )
    file: str | None = Field(None, description="With `package`: how the file's path ends.")
    pattern: str = Field("**/*", description="With `folder`: which files are shards (a glob).")
    format: Literal[
        "auto",
        "parquet",
        "jsonl",
        "csv",
        "arrow",
        "lines",
        "idx",
        "npy",
        "huggingface",
        "images",
        "webdataset",
    ] = Field("auto", description="`auto` goes by the file's ending. `lines` needs `line_pattern`.")
    line_pattern: str | None = Field(
        None, description="With `lines`: a regular expression with one named group per column."
    )
    encoding: str = Field("utf-8", description="The text encoding of `lines` and `csv`.")
    image_size: tuple[int, int] | None = Field(
        None,
        description="Width and height pictures are scaled to; left out, all must have one size.",
    )
    image_mode: Literal["L", "RGB"] = Field("L", description="Pictures become grey or RGB.")
    block_mib: int = Field(
        32, ge=1, le=4096, description="MiB of a shard that are read and validated at a time."
    )
    deduplicate: bool = Field(
        False, description="Drop repeated rows of a package's file before it is cut into shards."
    )
    shards: int = Field(1, ge=1, description="With `package`: cut the file into this many shards.")
    shard_by: str | None = Field(
        None, description="A column; rows of each of its values are cut into shards of their own."
    )
    rows_per_shard: int | None = Field(
        None, ge=1, description="Cut by size instead of number (packages and idx files)."
    )
    include: list[str] = Field(
        ["*"], description="Globs over shard keys; shards that match none have not arrived."
    )

    @field_validator("url")
    @classmethod
    def _plain_address(cls, value: str | None) -> str | None:
        if value is None:
            return value
        _refuse_secrets("source.url", value)
        scheme, found, rest = value.partition("://")
        if not found or scheme not in _SCHEMES or not rest.strip("/"):
            raise ValueError("source.url: expected s3://BUCKET/..., gs://... or az://...")
        if "?" in rest or "#" in rest:
            raise ValueError("source.url: expected a prefix only, without `?` and `#`")
        return value

    @field_validator("options")
    @classmethod
    def _no_secrets(cls, value: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
        for name, given in value.items():
            if isinstance(given, bool):
                continue
            if isinstance(given, str) and given.startswith("$"):
                if not _VARIABLE.fullmatch(given):
                    raise ValueError(f"source.options.{name}: expected $NAME, a variable's name")
                continue
            if _SECRET_NAME.search(name) and given not in _NO_SECRET.get(name, ()):
                raise ValueError(
                    f"source.options.{name}: looks like a secret, which is never written here; "
                    "name an environment variable, as in $NAME, or leave it to the store's own "
                    "credential chain"
                )
            if isinstance(given, str) and "://" in given:
                _refuse_secrets(f"source.options.{name}", given)
        return value

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if sum(x is not None for x in (self.folder, self.url, self.package)) != 1:
            raise ValueError("source: give exactly one of `folder`, `url`, `package`")
        if self.options and self.url is None:
            raise ValueError("source: `options` go with `url`")
        if self.url is not None and self.format == "idx":
            raise ValueError("source: format `idx` is read from a `folder` or `package` only")
        if self.package is not None and not self.file:
            raise ValueError("source: `package` needs `file`, the end of the file's path")
        if self.format == "lines" and not self.line_pattern:
            raise ValueError("source: format `lines` needs `line_pattern`")
        if self.line_pattern and not re.compile(self.line_pattern).groupindex:
            raise ValueError("source: `line_pattern` needs named groups, e.g. (?P<text>.+)")
        return self
