"""Every way to get a spec file wrong is named with its line, its key, the value and a remedy."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from heliostat.errors import SpecError
from heliostat.specfile import load_spec

GOOD = """\
family: {base: org/base, max_model_len: 512}
transfer: {transport: shm}
prefill:
  home:
    weights: org/home
    replicas: {min: 1, max: 4}
    gpus: 1
  mirror: {weights: org/mirror}
decode:
  shared: {weights: org/base}
models:
  home: {prefill: home, decode: shared}
"""

Findings = Callable[[str], tuple[str, ...]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one complete checkpoint and one directory that is none."""
    (tmp_path / "weights" / "home").mkdir(parents=True)
    (tmp_path / "weights" / "home" / "config.json").write_text("{}")
    (tmp_path / "weights" / "empty").mkdir()
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


def test_a_good_file_loads(folder: Path) -> None:
    (folder / "cluster.yaml").write_text(GOOD)
    spec = load_spec(folder / "cluster.yaml")
    assert spec.prefill["home"].replicas.max == 4
    assert spec.models["home"].decode == "shared"


def test_an_error_begins_with_the_file_and_the_line(findings: Findings, folder: Path) -> None:
    with pytest.raises(SpecError) as caught:
        findings(change("min: 1", "min: 9"))
        load_spec(folder / "cluster.yaml")
    assert str(caught.value) == (
        f"{folder}/cluster.yaml:6: prefill.home.replicas: min 9 is larger than max 4; raise max or lower min"
    )


def test_all_findings_come_at_once_in_the_order_of_the_file(findings: Findings) -> None:
    text = change("decode: shared", "decode: shard").replace("shm", "tcp").replace("gpus: 1", "gpus: one")
    text = text.replace("org/mirror", "./nowhere").replace("max: 4", "max: 0") + "colour: red\n"
    assert [finding.split(": ")[:2] for finding in findings(text)] == [
        ["2", "transfer.transport"],
        ["6", "prefill.home.replicas.max"],
        ["7", "prefill.home.gpus"],
        ["8", "prefill.mirror.weights"],
        ["12", "models.home.decode"],
        ["13", "colour"],
    ]


CASES = {
    "an unknown key with a near one": (
        change("replicas:", "replica:"),
        "6: prefill.home.replica: unknown key; did you mean `replicas`? (known keys: weights, adapters, "
        "lora, icarus, local_prefill_tokens, replicas, gpus, cpus, resources, kv_cache_gib, max_running, "
        "engine_args, engine, sim, policy, ttft_ms, tpot_ms, autoscale, drain_s, surge_percent)",
    ),
    "an unknown key with none near": (
        change("transport: shm", "colour: red"),
        "2: transfer.colour: unknown key; known keys: transport, lease_s, memory_gib, directory, connector, "
        "decode_choice, host",
    ),
    "an unknown key in replicas": (
        change("max: 4", "maxx: 4"),
        "6: prefill.home.replicas.maxx: unknown key; did you mean `max`? (known keys: min, max)",
    ),
    "an unknown key in a model": (
        change("decode: shared}", "decode: shared, colour: x}"),
        "12: models.home.colour: unknown key; known keys: prefill, decode, prefill_adapter, "
        "decode_adapter, untrained_pair, limits",
    ),
    "a missing key": (
        change("    weights: org/home\n", ""),
        "4: prefill.home.weights: missing; add it: A directory (relative to the spec file), "
        "or a hub name `org/model`.",
    ),
    "a missing section": (
        change("transfer: {transport: shm}\nprefill:", "transfer: {transport: shm}\nprefil:"),
        "1: prefill: missing; add it: Prefill pools, by name.",
    ),
    "a word for a number": (
        change("gpus: 1", "gpus: one"),
        '7: prefill.home.gpus: should be a valid integer, found "one"',
    ),
    "a quoted number": (
        change("gpus: 1", 'gpus: "1"'),
        '7: prefill.home.gpus: should be a valid integer, found "1"',
    ),
    "yes for a number": (
        change("gpus: 1", "gpus: yes"),
        "7: prefill.home.gpus: should be a valid integer, found true",
    ),
    "a number for a text": (
        change("weights: org/home", "weights: 7"),
        "5: prefill.home.weights: should be a valid string, found 7; put it in quotes",
    ),
    "a text for a section": (
        change("{weights: org/mirror}", "org/mirror"),
        '8: prefill.mirror: should be keys with values below it, found "org/mirror"',
    ),
    "an empty section": (change("{transport: shm}", ""), "2: transfer: should be keys with values below it"),
    "a section without entries": (
        change("  shared: {weights: org/base}\n", "  {}\n"),
        "9: decode: is empty; it needs at least one entry",
    ),
    "a word for replicas": (
        change("{min: 1, max: 4}", "many"),
        '6: prefill.home.replicas: should be a number or {min: …, max: …}, found "many"',
    ),
    "no replica": (
        change("{min: 1, max: 4}", "0"),
        "6: prefill.home.replicas: should be greater than or equal to 1, found 0",
    ),
    "min above max": (
        change("min: 1", "min: 5"),
        "6: prefill.home.replicas: min 5 is larger than max 4; raise max or lower min",
    ),
    "min above the default max": (
        change("{min: 1, max: 4}", "{min: 2}"),
        "6: prefill.home.replicas: min 2 is larger than max 1; raise max or lower min",
    ),
    "a missing decode pool": (
        change("decode: shared", "decode: shard"),
        '12: models.home.decode: no decode pool "shard"; did you mean `shared`? (decode pools: shared)',
    ),
    "a missing pool with a bad name": (
        change("decode: shared", "decode: Shared!"),
        '12: models.home.decode: no decode pool "Shared!"; did you mean `shared`? (decode pools: shared)',
    ),
    "a missing prefill pool": (
        change("prefill: home,", "prefill: zebra,"),
        '12: models.home.prefill: no prefill pool "zebra"; prefill pools: home, mirror',
    ),
    "a bad pool name": (
        change("  mirror:", "  Mirror_:"),
        '8: prefill.Mirror_: "Mirror_" is not a name; use lower-case letters, digits',
    ),
    "a transport that is none": (
        change("shm", "nixxl"),
        '2: transfer.transport: "nixxl" is not a choice; did you mean `nixl`? (choose from: shm, nixl, nccl)',
    ),
    "a directory that does not exist": (
        change("org/mirror", "./weights/hom"),
        '8: prefill.mirror.weights: "./weights/hom": no directory ',
    ),
    "a base that does not exist": (
        change("{base: org/base,", "{base: weights/zebra,"),
        '1: family.base: "weights/zebra": no directory ',
    ),
    "a directory without checkpoint": (
        change("org/mirror", "weights/empty"),
        '8: prefill.mirror.weights: "weights/empty": ',
    ),
    "weights that are neither": (
        change("org/mirror", "mirror"),
        '8: prefill.mirror.weights: "mirror" is no directory beside this file and no hub name; '
        "write `org/model` or `./…`",
    ),
    "a name given twice": (
        change("  mirror:", "  home:"),
        "8: prefill.home: given twice, first in line 4; rename one or drop it",
    ),
    "a section given twice": (
        GOOD + "family: {base: org/base}\n",
        "13: family: given twice, first in line 1; rename one or drop it",
    ),
    "a number that is not finite": (
        change("transport: shm", "lease_s: .inf"),
        "2: transfer.lease_s: should be a finite number, found Infinity",
    ),
    "a tag": (change("gpus: 1", "gpus: !!set {a}\n    cpus: !path x"), "8: prefill.home.cpus: tag !path has"),
    "a tag that does not fit": (
        change("gpus: 1", "gpus: !!int many"),
        "7: prefill.home.gpus: 'many' is not int",
    ),
    "invalid YAML": (change("    gpus: 1", "   gpus: 1"), "7: not valid YAML: "),
    "a tab": (change("    gpus: 1", "\tgpus: 1"), "7: not valid YAML: "),
    "a control character": (change("gpus: 1", "gpus: \x07"), "7: not valid YAML: special characters"),
    "two documents": (GOOD + "---\n{}\n", "13: not valid YAML: expected a single document"),
    "an empty file": ("", "1: a spec holds `family`, `prefill`, `decode` and `models`, found null"),
    "a list": ("- family\n", '1: a spec holds `family`, `prefill`, `decode` and `models`, found ["family"]'),
    "an alias of itself": (
        change("gpus: 1", "engine_args: &a {x: *a}"),
        "7: prefill.home.engine_args.x: an alias contains itself",
    ),
}


@pytest.mark.parametrize(("text", "finding"), CASES.values(), ids=CASES.keys())
def test_refused(findings: Findings, text: str, finding: str) -> None:
    matching = [found for found in findings(text) if found.startswith(finding)]
    assert len(matching) == 1, findings(text)


SINGLE = sorted(CASES.keys() - {"a missing section", "a tag", "a tag that does not fit", "a bad pool name"})


@pytest.mark.parametrize("case", SINGLE)
def test_one_mistake_gives_one_finding(findings: Findings, case: str) -> None:
    assert len(findings(CASES[case][0])) == 1


def test_a_misspelt_directory_is_guessed(findings: Findings, folder: Path) -> None:
    (finding,) = findings(change("org/mirror", "./weights/hom"))
    assert finding.endswith(f"no directory {folder}/weights/hom; did you mean `home`?")


def test_a_misspelt_section_is_missing_and_unknown(findings: Findings) -> None:
    found = findings(change("transfer: {transport: shm}\nprefill:", "transfer: {transport: shm}\nprefil:"))
    known = "known keys: family, transfer, router, max_gpus, observability, prefill, decode, models"
    assert found == (
        "1: prefill: missing; add it: Prefill pools, by name.",
        f"3: prefil: unknown key; did you mean `prefill`? ({known})",
    )


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(tmp_path / "none.yaml")
    assert str(caught.value) == f"{tmp_path}/none.yaml: cannot be read: No such file or directory"


def test_a_file_in_another_encoding_is_refused_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_bytes(GOOD.replace("mirror:", "mirör:").encode("latin-1"))
    with pytest.raises(SpecError) as caught:
        load_spec(tmp_path / "cluster.yaml")
    assert caught.value.findings == ("8: not UTF-8 text; save it as UTF-8",)


@pytest.mark.parametrize("written", ["weights/home", "./weights/home", "./weights/../weights/home/"])
def test_a_local_directory_comes_out_absolute(
    folder: Path, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "cluster.yaml").write_text(
        change("org/home", written).replace("base: org/base", f"base: {written}")
    )
    monkeypatch.chdir(folder.parent)
    spec = load_spec(Path(os.path.relpath(folder / "cluster.yaml")))
    assert spec.prefill["home"].weights == spec.family.base == str(folder / "weights" / "home")
    assert spec.decode["shared"].weights == "org/base"


def test_a_calibration_file_comes_out_absolute_and_must_exist(findings: Findings, folder: Path) -> None:
    text = change("{weights: org/base}", "{weights: org/base, engine: sim, sim: {calibration: cpu.json}}")
    (finding,) = findings(text)
    assert finding.startswith('10: decode.shared.sim.calibration: "cpu.json": no file')
    (folder / "cpu.json").write_text("{}")
    (folder / "cluster.yaml").write_text(text)
    assert load_spec(folder / "cluster.yaml").decode["shared"].sim.calibration == str(folder / "cpu.json")


def test_the_home_directory_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (folder / "cluster.yaml").write_text(change("org/home", "~/weights/home"))
    assert load_spec(folder / "cluster.yaml").prefill["home"].weights == str(folder / "weights" / "home")


def test_a_hub_name_beside_a_directory_of_that_organisation_is_local(findings: Findings) -> None:
    (finding,) = findings(change("org/mirror", "weights/mirror"))
    assert "no directory" in finding


def test_words_that_yaml_reads_as_booleans_are_names(folder: Path) -> None:
    text = change("  mirror:", "  no:") + '  on: {prefill: "no", decode: shared}\n'
    (folder / "cluster.yaml").write_text(text)
    assert load_spec(folder / "cluster.yaml").models["on"].prefill == "no"


def test_merge_keys_and_aliases_may_be_overridden_without_being_duplicates(folder: Path) -> None:
    text = change("    weights: org/home\n", "    &home\n    <<: {gpus: 7, cpus: 3}\n    weights: org/home\n")
    (folder / "cluster.yaml").write_text(text.replace("{weights: org/mirror}", "*home"))
    spec = load_spec(folder / "cluster.yaml")
    assert (spec.prefill["home"].gpus, spec.prefill["home"].cpus) == (1, 3.0)
    assert spec.prefill["mirror"] == spec.prefill["home"]


def test_dates_stay_text(folder: Path) -> None:
    (folder / "cluster.yaml").write_text(change("gpus: 1", "engine_args: {revision: 2026-01-31}"))
    assert load_spec(folder / "cluster.yaml").prefill["home"].engine_args == {"revision": "2026-01-31"}


def test_a_pool_that_no_model_names_is_allowed(folder: Path) -> None:
    (folder / "cluster.yaml").write_text(GOOD)
    assert "mirror" in load_spec(folder / "cluster.yaml").prefill


def test_an_absolute_directory_is_taken_as_it_is(folder: Path) -> None:
    weights = str(folder / "weights" / "home")
    (folder / "cluster.yaml").write_text(change("org/home", weights))
    assert load_spec(folder / "cluster.yaml").prefill["home"].weights == weights
