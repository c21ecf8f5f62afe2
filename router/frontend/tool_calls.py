"""How models write tool calls: one of vLLM's parsers reads them, or ours (vLLM 0.32)."""

from vllm.tool_parsers import ToolParserManager
from vllm.tool_parsers.hermes_tool_parser import Hermes2ProToolParser

from heliostat.errors import HeliostatError
from heliostat.findings import did_you_mean

JSON = "json"
"""The parser of a spec that names none."""


class JsonToolParser(Hermes2ProToolParser):  # type: ignore[misc]
    """Named and required calls are forced into plain JSON, which works whatever the models were trained on.

    An answer that may be text is searched for calls in `<tool_call>` tags, as Hermes, Qwen and others write
    them; in any other form it stays text.
    """

    structural_tag_model = None
    supports_required_and_named = True


def registered(name: str) -> str:
    """The name, once vLLM's layer can be given it. Raises HeliostatError where there is no such parser."""
    if JSON not in ToolParserManager.list_registered():
        ToolParserManager.register_module(JSON, module=JsonToolParser)
    known = ToolParserManager.list_registered()
    if name not in known:
        remedy = did_you_mean(name, known, "choose from")
        raise HeliostatError(f"router.tool_parser: vLLM has no tool parser {name!r}; {remedy}")
    return name
