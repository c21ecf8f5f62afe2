"""What would be left out of an answer is refused: what the client would miss, and what to do instead."""

import json
import math

import pytest
from chat_bodies import CHAT, COMPLETIONS, NAMED, TOOL, chat


def part(kind: str, **value: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": [{"type": kind, **value}]}]


REFUSED = {
    # OpenAI's, of chats.
    "audio": ({"audio": {"voice": "alloy", "format": "wav"}}, "text"),
    "modalities": ({"modalities": ["text", "audio"]}, '["text"]'),
    "functions": ({"functions": [{"name": "set"}]}, "`tools`"),
    "function_call": ({"function_call": "auto"}, "`tool_choice`"),
    "verbosity": ({"verbosity": "low"}, "verbosity"),
    "web_search_options": ({"web_search_options": {}}, "web_search_options"),
    "an image": ({"messages": part("image_url", image_url={"url": "http://there/x.png"})}, "image_url"),
    "sound": ({"messages": part("input_audio", input_audio={"data": "", "format": "wav"})}, "input_audio"),
    "a file": ({"messages": part("file", file={"file_id": "x"})}, "file"),
    "a part that nobody knows": ({"messages": part("smell")}, "smell"),
    "a custom tool": ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0"),
    "no tools": ({"tools": []}, "tools"),
    "a tool that is not there": (
        {"tools": [TOOL], "tool_choice": {**NAMED, "function": {"name": "x"}}},
        "tool",
    ),
    "a choice of no tool": ({"tool_choice": "required"}, "tools"),
    "a schema of no such type": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "objekt"}},
            }
        },
        "objekt",
    ),
    "a schema without a name": (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        "response_format.json_schema.name",
    ),
    "another format": ({"response_format": {"type": "xml"}}, "json_schema"),
    "a broken regex": ({"structured_outputs": {"regex": "["}}, "regex"),
    "five stop strings": ({"stop": list("abcde")}, "at most 4"),
    "an unknown parameter": ({"temprature": 1}, "did you mean `temperature`?"),
    "a choice of tools": (
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}},
        "tool_choice",
    ),
    "a wrong type": ({"temperature": "hot"}, "`temperature`"),
    "a wrong content": ({"messages": [{"role": "user", "content": 3}]}, "`messages.0.content`"),
    "no role": ({"messages": [{"content": "x"}]}, "`messages.0.role`"),
    "messages that are none": ({"messages": None}, "wrong type"),
    "no n": ({"n": 0}, "n must be"),
    "an n that will never fit": ({"n": 1001}, "`n` is 1001"),
    "logit_bias of no token": ({"logit_bias": {"lamp": 1}}, "lamp"),
    "logit_bias out of range": ({"logit_bias": {"70": 500}}, "token 70 is 500; it can be -100 to 100"),
    "logit_bias that is no number": ({"logit_bias": {"70": math.nan}}, "token 70 is nan"),
    "logit_bias beyond the vocabulary": ({"logit_bias": {"99999": 1}}, "99999"),
    "a penalty out of range": ({"presence_penalty": 9}, "presence_penalty"),
    "top_logprobs alone": ({"top_logprobs": 2}, "logprobs"),
    "too many top_logprobs": ({"logprobs": True, "top_logprobs": 50}, "20"),
    "stream_options alone": ({"stream_options": {"include_usage": True}}, "stream"),
    # vLLM's.
    "beam search": ({"use_beam_search": True, "n": 2}, "use_beam_search"),
    "a salt": ({"cache_salt": "secret"}, "cache_salt"),
    "a template": ({"chat_template": "{{ 1 }}"}, "chat_template"),
    "a template among its arguments": ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template"),
    "a ticket": ({"kv_transfer_params": {"prompt_token_ids": [70]}}, "kv_transfer_params"),
    "a guided answer, as it was": ({"guided_json": {"type": "object"}}, "structured_outputs"),
    "echo": ({"echo": True}, "echo"),
    "a penalty of beam search's": ({"length_penalty": 0.0}, "length_penalty"),
    "a watermark": ({"watermarking": True}, "watermarking"),
    "offsets": ({"return_token_offsets": True}, "return_token_offsets"),
    "experts": ({"routed_experts_prompt_start": 1}, "routed_experts_prompt_start"),
    "arguments for plugins": ({"vllm_xargs": {"session_id": "x"}}, "`session_id`"),
    "thoughts taken out": ({"include_reasoning": False, "logprobs": True}, "`reasoning_effort`"),
    "no thoughts": ({"thinking_token_budget": 0}, "thinking_token_budget"),
    "a form beside a call's": (
        {"tools": [TOOL], "tool_choice": NAMED, "structured_outputs": {"grammar": 'root ::= "x"'}},
        "`structured_outputs` and a `tool_choice`",
    ),
    "a schema that its format ignores": (
        {"response_format": {"type": "json_object", "json_schema": {"name": "x", "schema": {}}}},
        'say `"type": "json_schema"`',
    ),
    # Unknown keys inside.
    "of stream_options": (
        {"stream": True, "stream_options": {"include_usge": True}},
        "`stream_options.include_usge` is not a parameter of this endpoint; did you mean `include_usage`?",
    ),
    "of response_format": (
        {"response_format": {"type": "json_object", "schema": {}}},
        "`response_format.schema` is not a parameter of this endpoint; did you mean `json_schema`?",
    ),
    "of a schema's frame": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {}, "strickt": 1},
            }
        },
        "`response_format.json_schema.strickt` is not a parameter of this endpoint; did you mean `strict`?",
    ),
    "of a tool": ({"tools": [TOOL, {**TOOL, "strict": True}]}, "`tools.1.strict` is not a parameter"),
    "of a function": (
        {"tools": [{"type": "function", "function": {"name": "set", "paramters": {}}}]},
        "`tools.0.function.paramters` is not a parameter of this endpoint; did you mean `parameters`?",
    ),
    "of tool_choice": ({"tools": [TOOL], "tool_choice": {**NAMED, "mode": "any"}}, "`tool_choice.mode`"),
    "of structured_outputs": (
        {"structured_outputs": {"regex": "[a-z]", "disable_whitespace": True}},
        "`structured_outputs.disable_whitespace` is not a parameter",
    ),
    "of repetition_detection": (
        {"repetition_detection": {"max_patern_size": 3, "min_count": 3}},
        "`repetition_detection.max_patern_size` is not a parameter of this endpoint; did you mean "
        "`max_pattern_size`?",
    ),
    "an engine's setting": (
        {"structured_outputs": {"regex": "[a-z]", "whitespace_pattern": " "}},
        "`structured_outputs.whitespace_pattern` is not supported",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_would_be_left_out_of_a_chat_is_refused(surface, case: str) -> None:
    changes, says = REFUSED[case]
    body = json.dumps(chat(**changes))  # which writes NaN, too, as many clients do
    response = await surface.http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert says in error["message"]
    assert (error["code"], bool(error["type"])) == (400, True)
    assert str(surface.pools.decodes) == "[]", "nothing was computed"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"best_of": 3}, "`best_of` is 3 and `n` is 1"),
        ({"suffix": "end"}, "suffix"),
        ({"echo": True, "logprobs": 1}, "log probabilities of prompt tokens"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ["a", 1]}, "`prompt.0`"),
        ({"modalities": ["text"]}, "`modalities` is not a parameter"),
        ({"length_penalty": 2}, "length_penalty"),
        ({"stream": True, "stream_options": {"include_usge": True}}, "did you mean `include_usage`?"),
        ({"logit_bias": {"70": -101}}, "token 70 is -101"),
    ],
)
async def test_what_would_be_left_out_of_a_completion_is_refused(surface, changes, says: str) -> None:
    response = await surface.http.post(COMPLETIONS, json={"model": "home", "prompt": "lamp", **changes})
    assert response.status_code == 400, response.text
    assert says in response.json()["error"]["message"]
