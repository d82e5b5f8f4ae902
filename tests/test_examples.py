"""The examples are what they claim: bash understands the scripts, Kubernetes the Jobs, `tessera` the commands."""

import re
import shlex
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.conftest import make_catalog

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted([*EXAMPLES.rglob("*.sh"), *EXAMPLES.rglob("*.sbatch")])
COMMAND = re.compile(r"(?:^|exec |until )tessera +([^#;&|]+)")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_understands_every_script(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert script.read_text().startswith("#!")
    assert bool(script.stat().st_mode & 0o100) == (script.suffix == ".sh")  # sbatch takes a copy


def commands(script: Path) -> list[str]:
    """Every `tessera` command of a script, those in its comments included."""
    text = script.read_text().replace("\\\n", " ")
    return [command for line in text.splitlines() for command in COMMAND.findall(line.lstrip("# "))]


def test_commands_in_scripts_have_the_options_that_they_use(tessera):
    shown = [(script.name, command) for script in SCRIPTS for command in commands(script)]
    assert len(shown) > 5
    for name, command in shown:
        verb, *words = shlex.split(command)
        code, out, _ = tessera(verb, "--help")
        assert code == 0, f"{name}: tessera {command}"
        for word in words:
            assert not word.startswith("--") or re.search(rf"{word}\b", out), f"{name}: tessera {command}"


def _object(required: str = "", **properties):
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}
QUANTITIES = {
    "type": "object",
    "propertyNames": {"pattern": r"^(cpu|memory|[a-z.]+/[a-z]+)$"},
    "additionalProperties": {"anyOf": [COUNT, {"type": "string", "pattern": r"^\d+(\.\d+)?(m|[KMGT]i?)?$"}]},
}
EXIT_CODES = _object(
    "operator values",
    containerName=TEXT,
    operator={"enum": ["In", "NotIn"]},
    values={
        "type": "array",
        "items": {"type": "integer", "minimum": 1},
        "minItems": 1,
        "maxItems": 255,
        "uniqueItems": True,
    },
)
RULE = {
    **_object(
        "action",
        action={"enum": ["FailJob", "FailIndex", "Ignore", "Count"]},
        onExitCodes=EXIT_CODES,
        onPodConditions={"type": "array", "items": _object("type", type=TEXT, status={"enum": ["True", "False"]})},
    ),
    "oneOf": [{"required": ["onExitCodes"]}, {"required": ["onPodConditions"]}],
}
CONTAINER = _object(
    "name image",
    name=TEXT,
    image=TEXT,
    args={"type": "array", "items": TEXT},  # YAML makes numbers and booleans of bare words
    workingDir=TEXT,
    env={"type": "array", "items": _object("name", name=TEXT, value=TEXT)},
    resources=_object(requests=QUANTITIES, limits=QUANTITIES),
    volumeMounts={"type": "array", "items": _object("name mountPath", name=TEXT, mountPath=TEXT)},
)
POD = _object(
    "containers restartPolicy",
    restartPolicy={"enum": ["Never", "OnFailure"]},  # a Job's pods may not be restarted always
    terminationGracePeriodSeconds=COUNT,
    securityContext=_object(runAsUser=COUNT, runAsGroup=COUNT, fsGroup=COUNT),
    containers={"type": "array", "items": CONTAINER, "minItems": 1},
    volumes={
        "type": "array",
        "items": _object("name", name=TEXT, persistentVolumeClaim=_object("claimName", claimName=TEXT)),
    },
)
JOB = _object(
    "apiVersion kind metadata spec",
    apiVersion={"const": "batch/v1"},
    kind={"const": "Job"},
    metadata=_object("name", name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}),
    spec=_object(
        "template",
        suspend={"type": "boolean"},
        completionMode={"enum": ["Indexed", "NonIndexed"]},
        completions=COUNT,
        parallelism=COUNT,
        backoffLimit=COUNT,
        backoffLimitPerIndex=COUNT,
        podFailurePolicy=_object("rules", rules={"type": "array", "items": RULE, "maxItems": 20}),
        template=_object("spec", spec=POD),
    ),
)
"""The fields of batch/v1 that the example uses, and what Kubernetes demands of them."""


@pytest.fixture(scope="module")
def jobs():
    return {
        job["metadata"]["name"]: job["spec"]
        for job in yaml.safe_load_all((EXAMPLES / "kubernetes" / "embed.yaml").read_text())
    }


def test_kubernetes_understands_the_jobs():
    for job in yaml.safe_load_all((EXAMPLES / "kubernetes" / "embed.yaml").read_text()):
        jsonschema.validate(job, JOB)
        spec, pod = job["spec"], job["spec"]["template"]["spec"]
        assert {mount["name"] for c in pod["containers"] for mount in c["volumeMounts"]} <= {
            volume["name"] for volume in pod["volumes"]
        }
        for container in pod["containers"]:  # where there is a limit without a request, or less than it
            resources = container["resources"]
            assert resources["requests"]["memory"] == resources["limits"]["memory"]
        if "podFailurePolicy" in spec or "backoffLimitPerIndex" in spec:
            assert pod["restartPolicy"] == "Never"
            assert spec["completionMode"] == "Indexed"
            assert "completions" in spec


def test_shares_and_exit_codes_of_the_indexed_job(jobs):
    spec = jobs["tessera-embed"]
    (container,) = spec["template"]["spec"]["containers"]
    assert f"auto/{spec['completions']}" in container["args"]
    listed = [rule["onExitCodes"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    values = [code for rule in listed for code in rule["values"]]
    assert len(set(values)) == len(values)
    assert {rule["containerName"] for rule in listed} == {container["name"]}
    told = re.findall(r"^\| ([\d, ]+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    documented = {int(code) for line in told for code in line.split(",")}
    assert documented - set(values) == {0, 74, 130}  # done; no output to lose, no keyboard


def test_the_jobs_of_kubernetes_make_a_complete_folder(jobs, tessera, tmp_path, monkeypatch):
    """Each pod's command line, with another area, in the order that the example names."""
    catalog = make_catalog(tmp_path / "catalog")
    monkeypatch.chdir(tmp_path)

    def command(name: str) -> list[str]:
        (container,) = jobs[name]["template"]["spec"]["containers"]
        ours = {"alps.geojson": str(catalog.aoi), "2023": "2021", "v2-medium": "null"}
        return [*(ours.get(word, word) for word in container["args"]), "--catalog", str(catalog.items)]

    code, _, err = tessera(*command("tessera-plan"))
    assert code == 0, err
    done = []
    for index in reversed(range(jobs["tessera-embed"]["completions"])):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
        code, out, err = tessera(*command("tessera-embed"))
        assert code == 0, err
        done += [line for line in out.splitlines() if line.endswith("_emb.tif")]
    assert len(done) == len(set(done)) == 2
    assert list((tmp_path / "alps").glob("*.vrt"))
