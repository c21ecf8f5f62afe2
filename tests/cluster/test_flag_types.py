"""What is wrong on a command line is said before anything is asked."""

import pytest

from cluster.cli import parser


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("chat", "--temperature", "nan"), "nan is not a number from 0 on"),
        (("chat", "--temperature", "-1"), "-1 is not a number from 0 on"),
        (("chat", "--max-tokens", "-5"), "-5 is not a whole number from 0 on"),
        (("chat", "--max-tokens", "0"), "0 is not 1 or more"),
        (("chat", "--extra-body", "[]"), "[] is no JSON object; write"),
        (("bench", "--extra-body", "{"), "{ is not JSON: "),
        (("bench", "--extra-body", '{"a": NaN}'), "NaN is no number there"),
        (("bench", "--slo-e2e-ms", "0"), "0 is not above 0"),
        (("finetune", "--steps", "many"), "many is not a whole number from 0 on"),
        (("finetune", "--eval-split", "1"), "1 is not between 0 and 1"),
        (("quantize", "--group-size", "0"), "0 is not 1 or more"),
        (("simulate", "--zipf", "-1"), "-1 is not a number from 0 on"),
        (("simulate", "--seed", "1.5"), "1.5 is not a whole number from 0 on"),
    ],
)
def test_a_flag_out_of_bounds(
    args: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, name, value = args
    with pytest.raises(SystemExit) as raised:
        parser().parse_args([command, f"{name}={value}"])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def test_a_json_object() -> None:
    args = parser().parse_args(["bench", "--extra-body", '{"a": {"b": [1]}}'])
    assert args.extra_body == {"a": {"b": [1]}}
