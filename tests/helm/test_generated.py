"""The chart's generated files are those that the code makes now; the schema takes every example."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from cluster.helm.schema import values_schema
from cluster.helm.values import Values
from cluster.helm.write import chart_files, main
from heliostat.spec import Pool

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "heliostat"
EXAMPLES = sorted((ROOT / "helm" / "examples").glob("*.yaml"))


@pytest.mark.parametrize("name", list(chart_files()))
def test_a_generated_file_is_up_to_date(name: str) -> None:
    assert (CHART / name).read_text() == chart_files()[name], "run scripts/helm-files"


def test_the_script_writes_them(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    main(tmp_path)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json")} == set(chart_files())


def test_a_new_key_outside_the_replicas_reaches_the_templates() -> None:
    assert json.loads(chart_files()["files/spec.json"])["outside"] == list(Pool.OUTSIDE_REPLICAS)


def test_every_default_is_a_key_that_the_model_knows_and_the_other_way_round() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    known = {field.alias or name for name, field in Values.model_fields.items()} - {"global"}
    assert set(defaults) == known


@pytest.mark.parametrize("file", EXAMPLES, ids=[file.stem for file in EXAMPLES])
def test_the_schema_takes_every_example(file: Path) -> None:
    values = yaml.safe_load(file.read_text())
    validator = Draft202012Validator(values_schema())
    assert [error.message for error in validator.iter_errors(values)] == []
    Values.model_validate(values)


def test_null_is_taken_where_the_spec_takes_it() -> None:
    validator = Draft202012Validator(values_schema())
    pool = {"weights": "a/b", "lora": None, "kv_cache_gib": None, "policy": None}
    values = {
        "spec": {
            "family": {"base": "a/b", "block_size": None},
            "transfer": {"connector": None},
            "prefill": {"p": pool},
            "decode": {"d": pool},
            "models": {"m": {"prefill": "p", "decode": "d", "prefill_adapter": None}},
        }
    }
    assert [error.message for error in validator.iter_errors(values)] == []


def test_hadolint_finds_nothing_in_the_dockerfiles() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    files = sorted(map(str, (ROOT / "docker").glob("Dockerfile.*")))
    assert len(files) == 2
    found = subprocess.run([hadolint, "--no-color", *files], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")
