"""Which module imports which: `make check` holds the layers, and this that there is no circle."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp


def test_no_module_imports_one_that_imports_it() -> None:
    graph = grimp.build_graph("runfold", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}

    order = tuple(TopologicalSorter(imports).static_order())  # raises CycleError, which names them

    assert len(order) > 300
