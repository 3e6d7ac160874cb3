"""What is written in two places agrees: dependencies, pins, the README's table, the tools' versions."""

import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


PROJECT = tomllib.loads(read("pyproject.toml"))["project"]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
NOT_ON_CONDA = {"openai-clip", "playwright"}


def requirements():
    """Name -> version specifiers, of the project and all its extras."""
    lines = PROJECT["dependencies"] + [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r.specifier for r in parsed if r.name != PROJECT["name"]}


def pins():
    lines = read("constraints.txt").splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(r.name): r.specifier for r in parsed}


def test_environment_yml_says_what_pyproject_says():
    environment = yaml.safe_load(read("environment.yml"))
    conda = [Requirement(line) for line in environment["dependencies"] if isinstance(line, str) and line != "pip"]
    expected = {CONDA_NAMES.get(name, name): specifier for name, specifier in requirements().items()}
    expected["python"] = Requirement("python" + PROJECT["requires-python"]).specifier
    (others,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert others[0] == "-e ." and {Requirement(line).name for line in others[1:]} == NOT_ON_CONDA
    found = {r.name: r.specifier for r in [*conda, *map(Requirement, others[1:])]}
    assert found == expected


def test_constraints_pin_every_dependency_within_its_bounds():
    pinned = pins()
    for name, specifier in requirements().items():
        assert name in pinned, f"constraints.txt does not pin {name}: `make constraints`"
        (pin,) = pinned[name]
        assert pin.operator == "==" and pin.version in specifier, f"{name}{pin} is outside {specifier}"


def test_constraints_fit_every_build_of_torch():
    assert "+" not in str(pins()["torch"])  # such as +cpu: that spelling exists on one index only
    assert not [name for name in pins() if name.startswith(("nvidia-", "torchvision", "triton"))]


def test_version_is_said_once_more_in_the_package():
    import diffseg

    assert diffseg.__version__ == PROJECT["version"]


def test_wheel_carries_the_data():
    wheel = tomllib.loads(read("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "data" in wheel["only-include"] and wheel["sources"]["data"] == "diffseg/data"
    assert not (ROOT / "diffseg" / "data").exists()


def test_readme_table_lists_every_notebook():
    listed = re.findall(r"^\| \[[^]]+\]\(notebooks/([^)]+)\)", read("README.md"), re.MULTILINE)
    assert listed == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_readme_says_how_much_there_is_to_read():
    said = int(re.search(r"(\d+) lines with their documentation", read("README.md"))[1])
    modules = ("diffuse", "attention", "aggregation", "merging", "masks")
    lines = sum(len(read(f"diffseg/{name}.py").splitlines()) for name in modules)
    assert abs(said - lines) <= 0.05 * lines


def test_contributing_shows_the_tree():
    page = read("CONTRIBUTING.md")
    named = set(re.findall(r"^  (\w+\.py) ", page, re.MULTILINE)) | set(re.findall(r"\b(?:dino|output)\.py\b", page))
    there = {path.name for path in (ROOT / "diffseg").glob("*.py")} - {"__init__.py", "progress.py"}
    assert there == named


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_between_files_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", read(page))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_targets_named_in_the_docs_exist():
    targets = runpy.run_path(ROOT / "tools" / "__main__.py")["TASKS"].keys()
    for page in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"`(?:make|python tools) ([a-z-]+)[^`]*`|^make ([a-z-]+)", read(page), re.MULTILINE))
        assert {a or b for a, b in named} <= targets


def test_pre_commit_uses_the_pinned_ruff():
    config = yaml.safe_load(read(".pre-commit-config.yaml"))
    revisions = {repo["repo"].rsplit("/", 1)[-1]: repo.get("rev") for repo in config["repos"]}
    assert str(pins()["ruff"]) == "==" + revisions["ruff-pre-commit"].removeprefix("v")


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_workflows_are_limited(path):
    """Every job has a time limit and the workflow may only read; actionlint, in ci.yml, checks the rest."""
    workflow = yaml.safe_load(read(path))
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


def test_gpu_workflow_never_runs_on_a_fork():
    (job,) = yaml.safe_load(read(".github/workflows/gpu.yml"))["jobs"].values()
    assert "head.repo.full_name == github.repository" in job["if"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permission")
def test_ci_script_is_executable():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_a_release_is_in_the_changelog_and_only_the_published_job_may_write():
    """The tag's version stands in pyproject.toml; until it is released its changes are under Unreleased."""
    titles = re.findall(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)
    assert titles and titles[0] in ("Unreleased", PROJECT["version"]) and len(set(titles)) == len(titles)
    jobs = yaml.safe_load(read(".github/workflows/release.yml"))["jobs"]
    assert {name for name, job in jobs.items() if "permissions" in job} == {"publish"}
    assert jobs["publish"]["environment"] == "pypi" and "build" in jobs["publish"]["needs"]


@pytest.mark.parametrize("card", sorted(ROOT.glob("data/models/*/README.md")), ids=lambda path: path.parent.name)
def test_model_cards_are_those_of_the_hub(card):
    data = ModelCard.load(card).data
    assert data.license == "mit" and data.library_name in ("diffusers", "transformers")
    assert data.pipeline_tag and "diffseg" in data.tags
    assert card.parent.name in read("data/models/README.md")
