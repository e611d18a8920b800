"""The part of a data set's schema that says where its rows come from."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from curation.schema import Strict


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

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if sum(x is not None for x in (self.folder, self.url, self.package)) != 1:
            raise ValueError("source: give exactly one of `folder`, `url`, `package`")
        if self.package is not None and not self.file:
            raise ValueError("source: `package` needs `file`, the end of the file's path")
        if self.format == "lines" and not self.line_pattern:
            raise ValueError("source: format `lines` needs `line_pattern`")
        if self.line_pattern and not re.compile(self.line_pattern).groupindex:
            raise ValueError("source: `line_pattern` needs named groups, e.g. (?P<text>.+)")
        return self
