"""Cloudflare's native API: `/ai/run`, the one route of Workers AI that takes images for Llama 3.2 Vision.

https://developers.cloudflare.com/workers-ai/models/llama-3.2-11b-vision-instruct/
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.json_types import as_mapping
from llama_vision.core.messages import Document, Image, Message, Part, Text, ToolCall, ToolResult
from llama_vision.core.request import ChatRequest, Tool
from llama_vision.dialects.body import encode_json, sampling_fields, validate_extra_body
from llama_vision.dialects.chat_completions.decoder import ChatCompletionsDecoder
from llama_vision.dialects.chat_completions.dialect import encode_tool
from llama_vision.dialects.chat_completions.usage import CostField, UsageFormat
from llama_vision.dialects.dialect import WireRequest, fill_in_model
from llama_vision.dialects.error_bodies import ErrorParser
from llama_vision.dialects.workers_ai.error_codes import ERROR_CODES
from llama_vision.dialects.workers_ai.wire import parse_native

LICENSE_AGREEMENT = b'{"prompt":"agree"}'
"""The body that accepts Meta's license for an account."""

RUN_PATH = "/accounts/{account}/ai/run/{model}"

NEURON_COST = CostField("neurons", usd_per_unit=0.011 / 1000, is_estimate=True)
"""Cloudflare bills in neurons. An estimate, because 10,000 of them a day are free.
https://developers.cloudflare.com/workers-ai/platform/pricing/"""


@dataclass(frozen=True, slots=True)
class WorkersAiDialect:
    """The dialect.

    Attributes:
        path: Follows the base URL; `{account}` and `{model}` are filled in.
        image_encoding: How an image is sent: as an `array` of its bytes, which the model's schema documents and others have
            seen working, or as a `data_url`, which Cloudflare's tutorial uses and which is a third of the size.
        usage: Where usage and costs are reported.
        errors: What error responses mean.
    """

    path: str = RUN_PATH
    image_encoding: Literal["array", "data_url"] = "array"
    usage: UsageFormat = field(default_factory=lambda: UsageFormat(cost_fields=(NEURON_COST,)))
    errors: ErrorParser = field(default_factory=lambda: ErrorParser(codes=ERROR_CODES))

    def encode(self, request: ChatRequest, *, stream: bool) -> WireRequest:
        """Encode a request; see `Dialect.encode`."""
        body: dict[str, Any] = {"messages": _messages(request)}
        body |= sampling_fields(request)
        if images := request.images():
            body["image"] = self._image(images)
        choice = request.tool_choice
        if request.tools and (choice is None or choice.mode != "none"):
            body["tools"] = [_tool(tool) for tool in request.tools]
        if stream:
            body["stream"] = True
        body |= validate_extra_body(request.extra_body)
        return WireRequest(fill_in_model(self.path, request.model), encode_json(body))

    def decoder(
        self, model: str, headers: Mapping[str, str], *, max_tokens: int | None = None
    ) -> ChatCompletionsDecoder:
        """Make a decoder; see `Dialect.decoder`."""
        return ChatCompletionsDecoder(
            model, headers, parse=parse_native, errors=self.errors, usage=self.usage, max_tokens=max_tokens
        )

    def _image(self, images: list[Image]) -> list[int] | str:
        if len(images) > 1:
            raise UnsupportedInputError(
                f"There are {len(images)} images, and Cloudflare takes one in a request. Ask about each by itself."
            )
        image = images[0]
        if image.data is None:
            raise UnsupportedInputError(
                f"Cloudflare does not fetch {image.url}. Download it and pass its bytes or path."
            )
        if self.image_encoding == "array":
            return list(image.data)
        return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"


def _messages(request: ChatRequest) -> list[dict[str, Any]]:
    """Encode the conversation as strings, the only content the native schema takes. Images are a field of their own."""
    names: dict[str | None, str] = {}  # of the calls so far: an id may come again in a later turn
    encoded: list[dict[str, Any]] = []
    for message in request.messages:
        names |= {part.id: part.name for part in message.parts if isinstance(part, ToolCall)}
        if message.role == "tool":
            encoded += [_tool_turn(part, names) for part in message.parts]
        else:
            encoded.append({"role": message.role, "content": _content(message)})
    return encoded


def _content(message: Message) -> str:
    texts: list[str] = [f"{message.name}:"] if message.name else []
    for part in message.parts:
        match part:
            case Text():
                texts.append(part.text)
            case ToolCall():  # as the model wrote it, because the schema has no field for calls
                arguments = part.arguments if part.arguments.strip() else "{}"
                texts.append(f'{{"name": {json.dumps(part.name)}, "parameters": {arguments}}}')
            case Image():
                pass  # in the field `image`
            case Document():
                raise UnsupportedInputError("A document has to be replaced by images of its pages.")
            case ToolResult():
                raise UnsupportedInputError(
                    f"A {message.role} message can't hold a tool's result: use role 'tool'."
                )
            case _:
                assert_never(part)
    return "\n".join(texts)


def _tool_turn(result: Part, names: Mapping[str | None, str]) -> dict[str, Any]:
    if not isinstance(result, ToolResult):
        raise UnsupportedInputError(f"A tool message can't hold a {type(result).__name__}.")
    name = {"name": names[result.call_id]} if result.call_id in names else {}
    return {"role": "tool", "content": result.text, **name}


def _tool(tool: Tool) -> dict[str, Any]:
    return encode_tool(Tool(tool.name, tool.description, _with_required_descriptions(tool.parameters)))


def _with_required_descriptions(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Give each argument the type and the description that the native schema demands; a description may be empty."""
    definitions = as_mapping(schema.get("$defs"))
    described = {
        name: {
            "description": "",
            **as_mapping(argument),
            "type": _type(as_mapping(argument), definitions) or "string",
        }
        for name, argument in as_mapping(schema.get("properties")).items()
    }
    return {"type": "object", **schema, "properties": described}


def _type(argument: Mapping[str, Any], definitions: Mapping[str, Any]) -> str | None:
    """Find the first type of an argument that is not null; None where its schema has none.

    pydantic writes `Optional[int]` as `anyOf`, and an enum or a model as a `$ref`, both without a type.
    """
    kinds: Any = argument.get("type") or ()
    for kind in (kinds,) if isinstance(kinds, str) else kinds:
        if kind != "null":
            return kind
    for name in ("anyOf", "oneOf", "allOf"):
        for member in argument.get(name) or ():
            if kind := _type(as_mapping(member), definitions):
                return kind
    if "$ref" not in argument:
        return None
    referenced: Any = as_mapping(definitions.get(str(argument["$ref"]).rpartition("/")[2])).get("type")
    return referenced if isinstance(referenced, str) else "object"
