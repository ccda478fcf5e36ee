"""The README keeps its word: its commands parse, its files exist, its Python runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import spad
from spad.cli import COMMANDS, Parser
from spad.phantoms import Phantom

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def blocks(language: str) -> list[str]:
    return [text for found, text in FENCE.findall(README) if found == language]


def shell_lines() -> list[str]:
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip()]


def spad_lines() -> list[str]:
    return [line for line in shell_lines() if line.startswith("spad ")]


@pytest.mark.parametrize("line", spad_lines())
def test_commands_parse(line: str):
    _, name, *arguments = shlex.split(line, comments=True)
    assert name in COMMANDS
    module = import_module(f"spad.cli.{name.replace('-', '_')}")
    parser = Parser(f"spad {name}", COMMANDS[name])
    module.add_options(parser)
    overrides: dict[str, str] = {}
    if hasattr(module, "take_overrides"):
        overrides, arguments = module.take_overrides(parser, arguments)
    parser.parse_args(arguments)
    assert not overrides, "an option that the command does not know became a key of the recipe"


def test_every_command_is_shown_but_the_list_of_runs():
    shown = {shlex.split(line)[1] for line in spad_lines()}
    assert shown == set(COMMANDS) - {"runs"}


def test_two_commands_for_a_fresh_machine():
    (first, *_) = blocks("sh")
    scripts = [shlex.split(line, comments=True) for line in first.splitlines()]
    assert scripts == [["./run", "demo"], ["./run", "tests"]]
    usage = subprocess.run(
        ["bash", ROOT / "run", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for _, name in scripts:
        assert f"./run {name} " in usage


@pytest.mark.parametrize("target", LINK.findall(README))
def test_linked_files_exist(target: str):
    assert (ROOT / target).exists()


def test_the_script_of_ci_is_the_command_of_the_readme():
    assert (ROOT / ".ci" / "run").read_text("utf-8").rstrip().endswith('/../run" tests')


def test_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"\nversion: {project['version']}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\n## {project['version']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_python_examples_run(ct_phantom: Phantom, tmp_path: Path):
    spad.write(ct_phantom.image, tmp_path / "scan.nii.gz")
    (code,) = blocks("python")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    scan, organs = spad.read(tmp_path / "scan.nii.gz"), spad.read(tmp_path / "organs.nii.gz")
    assert organs.array.shape == scan.array.shape
    assert "liver" in (organs.label_names or {}).values()
    assert (tmp_path / "filled.nii.gz").exists()
