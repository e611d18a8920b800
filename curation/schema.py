"""The base of all settings: unknown fields are refused, and errors name the field."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import GetJsonSchemaHandler


def _one_schema(schema: Any) -> Any:
    """Fold ``anyOf`` into one schema, so that an error names the field and not "any of".

    JSON Schema reports a value that fits no branch as "not valid under any of the given schemas".
    Keywords such as ``minimum`` only apply to numbers and ``pattern`` only to strings, so the
    branches of the optional and "number or auto" fields used here can live in one schema.
    """
    if isinstance(schema, dict):
        schema = {key: _one_schema(value) for key, value in schema.items()}
        branches = schema.get("anyOf")
        if isinstance(branches, list) and all("$ref" not in b for b in branches):
            schema.pop("anyOf")
            types: list[str] = []
            for branch in branches:
                branch = dict(branch)
                if "const" in branch:
                    branch["pattern"] = f"^{re.escape(str(branch.pop('const')))}$"
                kind = branch.pop("type", "string")
                if kind != "null":
                    types.append(kind)
                    schema.update(branch)
            schema["type"] = types[0] if len(types) == 1 else types
        elif isinstance(branches, list):
            rest = [b for b in branches if b.get("type") != "null"]
            if len(rest) == 1:
                schema.pop("anyOf")
                schema.update(rest[0])
    elif isinstance(schema, list):
        schema = [_one_schema(item) for item in schema]
    return schema


class Strict(BaseModel):
    """A model that refuses fields it does not know."""

    # What was given may be a secret in the wrong place: errors tell the field, not the value.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the JSON schema used by ``dg check yaml``, with foldable unions folded."""
        return _one_schema(handler(core_schema))

    def fingerprint(self) -> str:
        """Return a hash of every field, stable across processes and field order."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
