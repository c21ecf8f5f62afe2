"""What is wrong with adapters in a spec file is named with its line, its key and a remedy."""

from collections.abc import Callable
from pathlib import Path

import pytest

from heliostat.errors import SpecError
from heliostat.specfile import load_spec

GOOD = """\
family: {base: org/base}
prefill:
  home:
    weights: org/home
    adapters:
      math: ./adapters/math
      code: org/code
decode:
  shared: {weights: org/base, adapters: {chat: adapters/math}}
  plain: {weights: org/base}
models:
  math:
    prefill: home
    decode: shared
    prefill_adapter: math
    decode_adapter: chat
"""

Findings = Callable[[str], tuple[str, ...]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one adapter and one directory that is none."""
    (tmp_path / "adapters" / "math").mkdir(parents=True)
    (tmp_path / "adapters" / "math" / "adapter_config.json").write_text("{}")
    (tmp_path / "adapters" / "empty").mkdir()
    return tmp_path


@pytest.fixture
def findings(folder: Path) -> Findings:
    def load(text: str) -> tuple[str, ...]:
        (folder / "cluster.yaml").write_text(text)
        with pytest.raises(SpecError) as caught:
            load_spec(folder / "cluster.yaml")
        return caught.value.findings

    return load


def change(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_directories_of_adapters_come_out_absolute_and_hub_names_as_they_are(folder: Path) -> None:
    (folder / "cluster.yaml").write_text(GOOD)
    spec = load_spec(folder / "cluster.yaml")
    math = str(folder / "adapters" / "math")
    assert spec.prefill["home"].adapters == {"math": math, "code": "org/code"}
    assert spec.decode["shared"].adapters == {"chat": math}
    assert spec.models["math"].prefill_adapter == "math"


CASES = {
    "misspelt": (
        change("prefill_adapter: math", "prefill_adapter: mth"),
        '15: models.math.prefill_adapter: prefill.home has no adapter "mth"; did you mean `math`? '
        "(adapters: math, code)",
    ),
    "of another pool": (
        change("decode_adapter: chat", "decode_adapter: zebra"),
        '16: models.math.decode_adapter: decode.shared has no adapter "zebra"; adapters: chat',
    ),
    "of a pool that lists none": (
        change("decode: shared", "decode: plain"),
        '16: models.math.decode_adapter: decode.plain has no adapter "chat"; list it under `adapters`',
    ),
    "of a pool that does not exist": (
        change("decode: shared", "decode: shard"),
        '14: models.math.decode: no decode pool "shard"; '
        "did you mean `shared`? (decode pools: shared, plain)",
    ),
    "a misspelt directory": (
        change("./adapters/math", "./adapters/mat"),
        '6: prefill.home.adapters.math: "./adapters/mat": no directory {folder}/adapters/mat; '
        "did you mean `math`?",
    ),
    "a directory that is no adapter": (
        change("./adapters/math", "adapters/empty"),
        '6: prefill.home.adapters.math: "adapters/empty": {folder}/adapters/empty '
        "has no adapter_config.json; name a LoRA adapter as PEFT writes it",
    ),
    "neither a directory nor a hub name": (
        change("org/code", "code"),
        '7: prefill.home.adapters.code: "code" is no directory beside this file and no hub name; '
        "write `org/model` or `./…`",
    ),
    "an adapter for weights": (
        change("weights: org/home", "weights: adapters/math"),
        '4: prefill.home.weights: "adapters/math": {folder}/adapters/math has no config.json; '
        "name a Hugging Face checkpoint",
    ),
    "a number for a directory": (
        change("org/code", "7"),
        "7: prefill.home.adapters.code: should be a valid string, found 7; put it in quotes",
    ),
    "no rank at all": (
        change("    weights: org/home", "    lora: {rank: 0}\n    weights: org/home"),
        "4: prefill.home.lora.rank: should be greater than or equal to 1, found 0",
    ),
}


@pytest.mark.parametrize(("text", "finding"), CASES.values(), ids=CASES.keys())
def test_one_mistake_is_one_finding(findings: Findings, folder: Path, text: str, finding: str) -> None:
    assert findings(text) == (finding.replace("{folder}", str(folder)),)


def test_findings_of_all_kinds_come_at_once_in_the_order_of_the_file(findings: Findings) -> None:
    text = change("./adapters/math", "./nowhere").replace("org/code", "code")
    text = text.replace("decode_adapter: chat", "decode_adapter: zebra")
    assert [finding.split(": ")[:2] for finding in findings(text)] == [
        ["6", "prefill.home.adapters.math"],
        ["7", "prefill.home.adapters.code"],
        ["16", "models.math.decode_adapter"],
    ]
