"""The bill of materials holds what the core needs, and nothing else."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from tools.licences import judged
from tools.sbom import bill, of_these

WHOLE = {
    "metadata": {"component": {"bom-ref": "root"}},
    "components": [
        {"name": "NumPy", "bom-ref": "numpy"},
        {"name": "typing_extensions", "bom-ref": "te"},
        {"name": "pytest", "bom-ref": "pytest"},
    ],
    "dependencies": [
        {"ref": "root", "dependsOn": ["numpy", "pytest"]},
        {"ref": "numpy", "dependsOn": ["te"]},
        {"ref": "pytest", "dependsOn": ["te"]},
        {"ref": "te"},
    ],
}


def test_components_and_what_depends_on_what() -> None:
    found = of_these(WHOLE, {"numpy", "typing-extensions"})
    assert [c["bom-ref"] for c in found["components"]] == ["numpy", "te"]
    assert found["dependencies"] == [
        {"ref": "root", "dependsOn": ["numpy"]},
        {"ref": "numpy", "dependsOn": ["te"]},
        {"ref": "te", "dependsOn": []},
    ]


def test_a_component_that_is_missing() -> None:
    with pytest.raises(ValueError, match="lacks scipy"):
        of_these(WHOLE, {"numpy", "scipy"})


@pytest.mark.slow
def test_the_bill_of_this_environment() -> None:
    if find_spec("cyclonedx_py") is None:
        pytest.skip("pip install 'optiprune[release]'")
    found = bill()
    assert found["bomFormat"] == "CycloneDX"
    versions = {c["name"].lower().replace("_", "-"): c["version"] for c in found["components"]}
    for package in judged():
        if package.name != "optiprune":
            assert versions[package.name] == package.version
    assert "pytest" not in versions
