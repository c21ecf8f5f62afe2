"""Examples are scripts, not packages: tests load them by their path."""

import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
LoadExample = Callable[[str], ModuleType]


@pytest.fixture(scope="session")
def load_example() -> LoadExample:
    """`load_example("ra_rag/ra_rag.py")`; a script finds its neighbours as it does when it is run."""

    def load(path: str) -> ModuleType:
        file = EXAMPLES / path
        name = f"example_{file.parent.name}_{file.stem}"
        if name in sys.modules:
            return sys.modules[name]
        spec = spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        sys.modules[name] = module
        sys.path.insert(0, str(file.parent))
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(file.parent))
        return module

    return load
